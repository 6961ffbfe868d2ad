//! Which request is sent when: the schedule of a run, drawn from its seed.
//!
//! A connection takes the next arrival that is due and sends it. When all connections are busy the arrival waits with the
//! schedule, and what it waited counts as its latency: the load does not adapt to a slow server.

use std::time::Duration;

use super::prompt::Run;
use super::prompt::unit;
use crate::bench::options::Arrivals;
use crate::bench::options::Options;

/// One request to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When, counted from the start of the run; `None`: as soon as a connection is free.
    pub due: Option<Duration>,
    /// Its prompt.
    pub prompt: Vec<Run>,
    /// `max_tokens`; 0 leaves it out.
    pub max_tokens: u64,
}

/// Key space of the part that all prompts share, and of the part that none does.
const SHARED: u64 = 1;
const OWN: u64 = 2;

/// Hands out the arrivals of a run, in order.
pub struct Plan {
    source: Source,
    left: Option<u64>,
    until: Option<Duration>,
}

enum Source {
    Made(Synthetic),
    Trace(std::vec::IntoIter<Arrival>),
}

impl Plan {
    /// A synthetic load.
    #[must_use]
    pub fn synthetic(options: &Options) -> Self {
        Self::of(Source::Made(Synthetic::new(options)), options)
    }

    /// A recorded load, in order of time.
    #[must_use]
    pub fn trace(arrivals: Vec<Arrival>, options: &Options) -> Self {
        Self::of(Source::Trace(arrivals.into_iter()), options)
    }

    fn of(source: Source, options: &Options) -> Self {
        let left = (options.requests > 0).then_some(options.requests);
        Self { source, left, until: options.sending_time() }
    }

    /// How many arrivals there are, if that is known.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        match &self.source {
            Source::Made(_) => self.left,
            Source::Trace(rest) => Some(self.left.unwrap_or(u64::MAX).min(rest.len() as u64)),
        }
    }

    /// The next arrival, `now` after the start; `None` when the run is over.
    pub fn next(&mut self, now: Duration) -> Option<Arrival> {
        if self.left == Some(0) {
            return None;
        }
        let arrival = match &mut self.source {
            Source::Made(made) => made.next(),
            Source::Trace(rest) => rest.next()?,
        };
        if self.until.is_some_and(|until| until <= arrival.due.unwrap_or(now)) {
            self.left = Some(0);
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(arrival)
    }
}

struct Synthetic {
    rate: f64,
    arrivals: Arrivals,
    draws: u64,
    seed: u64,
    sent: u64,
    at: f64,
    shared: u32,
    own: u32,
    max_tokens: u64,
}

impl Synthetic {
    fn new(options: &Options) -> Self {
        let size = options.prompt_size.0;
        let shared = options.shared_prefix.0.min(size);
        let narrow = |it: usize| u32::try_from(it).unwrap_or(u32::MAX);
        Self {
            rate: options.rate,
            arrivals: options.arrivals,
            draws: options.seed,
            seed: options.seed,
            sent: 0,
            at: 0.0,
            shared: narrow(shared),
            own: narrow(size - shared),
            max_tokens: options.max_tokens,
        }
    }

    fn next(&mut self) -> Arrival {
        let due = (self.rate > 0.0).then(|| {
            self.at += match self.arrivals {
                Arrivals::Fixed => 1.0 / self.rate,
                Arrivals::Poisson => -(1.0 - unit(&mut self.draws)).ln() / self.rate,
            };
            Duration::from_secs_f64(self.at)
        });
        // The seed is in the key, so that two runs against one server do not repeat each other.
        let own = (self.seed << 40) ^ self.sent;
        self.sent += 1;
        let runs = [
            Run { space: SHARED, first: self.seed, count: 1, bytes: self.shared },
            Run { space: OWN, first: own, count: 1, bytes: self.own },
        ];
        let prompt = runs.into_iter().filter(|run| run.bytes > 0).collect();
        Arrival { due, prompt, max_tokens: self.max_tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::setting::ByteSize;

    fn all(options: &Options) -> Vec<Arrival> {
        let mut plan = Plan::synthetic(options);
        std::iter::from_fn(|| plan.next(Duration::ZERO)).collect()
    }

    #[test]
    fn a_rate_is_kept_and_poisson_gaps_spread() {
        for (arrivals, spread) in [(Arrivals::Fixed, 0.0..1e-6), (Arrivals::Poisson, 0.9..1.1)] {
            let due: Vec<f64> = all(&Options { rate: 100.0, arrivals, requests: 20_000, ..Options::default() })
                .iter()
                .map(|it| it.due.expect("a rate has times").as_secs_f64())
                .collect();
            let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
            assert!((mean - 0.01).abs() < 0.0005, "{mean}");
            assert!(spread.contains(&(deviation / mean)), "{}", deviation / mean);
        }
    }

    #[test]
    fn a_run_ends_with_its_count_or_its_time() {
        assert_eq!(all(&Options { requests: 7, ..Options::default() }).len(), 7);
        let second =
            Options { duration: Duration::from_secs(1), rate: 10.0, arrivals: Arrivals::Fixed, ..Options::default() };
        assert_eq!(all(&second).len(), 9);
        let mut closed = Plan::synthetic(&Options::default());
        assert!(closed.next(Duration::from_secs(9)).is_some_and(|it| it.due.is_none()));
        assert!(closed.next(Options::DURATION_UNASKED).is_none());
        assert!(closed.next(Duration::ZERO).is_none(), "over is over");
    }

    #[test]
    fn prompts_share_what_was_asked_and_nothing_else() {
        let options = |seed, shared| Options {
            seed,
            requests: 2,
            prompt_size: ByteSize(100),
            shared_prefix: ByteSize(shared),
            ..Options::default()
        };
        let half = all(&options(1, 60));
        assert_eq!(half[0].prompt[0], half[1].prompt[0]);
        assert_ne!(half[0].prompt[1], half[1].prompt[1]);
        assert_eq!((half[0].prompt[0].bytes, half[0].prompt[1].bytes), (60, 40));
        let (one, other) = (all(&options(1, 0)), all(&options(2, 0)));
        assert!(one.iter().all(|it| it.prompt.len() == 1 && !other.contains(it)));
        let equal = all(&options(1, 1000));
        assert_eq!(equal[0], equal[1]);
    }
}
