//! What clients asked and got, and where the gateway's own time went.

use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::dialects::form::Usage;
use crate::observability::metrics::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    endpoint: &'static str,
    status: u16,
}

/// Parts of a request's time that are the gateway's own, or where it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Stage {
    /// Reading the body.
    Body,
    /// Waiting for admission.
    Queue,
    /// Parsing it.
    Parse,
    /// Choosing a worker.
    Route,
    /// Until the worker's response head.
    Upstream,
    /// From there to the first content.
    FirstByte,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: Stage,
}

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum TokenKind {
    Prompt,
    Completion,
    Cached,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    kind: TokenKind,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum StreamEnd {
    /// Whole.
    Complete,
    /// The worker failed after content was sent.
    WorkerFailed,
    /// The client went away.
    ClientGone,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    end: StreamEnd,
}

/// Counters, gauges and histograms of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<EndpointLabels, Histogram>,
    first_tokens: Family<EndpointLabels, Histogram>,
    between_tokens: Histogram,
    stages: Family<StageLabels, Histogram>,
    tokens: Family<TokenLabels, Counter>,
    stream_ends: Family<EndLabels, Counter>,
    in_flight: Gauge,
    connections: Gauge,
    retries: Counter,
    keep_alives: Counter,
}

fn seconds() -> Histogram {
    let bounds =
        [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 600.0];
    Histogram::new(bounds)
}

fn fine_seconds() -> Histogram {
    Histogram::new([
        0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.005, 0.02, 0.1, 1.0, 10.0,
    ])
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds),
            first_tokens: Family::new_with_constructor(seconds),
            between_tokens: fine_seconds(),
            stages: Family::new_with_constructor(fine_seconds),
            tokens: Family::default(),
            stream_ends: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            retries: Counter::default(),
            keep_alives: Counter::default(),
        };
        registry.register("smg_api_requests", "Requests answered, by endpoint and status", it.requests.clone());
        registry.register(
            "smg_api_request_seconds",
            "From the request's head to the answer's end",
            it.durations.clone(),
        );
        registry.register(
            "smg_api_first_token_seconds",
            "From the request's head to the first content of a stream",
            it.first_tokens.clone(),
        );
        registry.register(
            "smg_api_between_tokens_seconds",
            "Between two pieces of a stream",
            it.between_tokens.clone(),
        );
        registry.register(
            "smg_api_stage_seconds",
            "Where a request's time goes before its first byte",
            it.stages.clone(),
        );
        registry.register("smg_api_tokens", "Tokens as workers report them, by kind", it.tokens.clone());
        registry.register("smg_api_streams", "Streams ended, by how", it.stream_ends.clone());
        registry.register("smg_api_in_flight_requests", "Model requests in flight", it.in_flight.clone());
        registry.register("smg_api_connections", "Client connections open", it.connections.clone());
        registry.register("smg_api_retries", "Attempts after the first", it.retries.clone());
        registry.register("smg_api_keep_alive_comments", "Comments sent into silent streams", it.keep_alives.clone());
        it
    }

    /// A request was answered.
    pub fn answered(&self, endpoint: &'static str, status: StatusCode) {
        self.requests.get_or_create(&RequestLabels { endpoint, status: status.as_u16() }).inc();
    }

    /// An answer ended.
    pub fn ended(&self, endpoint: &'static str, took: Duration) {
        self.durations.get_or_create(&EndpointLabels { endpoint }).observe(took.as_secs_f64());
    }

    /// The first content of a stream came.
    pub fn first_token(&self, endpoint: &'static str, took: Duration) {
        self.first_tokens.get_or_create(&EndpointLabels { endpoint }).observe(took.as_secs_f64());
    }

    /// Another piece of a stream came.
    pub fn next_token(&self, took: Duration) {
        self.between_tokens.observe(took.as_secs_f64());
    }

    /// One part of a request took so long.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.get_or_create(&StageLabels { stage }).observe(took.as_secs_f64());
    }

    /// A worker told what an answer cost.
    pub fn usage(&self, usage: Usage) {
        let told = [
            (TokenKind::Prompt, usage.prompt),
            (TokenKind::Completion, usage.completion),
            (TokenKind::Cached, usage.cached),
        ];
        for (kind, count) in told {
            self.tokens.get_or_create(&TokenLabels { kind }).inc_by(count.unwrap_or(0));
        }
    }

    /// A stream ended.
    pub fn stream_ended(&self, end: StreamEnd) {
        self.stream_ends.get_or_create(&EndLabels { end }).inc();
    }

    /// A further attempt was made.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// A comment was sent.
    pub fn kept_alive(&self) {
        self.keep_alives.inc();
    }

    /// Counts a request in flight until dropped.
    #[must_use]
    pub fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(&self.in_flight)
    }

    /// Counts a connection until dropped.
    #[must_use]
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }
}

/// One more in a gauge, until dropped.
#[derive(Debug)]
pub struct GaugeGuard(Gauge);

impl GaugeGuard {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
