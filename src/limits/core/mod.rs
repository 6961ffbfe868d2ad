//! The decisions of one node: what it may spend (`account`), whom it asks when it is short (`round`), what it gives away (`donor`), and how long it holds its shares
//! (`renewals`). `office` is the part of whoever leads the group, `holders` what it knows of the others.
//!
//! *Ground state:* none. What a node knows of its rights is lost when it stops, and so are the rights, for the window at hand. *Derived:* all the rest.

mod account;
mod belief;
mod donor;
mod holders;
mod office;
mod redivide;
mod renewals;
mod round;
mod streams;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use self::account::Account;
use self::account::Heard;
use self::renewals::Renewals;
use self::round::WAIT_MAX;
use self::streams::Open;
use super::LimitId;
use super::OnIsolation;
use super::Settings;
use super::calendar::Calendar;
use super::faults::Fault;
use super::faults::planted;
use super::messages::ADOPTED_LEN_MAX;
use super::messages::Adopted;
use super::messages::MINTS_LEN_MAX;
use super::messages::Message;
use super::messages::Renewal;
use super::messages::Renewed;
use super::messages::TOLD_LEN_MAX;
use super::messages::Told;
use super::mint::Mint;
use super::purse::Counters;
use super::purse::Purse;
use super::purse::Taken;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::observability::labels::label;

pub use holders::HOLDERS_LEN_MAX;
pub use holders::Holders;
pub use office::Office;
pub use office::PROPOSALS_LEN_MAX;
pub use office::Wanted;
pub use streams::MayOpen;
pub use streams::STREAM_TICKETS_LEN_MAX;
pub use streams::STREAM_WAIT_MAX;
pub use streams::STREAM_WAITERS_LEN_MAX;

/// Limits that one node knows. Mints beyond it are ignored and counted, and their requests are served by `on_isolation`. At some two kilobytes each.
pub const LIMITS_LEN_MAX: usize = 16_384;
/// Requests that wait for units of any limit. Beyond it they are refused at once.
pub const TICKETS_LEN_MAX: usize = 8_192;
/// A peer that did not answer is not asked for so long: each round would wait for it in vain.
const SKIP: Duration = Duration::from_secs(1);
/// A round that ended so many times later than it should was not the peers' fault: this node did not run.
const OWN_FAULT: u32 = 4;

/// One life of a node: its data directory and start.
pub type Life = (StorageId, u64);
/// A request that waits for an answer. The driver numbers them.
pub type Ticket = u64;

label! {
    /// Why something that came changed nothing.
    pub enum Ignored {
        /// It came twice, or when it was of no use any more.
        Late = "late",
        /// It was for another life of this node, or from nobody that is here.
        Stranger = "stranger",
        /// More limits, nodes or requests than are kept.
        TooMany = "too_many",
        /// More units than there are.
        Absurd = "absurd",
        /// It cannot be read.
        Unreadable = "unreadable",
    }
}

/// Why a request was not admitted. Nothing was spent, and a retry is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The client's doing: the limit is used up, as far as this node can reach others.
    #[error("limit is used up for now: {limit}")]
    Exhausted {
        /// Which.
        limit: LimitId,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The client's doing: one request that is larger than the whole limit. Trying again does not help.
    #[error("request is larger than the limit: {0}")]
    TooLarge(LimitId),
    /// The cluster's fault: this node holds no share of the limit, because none was minted yet or the group was not reached for too long.
    #[error("no share of the limit is held here: {0}")]
    NoShare(LimitId),
    /// The cluster's fault: too many requests wait for units.
    #[error("too many requests wait for the limit: {0}")]
    Busy(LimitId),
}

/// What is answered to a request: units of a window, or a [`Permit`](super::permits::Permit) of a stream.
#[derive(Debug)]
pub enum Answer<T = Taken> {
    /// It may begin, and holds these units.
    Admitted(T),
    /// It may begin, uncounted: no share is held, and [`OnIsolation::Open`] says so.
    Open,
    /// It may not.
    Refused(Refused),
}

