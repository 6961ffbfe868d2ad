//! What all connections of one worker share, and the tickets by which it knows what is in flight.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::HeaderMap;
use http::Method;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::faults::Faults;
use super::meters::Meters;
use super::options::Options;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::lab::engine::core::Gauges;
use crate::lab::engine::driver::Engine;

/// Requests remembered for tests.
const RECORDED_MAX: usize = 32;

/// Longer bodies are not remembered: 32 of them must not hold gigabytes.
const RECORDED_BYTES_MAX: usize = 1 << 20;

/// `created` of every answer: a fixed moment, so that the same seed gives the same bytes.
pub(super) const CREATED: u64 = 1_700_000_000;

/// A request as the worker saw it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body; empty when it was longer than a mebibyte.
    pub body: Bytes,
    /// The connection it came on, counted from 1.
    pub connection: u64,
}

/// The worker's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Being prefilled or decoding (without delays: being answered).
    pub running: u64,
    /// Not yet admitted.
    pub waiting: u64,
    /// Given up by their client before the end.
    pub aborted: u64,
    /// Requests to anything but `/sim/*`, probes included.
    pub requests: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Of those, still open.
    pub connections_open: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Prompt tokens of all answers.
    pub prompt_tokens: u64,
    /// Of those, found in the cache.
    pub cached_tokens: u64,
    /// Tokens of all answers.
    pub generation_tokens: u64,
}

/// Everything the connections share.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) is_instant: bool,
    pub(super) engine: Engine,
    pub(super) meters: Meters,
    pub(super) faults: Faults,
    pub(super) clock: Clock,
    /// Until when the port is closed.
    pub(super) closed_until: watch::Sender<Option<Instant>>,
    recorded: Mutex<VecDeque<Recorded>>,
    answers: AtomicU64,
}

impl Shared {
    pub(super) fn new(options: Options, engine: Engine) -> Self {
        Self {
            is_instant: options.is_instant(),
            meters: Meters { started: Clock.wall().as_secs_f64(), ..Meters::default() },
            faults: Faults::new(options.seed),
            clock: Clock,
            closed_until: watch::channel(None).0,
            recorded: Mutex::default(),
            answers: AtomicU64::new(0),
            options,
            engine,
        }
    }

    /// The next answer's id: from the seed and how many there were.
    pub(super) fn next_id(&self) -> u64 {
        let number = self.answers.fetch_add(1, Relaxed) + 1;
        xxhash_rust::xxh3::xxh3_64_with_seed(&number.to_le_bytes(), self.options.seed)
    }

    pub(super) fn record(&self, request: Recorded) {
        let mut recorded = self.recorded.lock();
        if recorded.len() >= RECORDED_MAX {
            recorded.pop_front();
        }
        let body = if request.body.len() > RECORDED_BYTES_MAX { Bytes::new() } else { request.body };
        recorded.push_back(Recorded { body, ..request });
    }

    pub(super) fn recorded(&self) -> Vec<Recorded> {
        self.recorded.lock().iter().cloned().collect()
    }

    /// The engine's gauges; without a model of time, what is being answered is what runs.
    pub(super) fn gauges(&self) -> Gauges {
        let gauges = self.engine.gauges();
        let in_flight = self.meters.in_flight.load(Relaxed) as usize;
        if self.is_instant { Gauges { running: in_flight, ..gauges } } else { gauges }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let gauges = self.gauges();
        let load = |it: &AtomicU64| it.load(Relaxed);
        Snapshot {
            running: gauges.running as u64,
            waiting: gauges.waiting as u64,
            aborted: load(&self.meters.aborts),
            requests: load(&self.meters.requests),
            connections: load(&self.meters.connections),
            connections_open: load(&self.meters.connections_open),
            faults: load(&self.meters.faults),
            prompt_tokens: load(&self.meters.prompt_tokens),
            cached_tokens: gauges.cache_hits,
            generation_tokens: load(&self.meters.generation_tokens),
        }
    }
}

/// One request in flight. Dropped before [`Ticket::done`], it counts as aborted by its client.
pub(super) struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) started: Instant,
    is_done: bool,
}

impl Ticket {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.meters.in_flight.fetch_add(1, Relaxed);
        Self { shared: Arc::clone(shared), started: shared.clock.now(), is_done: false }
    }

    /// The answer is complete, or was never the client's to abort.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shared.meters.in_flight.fetch_sub(1, Relaxed);
        if !self.is_done {
            self.shared.meters.aborts.fetch_add(1, Relaxed);
        }
    }
}
