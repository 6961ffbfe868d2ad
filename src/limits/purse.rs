//! What one node may still spend of one limit in the window at hand. Edge threads take from it without a lock; the core fills it, and takes back what it gives away.
//!
//! Window and units are one atomic word, so no thread can spend the units of one window in another: whoever takes names the window it means, and finds nothing when the core has not
//! opened that one yet. Then the slow way is due: [`Event::Ask`](super::core::Event::Ask), once a window and when units run out.
//!
//! *Invariants.* 1. What was taken is settled once, whatever ends the request. 2. What was used beyond the rights is a debt, and paid before anything else is spent.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::LimitId;
use super::calendar::Calendar;
use super::faults::Fault;
use super::faults::planted;
use super::mint::UNITS_MAX;
use crate::base::clock::Instant;

/// No window has this number: it is a hundred years off in windows of a second.
const CLOSED: u32 = u32::MAX;

/// See the file's header.
#[derive(Debug)]
pub struct Purse {
    limit: LimitId,
    window_ms: u32,
    calendar: Calendar,
    /// Low half of the window's number, then the units left in it. ORDER: the counters beside it are for people and estimates; only this word decides.
    left: AtomicU64,
    debt: AtomicU64,
    /// The same for units that came back before the core had opened the window that they are for.
    early: AtomicU64,
    /// Units that were asked for here, granted or not.
    asked: AtomicU64,
    spent: AtomicU64,
    returned: AtomicU64,
    /// The low half of a window's number, then what others are believed to have left in it.
    elsewhere: AtomicU64,
}

/// What is left of a limit in the window at hand. An estimate: shown to people and their clients, and nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Here, and as far as this node has heard at the others.
    pub units: u64,
    /// When the next window begins.
    pub resets: Duration,
}

/// Units of a node that never become less. Shown to people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Asked for, granted or not.
    pub asked: u64,
    /// Spent: taken when a request was admitted, or charged when it turned out to be larger.
    pub spent: u64,
    /// Of those, given back because a request turned out to be smaller, or was not carried out.
    pub returned: u64,
}

fn pack(window: u32, units: u64) -> u64 {
    u64::from(window) << 32 | units.min(u64::from(u32::MAX))
}

fn unpack(word: u64) -> (u32, u64) {
    ((word >> 32) as u32, word & u64::from(u32::MAX))
}

impl Purse {
    /// An empty one.
    #[must_use]
    pub fn new(limit: LimitId, window_ms: u32, calendar: Calendar) -> Self {
        let [debt, asked, spent, returned] = Default::default();
        let [left, early, elsewhere] = [(); 3].map(|()| AtomicU64::new(pack(CLOSED, 0)));
        Self { limit, window_ms, calendar, left, debt, early, asked, spent, returned, elsewhere }
    }

    /// The window that `now` is in.
    #[must_use]
    pub fn window(&self, now: Instant) -> u64 {
        self.calendar.place(now, self.window_ms).window
    }

    /// The fast way: units of the window that `now` is in, all or none. None: ask the core.
    #[must_use]
    pub fn take(self: &Arc<Self>, now: Instant, units: u64) -> Option<Taken> {
        let taken = self.take_in(self.window(now), units)?;
        self.asked.fetch_add(units, Ordering::Relaxed);
        Some(taken)
    }

    pub(super) fn take_in(self: &Arc<Self>, window: u64, units: u64) -> Option<Taken> {
        self.change(window, |left| left.checked_sub(units))?;
        self.spent.fetch_add(units, Ordering::Relaxed);
        Some(Taken { purse: Arc::clone(self), window, units })
    }

    /// Changes what is left if this is the window at hand; returns what was left before.
    fn change(&self, window: u64, to: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let change = |word| {
            let (at, left) = unpack(word);
            if at == window as u32 { to(left).map(|it| pack(at, it)) } else { None }
        };
        update(&self.left, change).map(|it| unpack(it).1)
    }

    /// Pays what is owed; returns the rest.
    fn pay(&self, units: u64) -> u64 {
        let owed = update(&self.debt, |it| Some(it.saturating_sub(units))).unwrap_or_default();
        units - owed.min(units)
    }

    /// What is left in a window; 0 in any but the one at hand.
    #[must_use]
    pub fn left(&self, window: u64) -> u64 {
        let (at, left) = unpack(self.left.load(Ordering::Relaxed));
        if at == window as u32 { left } else { 0 }
    }

    /// Ends the window at hand and begins another with nothing but what came back early for it; returns what was left.
    pub(super) fn open(&self, window: u64) -> u64 {
        let (_, left) = unpack(self.left.swap(pack(window as u32, 0), Ordering::Relaxed));
        let (early_for, early) = unpack(self.early.swap(pack(CLOSED, 0), Ordering::Relaxed));
        if early_for == window as u32 {
            self.put(window, early);
        }
        left
    }