impl OnIsolation {
    /// To whoever asks for units of a limit of which there is no share.
    pub(super) const fn answer<T>(self, limit: LimitId) -> Answer<T> {
        match self {
            Self::Deny => Answer::Refused(Refused::NoShare(limit)),
            Self::Open => Answer::Open,
        }
    }
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// These are here, in these lives; whether this node is among them does not matter.
    Members(Vec<Life>),
    /// Time has passed.
    Wake,
    /// A request needs units that the purse did not have.
    Ask(Ticket, LimitId, u64),
    /// A stream is to begin, and no permit was at hand.
    Open(Ticket, LimitId),
    /// A permit came back for which somebody waits.
    Freed,
    /// Its client has left.
    GaveUp(Ticket),
    /// A peer says something.
    Received(Life, Message),
    /// The group's leader answered.
    Renewed(Renewed),
    /// The group has decided something about limits, up to this entry.
    News(u64),
    /// This node stops soon. It begins no window any more; what it has left, peers may ask for.
    Leave,
}

/// What to do.
#[derive(Debug)]
pub enum Effect {
    /// Say this to a peer.
    Send(Life, Message),
    /// Say this to all of them.
    Tell(Vec<Told>),
    /// Say this to the group's leader.
    Renew(Renewal),
    /// Answer a request.
    Answer(Ticket, Answer),
    /// Answer one that is to open a stream.
    Permit(Ticket, MayOpen),
    /// Count this.
    Ignored(Ignored),
}

/// A peer.
#[derive(Clone, Copy, Debug)]
struct Member {
    boot: u64,
    skip_until: Option<Instant>,
}

/// What an account needs to know beside its own.
struct Around<'a> {
    now: Instant,
    me: Life,
    calendar: &'a Calendar,
    members: &'a BTreeMap<StorageId, Member>,
    /// Whether windows may be begun.
    is_held: bool,
}

/// How one limit stands at this node. For people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// All of it.
    pub units: u64,
    /// This node's part.
    pub share: u64,
    /// Units that may still be spent here in the window at hand, or streams that may still begin.
    pub left: u64,
    /// Streams that are open here. 0 for a limit with windows.
    pub in_use: u64,
    /// Requests that wait here for another one to end.
    pub waiting: usize,
    /// What was spent beyond the rights and is not paid yet.
    pub debt: u64,
    /// Since this node started.
    pub counters: Counters,
}

/// One node's limits.
#[derive(Debug)]
pub struct Core {
    me: Life,
    settings: Settings,
    calendar: Calendar,
    started: Instant,
    members: BTreeMap<StorageId, Member>,
    accounts: BTreeMap<LimitId, Account>,
    /// Requests that wait, and for what.
    tickets: BTreeMap<Ticket, LimitId>,
    renewals: Renewals,
    open: Open,
    /// When an account is to be looked at.
    timers: BTreeSet<(Instant, LimitId)>,
    armed: BTreeMap<LimitId, Instant>,
}

/// Splits the core, so that an account can be changed while the rest is read.
macro_rules! around {
    ($core:ident, $now:ident) => {
        Around {
            now: $now,
            me: $core.me,
            calendar: &$core.calendar,
            members: &$core.members,
            is_held: $core.renewals.is_held($now),
        }
    };
}

impl Core {
    /// A node that has no shares yet. `wall`: since the Unix epoch.
    #[must_use]
    pub fn new(now: Instant, wall: Duration, me: Life, settings: Settings) -> Self {
        let (members, accounts, tickets, timers, armed) = Default::default();
        let (calendar, renewals) = (Calendar::new(now, wall), Renewals::new(now));
        let open = Open::default();
        Self { me, settings, calendar, started: now, members, accounts, tickets, renewals, open, timers, armed }
    }

    /// When the next step is due if nothing happens before.
    #[must_use]
    pub fn next_wake(&self) -> Instant {
        self.timers.first().map_or(self.renewals.due, |it| it.0.min(self.renewals.due))
    }

    /// How many limits are known.
    #[must_use]
    pub fn limits_len(&self) -> usize {
        self.accounts.len() + self.open.limits.len()
    }

    /// What edge threads take from, for each limit that is known.
    pub fn purses(&self) -> impl Iterator<Item = (LimitId, Arc<Purse>)> {
        self.accounts.iter().map(|(limit, it)| (*limit, Arc::clone(&it.purse)))
    }

    /// How a limit stands here, if it is known.
    #[must_use]
    pub fn standing(&self, now: Instant, limit: LimitId) -> Option<Standing> {
        let Some(it) = self.accounts.get(&limit) else { return self.standing_streams(now, limit) };
        let around = around!(self, now);
        let window = it.purse.window(now);
        let (units, share) = (it.mint.units(), it.mint.share(self.me.0, window));
        let (left, debt, counters) = (it.spendable(&around, window), it.purse.debt(), it.purse.counters());
        Some(Standing { units, share, left, in_use: 0, waiting: it.waiting.len(), debt, counters })
    }

