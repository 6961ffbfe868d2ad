//! A limit on streams that are open at a time, at one node: how many permits there are, and who waits for one.
//!
//! It has no windows and no transfers: a unit that was lent would have to be known again after its lender is started anew. Units move by mints alone. A node that has not enough says so to the
//! leader at once, and the request waits, first come, first served.
//!
//! ```text
//!   short ──renewal: wanted──▶ leader ──pending: who has spare ones, has fewer──▶ donor: begins no more than that, says so ──▶ settled ──▶ short
//! ```
//! *Invariants.* 1. A node that says that it goes by a pending mint runs no more streams than it gives, and never will until it is settled. 2. Whoever
//! waits is answered within [`STREAM_WAIT_MAX`].

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use super::Adopted;
use super::Answer;
use super::Core;
use super::Effect;
use super::Ignored;
use super::LIMITS_LEN_MAX;
use super::LimitId;
use super::Mint;
use super::Refused;
use super::Standing;
use super::Ticket;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::limits::calendar::Calendar;
use crate::limits::faults::Fault;
use crate::limits::faults::planted;
use crate::limits::messages::USES_LEN_MAX;
use crate::limits::messages::Use;
use crate::limits::permits::Permit;
use crate::limits::permits::Permits;
use crate::limits::purse::Counters;

/// How long a request waits for a permit. It is time for others' spare permits to be divided anew, which takes some tenths of a second, and for a stream to end. Longer, and a refusal is slow.
pub const STREAM_WAIT_MAX: Duration = Duration::from_secs(2);
/// Requests that wait for one limit. Beyond it they are refused at once.
pub const STREAM_WAITERS_LEN_MAX: usize = 256;
/// And for all. They hold their bodies meanwhile.
pub const STREAM_TICKETS_LEN_MAX: usize = 4096;
/// Demand is the most that was wanted in this time and the one before. Shorter, and permits go to and fro; longer, and they are idle where they are not needed any more.
const PEAK: Duration = Duration::from_secs(1);
/// When it is worth trying again: some stream may have ended.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The most that was wanted lately.
#[derive(Debug)]
struct Peak {
    since: Instant,
    now: u64,
    before: u64,
}

impl Peak {
    fn note(&mut self, now: Instant, demand: u64) -> u64 {
        let passed = now.saturating_duration_since(self.since);
        if passed >= PEAK {
            self.before = if passed < PEAK * 2 { self.now } else { 0 };
            (self.now, self.since) = (0, now);
        }
        self.now = self.now.max(demand);
        self.now.max(self.before)
    }
}

/// One of them.
#[derive(Debug)]
pub(super) struct Streams {
    mint: Mint,
    permits: Arc<Permits>,
    /// What the permits add up to, in use or free.
    rights: u64,
    /// BOUND: [`STREAM_WAITERS_LEN_MAX`].
    waiting: VecDeque<(Ticket, Instant)>,
    peak: Peak,
    /// What the leader was last told is wanted here.
    told: u64,
    /// Whether this node runs more than a pending mint gives it, and the leader waits for it to run less.
    owes: bool,
}

impl Streams {
    pub(super) fn in_use(&self) -> u64 {
        u64::try_from(i64::try_from(self.rights).unwrap_or(i64::MAX) - self.permits.free()).unwrap_or_default()
    }

    /// Units beyond those in use that are wanted, about.
    fn wanted(&mut self, now: Instant) -> u64 {
        let in_use = self.in_use();
        self.peak.note(now, in_use + self.waiting.len() as u64) - in_use
    }

    /// When whoever waits first has waited long enough.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|it| it.1 + STREAM_WAIT_MAX)
    }

    /// Whether this node runs more streams than a pending mint gives it.
    fn is_owing(&self, me: StorageId) -> bool {
        let units = self.mint.shares.get(&me).map_or(0, |it| it.units);
        !self.mint.is_settled && self.in_use() > units && !planted(Fault::AdoptedInUse)
    }

    /// Goes by a mint from now on.
    fn go_by(&mut self, me: StorageId, mint: Mint) {
        let rights = mint.share(me, 0);
        let signed = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        self.permits.change(signed(rights) - signed(self.rights));
        (self.rights, self.mint) = (rights, mint);
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) limits: BTreeMap<LimitId, Streams>,
    /// Requests that wait, and for what. BOUND: [`STREAM_TICKETS_LEN_MAX`].
    tickets: BTreeMap<Ticket, LimitId>,
    /// Limits of which the core wants to hear when a permit comes back.
    waited_for: BTreeSet<LimitId>,
    /// See [`Permits`].
    until_ms: Arc<AtomicU64>,
    bell: Waker,
    /// Where the next renewal begins to say what is in use, if that does not fit one.
    next: LimitId,
}

