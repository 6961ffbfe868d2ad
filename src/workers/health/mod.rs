//! Whether a worker may be given a request: probes, own evidence, breaker, backpressure and the word of other nodes in one
//! pure core.
//!
//! Told the time, never asks. What other nodes say ([`Word`]) is a hint that ends with its time: it never undoes own evidence, and an own success
//! makes it weaker. *Invariants:* a 4xx changes nothing; 429 and 503 are a request for a pause, not a failure;
//! the pause ends with its time, or when a request that was sent since then (every worker was out) succeeds, not with one
//! from before; a success since the last probe vetoes a probe that timed out; half-open lets a bounded trickle through.

use std::time::Duration;
use std::time::SystemTime;

use crate::base::clock::Instant;
use crate::observability::labels::label;

/// When a worker is out and when it comes back.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Probes in a row that must fail.
    pub failure_threshold: u32,
    /// Probes in a row that must succeed after that.
    pub success_threshold: u32,
    /// Failed requests within `window` that open the breaker, if they are also half of all of late.
    pub breaker_failures: u32,
    /// The breaker's window.
    pub breaker_window: Duration,
    /// How long the breaker stays open before a trickle is let through.
    pub breaker_open: Duration,
    /// Longest pause a worker may ask for.
    pub pause_max: Duration,
    /// An own success counts against other nodes' word for so long.
    pub memory: Duration,
}

/// What other nodes say of a worker, each until when it counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Several of them cannot reach it.
    pub doubted_until: Option<Instant>,
    /// One of them can, and not enough of them cannot.
    pub vouched_until: Option<Instant>,
}

/// What this node knows by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// Whether it holds the worker for away.
    pub is_down: bool,
    /// How the last probe ended, once there was one.
    pub last: Option<Probe>,
    /// Probes that failed since one succeeded.
    pub failures: u32,
    /// When a request or a probe last succeeded.
    pub succeeded: Option<Instant>,
}

/// How one request to the worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A 2xx or 3xx answer.
    Success,
    /// A 4xx: the client's business.
    Neutral,
    /// 5xx, lost, or no answer in time.
    Failure,
    /// No connection: counts at once.
    Unreachable,
    /// 429 or 503, with what the worker asked for.
    Busy(Option<Duration>),
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answered well.
    Ok,
    /// It answered badly or refused.
    Failed,
    /// It did not answer in time: busy, perhaps.
    TimedOut,
}

label! {
    /// What an operator sees.
    pub enum State {
        /// Not probed yet.
        Pending = "pending",
        /// Takes requests.
        Ready = "ready",
        /// Asked for a pause.
        Paused = "paused",
        /// The breaker is open.
        Tripped = "tripped",
        /// Probes or own evidence say it is away.
        NotReady = "not_ready",
        /// An operator lets it finish what it has.
        Draining = "draining",
    }
}

label! {
    /// The circuit breaker.
    pub enum Breaker {
        /// Requests go through.
        Closed = "closed",
        /// None does.
        Open = "open",
        /// A trickle does; how it fares decides.
        HalfOpen = "half_open",
    }
}

/// The core.
#[derive(Clone, Debug)]
pub struct Health {
    rules: Rules,
    last_probe: Option<Probe>,
    is_down: bool,
    succeeded: Option<Instant>,
    word: Word,
    probes_failed: u32,
    probes_ok: u32,
    success_since_probe: bool,
    /// When it last asked for a pause.
    busy_at: Option<Instant>,
    paused_until: Option<Instant>,
    window_start: Option<Instant>,
    successes: u32,
    failures: u32,
    /// When the breaker opened, and until when. A request sent before says nothing new.
    open: Option<(Instant, Instant)>,
    trickle_at: Option<Instant>,
    /// What was last told of the breaker, and of being down.
    told: (Breaker, bool),
}

/// What somebody on call wants to read of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The breaker, before and after.
    pub breaker: Option<(Breaker, Breaker)>,
    /// Whether it is away now, and was not.
    pub went_away: bool,
}

/// Half-open: at most one request each so often.
const TRICKLE: Duration = Duration::from_millis(500);

