//! How much a worker has to do for this node, and the guard that can neither leak nor count twice.
//!
//! A prompt counts as queued until its first token comes. Where nobody sees that (an answer that is no stream), it counts
//! down at the rate that was learned of the worker, so that a long answer does not look like a long queue.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::faults::Fault;
use super::faults::planted;
use super::rate;
use super::rate::Place;
use super::rate::Sample;
use super::rate::Unseen;
use crate::base::clock::Clock;
use crate::base::clock::Instant;

/// In-flight load of one worker and its pace. Shared; read without waiting.
#[derive(Debug)]
pub struct Load {
    requests: AtomicU64,
    queued_prefill: AtomicU64,
    unseen_requests: AtomicU64,
    /// Looked at only while there are such requests, for nanoseconds.
    unseen: Mutex<Unseen>,
    /// Bits of an `f32` in tokens per second; 0: not known. Two answers that end at once may lose one sample.
    rate: AtomicU32,
    /// Bits of an `f32`.
    relative_rate: AtomicU32,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            requests: AtomicU64::new(0),
            queued_prefill: AtomicU64::new(0),
            unseen_requests: AtomicU64::new(0),
            unseen: Mutex::default(),
            rate: AtomicU32::new(0),
            relative_rate: AtomicU32::new(1.0_f32.to_bits()),
        }
    }
}

/// Whether the end of a prompt's prefill will be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstToken {
    /// The answer is streamed.
    Seen,
    /// It comes as a whole.
    Unseen,
}

impl Load {
    /// Requests in flight.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Prompt tokens that are not read yet, as far as is known.
    #[must_use]
    pub fn queued_prefill_tokens(&self, now: Instant) -> u64 {
        let unseen = match self.unseen_requests.load(Ordering::Relaxed) {
            0 => 0,
            _ => self.unseen.lock().left(now, self.rate_believed()),
        };
        self.queued_prefill.load(Ordering::Relaxed) + unseen
    }

    /// Tokens of prompts it reads in a second, once that was learned.
    #[must_use]
    pub fn prefill_rate(&self) -> Option<f32> {
        match self.rate.load(Ordering::Relaxed) {
            0 => None,
            bits => Some(f32::from_bits(bits)),
        }
    }

    /// How fast it reads prompts, 1 for the mean of its model.
    #[must_use]
    pub fn relative_prefill_rate(&self) -> f32 {
        f32::from_bits(self.relative_rate.load(Ordering::Relaxed))
    }

    /// It was compared with the others.
    pub fn set_relative_prefill_rate(&self, rate: f32) {
        self.relative_rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn learn(&self, sample: Sample) {
        if let Some(rate) = rate::learn(self.prefill_rate(), sample) {
            self.rate.store(rate.to_bits(), Ordering::Relaxed);
        }
    }

    /// Another process answers there now: its pace is not known.
    pub fn forget_rate(&self) {
        self.rate.store(0, Ordering::Relaxed);
        self.set_relative_prefill_rate(1.0);
    }

    /// Counts one request with so many uncached prompt tokens until the guard is dropped.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, now: Instant, prefill_tokens: u64, first_token: FirstToken) -> LoadGuard {
        let ahead = self.queued_prefill_tokens(now);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let waiting = match first_token {
            FirstToken::Seen => {
                self.queued_prefill.fetch_add(prefill_tokens, Ordering::Relaxed);
                Waiting::Seen(prefill_tokens)
            }
            FirstToken::Unseen => {
                self.unseen_requests.fetch_add(1, Ordering::Relaxed);
                Waiting::Unseen(self.unseen.lock().enter(now, self.rate_believed(), prefill_tokens))
            }
        };
        LoadGuard { load: Arc::clone(self), ahead, since: now, took: None, waiting }
    }

    fn rate_believed(&self) -> f32 {
        self.prefill_rate().unwrap_or(rate::RATE_FIRST)
    }
}

