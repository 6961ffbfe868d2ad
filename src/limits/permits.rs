//! How many streams of one limit may still begin at one node. Edge threads take a permit and drop it without a lock; the core says how many there are.
//!
//! What is free and whether somebody waits is one atomic word, so that a permit that comes back goes to who waits first: while somebody does, only the core takes. Less than
//! nothing is free while more streams run than the node's part is by now; then none begins.
//!
//! *Invariants.* 1. A permit comes back once, when it is dropped, whatever ends the stream. 2. None is taken later than half the hold after the last renewal that was answered was sent
//! (`Core` says until when): the other half is for the streams that began before.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::LimitId;
use super::calendar::Calendar;
use super::faults::Fault;
use super::faults::planted;
use crate::base::clock::Instant;

/// In the word: somebody waits. What is free is counted above it.
const WAITED_FOR: i64 = 1;
/// In the word: one permit.
const ONE: i64 = 2;

/// See the file's header.
#[derive(Debug)]
pub struct Permits {
    limit: LimitId,
    calendar: Calendar,
    word: AtomicI64,
    /// Until when permits may be taken, in milliseconds as the calendar counts them. The same for all limits of a node.
    until_ms: Arc<AtomicU64>,
    /// Woken when one comes back for which somebody waits.
    bell: Waker,
}

impl Permits {
    pub(super) fn new(limit: LimitId, calendar: Calendar, until_ms: Arc<AtomicU64>, bell: Waker) -> Self {
        Self { limit, calendar, word: AtomicI64::new(0), until_ms, bell }
    }

    /// Whether any may be taken, as far as time tells.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.calendar.ms(now) < self.until_ms.load(Ordering::Relaxed) || planted(Fault::StreamsBeginAfterTheHold)
    }

    /// The fast way: one permit, if one is free and nobody waits. None: ask the core.
    #[must_use]
    pub fn take(self: &Arc<Self>, now: Instant) -> Option<Permit> {
        if self.is_held(now) { self.take_if(|word| word & WAITED_FOR == 0) } else { None }
    }

    /// One for who waits first.
    pub(super) fn take_first(self: &Arc<Self>) -> Option<Permit> {
        self.take_if(|_| true)
    }

    fn take_if(self: &Arc<Self>, may: impl Fn(i64) -> bool) -> Option<Permit> {
        let take = |word| (word >= ONE && may(word)).then_some(word - ONE);
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Permit(Arc::clone(self)))
    }

    /// So many are free. Below 0: so many more streams run than may.
    pub(super) fn free(&self) -> i64 {
        self.word.load(Ordering::Relaxed).div_euclid(ONE)
    }

    /// This node's part became larger or smaller by so many.
    pub(super) fn change(&self, by: i64) {
        self.word.fetch_add(by.saturating_mul(ONE), Ordering::Relaxed);
    }

    /// From now on the core hears of every permit that comes back, and only it takes; or no more.
    pub(super) fn wait(&self, is_waited_for: bool) {
        if is_waited_for {
            self.word.fetch_or(WAITED_FOR, Ordering::Relaxed);
        } else {
            self.word.fetch_and(!WAITED_FOR, Ordering::Relaxed);
        }
    }
}

/// One stream's permit. The stream ends when it is dropped.
#[derive(Debug)]
#[must_use = "dropped, the stream has ended"]
pub struct Permit(Arc<Permits>);

impl Permit {
    /// Of which limit.
    #[must_use]
    pub fn limit(&self) -> LimitId {
        self.0.limit
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let permits = if planted(Fault::PermitComesBackTwice) { 2 * ONE } else { ONE };
        let before = self.0.word.fetch_add(permits, Ordering::Relaxed);
        if before & WAITED_FOR != 0 {
            self.0.bell.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::time::Duration;

    use super::*;
    use crate::base::clock::Clock;

    #[derive(Default)]
    struct Rung(AtomicUsize);

    impl Wake for Rung {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn permits(now: Instant, free: i64) -> (Arc<Permits>, Arc<Rung>) {
        let (rung, until) = (Arc::new(Rung::default()), Arc::new(AtomicU64::new(20_000)));
        let calendar = Calendar::new(now, Duration::from_secs(10));
        let permits = Permits::new(LimitId(1), calendar, until, Waker::from(Arc::clone(&rung)));
        permits.change(free);
        (Arc::new(permits), rung)
    }

    #[test]
    fn a_permit_that_comes_back_goes_to_who_waits() {
        let now = Clock.now();
        let (permits, rung) = permits(now, 2);
        let held = [permits.take(now).unwrap(), permits.take(now).unwrap()];
        assert!(permits.take(now).is_none());
        permits.wait(true);
        drop(held);
        assert_eq!((permits.free(), rung.0.load(Ordering::Relaxed)), (2, 2));
        assert!(permits.take(now).is_none(), "who waits is first");
        let first = permits.take_first().unwrap();
        permits.wait(false);
        assert!(permits.take(now).is_some_and(|it| it.limit() == LimitId(1)));
        drop(first);
        assert_eq!((permits.free(), rung.0.load(Ordering::Relaxed)), (2, 2), "nobody waits, nobody is woken");
    }

    #[test]
    fn none_begins_while_more_run_than_may_nor_later_than_was_said() {
        let now = Clock.now();
        let (permits, _) = permits(now, 3);
        let mut held: Vec<Permit> = (0..3).map(|_| permits.take(now).unwrap()).collect();
        permits.change(-2);
        assert_eq!(permits.free(), -2);
        held.pop();
        held.pop();
        assert!(permits.take(now).is_none() && permits.free() == 0);
        held.pop();
        assert!(permits.take(now + Duration::from_secs(10)).is_none(), "its time is over");
        assert!(permits.take(now + Duration::from_millis(9_999)).is_some());
    }

    #[test]
    fn threads_that_take_and_drop_at_once_never_have_more_than_there_are() {
        let now = Clock.now();
        let (permits, _) = permits(now, 3);
        let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(permit) = permits.take(now) {
                            most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            open.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    }
                });
            }
        });
        assert!(most.into_inner() <= 3);
        assert_eq!(permits.free(), 3);
    }
}
