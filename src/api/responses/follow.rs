//! A response that is made elsewhere, or was made before, shown to who asks: as it is, or event by event.
//!
//! The events of a response in the background are rows, so any node can show them: those that are there, then those that come, looked at every [`POLL`], then what ends it. The terminal event is no row: it says how
//! the response ended, and that is in the response. So is what an end left open: whoever follows makes those events alike. *Bounds:* a follower is a client's connection; it ends with it, with the request's time, and
//! when history was not readable for as long as a client would wait for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::Value;
use serde_json::json;

use crate::base::clock::Instant;
use crate::dialects::Family;
use crate::dialects::responses::Translator;
use crate::dialects::responses::event;
use crate::dialects::responses::replayed;
use crate::dialects::responses::terminal;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Owner;
use crate::history::Rows;
use crate::history::Unreadable;
use crate::history::machine::read;
use crate::history::machine::read::Missing;

use super::super::CutShort;
use super::super::Response;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::making::as_events;
use super::record::CONFIRM_WITHIN;
use super::stored::Stored;

/// Between two looks at a response that has not ended. Longer, and its followers are later; shorter, and every follower costs a read index more often.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// Events that are read at a time.
const EVENTS_READ_MAX: usize = 256;

/// One, as it is now.
pub(super) async fn stored(history: &Handle, owner: &Owner, id: &Id) -> Result<Stored, ApiError> {
    let (owner, wanted) = (owner.clone(), id.clone());
    let read = history.read(move |rows| Stored::read(rows, &owner, &wanted)).await?;
    read.map_err(|error| missing(error, id))
}

/// What it means that it cannot be read.
pub(super) fn missing(error: Missing, id: &Id) -> ApiError {
    match error {
        Missing::NotFound(_) => ApiError::NoRecord { what: "response", id: id.to_string(), param: None },
        error => HistoryError::from(error).into(),
    }
}

/// The answer to a request that was sent before with the same idempotency key: what became of that, once it has ended, or as it is made.
pub(super) async fn known(
    gateway: &Arc<Gateway>,
    history: &Handle,
    owner: &Owner,
    id: Id,
    is_stream: bool,
) -> Result<Response, ApiError> {
    let found = stored(history, owner, &id).await?;
    if found.row.is_background {
        return Ok(match is_stream {
            true => follow(gateway, history, owner, id, None),
            false => super::super::json(&found.shown()),
        });
    }
    if is_stream {
        return Ok(Follower::response(gateway, history, owner, id, Of::Whole));
    }
    let mut found = found;
    while !found.row.status.is_end() {
        gateway.clock.sleep(POLL).await;
        found = stored(history, owner, &id).await?;
    }
    Ok(super::super::json(&found.shown()))
}

/// The events of a response in the background, after this one.
pub(super) fn follow(gateway: &Arc<Gateway>, history: &Handle, owner: &Owner, id: Id, after: Option<u64>) -> Response {
    Follower::response(gateway, history, owner, id, Of::Events { after, translator: Box::default(), next: 0 })
}

/// What is shown.
enum Of {
    /// All, once it has ended.
    Whole,
    /// Events as they come.
    Events {
        after: Option<u64>,
        /// Knows what is open.
        translator: Box<Translator>,
        /// The number of the next event.
        next: u64,
    },
}

struct Follower {
    gateway: Arc<Gateway>,
    history: Handle,
    owner: Owner,
    id: Id,
    of: Of,
    out: VecDeque<Bytes>,
    until: Instant,
    quiet_since: Instant,
    /// When history was last readable.
    read_at: Instant,
    is_over: bool,
}

