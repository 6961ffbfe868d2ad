//! Entries on their way to one member, over a way that may be slow.
//!
//! openraft gives an append a heartbeat's time and then begins it again, at the same size: a member that lacks more than its link or its disk takes in that time would never get it. So what was sent is not
//! given up with the call that sent it. The next call for the same entries waits for the same answer, and messages become smaller where even that takes long.
//!
//! ```text
//!  openraft   append a..b ──late──▶ append a..c ──▶ a..b are there ──▶ append b..c
//!  to member  a..b ════════════════════════▶ answered, then asked once more with no entries
//! ```
//! *Invariant:* an answer that came after its call counts for the entries alone. That the member follows now is asked anew: a lease begins when a message was sent, and this one was sent by an earlier call.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use openraft::Vote;
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;

use super::BATCH_ENTRIES_MAX;
use super::LogId;
use super::TypeConfig;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;

/// Entries that take longer than so many heartbeats are sent in smaller messages: what else the link carries waits behind them, heartbeats too.
const SLOW: u32 = 4;

/// What one message to a member may carry, as its way has shown.
pub(super) struct Fits {
    entries: u64,
    heartbeat: Duration,
}

impl Fits {
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self { entries: BATCH_ENTRIES_MAX, heartbeat }
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// So many entries were there after `took`; nothing, if they were given up.
    pub(super) fn took(&mut self, entries: u64, took: Option<Duration>) {
        match took {
            Some(took) if took <= self.heartbeat => self.entries = (self.entries * 2).min(BATCH_ENTRIES_MAX),
            Some(took) if took <= self.heartbeat * SLOW => {}
            _ => self.entries = (entries / 2).max(1),
        }
    }
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Which entries a message carries. In its term a leader's log does not change, so that these tell entries apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    vote: Vote<StorageId>,
    prev: Option<LogId>,
    /// The last of them.
    pub(super) last: Option<LogId>,
    pub(super) entries: u64,
}

impl About {
    pub(super) fn of(request: &AppendEntriesRequest<TypeConfig>) -> Self {
        Self {
            vote: request.vote,
            prev: request.prev_log_id,
            last: request.entries.last().map(|it| it.log_id),
            entries: request.entries.len() as u64,
        }
    }

    /// Whether the other begins with these.
    pub(super) fn begins(&self, other: &Self) -> bool {
        (self.vote, self.prev) == (other.vote, other.prev) && self.entries <= other.entries
    }
}

/// See the file's header. `T` is what comes of it.
pub(super) struct Flight<T> {
    pub(super) about: About,
    begun: Instant,
    /// In a lock because it is not `Sync`; nobody ever waits for it.
    answering: Mutex<Answering<T>>,
    /// They are there, which was known too late for the call that sent them.
    pub(super) is_there: bool,
}

impl<T> Flight<T> {
    pub(super) fn new(about: About, answering: impl Future<Output = T> + Send + 'static) -> Self {
        Self { about, begun: Clock.now(), answering: Mutex::new(Box::pin(answering)), is_there: false }
    }

    /// What came of it and how long that took, if it comes within `limit`. Not to be called again once it has come.
    pub(super) async fn answer(&mut self, limit: Duration) -> Option<(T, Duration)> {
        let answer = tokio::time::timeout(limit, self.answering.get_mut()).await.ok()?;
        Some((answer, Clock.now() - self.begun))
    }
}

#[cfg(test)]
mod tests;
