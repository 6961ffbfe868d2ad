//! What follows a failed attempt: another one elsewhere, or the failure goes to the client.
//!
//! Pure: the time and a random number are given. *Invariants:* nothing is retried once content was sent (P6); retries
//! stay within the budget, so that an overload is not multiplied. Absent: which worker is next (the router's choice,
//! never a tried one) and what the failure means for a worker's health (its breaker's, by [`Outcome::class`]).

use std::time::Duration;

use crate::base::clock::Instant;
use crate::observability::labels::label;
use crate::routing::config::Config;
use crate::routing::faults::Fault;
use crate::routing::faults::planted;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The worker answered with this status.
    Status {
        /// HTTP status.
        code: u16,
        /// Its `Retry-After`, as a duration.
        retry_after: Option<Duration>,
    },
    /// No connection: refused, unreachable, TLS, or not in time. The worker never saw the request.
    NotConnected,
    /// No response head in time.
    FirstByteTimeout,
    /// The connection or the stream ended early, stalled, or carried an error event.
    Lost,
    /// What came back is not HTTP or not the dialect.
    Malformed,
}

label! {
    /// What an outcome says about the worker.
    pub enum Class {
        /// It works.
        Served = "served",
        /// The request is to blame (or a status that says nothing): neither for nor against the worker.
        Neutral = "neutral",
        /// It works but has no room: 429, 503, 529.
        Backpressure = "backpressure",
        /// It failed.
        Failed = "failed",
        /// It could not be reached.
        Unreachable = "unreachable",
    }
}

impl Outcome {
    /// See [`Class`].
    #[must_use]
    pub fn class(self) -> Class {
        match self {
            Self::Status { code: 200..300, .. } => Class::Served,
            Self::Status { code: 429 | 503 | 529, .. } => Class::Backpressure,
            Self::Status { code: 500 | 502 | 504, .. } => Class::Failed,
            Self::Status { .. } => Class::Neutral,
            Self::NotConnected => Class::Unreachable,
            Self::FirstByteTimeout | Self::Lost | Self::Malformed => Class::Failed,
        }
    }
}

/// A failed attempt and where its request stands.
#[derive(Clone, Copy, Debug)]
pub struct Failure {
    /// How it ended.
    pub outcome: Outcome,
    /// Attempts made, this one included.
    pub attempts: u32,
    /// Workers of the model that were not tried yet.
    pub untried: usize,
    /// Whether the client was sent any content: a retry would be seen.
    pub is_content_sent: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Choose again, after this pause.
    Retry {
        /// The pause; may be zero.
        after: Duration,
    },
    /// Pass the failure on.
    GiveUp(GiveUp),
}

label! {
    /// Why a failure is passed on.
    pub enum GiveUp {
        /// Another worker would answer the same.
        Pointless = "pointless",
        /// The client has seen content of this attempt.
        ContentSent = "content_sent",
        /// The configuration says so.
        Disabled = "disabled",
        /// Attempts are used up.
        AttemptsSpent = "attempts_spent",
        /// No worker is left to try.
        NoWorkerLeft = "no_worker_left",
        /// Too many retries lately.
        BudgetSpent = "budget_spent",
    }
}

/// Decides; takes from the budget when it says retry. `unit` is a random number in `[0, 1)`.
pub fn decide(config: &Config, budget: &mut Budget, now: Instant, failure: Failure, unit: f64) -> Verdict {
    let why_not = match failure.outcome.class() {
        _ if failure.is_content_sent => Some(GiveUp::ContentSent),
        Class::Served | Class::Neutral => Some(GiveUp::Pointless),
        Class::Backpressure if planted(Fault::BusyIsPassedOn) => Some(GiveUp::Pointless),
        Class::Failed if failure.outcome == Outcome::Malformed && planted(Fault::GarbageIsPassedOn) => {
            Some(GiveUp::Pointless)
        }
        _ if config.disable_retries => Some(GiveUp::Disabled),
        _ if failure.attempts >= config.retry_max_attempts => Some(GiveUp::AttemptsSpent),
        _ if failure.untried == 0 => Some(GiveUp::NoWorkerLeft),
        _ if !budget.take(now) => Some(GiveUp::BudgetSpent),
        Class::Backpressure | Class::Failed | Class::Unreachable => None,
    };
    why_not.map_or_else(|| Verdict::Retry { after: pause(config, failure, unit) }, Verdict::GiveUp)
}

/// Exponential with jitter. The first retry after a failed connection goes at once: nothing is overloaded by it. A
/// Retry-After speaks of the worker that sent it, not of the next one, so only a short one is waited for.
fn pause(config: &Config, failure: Failure, unit: f64) -> Duration {
    if failure.attempts <= 1 && failure.outcome == Outcome::NotConnected {
        return Duration::ZERO;
    }
    let doublings = failure.attempts.saturating_sub(1).min(16);
    let backoff = config.retry_initial_backoff.saturating_mul(1 << doublings).min(config.retry_max_backoff);
    let jittered = backoff.mul_f64(0.5 + unit.clamp(0.0, 1.0) / 2.0);
    match failure.outcome {
        Outcome::Status { retry_after: Some(wish), .. } if wish <= config.retry_max_backoff => jittered.max(wish),
        _ => jittered,
    }
}

/// Thousandths of a retry.
const RETRY: u64 = 1000;
/// Retries that can be saved up, and are there at the start: each request that a worker had when it died takes one, so fewer would fail clients of a quiet node. More would let one outage use an hour's budget.
const SAVED_MAX: u64 = 100 * RETRY;
/// Retries that time alone gives back in a second: without them a quiet node could never retry. More would multiply an overload of a small fleet.
const GIVEN: u64 = 5 * RETRY;

/// A token bucket filled by requests, and slowly by time.
#[derive(Debug)]
pub struct Budget {
    per_request: u64,
    saved: u64,
    filled_at: Option<Instant>,
}

impl Budget {
    /// A full one.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { per_request: u64::from(percent.min(100)) * RETRY / 100, saved: SAVED_MAX, filled_at: None }
    }

    /// A new request came (not a retry).
    pub fn request(&mut self) {
        self.saved = (self.saved + self.per_request).min(SAVED_MAX);
    }

    /// Whole retries that could be taken at once.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.saved / RETRY
    }

    /// Takes one retry, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = self.filled_at.replace(now).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let given = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(GIVEN) / 1000;
        self.saved = self.saved.saturating_add(given).min(SAVED_MAX);
        let has_one = self.saved >= RETRY;
        if has_one {
            self.saved -= RETRY;
        }
        has_one
    }
}

#[cfg(test)]
mod tests;