    /// Takes up to so many units out.
    pub(super) fn take_back(&self, window: u64, units: u64) -> u64 {
        self.change(window, |left| Some(left.saturating_sub(units))).map_or(0, |left| left.min(units))
    }

    /// Adds rights; what is owed is paid first.
    pub(super) fn put(&self, window: u64, units: u64) {
        let rest = self.pay(units);
        let added = self.change(window, |left| Some((left + rest).min(2 * UNITS_MAX - 1)));
        debug_assert!(added.is_some(), "only the core opens windows, and only it puts");
    }

    /// What others are believed to have left.
    pub(super) fn believe(&self, window: u64, units: u64) {
        self.elsewhere.store(pack(window as u32, units), Ordering::Relaxed);
    }

    /// See [`Remaining`]. Of a window in which nothing was heard of the others yet, what is left here.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Remaining {
        let window = self.window(now);
        let (at, elsewhere) = unpack(self.elsewhere.load(Ordering::Relaxed));
        let elsewhere = if at == window as u32 { elsewhere } else { 0 };
        let resets = self.calendar.begins(now, self.window_ms, window + 1).saturating_duration_since(now);
        Remaining { units: self.left(window) + elsewhere, resets }
    }

    /// What was spent beyond the rights and is not paid yet.
    #[must_use]
    pub fn debt(&self) -> u64 {
        self.debt.load(Ordering::Relaxed)
    }

    pub(super) fn owe(&self, units: u64) {
        if !planted(Fault::DebtIsForgotten) {
            self.debt.fetch_add(units, Ordering::Relaxed);
        }
    }

    pub(super) fn asked_for(&self, units: u64) {
        self.asked.fetch_add(units, Ordering::Relaxed);
    }

    /// What was counted since this node started.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        Counters { asked: read(&self.asked), spent: read(&self.spent), returned: read(&self.returned) }
    }

    fn charge(&self, now: Instant, units: u64) {
        self.spent.fetch_add(units, Ordering::Relaxed);
        let paid = self.take_back(self.window(now), units);
        if paid < units {
            self.owe(units - paid);
        }
    }

    /// Units of a window that were not used. Of one that is over nobody can use them any more. True: it was not over.
    fn give_back(&self, window: u64, units: u64) -> bool {
        let at_hand = unpack(self.left.load(Ordering::Relaxed)).0;
        let window = if planted(Fault::RefundCrossesWindows) { u64::from(at_hand) } else { window };
        if at_hand != window as u32 {
            return false;
        }
        // The window may end between these two: what was not owed is lost with it.
        let rest = self.pay(units);
        self.change(window, |left| Some((left + rest).min(2 * UNITS_MAX - 1))).is_some()
    }

    /// Units that count as given back in the window that `now` is in.
    fn give_back_now(&self, now: Instant, units: u64) {
        let window = self.window(now);
        if !self.give_back(window, units) {
            let add = |word| {
                let (at, early) = unpack(word);
                Some(pack(window as u32, if at == window as u32 { early + units } else { units }))
            };
            update(&self.early, add);
        }
    }
}

fn update(word: &AtomicU64, to: impl FnMut(u64) -> Option<u64>) -> Option<u64> {
    word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, to).ok()
}

/// Units that one request holds. Dropped without a word it keeps what was reserved: the worker may have computed it.
#[derive(Debug)]
#[must_use = "dropped, it counts as spent"]
pub struct Taken {
    purse: Arc<Purse>,
    window: u64,
    units: u64,
}

impl Taken {
    /// Of which limit.
    #[must_use]
    pub fn limit(&self) -> LimitId {
        self.purse.limit
    }

    /// In which window.
    #[must_use]
    pub fn window(&self) -> u64 {
        self.window
    }

