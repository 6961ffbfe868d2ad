//! What one client connection is doing and since when, and when it was waited for long enough.
//!
//! Stream, service and bodies of a connection note facts as they happen; [`Watch::overdue`] looks at them every few
//! seconds, so a request costs two clock readings and no timer. *Invariants:* a connection that is served is never ended
//! for being silent, only for taking nothing; one stuck h2 stream loses its answer and not its siblings theirs.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::clock::Clock;
use crate::base::clock::Instant;

use super::body::Parcel;

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// From a connection's begin, or a head's first byte, to the head's end.
    pub head: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// Until it takes another byte of what it asked for.
    pub write: Duration,
}

/// What was waited for in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The end of a request's head, or a first request.
    Head,
    /// Another request.
    Idle,
    /// Room for the answer.
    Write,
}

/// Nothing was sent yet.
const FRESH: u8 = 0;
/// Part of a head came.
const HEAD: u8 = 1;
/// A request was served, the next has not begun.
const IDLE: u8 = 2;

/// The facts. Times are milliseconds since `born`; where none is a state, they are one more than that.
pub(super) struct Watch {
    clock: Clock,
    born: Instant,
    patience: Patience,
    is_h2: bool,
    /// Replaces the patience between two requests; 0 leaves it.
    hurry: AtomicU64,
    serving: AtomicUsize,
    phase: AtomicU8,
    quiet_since: AtomicU64,
    stuck_since: AtomicU64,
    refused: AtomicU16,
    client_ended: AtomicBool,
    parcels: Mutex<Vec<Weak<Parcel>>>,
}

impl Watch {
    pub(super) fn new(clock: Clock, patience: Patience, is_h2: bool) -> Arc<Self> {
        Arc::new(Self {
            clock,
            born: clock.now(),
            patience,
            is_h2,
            hurry: AtomicU64::new(0),
            serving: AtomicUsize::new(0),
            phase: AtomicU8::new(if is_h2 { IDLE } else { FRESH }),
            quiet_since: AtomicU64::new(0),
            stuck_since: AtomicU64::new(0),
            refused: AtomicU16::new(0),
            client_ended: AtomicBool::new(false),
            parcels: Mutex::default(),
        })
    }

    pub(super) fn is_h2(&self) -> bool {
        self.is_h2
    }

    /// Milliseconds of this connection.
    pub(super) fn age(&self) -> u64 {
        u64::try_from((self.clock.now() - self.born).as_millis()).unwrap_or(u64::MAX >> 1)
    }

    /// A request's head is complete.
    pub(super) fn begin(&self) {
        self.serving.fetch_add(1, Relaxed);
    }

    /// An answer was handed over whole, or given up.
    pub(super) fn end(&self) {
        if self.serving.fetch_sub(1, Relaxed) == 1 {
            self.phase.store(IDLE, Relaxed);
            self.quiet_since.store(self.age(), Relaxed);
        }
    }

    /// Bytes came. (Over h2 they may be no request: those are counted as idle.)
    pub(super) fn heard(&self) {
        if !self.is_h2 && self.serving.load(Relaxed) == 0 && self.phase.swap(HEAD, Relaxed) != HEAD {
            self.quiet_since.store(self.age(), Relaxed);
        }
    }

    /// The client will send no more.
    pub(super) fn client_ended(&self) {
        self.client_ended.store(true, Relaxed);
    }

    pub(super) fn has_client_ended(&self) -> bool {
        self.client_ended.load(Relaxed)
    }

    /// The socket takes bytes, or does not.
    pub(super) fn wrote(&self, is_stuck: bool) {
        let since = self.stuck_since.load(Relaxed);
        if is_stuck != (since > 0) {
            self.stuck_since.store(if is_stuck { self.age() + 1 } else { 0 }, Relaxed);
        }
    }

    /// The HTTP library refused a head with this status and nothing else.
    pub(super) fn refuse(&self, status: u16) {
        self.refused.store(status, Relaxed);
    }

    pub(super) fn refused(&self) -> Option<u16> {
        Some(self.refused.load(Relaxed)).filter(|it| *it > 0)
    }

    /// Whether no request is being served.
    pub(super) fn is_quiet(&self) -> bool {
        self.serving.load(Relaxed) == 0
    }