impl Default for Open {
    fn default() -> Self {
        let (limits, tickets, waited_for, until_ms) = Default::default();
        Self { limits, tickets, waited_for, until_ms, bell: Waker::noop().clone(), next: LimitId(0) }
    }
}

impl Open {
    /// Whether anything is in use.
    pub(super) fn is_busy(&self) -> bool {
        self.limits.values().any(|it| it.in_use() > 0)
    }

    /// Pending mints that this node goes by.
    pub(super) fn adopted(&self, me: StorageId) -> impl Iterator<Item = Adopted> {
        let adopted = self.limits.values().filter(move |it| !it.mint.is_settled && !it.is_owing(me));
        adopted.map(|it| Adopted { limit: it.mint.limit, epoch: it.mint.epoch, from: 0 })
    }

    /// What a renewal says.
    pub(super) fn uses(&mut self, now: Instant) -> Vec<Use> {
        let mut uses = Vec::new();
        let from = self.next;
        for (limit, it) in self.limits.range_mut(from..) {
            uses.extend(it.used(now, *limit));
        }
        for (limit, it) in self.limits.range_mut(..from) {
            uses.extend(it.used(now, *limit));
        }
        self.next = uses.get(USES_LEN_MAX).map_or(LimitId(0), |it| it.limit);
        uses.truncate(USES_LEN_MAX);
        uses
    }

    /// Nothing begins after this; in milliseconds as the calendar counts them.
    pub(super) fn until(&self, ms: u64) {
        self.until_ms.store(ms, Ordering::Relaxed);
    }
}

impl Streams {
    fn used(&mut self, now: Instant, limit: LimitId) -> Option<Use> {
        let wanted = self.wanted(now);
        self.told = wanted;
        let it = Use { limit, in_use: self.in_use(), wanted };
        (it.in_use > 0 || it.wanted > 0).then_some(it)
    }
}

impl Core {
    /// Who is woken when a permit comes back for which somebody waits. It is to step [`Event::Freed`](super::Event::Freed).
    pub fn set_bell(&mut self, bell: Waker) {
        self.open.bell = bell;
    }

    /// What edge threads take permits from, for each limit on streams that is known.
    pub fn permits(&self) -> impl Iterator<Item = (LimitId, Arc<Permits>)> {
        self.open.limits.iter().map(|(limit, it)| (*limit, Arc::clone(&it.permits)))
    }

    /// Streams that hold a permit here, and requests that wait for one.
    #[must_use]
    pub fn streams_len(&self) -> (u64, usize) {
        (self.open.limits.values().map(Streams::in_use).sum(), self.open.tickets.len())
    }

    pub(super) fn standing_streams(&self, now: Instant, limit: LimitId) -> Option<Standing> {
        let it = self.open.limits.get(&limit)?;
        let left = if it.permits.is_held(now) { u64::try_from(it.permits.free()).unwrap_or_default() } else { 0 };
        Some(Standing {
            units: it.mint.units(),
            share: it.rights,
            left,
            in_use: it.in_use(),
            waiting: it.waiting.len(),
            debt: 0,
            counters: Counters::default(),
        })
    }

    /// A stream is to begin, and no permit was at hand.
    pub(super) fn open_stream(&mut self, now: Instant, ticket: Ticket, limit: LimitId, effects: &mut Vec<Effect>) {
        let (is_full, on_isolation) = (self.open.tickets.len() >= STREAM_TICKETS_LEN_MAX, self.settings.on_isolation);
        let known = self.open.limits.get_mut(&limit).filter(|it| it.permits.is_held(now));
        let Some(streams) = known else {
            effects.push(Effect::Permit(ticket, on_isolation.answer(limit)));
            return;
        };
        if streams.mint.units() == 0 {
            effects.push(Effect::Permit(ticket, Answer::Refused(Refused::TooLarge(limit))));
        } else if is_full || streams.waiting.len() >= STREAM_WAITERS_LEN_MAX {
            effects.push(Effect::Permit(ticket, Answer::Refused(Refused::Busy(limit))));
        } else {
            streams.waiting.push_back((ticket, now));
            self.open.tickets.insert(ticket, limit);
            self.serve_streams(now, limit, effects);
        }
    }