impl Health {
    /// Unknown until probed or used; requests are let through meanwhile.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            last_probe: None,
            is_down: false,
            succeeded: None,
            word: Word::default(),
            probes_failed: 0,
            probes_ok: 0,
            success_since_probe: false,
            busy_at: None,
            paused_until: None,
            window_start: None,
            successes: 0,
            failures: 0,
            open: None,
            trickle_at: None,
            told: (Breaker::Closed, false),
        }
    }

    /// The breaker now.
    #[must_use]
    pub fn breaker(&self, now: Instant) -> Breaker {
        match self.open {
            None => Breaker::Closed,
            Some((_, until)) if now < until => Breaker::Open,
            Some(_) => Breaker::HalfOpen,
        }
    }

    /// What changed since this was last asked. Time alone makes the breaker half open, which is told when the next request
    /// is sent or ends.
    pub fn changes(&mut self, now: Instant) -> Changes {
        let after = (self.breaker(now), self.is_away(now));
        let before = std::mem::replace(&mut self.told, after);
        let breaker = (before.0 != after.0).then_some((before.0, after.0));
        Changes { breaker, went_away: after.1 && !before.1 }
    }

    /// What to show, and whether requests may go there ([`State::Ready`] and [`State::Pending`]).
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        if self.is_away(now) {
            State::NotReady
        } else if self.open.is_some_and(|(_, until)| now < until || self.trickle_at.is_some_and(|it| now < it)) {
            State::Tripped
        } else if self.paused_until.is_some_and(|until| now < until) {
            State::Paused
        } else if self.last_probe.is_some() || self.success_since_probe || is_ahead(self.word.vouched_until, now) {
            State::Ready
        } else {
            State::Pending
        }
    }

    /// Whether it should be chosen only when no other can be: other nodes cannot reach it, though this one could lately.
    #[must_use]
    pub fn is_suspect(&self, now: Instant) -> bool {
        is_ahead(self.word.doubted_until, now) && self.succeeded_lately(now)
    }

    fn is_away(&self, now: Instant) -> bool {
        self.is_down || (is_ahead(self.word.doubted_until, now) && !self.succeeded_lately(now))
    }

    fn succeeded_lately(&self, now: Instant) -> bool {
        self.succeeded.is_some_and(|at| now.saturating_duration_since(at) < self.rules.memory)
    }

    /// Other nodes say this now.
    pub fn heard(&mut self, word: Word) {
        self.word = word;
    }

    /// Whether this node should probe it now. One that is to watch it does in its turn, and each time while it is away; another one only while
    /// it holds the worker for away and nobody says the same.
    #[must_use]
    pub fn wants_look(&self, now: Instant, is_mine: bool, is_turn: bool) -> bool {
        if is_mine { is_turn || self.is_down } else { self.is_down && !is_ahead(self.word.doubted_until, now) }
    }

    /// What this node knows by itself.
    #[must_use]
    pub fn own(&self) -> Own {
        let Self { is_down, last_probe: last, probes_failed: failures, succeeded, .. } = *self;
        Own { is_down, last, failures, succeeded }
    }

    /// How long the worker wants to be left alone.
    #[must_use]
    pub fn pause_left(&self, now: Instant) -> Option<Duration> {
        self.paused_until.map(|until| until.saturating_duration_since(now)).filter(|it| !it.is_zero())
    }

    /// A request was sent; in half-open state this uses up the trickle.
    pub fn sent(&mut self, now: Instant) {
        if self.breaker(now) == Breaker::HalfOpen {
            self.trickle_at = Some(now + TRICKLE);
        }
    }

    /// A request ended that was sent then. One sent before the breaker opened, or before a pause was asked for, may end long
    /// after it, and changes nothing of it.
    pub fn ended(&mut self, now: Instant, sent: Instant, outcome: Outcome) {
        let is_news = self.open.is_none_or(|(opened, _)| sent > opened);
        match outcome {
            Outcome::Neutral => {}
            Outcome::Success => {
                self.succeeded = Some(now);
                self.success_since_probe = true;
                self.is_down = false;
                self.probes_failed = 0;
                if self.busy_at.is_some_and(|busy| sent > busy) {
                    self.paused_until = None;
                }
                if is_news {
                    if self.open.take().is_some() {
                        self.trickle_at = None;
                        (self.successes, self.failures) = (0, 0);
                    }
                    self.count(now, true);
                }
            }
            Outcome::Failure if is_news => self.count(now, false),
            Outcome::Failure => {}
            Outcome::Unreachable => {
                self.is_down = true;
                self.probes_ok = 0;
            }
            Outcome::Busy(asked) => {
                let pause = asked.unwrap_or(Duration::from_secs(1)).min(self.rules.pause_max);
                self.busy_at = Some(now);
                self.paused_until = self.paused_until.max(Some(now + pause));
            }
        }
    }

    fn count(&mut self, now: Instant, is_success: bool) {
        if self.window_start.is_none_or(|start| now.saturating_duration_since(start) > self.rules.breaker_window) {
            self.window_start = Some(now);
            (self.successes, self.failures) = (0, 0);
        }
        if is_success {
            self.successes += 1;
            // What a busy worker did right a while ago does not weigh against what it does now: of successes as many are remembered as failures open the breaker.
            if self.successes > self.rules.breaker_failures {
                (self.successes, self.failures) = (self.successes / 2, self.failures / 2);
            }
            return;
        }
        self.failures += 1;
        let was_open = self.open.is_some();
        let over = self.failures >= self.rules.breaker_failures && self.failures >= self.successes;
        if was_open || over {
            self.open = Some((now, now + self.rules.breaker_open));
            self.trickle_at = None;
        }
    }

    /// A probe ended. Returns whether the worker came back with it.
    pub fn probed(&mut self, now: Instant, probe: Probe) -> bool {
        let vetoed = std::mem::take(&mut self.success_since_probe) && probe == Probe::TimedOut;
        // One bad answer takes out a worker of which nothing good is known.
        let is_first = self.last_probe.is_none() && !is_ahead(self.word.vouched_until, now);
        self.last_probe = Some(if vetoed { Probe::Ok } else { probe });
        match probe {
            Probe::Ok => {
                self.succeeded = Some(now);
                self.probes_failed = 0;
                self.probes_ok += 1;
                let needed = if is_first { 1 } else { self.rules.success_threshold };
                if self.is_down && self.probes_ok >= needed {
                    self.is_down = false;
                    return true;
                }
                is_first
            }
            Probe::TimedOut if vetoed => false,
            Probe::Failed | Probe::TimedOut => {
                self.probes_ok = 0;
                self.probes_failed += 1;
                self.is_down |= is_first || self.probes_failed >= self.rules.failure_threshold;
                false
            }
        }
    }
}

fn is_ahead(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|it| now < it)
}

/// Reads a `Retry-After`: seconds, or a date. A date is compared with the answer's own `Date` where it has one, so that two
/// clocks need not agree; `wall` is ours, since the epoch. A date that is past means no pause.
#[must_use]
pub fn pause(retry_after: &str, date: Option<&str>, wall: Duration) -> Option<Duration> {
    if let Ok(seconds) = retry_after.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(retry_after.trim()).ok()?;
    let theirs = date.and_then(|it| httpdate::parse_http_date(it.trim()).ok());
    let now = theirs.unwrap_or(SystemTime::UNIX_EPOCH + wall);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
