//! A real concurrency limit: so many requests at a time, so many waiting, each for so long.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;

use super::metrics::Admitted;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::observability::metrics::GaugeGuard;

/// Why a request was not admitted. Nobody's fault; nothing was done; a retry is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many are waiting as may wait.
    #[error("the gateway is at its limit of concurrent requests and its queue is full")]
    QueueFull,
    /// Waited as long as one may.
    #[error("the gateway stayed at its limit of concurrent requests for: {0:?}")]
    QueueTimeout(Duration),
}

/// The right to be in flight; given back when dropped.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// The limit and its queue. First come, first served.
pub struct Admission {
    slots: Option<Arc<Semaphore>>,
    waiting: AtomicUsize,
    queue_len_max: usize,
    queue_timeout: Duration,
    metrics: Metrics,
}

impl Admission {
    /// `concurrent_max` 0 means no limit.
    #[must_use]
    pub fn new(concurrent_max: usize, queue_len_max: usize, queue_timeout: Duration, metrics: Metrics) -> Self {
        metrics.queue_limit(if concurrent_max > 0 { queue_len_max } else { 0 });
        let slots = (concurrent_max > 0).then(|| Arc::new(Semaphore::new(concurrent_max.min(Semaphore::MAX_PERMITS))));
        Self { slots, waiting: AtomicUsize::new(0), queue_len_max, queue_timeout, metrics }
    }

    /// Waits for a slot, in order of arrival.
    pub async fn admit(&self) -> Result<Permit, Refused> {
        let Some(slots) = &self.slots else {
            self.metrics.answered(Admitted::Admitted);
            return Ok(Permit(None));
        };
        if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            self.metrics.answered(Admitted::Admitted);
            return Ok(Permit(Some(permit)));
        }
        let Some(mut place) = Place::take(self) else {
            self.metrics.answered(Admitted::QueueFull);
            return Err(Refused::QueueFull);
        };
        let waited = tokio::time::timeout(self.queue_timeout, Arc::clone(slots).acquire_owned()).await;
        place.outcome = if waited.is_ok() { Admitted::Admitted } else { Admitted::QueueTimeout };
        drop(place);
        let permit = waited.map_err(|_elapsed| Refused::QueueTimeout(self.queue_timeout))?;
        Ok(Permit(Some(permit.expect("the semaphore is never closed"))))
    }
}

/// A place in the queue; left when dropped, also when the client goes away while waiting.
struct Place<'a> {
    admission: &'a Admission,
    since: Instant,
    outcome: Admitted,
    _queued: GaugeGuard,
}

impl<'a> Place<'a> {
    fn take(admission: &'a Admission) -> Option<Self> {
        let taken = admission.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < admission.queue_len_max).then_some(waiting + 1)
        });
        let queued = admission.metrics.queued();
        taken.ok().map(|_| Self { admission, since: Clock.now(), outcome: Admitted::ClientGone, _queued: queued })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let metrics = &self.admission.metrics;
        self.admission.waiting.fetch_sub(1, Ordering::Relaxed);
        metrics.waited(Clock.now() - self.since);
        metrics.answered(self.outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(concurrent: usize, queue: usize) -> Arc<Admission> {
        Arc::new(Admission::new(concurrent, queue, Duration::from_secs(5), Metrics::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_in_flight_and_the_queue_is_bounded() {
        let admission = admission(2, 1);
        let (first, _second) = (admission.admit().await.expect("free"), admission.admit().await.expect("free"));
        let waiting = admission.admit();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(admission.admit().await.expect_err("full"), Refused::QueueFull);
        drop(first);
        waiting.await.expect("the freed slot goes to the one that waited");
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_gives_up_in_time_and_leaves_its_place() {
        let admission = admission(1, 1);
        let held = admission.admit().await.expect("free");
        assert_eq!(admission.admit().await.expect_err("late"), Refused::QueueTimeout(Duration::from_secs(5)));
        drop(Box::pin(admission.admit())); // a client that left before it was polled
        drop(held);
        admission.admit().await.expect("free again");
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn field_02_a_panic_gives_its_slot_back() {
        let admission = admission(1, 1);
        let inside = Arc::clone(&admission);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let _permit = inside.admit().await;
            panic!("on purpose");
        });
        assert!(tasks.join_next().await.expect("one").is_err());
        assert!(admission.admit().await.is_ok(), "the slot is free");
    }
}