    /// Gives what is free to those who wait, in order, and says what is short.
    fn serve_streams(&mut self, now: Instant, limit: LimitId, effects: &mut Vec<Effect>) {
        let (me, open) = (self.me.0, &mut self.open);
        let Some(streams) = open.limits.get_mut(&limit) else { return };
        // ORDER: first the core is to hear of what comes back, then it looks what has.
        streams.permits.wait(true);
        let is_held = streams.permits.is_held(now);
        while let Some((ticket, _)) = streams.waiting.front().copied().filter(|_| is_held) {
            let Some(permit) = streams.permits.take_first() else { break };
            streams.waiting.pop_front();
            open.tickets.remove(&ticket);
            effects.push(Effect::Permit(ticket, Answer::Admitted(permit)));
        }
        let (waits, owes) = (streams.waiting.len() as u64, streams.is_owing(me));
        let owed = std::mem::replace(&mut streams.owes, owes);
        if waits > 0 || owes {
            open.waited_for.insert(limit);
        } else {
            streams.permits.wait(false);
            open.waited_for.remove(&limit);
        }
        streams.peak.note(now, streams.in_use() + waits);
        // The leader should hear that more is wanted than it knows, and that this node goes by a pending mint now.
        let is_news = waits > streams.told + streams.told / 8;
        if is_news || owed && !owes {
            streams.told = streams.told.max(waits);
            self.renewals.sooner(now);
        }
        self.arm(limit);
    }

    /// Permits came back for which somebody waits.
    pub(super) fn freed(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let limits: Vec<LimitId> = self.open.waited_for.iter().copied().collect();
        limits.into_iter().for_each(|it| self.serve_streams(now, it, effects));
    }

    /// A client that waited has left. Whether it waited for a permit.
    pub(super) fn gave_up_stream(&mut self, now: Instant, ticket: Ticket, effects: &mut Vec<Effect>) {
        let Some(limit) = self.open.tickets.remove(&ticket) else { return };
        if let Some(streams) = self.open.limits.get_mut(&limit) {
            streams.waiting.retain(|it| it.0 != ticket);
        }
        self.serve_streams(now, limit, effects);
    }

    /// Somebody may have waited long enough.
    pub(super) fn streams_due(&mut self, now: Instant, limit: LimitId, effects: &mut Vec<Effect>) {
        self.serve_streams(now, limit, effects);
        let Some(streams) = self.open.limits.get_mut(&limit) else { return };
        let is_held = streams.permits.is_held(now);
        while let Some((ticket, _)) = streams.waiting.front().copied().filter(|it| it.1 + STREAM_WAIT_MAX <= now) {
            streams.waiting.pop_front();
            self.open.tickets.remove(&ticket);
            let exhausted = Refused::Exhausted { limit, retry_after: RETRY_AFTER };
            let why = if is_held { exhausted } else { Refused::NoShare(limit) };
            effects.push(Effect::Permit(ticket, Answer::Refused(why)));
        }
        self.serve_streams(now, limit, effects);
    }

    pub(super) fn adopt_streams(&mut self, now: Instant, mint: Mint, effects: &mut Vec<Effect>) {
        let (limit, me) = (mint.limit, self.me.0);
        let is_full = self.limits_len() >= LIMITS_LEN_MAX;
        let open = &mut self.open;
        let known = open.limits.get(&limit).map(|it| it.mint.epoch);
        let ignored = match known {
            Some(epoch) if epoch >= mint.epoch && !planted(Fault::OldEpochCounts) => Some(Ignored::Late),
            None if is_full => Some(Ignored::TooMany),
            Some(_) | None => None,
        };
        if let Some(why) = ignored {
            effects.push(Effect::Ignored(why));
            return;
        }
        if !mint.is_settled {
            self.renewals.due = now; // others wait for this node to say that it goes by it
        }
        let calendar: Calendar = self.calendar;
        let new = || Streams {
            permits: Arc::new(Permits::new(limit, calendar, Arc::clone(&open.until_ms), open.bell.clone())),
            rights: 0,
            waiting: VecDeque::new(),
            peak: Peak { since: now, now: 0, before: 0 },
            told: 0,
            owes: false,
            mint: mint.clone(),
        };
        open.limits.entry(limit).or_insert_with(new).go_by(me, mint);
        self.serve_streams(now, limit, effects);
    }

    pub(super) fn remove_streams(&mut self, limit: LimitId, effects: &mut Vec<Effect>) {
        let Some(streams) = self.open.limits.remove(&limit) else { return };
        self.open.waited_for.remove(&limit);
        streams.permits.change(-i64::try_from(streams.rights).unwrap_or(i64::MAX));
        for (ticket, _) in streams.waiting {
            self.open.tickets.remove(&ticket);
            effects.push(Effect::Permit(ticket, Answer::Refused(Refused::NoShare(limit))));
        }
    }
}

/// What is answered to a stream that is to begin.
pub type MayOpen = Answer<Permit>;