impl Follower {
    fn response(gateway: &Arc<Gateway>, history: &Handle, owner: &Owner, id: Id, of: Of) -> Response {
        let now = gateway.clock.now();
        let follower = Self {
            gateway: Arc::clone(gateway),
            history: history.clone(),
            owner: owner.clone(),
            id,
            of,
            out: VecDeque::new(),
            until: now + gateway.config.request_timeout,
            quiet_since: now,
            read_at: now,
            is_over: false,
        };
        let frames = futures_util::stream::unfold(follower, |mut follower| async move {
            let bytes = follower.next().await?;
            Some((Ok::<_, CutShort>(Frame::data(bytes)), follower))
        });
        as_events(super::super::flowing(StreamBody::new(frames)), HeaderMap::new())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                self.quiet_since = self.gateway.clock.now();
                return Some(bytes);
            }
            if self.is_over {
                return None;
            }
            if let Err(error) = self.look().await {
                self.is_over = true;
                let before = if let Of::Events { next, .. } = self.of { next } else { 0 };
                return Some(Family::Responses.error_event(&error.text(), before));
            }
            if !self.out.is_empty() || self.is_over {
                continue;
            }
            self.gateway.clock.sleep(POLL).await;
            let (now, keep_alive) = (self.gateway.clock.now(), self.gateway.config.stream_keep_alive);
            if !keep_alive.is_zero() && now - self.quiet_since >= keep_alive {
                self.gateway.metrics.kept_alive();
                self.out.push_back(Bytes::from_static(b": keep-alive\n\n"));
            }
        }
    }

    /// Takes in what is there.
    async fn look(&mut self) -> Result<(), ApiError> {
        let now = self.gateway.clock.now();
        if self.gateway.phase.is_cut_off() {
            return Err(ApiError::Draining);
        }
        if now >= self.until {
            return Err(ApiError::TookTooLong(self.gateway.config.request_timeout));
        }
        let from = if let Of::Events { next, .. } = self.of { Some(next) } else { None };
        let (owner, id) = (self.owner.clone(), self.id.clone());
        let read = move |rows: &dyn Rows| moment(rows, &owner, &id, from);
        let (events, ended) = match self.history.read(read).await {
            Ok(read) => read.map_err(|error| missing(error, &self.id))?,
            Err(_unavailable) if now - self.read_at < CONFIRM_WITHIN => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.read_at = now;
        match &mut self.of {
            Of::Whole => {
                if let Some(ended) = ended {
                    self.out.extend(replayed(&ended).iter().map(|it| Bytes::from(event(it))));
                    self.is_over = true;
                }
            }
            Of::Events { after, translator, next } => {
                let is_wanted = |number: u64| after.is_none_or(|after| number > after);
                for (number, seen) in (*next..).zip(&events) {
                    translator.seen(seen);
                    self.out.extend(is_wanted(number).then(|| Bytes::from(event(seen))));
                }
                *next += events.len() as u64;
                if let Some(ended) = ended {
                    let last = last(translator, &ended);
                    let wanted = (*next..).zip(&last).filter(|it| is_wanted(it.0));
                    self.out.extend(wanted.map(|it| Bytes::from(event(it.1))));
                    self.is_over = true;
                }
            }
        }
        Ok(())
    }
}

/// Events from a number on; if there are no more and it has ended, how.
fn moment(rows: &dyn Rows, owner: &Owner, id: &Id, from: Option<u64>) -> Result<(Vec<Value>, Option<Value>), Missing> {
    let row = read::response(rows, owner, id)?.0;
    let events = match from {
        None => Vec::new(),
        Some(from) => read::events(rows, owner, id, from, EVENTS_READ_MAX)?,
    };
    let decode = |it: &Vec<u8>| serde_json::from_slice(it).map_err(|_damage| Missing::from(Unreadable));
    let decoded = events.iter().map(decode).collect::<Result<Vec<Value>, _>>()?;
    let is_last = from.is_none_or(|from| from + events.len() as u64 >= row.events);
    let ended = if is_last && row.status.is_end() { Some(Stored::read(rows, owner, id)?.shown()) } else { None };
    Ok((decoded, ended))
}

/// What ends a stream: what was open, then the terminal event.
fn last(translator: &mut Translator, ended: &Value) -> Vec<Value> {
    if ended.get("status").and_then(Value::as_str) != Some("completed") {
        translator.fail("cut_short", "it ended here");
    }
    let (_, mut events) = translator.end();
    let response = json!({"response": ended});
    events.push(translator.number(terminal(ended), response));
    events
}
