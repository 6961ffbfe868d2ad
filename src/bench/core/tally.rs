//! What came of the requests: counts, errors by kind, and histograms of bounded size.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection was had.
    Connect,
    /// The connection ended before the answer did.
    Closed,
    /// Not answered in time.
    Timeout,
    /// The answer was not HTTP.
    Malformed,
    /// An answer other than 2xx.
    Status(u16),
    /// An error event in a stream.
    ErrorEvent,
    /// A stream that ended without `[DONE]`.
    NotDone,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect => f.write_str("cannot connect"),
            Self::Closed => f.write_str("connection closed early"),
            Self::Timeout => f.write_str("timed out"),
            Self::Malformed => f.write_str("malformed answer"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::ErrorEvent => f.write_str("error event in a stream"),
            Self::NotDone => f.write_str("stream without [DONE]"),
        }
    }
}

/// Times with three digits, from 64 ns to an hour; longer ones count as an hour. About 250 KB whatever is recorded.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

const NANOS_MIN: u64 = 64;
const NANOS_MAX: u64 = 3_600_000_000_000;

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, 3).expect("the bounds are sound"))
    }
}

impl Times {
    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        self.record_many(time, 1);
    }

    /// Counts `count` equal ones.
    pub fn record_many(&mut self, time: Duration, count: u64) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(NANOS_MAX);
        self.0.saturating_record_n(nanos, count);
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that `share` of all do not exceed, in microseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }

    /// The mean, in microseconds.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, so it cannot fail.
        let _ = self.0.add(&other.0);
    }
}

/// One request that was answered as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// From when it was due to its end.
    pub latency: Duration,
    /// From when it was due to the first text; `None` for an answer that is not a stream.
    pub first_token: Option<Duration>,
    /// Events of its stream.
    pub events: u64,
    /// Bytes of its body.
    pub bytes: u64,
}

/// The counts of one thread, or of all.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests answered as they should be.
    pub ok: u64,
    /// The others.
    pub failed: BTreeMap<Failure, u64>,
    /// Events of streams.
    pub events: u64,
    /// Bytes of bodies.
    pub bytes: u64,
    /// From when a request was due to its end.
    pub latency: Times,
    /// From when a request was due to the first text of its stream.
    pub first_token: Times,
    /// Between one text of a stream and the next.
    pub between_tokens: Times,
    /// How much later than due requests were sent: a free connection was missing, or the generator was slow.
    pub late: Times,
}

impl Tally {
    /// Counts an answer.
    pub fn answered(&mut self, it: &Answered) {
        self.ok += 1;
        self.events += it.events;
        self.bytes += it.bytes;
        self.latency.record(it.latency);
        if let Some(first) = it.first_token {
            self.first_token.record(first);
        }
    }

    /// Counts a failure.
    pub fn failed(&mut self, failure: Failure) {
        *self.failed.entry(failure).or_default() += 1;
    }

    /// How many requests were counted.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.ok + self.failed.values().sum::<u64>()
    }

    /// Adds the counts of another thread.
    pub fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.events += other.events;
        self.bytes += other.bytes;
        for (failure, count) in &other.failed {
            *self.failed.entry(*failure).or_default() += count;
        }
        self.latency.add(&other.latency);
        self.first_token.add(&other.first_token);
        self.between_tokens.add(&other.between_tokens);
        self.late.add(&other.late);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_three_digits_and_never_overflow() {
        let mut times = Times::default();
        for micros in 1..=1000 {
            times.record(Duration::from_micros(micros));
        }
        assert!((times.quantile(0.5) - 500.0).abs() < 1.0, "{}", times.quantile(0.5));
        times.record(Duration::from_secs(1 << 40));
        assert!((times.quantile(1.0) / 3.6e9 - 1.0).abs() < 0.01, "{}", times.quantile(1.0));
        assert_eq!(times.count(), 1001);
    }

    #[test]
    fn the_tally_of_all_is_the_sum_of_its_threads() {
        let mut all = Tally::default();
        for n in 1..=3 {
            let mut one = Tally::default();
            one.answered(&Answered {
                latency: Duration::from_millis(n),
                first_token: Some(Duration::from_millis(1)),
                events: 4,
                bytes: 10,
            });
            one.failed(Failure::Status(503));
            all.add(&one);
        }
        assert_eq!((all.ok, all.requests(), all.events, all.bytes), (3, 6, 12, 30));
        assert_eq!((all.latency.count(), all.first_token.count()), (3, 3));
        assert_eq!(all.failed, BTreeMap::from([(Failure::Status(503), 3)]));
    }
}