    /// What is left of the limit besides.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> Remaining {
        self.purse.remaining(now)
    }

    /// How many.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.units
    }

    /// A part of it, to be settled by itself.
    pub fn split(&mut self, units: u64) -> Self {
        let units = units.min(self.units);
        self.units -= units;
        Self { purse: Arc::clone(&self.purse), window: self.window, units }
    }

    /// So many were used of what was known beforehand, as the tokens of a prompt: the rest is given back as far as the window is not over, and what is more is charged to
    /// the window at hand.
    pub fn settle(mut self, now: Instant, used: u64) {
        let (reserved, window) = (std::mem::take(&mut self.units), self.window);
        match reserved.checked_sub(used) {
            None => self.purse.charge(now, used - reserved),
            Some(rest) => {
                self.purse.returned.fetch_add(rest, Ordering::Relaxed);
                self.purse.give_back(window, rest);
                if planted(Fault::SettledTwice) {
                    self.purse.give_back(window, rest);
                }
            }
        }
    }

    /// The same for what nobody could know, as the tokens of an answer: the difference counts in the window at hand, whichever way it goes. A window then has no more than its
    /// limit of what was reserved in it, less what turned out in it not to be needed.
    pub fn settle_output(mut self, now: Instant, used: u64) {
        let reserved = std::mem::take(&mut self.units);
        match reserved.checked_sub(used) {
            None => self.purse.charge(now, used - reserved),
            Some(rest) => {
                self.purse.returned.fetch_add(rest, Ordering::Relaxed);
                self.purse.give_back_now(now, rest);
            }
        }
    }

    /// The request was not carried out: another limit refused it, or its client left before.
    pub fn give_back(mut self) {
        let units = std::mem::take(&mut self.units);
        if !planted(Fault::RejectedBurns) {
            self.purse.returned.fetch_add(units, Ordering::Relaxed);
            self.purse.give_back(self.window, units);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::base::clock::Clock;

    /// One with so many units in the window that `now` is in, a second long.
    pub(crate) fn purse(now: Instant, units: u64) -> Arc<Purse> {
        let purse = Arc::new(Purse::new(LimitId(1), 1000, Calendar::new(now, Duration::from_secs(9))));
        assert!(purse.take(now, 1).is_none(), "no window is open");
        purse.open(purse.window(now));
        purse.put(purse.window(now), units);
        purse
    }

    #[test]
    fn units_of_one_window_are_not_spent_in_another() {
        let now = Clock.now();
        let (purse, later) = (purse(now, 3), now + Duration::from_secs(1));
        let taken = purse.take(now, 2).unwrap();
        assert!(purse.take(now, 2).is_none(), "all or none");
        assert!(purse.take(later, 1).is_none(), "the next window is not open");
        assert_eq!((taken.window(), taken.units(), purse.open(10)), (9, 2, 1));
        taken.give_back();
        assert_eq!((purse.left(9), purse.left(10)), (0, 0), "it came too late");
    }

    #[test]
    fn what_was_used_beyond_the_rights_is_paid_before_anything_else() {
        let now = Clock.now();
        let (purse, later) = (purse(now, 100), now + Duration::from_secs(1));
        purse.take(now, 90).unwrap().settle(now, 130);
        assert_eq!((purse.left(9), purse.debt()), (0, 30));
        purse.open(10);
        purse.put(10, 20);
        assert_eq!((purse.left(10), purse.debt()), (0, 10));
        purse.put(10, 20);
        assert_eq!((purse.left(10), purse.debt()), (10, 0));
        purse.take(later, 10).unwrap().settle(later, 4);
        assert_eq!(purse.left(10), 6);
        assert_eq!(purse.counters(), Counters { asked: 100, spent: 140, returned: 6 });
    }

    #[test]
    fn what_an_answer_did_not_need_counts_in_the_window_in_which_that_is_known() {
        let now = Clock.now();
        let (purse, later) = (purse(now, 100), now + Duration::from_secs(1));
        let mut input = purse.take(now, 90).unwrap();
        let (output, more) = (input.split(50), input.split(30));
        output.settle_output(later, 20);
        input.settle(later, 0);
        assert_eq!(purse.left(9), 20, "the core has not noticed that the window is over");
        purse.open(10);
        assert_eq!(purse.left(10), 30, "of the output, not of the input");
        more.settle_output(later, 5);
        assert_eq!(purse.left(10), 55);
        purse.open(12);
        assert_eq!(purse.left(12), 0);
    }

    #[test]
    fn what_remains_is_what_is_left_here_and_was_heard_of_others_in_this_window() {
        let now = Clock.now();
        let (purse, part) = (purse(now, 10), Duration::from_millis(300));
        purse.believe(9, 25);
        let taken = purse.take(now + part, 4).unwrap();
        assert_eq!(taken.remaining(now + part), Remaining { units: 31, resets: Duration::from_millis(700) });
        purse.open(10);
        purse.put(10, 10);
        let later = now + Duration::from_secs(1);
        assert_eq!(
            taken.remaining(later),
            Remaining { units: 10, resets: Duration::from_secs(1) },
            "25 were of window 9"
        );
        taken.give_back();
    }

    #[test]
    fn threads_that_take_at_once_get_no_more_than_there_is() {
        let now = Clock.now();
        let purse = purse(now, 10_000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..4_000).filter_map(|_| purse.take(now, 1)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|it| it.join().expect("no panic")).sum()
        });
        assert_eq!((taken, purse.left(9)), (10_000, 0));
    }
}