/// One request's share of a [`Load`]; released exactly once, when dropped.
#[derive(Debug)]
pub struct LoadGuard {
    load: Arc<Load>,
    ahead: u64,
    since: Instant,
    took: Option<Duration>,
    waiting: Waiting,
}

#[derive(Debug)]
enum Waiting {
    Seen(u64),
    Unseen(Place),
    Over,
}

impl LoadGuard {
    /// The prompt is read: nothing of this request waits for prefill any more.
    pub fn prefill_done(&mut self, now: Instant) {
        match std::mem::replace(&mut self.waiting, Waiting::Over) {
            Waiting::Seen(tokens) => {
                self.load.queued_prefill.fetch_sub(tokens, Ordering::Relaxed);
            }
            Waiting::Unseen(place) => {
                self.load.unseen.lock().leave(now, self.load.rate_believed(), place);
                self.load.unseen_requests.fetch_sub(1, Ordering::Relaxed);
            }
            Waiting::Over => return,
        }
        self.took = Some(now.saturating_duration_since(self.since));
    }

    /// The prompt had so many tokens that were not cached: teaches the worker's pace, if it was seen when they were read.
    pub fn learn(&self, own: u64) {
        if let Some(elapsed) = self.took {
            self.load.learn(Sample { own, ahead: self.ahead, elapsed });
        }
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        let is_unanswered = matches!(self.waiting, Waiting::Seen(_));
        self.prefill_done(Clock.now());
        if !is_unanswered || !planted(Fault::UnansweredStayCounted) {
            self.load.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::plant;
    use super::*;
    use crate::base::entropy::Entropy;

    #[test]
    fn field_d5_after_a_hundred_thousand_aborts_every_count_is_zero() {
        let (load, entropy, now) = (Arc::new(Load::default()), Entropy::seeded(5), Clock.now());
        let mut held = Vec::new();
        for _ in 0..100_000 {
            let first_token = if entropy.below(2) == 0 { FirstToken::Seen } else { FirstToken::Unseen };
            let mut guard = load.acquire(now, entropy.next_u64() % 10_000, first_token);
            if entropy.below(2) == 0 {
                guard.prefill_done(now);
            }
            held.push(guard);
            if held.len() > 64 {
                held.swap_remove(entropy.below(held.len()));
            }
        }
        drop(held);
        assert_eq!((load.requests(), load.queued_prefill_tokens(now)), (0, 0));
    }

    #[test]
    fn a_planted_bug_keeps_what_left_before_its_first_token() {
        let (load, now) = (Arc::new(Load::default()), Clock.now());
        plant(Some(Fault::UnansweredStayCounted));
        drop(load.acquire(now, 10, FirstToken::Seen));
        drop(load.acquire(now, 10, FirstToken::Unseen));
        load.acquire(now, 10, FirstToken::Seen).prefill_done(now);
        plant(None);
        assert_eq!((load.requests(), load.queued_prefill_tokens(now)), (1, 0));
    }

    #[test]
    fn a_prompt_whose_first_token_nobody_sees_counts_down_and_a_streamed_one_does_not() {
        let (load, now) = (Arc::new(Load::default()), Clock.now());
        load.learn(Sample { own: 1_000, ahead: 0, elapsed: Duration::from_secs(1) });
        let whole = load.acquire(now, 4_000, FirstToken::Unseen);
        let mut stream = load.acquire(now, 500, FirstToken::Seen);
        assert_eq!((load.queued_prefill_tokens(now), stream.ahead), (4_500, 4_000));
        assert_eq!(load.queued_prefill_tokens(now + Duration::from_secs(3)), 1_500);
        assert_eq!(load.queued_prefill_tokens(now + Duration::from_secs(60)), 500);
        stream.prefill_done(now + Duration::from_secs(2));
        stream.learn(4_500);
        assert_eq!(load.prefill_rate(), Some(1_406.25), "8,500 tokens in two seconds move what was known");
        drop(whole);
        assert_eq!((load.requests(), load.queued_prefill_tokens(now)), (1, 0));
    }
}
