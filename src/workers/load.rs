//! How much a worker has to do for this node, and the guard that can neither leak nor count twice.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

/// In-flight load of one worker. Shared; read without locks.
#[derive(Debug, Default)]
pub struct Load {
    requests: AtomicU64,
    queued_prefill: AtomicU64,
}

impl Load {
    /// Requests in flight.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Prompt tokens whose first answer token has not come yet.
    #[must_use]
    pub fn queued_prefill_tokens(&self) -> u64 {
        self.queued_prefill.load(Ordering::Relaxed)
    }

    /// Counts one request with so many uncached prompt tokens until the guard is dropped.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, prefill_tokens: u64) -> LoadGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.queued_prefill.fetch_add(prefill_tokens, Ordering::Relaxed);
        LoadGuard { load: Arc::clone(self), prefill_tokens }
    }
}

/// One request's share of a [`Load`]; released exactly once, when dropped.
#[derive(Debug)]
pub struct LoadGuard {
    load: Arc<Load>,
    prefill_tokens: u64,
}

impl LoadGuard {
    /// The first content came: nothing of this request waits for prefill any more.
    pub fn prefill_done(&mut self) {
        let done = std::mem::take(&mut self.prefill_tokens);
        self.load.queued_prefill.fetch_sub(done, Ordering::Relaxed);
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.prefill_done();
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::entropy::Entropy;

    #[test]
    fn field_d5_after_a_hundred_thousand_aborts_every_count_is_zero() {
        let (load, entropy) = (Arc::new(Load::default()), Entropy::seeded(5));
        let mut held = Vec::new();
        for _ in 0..100_000 {
            let mut guard = load.acquire(entropy.next_u64() % 10_000);
            if entropy.below(2) == 0 {
                guard.prefill_done();
            }
            held.push(guard);
            if held.len() > 64 {
                held.swap_remove(entropy.below(held.len()));
            }
        }
        drop(held);
        assert_eq!((load.requests(), load.queued_prefill_tokens()), (0, 0));
    }
}
