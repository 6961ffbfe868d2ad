//! How long this node holds its shares: `hold` after it sent the last renewal that was answered. The moment of sending counts, because the leader may have answered at
//! any time after it, and waits no longer than that.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::clock::Instant;
use crate::limits::Settings;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;

/// Time between two renewals. They bring what was minted, too: twice it, and an edit is late; half of it doubles the leader's work.
pub(super) const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Renewals whose answer is waited for. Of more the oldest is forgotten; a later one renews as well.
const UNDER_WAY_MAX: usize = 64;

/// Renewals are not closer than this, whatever there is to say or to hear. Closer, and the leader is asked more often than it can learn anything.
const RENEW_APART: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Renewals {
    number: u64,
    /// Renewals that are not answered yet, and when they were sent.
    sent: BTreeMap<u64, Instant>,
    held_until: Option<Instant>,
    /// When the last one was sent.
    last: Option<Instant>,
    pub(super) due: Instant,
    /// Newest entry of the group's log whose mints were seen.
    pub(super) seen: u64,
    /// Since when this node takes no part any more, in milliseconds since the Unix epoch.
    pub(super) leaves_ms: Option<u64>,
}

impl Renewals {
    pub(super) fn new(now: Instant) -> Self {
        Self { number: 0, sent: BTreeMap::new(), held_until: None, last: None, due: now, seen: 0, leaves_ms: None }
    }

    /// Whether windows may be begun.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        let is_held = self.held_until.is_some_and(|it| now < it || planted(Fault::HoldIsForEver));
        is_held && self.leaves_ms.is_none()
    }

    /// Until when streams may begin: half the hold is for those that run then, and end before the leader gives their permits to others.
    pub(super) fn streams_until(&self, settings: &Settings) -> Option<Instant> {
        let until = self.held_until.filter(|_| self.leaves_ms.is_none())?;
        let part = if planted(Fault::StreamsBeginAfterTheHold) { Duration::ZERO } else { settings.hold / 2 };
        until.checked_sub(part)
    }

    /// There is something to say or to hear.
    pub(super) fn sooner(&mut self, now: Instant) {
        let at = self.last.map_or(now, |it| now.max(it + RENEW_APART));
        self.due = self.due.min(at);
    }

    /// A renewal is sent now: its number.
    pub(super) fn send(&mut self, now: Instant) -> u64 {
        self.number += 1;
        self.sent.insert(self.number, now);
        if self.sent.len() > UNDER_WAY_MAX {
            self.sent.pop_first();
        }
        self.last = Some(now);
        self.due = now + RENEW_EVERY;
        self.number
    }

    /// One was answered. False: nobody waits for this answer.
    pub(super) fn answered(&mut self, now: Instant, settings: &Settings, number: u64) -> bool {
        let is_taken_twice = planted(Fault::OldEpochCounts);
        let Some(sent) = self.sent.get(&number).copied() else { return false };
        self.sent = self.sent.split_off(&if is_taken_twice { 0 } else { number + 1 });
        let from = if planted(Fault::HoldFromTheAnswer) { now } else { sent };
        self.held_until = self.held_until.max(Some(from + settings.hold));
        true
    }
}
