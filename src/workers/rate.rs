//! How fast a worker reads prompts, learned from times to first token, and what is left of prompts whose first token nobody
//! sees. Pure: told the time, never asks.
//!
//! A sample is tokens over time: those of the prompt that were not cached, and those that were ahead of it here. Samples
//! in which more was ahead than in the prompt itself are left out: how much of that was read already is not known.
//! What a worker does for others (decoding, other nodes) makes it slower, and so it should.

use std::time::Duration;

use crate::base::clock::Instant;

/// Shorter prompts say more of the network than of the worker.
const SAMPLE_TOKENS_MIN: u64 = 128;
/// One sample's weight: a change of pace is learned from about ten answers, one odd answer moves little.
const SAMPLE_WEIGHT: f32 = 1.0 / 8.0;
/// Believed of a worker of which nothing is known, in tokens per second: a middling model on one current GPU. Smaller
/// would let silent requests count as queued for too long, larger for too short.
pub const RATE_FIRST: f32 = 8_000.0;
/// Rates beyond these are mistakes of measurement.
const RATES: std::ops::RangeInclusive<f32> = 1.0..=10_000_000.0;
/// A worker counts as at most so many times faster or slower than the mean of its model, whatever was measured.
const RELATIVE_MAX: f32 = 8.0;

/// One time to first token.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Tokens of the prompt that were not cached.
    pub own: u64,
    /// Tokens that were queued ahead of it.
    pub ahead: u64,
    /// From the request to the first content.
    pub elapsed: Duration,
}

/// The rate after one more sample, in tokens per second. `None`: still not known.
#[must_use]
pub fn learn(known: Option<f32>, sample: Sample) -> Option<f32> {
    if sample.own < SAMPLE_TOKENS_MIN || sample.ahead > sample.own || sample.elapsed.is_zero() {
        return known;
    }
    let rate = (sample.own + sample.ahead) as f32 / sample.elapsed.as_secs_f32();
    if !RATES.contains(&rate) {
        return known;
    }
    Some(known.map_or(rate, |known| known + (rate - known) * SAMPLE_WEIGHT))
}

/// Each rate relative to the mean of those that are known; 1 for the others, and where there is nothing to compare.
pub fn relative(rates: &[Option<f32>]) -> impl Iterator<Item = f32> + '_ {
    let known = rates.iter().flatten();
    let (sum, count) = known.fold((0.0, 0u32), |(sum, count), rate| (sum + rate, count + 1));
    let mean = sum / count.max(1) as f32;
    let relate = move |rate: &Option<f32>| match rate {
        Some(rate) if mean > 0.0 => (rate / mean).clamp(1.0 / RELATIVE_MAX, RELATIVE_MAX),
        Some(_) | None => 1.0,
    };
    rates.iter().map(relate)
}

/// Prompts whose first token nobody sees: read one after the other at the worker's rate, as far as can be told.
///
/// Counted in tokens since the beginning, so that a prompt that ends early gives back just what was left of it.
#[derive(Debug, Default)]
pub struct Unseen {
    added: f64,
    read: f64,
    at: Option<Instant>,
    requests: u64,
}

/// One prompt's place among the others.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    from: f64,
    until: f64,
}

impl Unseen {
    /// Tokens that are believed not to be read yet.
    pub fn left(&mut self, now: Instant, rate: f32) -> u64 {
        let elapsed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(now.max(self.at.unwrap_or(now)));
        self.read = (self.read + elapsed.as_secs_f64() * f64::from(rate)).min(self.added);
        (self.added - self.read) as u64
    }

    /// One more prompt.
    pub fn enter(&mut self, now: Instant, rate: f32, tokens: u64) -> Place {
        let _ = self.left(now, rate); // brought up to now
        let from = self.added;
        self.added += tokens as f64;
        self.requests += 1;
        Place { from, until: self.added }
    }

