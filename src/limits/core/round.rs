//! Before it refuses, a node that is short asks: the three peers with most units left, all at once, and answers after 20 ms at the latest. Requests that
//! come meanwhile share the round.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Around;
use super::Life;
use super::Member;
use super::Ticket;
use super::account::Account;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::calendar::Place;
use crate::limits::messages::Pull;
use crate::limits::purse::Taken;

/// Peers asked in one round. More would be asked for units that three of them have.
const DONORS_MAX: usize = 3;
/// How long a request waits for units. Longer, and a refusal is slow; shorter, and a busy peer's answer comes too late.
pub(super) const WAIT_MAX: Duration = Duration::from_millis(20);
/// Requests that wait for one limit. Beyond it they are refused at once.
pub(super) const WAITERS_LEN_MAX: usize = 1024;

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    units: u64,
    since: Instant,
}

#[derive(Debug)]
struct Round {
    began: Instant,
    unanswered: BTreeSet<StorageId>,
}

/// Who waits for units of one limit. First come, first served.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    waiters: VecDeque<Waiter>,
    round: Option<Round>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiters.len() >= WAITERS_LEN_MAX
    }

    pub(super) fn push(&mut self, now: Instant, ticket: Ticket, units: u64) {
        self.waiters.push_back(Waiter { ticket, units, since: now });
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.waiters.retain(|it| it.ticket != ticket);
    }

    fn need(&self) -> u64 {
        self.waiters.iter().map(|it| it.units).sum()
    }

    /// When somebody has waited long enough, or the round has.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        let first = self.waiters.front().map(|it| it.since);
        first.into_iter().chain(self.round.as_ref().map(|it| it.began)).min().map(|it| it + WAIT_MAX)
    }

    pub(super) fn is_asking(&self) -> bool {
        self.round.is_some()
    }

    /// A peer answered. True: it was the last one asked.
    pub(super) fn answered(&mut self, by: StorageId) -> bool {
        self.round.as_mut().is_some_and(|it| it.unanswered.remove(&by) && it.unanswered.is_empty())
    }

    /// Ends a round that everybody answered or that is over: who did not answer.
    pub(super) fn end(&mut self, now: Instant) -> Option<(Instant, BTreeSet<StorageId>)> {
        let is_over = |it: &mut Round| it.unanswered.is_empty() || now >= it.began + WAIT_MAX;
        self.round.take_if(is_over).map(|it| (it.began, it.unanswered))
    }

    /// Those who came before a moment: they have had their round.
    pub(super) fn refuse(&mut self, until: Instant) -> Vec<Ticket> {
        let refused = self.waiters.iter().take_while(|it| it.since <= until).count();
        self.waiters.drain(..refused).map(|it| it.ticket).collect()
    }

    /// All of them.
    pub(super) fn refuse_all(&mut self) -> Vec<Ticket> {
        self.waiters.drain(..).map(|it| it.ticket).collect()
    }
}

impl Account {
    /// Whether anybody may have something to give.
    pub(super) fn may_ask(&self, around: &Around<'_>, place: Place) -> bool {
        !self.donors(around, place).is_empty()
    }

    /// The peers with most units left, as far as is known.
    fn donors(&self, around: &Around<'_>, place: Place) -> Vec<Life> {
        let believed = |(storage, member): (&StorageId, &Member)| {
            let left = self.believed(*storage, place);
            let is_asked = *storage != around.me.0 && member.skip_until.is_none_or(|it| it <= around.now);
            (is_asked && left > 0).then_some((left, (*storage, member.boot)))
        };
        let mut donors: Vec<(u64, Life)> = around.members.iter().filter_map(believed).collect();
        // Ties in another order at each node, so that not all ask the same three.
        let order = |it: &Life| xxh3_64_with_seed(&it.0.0.to_le_bytes(), around.me.0.0 as u64 ^ place.window);
        donors.sort_by_key(|it| (std::cmp::Reverse(it.0), order(&it.1)));
        donors.into_iter().take(DONORS_MAX).map(|it| it.1).collect()
    }

    /// Serves whoever waits, in order, as far as there are units.
    pub(super) fn serve(&mut self, window: u64) -> Vec<(Ticket, Taken)> {
        let mut served = Vec::new();
        while let Some(first) = self.waiting.waiters.front() {
            let Some(taken) = self.purse.take_in(window, first.units) else { break };
            served.push((first.ticket, taken));
            self.waiting.waiters.pop_front();
        }
        served
    }

    /// Asks peers for what is missing. Empty: there is nobody to ask.
    pub(super) fn pull(&mut self, around: &Around<'_>, place: Place) -> Vec<(Life, Pull)> {
        let left = self.left(place.window);
        let need = self.waiting.need().saturating_sub(left);
        let want = (self.demand(place) as f64 * (1.0 - place.passed)) as u64;
        let (donors, limit) = (self.donors(around, place), self.mint.limit);
        let have = |it: &Life| self.had(*it, place.window);
        let pulls: Vec<(Life, Pull)> = donors
            .into_iter()
            .map(|it| (it, Pull { limit, window: place.window, boot: it.1, have: have(&it), need, want }))
            .collect();
        if !pulls.is_empty() {
            let unanswered = pulls.iter().map(|it| it.0.0).collect();
            self.waiting.round = Some(Round { began: around.now, unanswered });
        }
        pulls
    }
}