    /// Takes one event.
    pub fn step(&mut self, now: Instant, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Members(lives) => self.members(lives),
            Event::Wake => self.wake(now, effects),
            Event::Ask(ticket, limit, units) => self.ask(now, ticket, limit, units, effects),
            Event::GaveUp(ticket) => {
                if let Some(account) = self.tickets.remove(&ticket).and_then(|it| self.accounts.get_mut(&it)) {
                    account.waiting.forget(ticket);
                }
                self.gave_up_stream(now, ticket, effects);
            }
            Event::Open(ticket, limit) => self.open_stream(now, ticket, limit, effects),
            Event::Freed => self.freed(now, effects),
            Event::News(entry) => self.news(now, entry),
            Event::Received(from, message) => self.receive(now, from, message, effects),
            Event::Renewed(renewed) => self.renewed(now, renewed, effects),
            Event::Leave => {
                self.renewals.leaves_ms = Some(self.calendar.ms(now));
                self.open.until(0);
                self.renewals.due = now;
            }
        }
    }

    fn members(&mut self, lives: Vec<Life>) {
        let before = std::mem::take(&mut self.members);
        for (storage, boot) in lives.into_iter().filter(|it| it.0 != self.me.0) {
            let known = before.get(&storage).filter(|it| it.boot == boot);
            self.members.insert(storage, known.copied().unwrap_or(Member { boot, skip_until: None }));
        }
    }

    fn wake(&mut self, now: Instant, effects: &mut Vec<Effect>) {
        let mut told = Vec::new();
        while let Some((_, limit)) = self.timers.first().copied().filter(|it| it.0 <= now) {
            self.timers.pop_first();
            self.armed.remove(&limit);
            if self.accounts.contains_key(&limit) {
                self.end_round(now, limit, effects);
                told.extend(self.look(now, limit, effects));
                self.arm(limit);
            } else {
                self.streams_due(now, limit, effects);
            }
        }
        effects.extend(told.chunks(TOLD_LEN_MAX).map(|it| Effect::Tell(it.to_vec())));
        if self.renewals.due <= now {
            let pending = self.accounts.values().filter(|it| !it.mint.is_settled);
            let adopted = |it: &Account| Adopted { limit: it.mint.limit, epoch: it.mint.epoch, from: it.adopted_from };
            let adopted = pending.map(adopted).chain(self.open.adopted(self.me.0)).take(ADOPTED_LEN_MAX).collect();
            let (uses, is_busy) = (self.open.uses(now), self.open.is_busy());
            let (number, leaves_ms, seen) = (self.renewals.send(now), self.renewals.leaves_ms, self.renewals.seen);
            effects.push(Effect::Renew(Renewal { number, seen, adopted, leaves_ms, uses, is_busy }));
        }
    }

    /// Sets the clock for an account.
    fn arm(&mut self, limit: LimitId) {
        let due = match self.accounts.get(&limit) {
            Some(it) => it.waiting.ends_at().into_iter().chain(it.look_at).min(),
            None => self.open.limits.get(&limit).and_then(|it| it.due()),
        };
        if self.armed.get(&limit).copied() != due {
            if let Some(before) = self.armed.remove(&limit) {
                self.timers.remove(&(before, limit));
            }
            if let Some(due) = due {
                self.armed.insert(limit, due);
                self.timers.insert((due, limit));
            }
        }
    }

    /// Looks at one limit, if it is time: tells, and gives ahead.
    fn look(&mut self, now: Instant, limit: LimitId, effects: &mut Vec<Effect>) -> Option<Told> {
        let around = around!(self, now);
        let account = self.accounts.get_mut(&limit).filter(|it| it.look_at.is_some_and(|it| it <= now))?;
        let place = account.roll(&around);
        account.open(&around, place.window);
        let given = account.give_ahead(&around, place);
        effects.extend(given.into_iter().map(|(to, it)| Effect::Send(to, Message::Given(it))));
        account.looked(&around, place);
        account.publish(&around, place);
        account.say(&around, place)
    }

    // === Requests ===

    fn ask(&mut self, now: Instant, ticket: Ticket, limit: LimitId, units: u64, effects: &mut Vec<Effect>) {
        let around = around!(self, now);
        let Some(account) = self.accounts.get_mut(&limit) else {
            effects.push(Effect::Answer(ticket, self.settings.on_isolation.answer(limit)));
            return;
        };
        let place = account.roll(&around);
        account.open(&around, place.window);
        account.purse.asked_for(units);
        account.wake(&around);
        account.publish(&around, place);
        let taken = if account.waiting.is_empty() { account.purse.take_in(place.window, units) } else { None };
        let is_isolated = !around.is_held && !account.is_open();
        let answer = if let Some(taken) = taken {
            Some(Answer::Admitted(taken))
        } else if is_isolated && self.settings.on_isolation == OnIsolation::Open {
            Some(Answer::Open)
        } else if units > account.mint.units() {
            Some(Answer::Refused(Refused::TooLarge(limit)))
        } else if !account.waiting.is_asking() && !account.may_ask(&around, place) {
            Some(Answer::Refused(refused(account, &around)))
        } else if account.waiting.is_full() || self.tickets.len() >= TICKETS_LEN_MAX {
            Some(Answer::Refused(Refused::Busy(limit)))
        } else {
            account.waiting.push(now, ticket, units);
            self.tickets.insert(ticket, limit);
            if !account.waiting.is_asking() {
                let pulls = account.pull(&around, place);
                effects.extend(pulls.into_iter().map(|(to, it)| Effect::Send(to, Message::Pull(it))));
            }
            None
        };
        effects.extend(answer.map(|it| Effect::Answer(ticket, it)));
        self.arm(limit);
    }

    /// Serves whoever can be served; ends a round that is over, refuses those who had it, and begins another for the rest.
    fn end_round(&mut self, now: Instant, limit: LimitId, effects: &mut Vec<Effect>) {
        let around = around!(self, now);
        let Some(account) = self.accounts.get_mut(&limit) else { return };
        let place = account.roll(&around);
        account.open(&around, place.window);
        let mut answers: Vec<(Ticket, Answer)> =
            account.serve(place.window).into_iter().map(|(it, taken)| (it, Answer::Admitted(taken))).collect();
        let ended = account.waiting.end(now);
        let had_it = ended.as_ref().map(|it| it.0).max(now.checked_sub(WAIT_MAX));
        let mut refuse = |account: &mut Account, until| {
            let why = refused(account, &around);
            answers.extend(account.waiting.refuse(until).into_iter().map(|it| (it, Answer::Refused(why))));
        };
        if let Some(until) = had_it {
            refuse(account, until);
        }
        if !account.waiting.is_empty() && !account.waiting.is_asking() {
            let pulls = account.pull(&around, place);
            if pulls.is_empty() {
                refuse(account, now);
            }
            effects.extend(pulls.into_iter().map(|(to, it)| Effect::Send(to, Message::Pull(it))));
        }
        for (ticket, answer) in answers {
            self.tickets.remove(&ticket);
            effects.push(Effect::Answer(ticket, answer));
        }
        // Later than that, and it was this node that did not run.
        let silent = ended.filter(|it| now <= it.0 + WAIT_MAX * OWN_FAULT).map(|it| it.1);
        for it in silent.into_iter().flatten() {
            if let Some(member) = self.members.get_mut(&it) {
                member.skip_until = Some(now + SKIP);
            }
        }
    }

    // === Peers ===

    fn receive(&mut self, now: Instant, from: Life, message: Message, effects: &mut Vec<Effect>) {
        if !self.members.contains_key(&from.0) {
            effects.push(Effect::Ignored(Ignored::Stranger));
            return;
        }
        match message {
            Message::Pull(pull) => {
                let around = around!(self, now);
                let account = self.accounts.get_mut(&pull.limit);
                let Some(account) = account.filter(|_| pull.boot == around.me.1) else {
                    effects.push(Effect::Ignored(Ignored::Stranger));
                    return;
                };
                let given = account.pulled(&around, from, &pull);
                effects.push(Effect::Send(from, Message::Given(given)));
            }
            Message::Given(given) => {
                let around = around!(self, now);
                let Some(account) = self.accounts.get_mut(&given.limit) else { return };
                let received = account.receive(&around, from, &given);
                // One that was overtaken says what the donor had left before.
                let is_sound = !matches!(received, Err(Ignored::Stranger | Ignored::Absurd));
                let is_near = given.window <= account.place(&around).window + 1;
                if is_sound && is_near && given.total >= account.had(from, given.window) {
                    let demand = account.heard.get(&from.0).map_or(0, |it| it.demand);
                    account.heard.insert(from.0, Heard::of(given.window, given.left, demand));
                }
                effects.extend(received.err().map(Effect::Ignored));
                account.waiting.answered(from.0);
                if !account.waiting.is_empty() || account.waiting.is_asking() {
                    self.end_round(now, given.limit, effects);
                }
                self.arm(given.limit);
            }
            Message::Told(told) => told.iter().for_each(|it| self.heard(now, from.0, it)),
            Message::News(entry) => self.news(now, entry),
        }
    }

    /// Renews at once, so that what is new comes sooner.
    fn news(&mut self, now: Instant, entry: u64) {
        if entry > self.renewals.seen && self.limits_len() > 0 {
            self.renewals.sooner(now);
        }
    }

    fn heard(&mut self, now: Instant, from: StorageId, told: &Told) {
        let around = around!(self, now);
        let Some(account) = self.accounts.get_mut(&told.limit) else { return };
        let Told { window, left, demand, .. } = *told;
        // A clock that is ahead must not keep out what is said when it is right again.
        let is_near = window <= account.place(&around).window + 1;
        let is_late = account.heard.get(&from).is_some_and(|it| it.window > window);
        if is_late || !is_near || !account.mint.shares.contains_key(&from) {
            return;
        }
        account.heard.insert(from, Heard::of(window, left, demand));
        if demand > account.mint.share(from, window) {
            account.wake(&around); // it will want units of the next window
            self.arm(told.limit);
        }
    }

    // === The group ===

    fn renewed(&mut self, now: Instant, renewed: Renewed, effects: &mut Vec<Effect>) {
        if !self.renewals.answered(now, &self.settings, renewed.number) {
            effects.push(Effect::Ignored(Ignored::Late));
            return;
        }
        self.renewals.seen = self.renewals.seen.max(renewed.seen);
        if let Some(until) = self.renewals.streams_until(&self.settings) {
            self.open.until(self.calendar.ms(until));
        }
        if renewed.mints.len() >= MINTS_LEN_MAX {
            self.renewals.due = now; // there may be more
        }
        for mint in renewed.mints {
            self.adopt(now, mint, effects);
        }
        for limit in renewed.gone {
            self.remove(limit, effects);
        }
    }

    fn adopt(&mut self, now: Instant, mint: Mint, effects: &mut Vec<Effect>) {
        if !mint.kind.has_windows() {
            return self.adopt_streams(now, mint, effects);
        }
        let (around, limit) = (around!(self, now), mint.limit);
        let is_pending = !mint.is_settled;
        let is_full = self.limits_len() >= LIMITS_LEN_MAX;
        match self.accounts.get_mut(&limit) {
            Some(it) if it.mint.epoch >= mint.epoch && !planted(Fault::OldEpochCounts) => {
                effects.push(Effect::Ignored(Ignored::Late));
                return;
            }
            Some(it) => it.adopt(&around, mint),
            None if is_full => {
                effects.push(Effect::Ignored(Ignored::TooMany));
                return;
            }
            None => {
                let first = self.first(mint.window_ms);
                self.accounts.insert(limit, Account::new(mint, &around, first));
            }
        }
        if is_pending {
            self.renewals.due = now; // others wait for this node to say that it goes by it
        }
    }

    /// First window of which this life may use its share. An earlier life may have used the one at the start, and may have given away units of the
    /// next if it was late in that one.
    fn first(&self, window_ms: u32) -> u64 {
        let place = self.calendar.place(self.started, window_ms);
        let is_first_life = self.me.1 <= 1;
        if is_first_life || planted(Fault::RestartKeepsRights) {
            return 0;
        }
        let is_early = place.passed < donor::AHEAD_AT - 0.25 || planted(Fault::RestartForgetsAhead);
        place.window + if is_early { 1 } else { 2 }
    }

    fn remove(&mut self, limit: LimitId, effects: &mut Vec<Effect>) {
        if let Some(due) = self.armed.remove(&limit) {
            self.timers.remove(&(due, limit));
        }
        self.remove_streams(limit, effects);
        let Some(mut account) = self.accounts.remove(&limit) else { return };
        for ticket in account.waiting.refuse_all() {
            self.tickets.remove(&ticket);
            effects.push(Effect::Answer(ticket, Answer::Refused(Refused::NoShare(limit))));
        }
    }
}

/// Why there are no units.
fn refused(account: &Account, around: &Around<'_>) -> Refused {
    let limit = account.mint.limit;
    if !around.is_held && !account.is_open() {
        return Refused::NoShare(limit);
    }
    let place = account.place(around);
    let next = around.calendar.begins(around.now, account.mint.window_ms, place.window + 1);
    Refused::Exhausted { limit, retry_after: next.saturating_duration_since(around.now) }
}