    /// A prompt's request ended: none of it waits any longer.
    pub fn leave(&mut self, now: Instant, rate: f32, place: Place) {
        let _ = self.left(now, rate); // brought up to now
        self.read += (place.until - self.read.max(place.from)).max(0.0);
        self.requests -= 1;
        if self.requests == 0 {
            // Idle is exactly zero, whatever was rounded before.
            (self.added, self.read) = (0.0, 0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(own: u64, ahead: u64, millis: u64) -> Sample {
        Sample { own, ahead, elapsed: Duration::from_millis(millis) }
    }

    #[test]
    fn a_rate_is_learned_from_long_prompts_with_little_ahead() {
        assert_eq!(learn(None, sample(10_000, 0, 1_000)), Some(10_000.0));
        assert_eq!(learn(None, sample(10_000, 10_000, 1_000)), Some(20_000.0), "what was ahead was read too");
        for useless in [sample(100, 0, 1_000), sample(1_000, 1_001, 1_000), sample(1_000, 0, 0)] {
            assert_eq!(learn(None, useless), None);
            assert_eq!(learn(Some(7.0), useless), Some(7.0));
        }
    }

    #[test]
    fn a_change_of_pace_is_learned_and_one_odd_answer_moves_little() {
        let odd = learn(Some(10_000.0), sample(1_000, 0, 1_000)).expect("known");
        assert!((8_500.0..10_000.0).contains(&odd), "{odd}");
        let mut slow = 10_000.0;
        for _ in 0..30 {
            slow = learn(Some(slow), sample(2_000, 0, 1_000)).expect("known");
        }
        assert!((2_000.0..2_500.0).contains(&slow), "{slow}");
    }

    #[test]
    fn rates_are_relative_to_the_mean_of_those_that_are_known() {
        let of = |rates: &[Option<f32>]| relative(rates).collect::<Vec<_>>();
        assert_eq!(of(&[Some(3_000.0), None, Some(1_000.0)]), [1.5, 1.0, 0.5]);
        assert_eq!(of(&[None, None]), [1.0, 1.0]);
        assert_eq!(of(&[Some(5.0)]), [1.0]);
        let extreme = of(&[Some(1.0), Some(1_000_000.0)]);
        assert!(extreme.iter().all(|it| (1.0 / RELATIVE_MAX..=RELATIVE_MAX).contains(it)), "{extreme:?}");
    }

    #[test]
    fn what_nobody_sees_is_read_at_the_workers_rate() {
        let (mut unseen, now) = (Unseen::default(), Instant::now());
        let first = unseen.enter(now, 1_000.0, 4_000);
        assert_eq!(unseen.left(now, 1_000.0), 4_000);
        let later = now + Duration::from_secs(3);
        assert_eq!(unseen.left(later, 1_000.0), 1_000);
        let second = unseen.enter(later, 1_000.0, 2_000);
        assert_eq!(unseen.left(later, 1_000.0), 3_000);
        unseen.leave(later, 1_000.0, second);
        assert_eq!(unseen.left(later, 1_000.0), 1_000, "it gives back what was left of it and no more");
        let long_after = later + Duration::from_secs(60);
        assert_eq!(unseen.left(long_after, 1_000.0), 0, "never below zero");
        unseen.leave(long_after, 1_000.0, first);
        assert_eq!((unseen.added, unseen.read, unseen.requests), (0.0, 0.0, 0));
    }

    #[test]
    fn a_request_that_ends_before_it_was_read_takes_its_tokens_with_it() {
        let (mut unseen, now) = (Unseen::default(), Instant::now());
        let (first, second) = (unseen.enter(now, 1_000.0, 5_000), unseen.enter(now, 1_000.0, 3_000));
        unseen.leave(now, 1_000.0, first);
        assert_eq!(unseen.left(now, 1_000.0), 3_000);
        unseen.leave(now, 1_000.0, second);
        assert_eq!(unseen.left(now, 1_000.0), 0);
    }
}
