//! What flows through a streamed answer: each event is looked at once, and most are passed on as they lie in the bytes.
//!
//! Learns content, end, error and usage; takes out what the client did not ask for and what follows an end or an error.
//! *Invariant:* what the client shall see is the worker's bytes, cut at events only.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::dialects::form::Event;
use crate::dialects::form::Observed;
use crate::dialects::form::Usage;
use crate::dialects::sse;
use crate::dialects::sse::Splitter;

use super::super::error::WorkerFailure;
use super::attempt::NO_USAGE;

/// What is known of a stream of events by now.
pub(super) struct Parser {
    splitter: Splitter,
    observe: fn(&[u8]) -> Observed,
    strips_usage: bool,
    pub(super) has_content: bool,
    pub(super) is_done: bool,
    pub(super) has_error: bool,
    /// The error is the client's, and passed on like content.
    pub(super) is_refused: bool,
    /// The data of an error event that came before any content.
    pub(super) said: Option<Bytes>,
    pub(super) usage: Usage,
    /// Events taken in, comments left out.
    pub(super) events: u64,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Whole.
    Well,
    /// With an error that is the client's.
    Refused,
    /// With an error of the worker.
    Failed,
}

impl Parser {
    /// At the begin of a stream; `strips_usage`: the client did not ask for the event that tells it.
    pub(super) fn new(observe: fn(&[u8]) -> Observed, strips_usage: bool) -> Self {
        Self {
            splitter: Splitter::default(),
            observe,
            strips_usage,
            has_content: false,
            is_done: false,
            has_error: false,
            is_refused: false,
            said: None,
            usage: NO_USAGE,
            events: 0,
        }
    }

    /// Whether nothing that follows is for the client.
    pub(super) fn is_over(&self) -> bool {
        self.is_done || (self.has_error && self.has_content)
    }

    /// How a stream that ended without a fault of ours has ended.
    pub(super) fn ended(&self) -> Ended {
        match (self.has_error, self.is_refused) {
            (false, _) => Ended::Well,
            (true, true) => Ended::Refused,
            (true, false) => Ended::Failed,
        }
    }

    /// Takes in one read; what the client shall see goes to `out`.
    pub(super) fn take(&mut self, piece: Bytes, out: &mut VecDeque<Bytes>) -> Result<(), WorkerFailure> {
        self.splitter.push(piece)?;
        let whole = self.splitter.ready();
        let (mut kept, mut from, mut at) = (Vec::new(), 0, 0);
        while let Some(event) = self.splitter.next() {
            let keeps = !self.is_done && !self.has_error && self.judge(&event)?;
            if !keeps {
                if from < at {
                    kept.push(whole.slice(from..at));
                }
                from = at + event.len();
            }
            at += event.len();
        }
        if from < at {
            kept.push(whole.slice(from..at));
        }
        out.extend(kept);
        Ok(())
    }

    /// Learns from one event; whether the client shall see it.
    fn judge(&mut self, event: &[u8]) -> Result<bool, WorkerFailure> {
        if sse::is_comment(event) {
            return Ok(true);
        }
        let Some(data) = sse::data(event) else { return Ok(true) };
        let observed = (self.observe)(&data);
        if let Some(usage) = observed.usage {
            self.usage = self.usage.merged(usage);
        }
        if observed.event != Event::Malformed {
            self.events += 1;
        }
        match observed.event {
            Event::Preamble => {}
            Event::Content | Event::Finish => self.has_content = true,
            Event::Usage => return Ok(!self.strips_usage),
            Event::Done => self.is_done = true,
            Event::Error => {
                self.has_error = true;
                self.said = (!self.has_content).then(|| Bytes::copy_from_slice(&data));
            }
            Event::Refusal => (self.has_error, self.is_refused, self.has_content) = (true, true, true),
            Event::Malformed => return Err(WorkerFailure::Malformed),
        }
        Ok(true)
    }
}

impl From<sse::Broken> for WorkerFailure {
    fn from(_: sse::Broken) -> Self {
        Self::Malformed
    }
}