    /// Whether there never was a request, nor a part of one.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_quiet() && self.phase.load(Relaxed) == FRESH
    }

    /// Whether not even a part of a request came.
    pub(super) fn is_empty(&self) -> bool {
        self.is_quiet() && self.phase.load(Relaxed) != HEAD
    }

    /// From now on, only so long is waited for another request.
    pub(super) fn hurry(&self, idle: Duration) {
        self.hurry.store(u64::try_from(idle.as_millis()).unwrap_or(u64::MAX), Relaxed);
        if self.is_empty() {
            self.quiet_since.store(self.age(), Relaxed);
        }
    }

    /// From now on, the body in `parcel` is taken away when it is not asked for.
    pub(super) fn mind(&self, parcel: &Arc<Parcel>) {
        let mut parcels = self.parcels.lock();
        // BOUND: the streams of one connection are bounded, and those that ended leave as others come.
        parcels.retain(|it| it.strong_count() > 0);
        parcels.push(Arc::downgrade(parcel));
    }

    /// Resolves when a request, or a part of one, is there. Looked at often, and only where a node stops.
    pub(super) async fn touched(&self) {
        while self.is_empty() {
            self.clock.sleep(Duration::from_millis(10)).await;
        }
    }

    /// Resolves when the client was waited for long enough.
    pub(super) async fn overdue(&self) -> Overdue {
        let mut next = self.clock.now() + self.shortest();
        loop {
            tokio::time::sleep_until(next).await;
            match self.look() {
                Ok(again) => next = again,
                Err(overdue) => return overdue,
            }
        }
    }

    /// Looks at every deadline; when to look again.
    fn look(&self) -> Result<Instant, Overdue> {
        let now = self.clock.now();
        let mut next = now + self.shortest();
        let mut due = |since: u64, patience: Duration, overdue| {
            let until = self.born + Duration::from_millis(since) + patience;
            next = next.min(until);
            if until <= now { Err(overdue) } else { Ok(()) }
        };
        if self.is_quiet() {
            let (patience, overdue) = match self.phase.load(Relaxed) {
                IDLE => (self.idle(), Overdue::Idle),
                _ => (self.patience.head, Overdue::Head),
            };
            due(self.quiet_since.load(Relaxed), patience, overdue)?;
        }
        if let Some(since) = self.stuck_since.load(Relaxed).checked_sub(1) {
            due(since, self.patience.write, Overdue::Write)?;
        }
        let parcels: Vec<_> = self.parcels.lock().iter().filter_map(Weak::upgrade).collect();
        for parcel in parcels {
            if parcel.offered_since().is_some_and(|since| due(since, self.patience.write, Overdue::Write).is_err()) {
                parcel.take_away();
            }
        }
        Ok(next.max(now + Duration::from_millis(1)))
    }

    fn idle(&self) -> Duration {
        match self.hurry.load(Relaxed) {
            0 => self.patience.idle,
            hurry => self.patience.idle.min(Duration::from_millis(hurry)),
        }
    }

    fn shortest(&self) -> Duration {
        self.patience.head.min(self.idle()).min(self.patience.write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { head: Duration::from_secs(15), idle: Duration::from_secs(75), write: Duration::from_secs(60) };

    async fn overdue_after(watch: &Watch) -> (Overdue, u64) {
        let begun = watch.clock.now();
        let overdue = watch.overdue().await;
        (overdue, (watch.clock.now() - begun).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_less_time_than_a_pause_between_requests() {
        let watch = Watch::new(Clock, PATIENCE, false);
        assert_eq!(overdue_after(&watch).await, (Overdue::Head, 15));
        watch.begin();
        watch.end();
        assert_eq!(overdue_after(&watch).await, (Overdue::Idle, 75));
        watch.begin();
        watch.end();
        watch.heard();
        assert_eq!(overdue_after(&watch).await, (Overdue::Head, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_served_may_take_its_time_unless_the_client_takes_nothing() {
        let watch = Watch::new(Clock, PATIENCE, false);
        watch.begin();
        assert!(tokio::time::timeout(Duration::from_secs(3600), watch.overdue()).await.is_err());
        watch.wrote(true);
        assert_eq!(overdue_after(&watch).await, (Overdue::Write, 60));
        watch.wrote(false);
        assert!(tokio::time::timeout(Duration::from_secs(3600), watch.overdue()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_pings_are_no_request() {
        let watch = Watch::new(Clock, PATIENCE, true);
        watch.heard();
        assert_eq!(overdue_after(&watch).await, (Overdue::Idle, 75));
    }
}
