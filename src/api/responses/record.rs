//! The writes of one response that is being made, and what it means when one of them is not confirmed.
//!
//! *Invariants:* an end that was told to a client as kept is kept; one that is not confirmed is tried on for as long as another node could not have taken the response over. Whoever is told that another attempt writes
//! stops. A write that is tried again is another command: that the response has ended as it was to end is then as good as an answer.

use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::dialects::responses::Body;
use crate::dialects::responses::Finished;
use crate::dialects::responses::Object;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::LIMIT;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Status;
use crate::history::machine::Act;
use crate::history::machine::Finish;
use crate::history::machine::Refusal;
use crate::history::machine::read::Missing;

use super::super::gateway::Gateway;
use super::stored;
use super::stored::Stored;

/// How long a client waits for the end to be kept: as long as the loss of a leader may take, twice and again.
pub(super) const CONFIRM_WITHIN: Duration = LIMIT.saturating_mul(2);
/// How long the end is tried on after that. A node that has had no majority for so long has lost its lease, and another will end the response.
const SETTLE_WITHIN: Duration = Duration::from_secs(600);
/// Between two tries.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// So many answers in a row that there is no such response, and a `Begin` that nobody confirmed has had no effect, and will have none.
const ABSENT_TIMES: u32 = 3;
/// Code of a response whose node is gone, or had to let go of it.
pub(super) const NODE_LOST: &str = "node_lost";

/// See the file's header.
#[derive(Clone)]
pub(super) struct Record {
    pub gateway: Arc<Gateway>,
    pub history: Handle,
    pub owner: Owner,
    pub id: Id,
    pub lease: Lease,
    pub attempt: u32,
}

/// What became of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is kept, or there is nothing to keep any more: the response was deleted.
    Kept,
    /// Nobody knows.
    Unconfirmed,
    /// Another made another end of it.
    Elsewhere,
}

/// What became of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// They can be followed.
    Kept,
    /// The response has ended, or is another's: stop.
    Over,
    /// There are more events than may be.
    TooMany,
}

impl Record {
    /// Its end.
    pub(super) fn finish(&self, body: &Body, status: Status, output: &[Object]) -> Finish {
        Finish {
            response: self.id.clone(),
            attempt: Some(self.attempt),
            status,
            body: stored::encode(body, None),
            output: stored::items(output),
        }
    }

    /// Ends it, and waits for that to be kept.
    pub(super) async fn end(&self, finish: &Finish) -> End {
        let until = self.gateway.clock.now() + CONFIRM_WITHIN;
        self.end_until(finish, until, u32::MAX).await
    }

    /// The same for as long as it takes, where nobody waits.
    pub(super) async fn settle(&self, finish: &Finish) -> End {
        let until = self.gateway.clock.now() + SETTLE_WITHIN;
        self.end_until(finish, until, u32::MAX).await
    }

    /// Ends it if it was begun, which nobody knows.
    pub(super) async fn settle_doubtful(&self, finish: &Finish) {
        let until = self.gateway.clock.now() + SETTLE_WITHIN;
        let _any = self.end_until(finish, until, ABSENT_TIMES).await;
    }

    async fn end_until(&self, finish: &Finish, until: Instant, absent_times: u32) -> End {
        let mut absent = 0;
        loop {
            let left = until.saturating_duration_since(self.gateway.clock.now());
            let act = Act::Finish(finish.clone());
            match self.history.act_within(&self.owner, act, left.min(LIMIT)).await {
                Ok(_) => {
                    self.gateway.metrics.history().ended(finish.status);
                    return End::Kept;
                }
                Err(HistoryError::Refused(Refusal::Ended(status))) if status == finish.status => return End::Kept,
                Err(HistoryError::Refused(Refusal::NotFound(_))) => {
                    absent += 1;
                    if absent_times == u32::MAX || absent >= absent_times {
                        return End::Kept;
                    }
                }
                Err(HistoryError::Unavailable(_)) => {}
                Err(error) => {
                    tracing::debug!(response = %self.id, %error, "a response was ended by another");
                    return End::Elsewhere;
                }
            }
            if self.gateway.clock.now() + AGAIN_AFTER >= until {
                return End::Unconfirmed;
            }
            self.gateway.clock.sleep(AGAIN_AFTER).await;
        }
    }

    /// Notes events, the first of which has this number. Tried until it is known what became of them; whoever calls bounds how long.
    pub(super) async fn note(&self, first: u64, events: Vec<Vec<u8>>) -> Noted {
        let end = first + events.len() as u64;
        loop {
            let act = Act::Events { response: self.id.clone(), attempt: self.attempt, first, events: events.clone() };
            match self.history.act(&self.owner, act).await {
                Ok(_) => return Noted::Kept,
                // An earlier try took effect.
                Err(HistoryError::Refused(Refusal::Gap(number))) if number == end => return Noted::Kept,
                Err(HistoryError::Refused(Refusal::TooMany(_) | Refusal::Unsound)) => return Noted::TooMany,
                Err(HistoryError::Unavailable(_)) => self.gateway.clock.sleep(AGAIN_AFTER).await,
                Err(_) => return Noted::Over,
            }
        }
    }

    /// Ends it as failed with what was committed of it. For who takes it over, and for who has to let go of it.
    pub(super) async fn fail_as_committed(&self, code: &str, message: &str) {
        let (owner, id) = (self.owner.clone(), self.id.clone());
        let until = self.gateway.clock.now() + SETTLE_WITHIN;
        let read = move |rows: &dyn crate::history::Rows| -> Result<_, Missing> {
            let stored = Stored::read(rows, &owner, &id)?;
            Ok((stored.body, stored::prefix(rows, &owner, &id)?.1))
        };
        let (mut body, output) = loop {
            match self.history.read(read.clone()).await {
                Ok(Ok(found)) => break found,
                Ok(Err(_missing)) => return,
                Err(_unavailable) if self.gateway.clock.now() < until => self.gateway.clock.sleep(AGAIN_AFTER).await,
                Err(_unavailable) => return,
            }
        };
        body.finish(&Finished { error: Some((code.to_owned(), message.to_owned())), ..Finished::default() });
        self.settle(&self.finish(&body, Status::Failed, &output)).await;
    }
}

/// How a finished answer is kept.
pub(super) fn status_of(finished: &Finished) -> Status {
    match (&finished.error, finished.incomplete) {
        (Some(_), _) => Status::Failed,
        (None, Some(_)) => Status::Incomplete,
        (None, None) => Status::Completed,
    }
}
