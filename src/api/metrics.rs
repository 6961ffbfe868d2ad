//! What clients asked and got, and where the time went.
//!
//! What a request needs is found once: a route's counters when the routes are made, the series of a model and endpoint
//! ([`Series`]) by one look-up a request. After that an observation is an index.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::dialects::Wire;
use crate::dialects::form::Usage;
use crate::observability::labels::ModelLabel;
use crate::observability::labels::ModelLabels;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::GaugeGuard;
use crate::observability::metrics::Registry;
use crate::observability::metrics::model_seconds;
use crate::observability::metrics::own_seconds;
use crate::observability::metrics::token_seconds;

use super::error::WorkerFault;

label! {
    /// Parts of a request's time: the gateway's own, and where it waits.
    pub enum Stage {
        /// A connection waits for its edge thread.
        Accept = "accept",
        /// Reading the body.
        Body = "body",
        /// Waiting for admission.
        Queue = "queue",
        /// Parsing it.
        Parse = "parse",
        /// Choosing a worker.
        Route = "route",
        /// Until the worker's response head, connecting included.
        Upstream = "upstream",
        /// From there to the first content.
        FirstToken = "first_token",
        /// From the first content here to its first byte on the way to the client.
        FirstByte = "first_byte",
    }
}

label! {
    /// How far a request was when its client left.
    pub enum Phase {
        /// Its body was coming.
        Body = "body",
        /// It waited for a slot.
        Queue = "queue",
        /// The worker had not answered.
        Upstream = "upstream",
        /// The worker had answered, without content so far.
        FirstToken = "first_token",
        /// The answer was flowing.
        Answer = "answer",
    }
}

label! {
    /// How a stream ended.
    pub enum StreamEnd {
        /// Whole.
        Complete = "complete",
        /// The worker failed after content was sent.
        WorkerFailed = "worker_failed",
        /// The client went away.
        ClientGone = "client_gone",
    }
}

label! {
    enum TokenType {
        Input = "input",
        Output = "output",
        Cached = "cached",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    path: &'static str,
    status_code: u16,
    error_code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    model: ModelLabel,
    endpoint: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    model: ModelLabel,
    endpoint: &'static str,
    streaming: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    model: ModelLabel,
    endpoint: &'static str,
    error_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tokens {
    model: ModelLabel,
    token_type: TokenType,
}

type Histograms = Family<Endpoint, Histogram, fn() -> Histogram>;
type Known = HashMap<(&'static str, ModelLabel), Arc<Series>>;

/// Counters, gauges and histograms of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    routes: Family<[(&'static str, &'static str); 2], Counter>,
    answers: Family<Answered, Counter>,
    connections: Gauge,
    bytes_in: Counter,
    bytes_out: Counter,
    asked: Family<Asked, Counter>,
    active: Gauge,
    streams: Gauge,
    seconds: Histograms,
    first_tokens: Histograms,
    between_tokens: Histograms,
    tokens: Family<Tokens, Counter>,
    failed: Family<Failed, Counter>,
    stages: Each<Stage, Histogram>,
    stream_ends: Each<StreamEnd, Counter>,
    aborts: Each<Phase, Counter>,
    keep_alives: Counter,
    upstream: Family<[(&'static str, u16); 1], Counter>,
    faults: Each<WorkerFault, Counter>,
    models: ModelLabels,
    known: Arc<ArcSwap<Known>>,
}

/// The counters of one route.
#[derive(Debug)]
pub struct RouteSeries {
    path: &'static str,
    requests: Counter,
    fine: Counter,
}

/// The series of one model at one endpoint.
#[derive(Debug)]
pub struct Series {
    labels: Endpoint,
    whole: Counter,
    streamed: Counter,
    seconds: Histogram,
    tokens: [Counter; 3],
    /// First token and between tokens, where the endpoint streams.
    streaming: Option<[Histogram; 2]>,
}

impl Metrics {
    /// Registers them. `models` bounds the models shown.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry, models: ModelLabels) -> Self {
        Self {
            routes: registry.family("smg_http_requests", "Requests received, by method and route; `other` is every path that is none of ours"),
            answers: registry.family("smg_http_responses", "Answers, by route, status and stable error code (`none`, `worker`: the worker's own words). Alert on the share of 5xx; the code says what to look at"),
            connections: registry.gauge("smg_http_connections_active", "Client connections open. Near `--max-connections`: new clients wait"),
            bytes_in: registry.counter("smg_http_request_bytes", "Bytes of model requests' bodies"),
            bytes_out: registry.counter("smg_http_response_bytes", "Bytes of answers to model requests"),
            asked: registry.family("smg_router_requests", "Model requests that were given to a worker, by model, endpoint and whether they asked for a stream"),
            active: registry.gauge("smg_router_requests_active", "Model requests admitted and not yet answered to the end"),
            streams: registry.gauge("smg_router_streams_active", "Streams that are flowing"),
            seconds: registry.histogram_family("smg_router_request_duration_seconds", "Seconds from a model request's head to its answer's end, by model and endpoint", model_seconds),
            first_tokens: registry.histogram_family("smg_router_ttft_seconds", "Seconds from a request's head to the first content of its stream. Up with the queue wait: add capacity; up without it: the workers' prefill, look at cache hits", model_seconds),
            between_tokens: registry.histogram_family("smg_router_inter_token_seconds", "Seconds between two pieces of a stream. Up: the workers' batches are too large, or a client reads slowly", token_seconds),
            tokens: registry.family("smg_router_tokens", "Tokens as workers report them, by model: `input` (cached ones included), `output`, `cached`. Cached over input is the cache hit rate"),
            failed: registry.family("smg_router_request_errors", "Model requests that reached a worker or wanted to and failed, by stable code; also those that failed in mid-stream, whose status was 200"),
            stages: registry.histograms("smg_router_stage_duration_seconds", "Seconds of each part of a model request. `accept`, `parse`, `route`, `first_byte` are the gateway's own: above 10 ms it lacks CPU. `body` is the client, `queue` the limit, `upstream` and `first_token` the worker", "stage", own_seconds),
            stream_ends: registry.counters("smg_router_streams", "Streams ended, by how. `worker_failed`: clients saw an error after content", "end"),
            aborts: registry.counters("smg_router_aborts", "Model requests whose client left, by how far they were. Many in `queue` or `first_token`: clients give up waiting", "phase"),
            keep_alives: registry.counter("smg_router_keep_alive_comments", "Comments sent into silent streams. Many: workers take long to the first token"),
            upstream: registry.family("smg_router_upstream_responses", "Workers' answers to single attempts, by status, repeated ones included"),
            faults: registry.counters("smg_worker_errors", "Attempts at workers that failed, by how. Beyond `smg_worker_retries_total` they reached clients", "error_type"),
            models,
            known: Arc::default(),
        }
    }

    /// The counters of a route, to be kept with it.
    #[must_use]
    pub fn route(&self, method: &'static str, path: &'static str) -> Arc<RouteSeries> {
        let requests = self.routes.get_or_create_owned(&[("method", method), ("path", path)]);
        let fine = self.answers.get_or_create_owned(&Answered { path, status_code: 200, error_code: "none" });
        Arc::new(RouteSeries { path, requests, fine })
    }

    /// A request came.
    pub fn requested(&self, route: &RouteSeries) {
        route.requests.inc();
    }

    /// A request was answered.
    pub fn answered(&self, route: &RouteSeries, status: StatusCode, error_code: Option<&'static str>) {
        match error_code {
            None if status == StatusCode::OK => route.fine.inc(),
            code => {
                let error_code = code.unwrap_or("none");
                let labels = Answered { path: route.path, status_code: status.as_u16(), error_code };
                self.answers.get_or_create(&labels).inc()
            }
        };
    }

    /// The series of `model` at an endpoint. Only for models that a worker serves.
    #[must_use]
    pub fn series(&self, wire: &'static Wire, model: &str) -> Arc<Series> {
        let key = (wire.name, self.models.label(model));
        if let Some(series) = self.known.load().get(&key) {
            return Arc::clone(series);
        }
        let series = Arc::new(self.make(wire, key.1.clone()));
        // Two first requests at one time: both make the same series, one of the two is kept.
        self.known.rcu(|known| {
            let mut known = Known::clone(known);
            known.insert(key.clone(), Arc::clone(&series));
            known
        });
        series
    }

    fn make(&self, wire: &'static Wire, model: ModelLabel) -> Series {
        let labels = Endpoint { model: model.clone(), endpoint: wire.name };
        let asked = |streaming| Asked { model: model.clone(), endpoint: wire.name, streaming };
        let tokens = |token_type| Tokens { model: model.clone(), token_type };
        let streaming = wire.observe.map(|_| {
            [self.first_tokens.get_or_create_owned(&labels), self.between_tokens.get_or_create_owned(&labels)]
        });
        Series {
            whole: self.asked.get_or_create_owned(&asked("false")),
            streamed: self.asked.get_or_create_owned(&asked("true")),
            seconds: self.seconds.get_or_create_owned(&labels),
            tokens: [TokenType::Input, TokenType::Output, TokenType::Cached]
                .map(|it| self.tokens.get_or_create_owned(&tokens(it))),
            streaming,
            labels,
        }
    }

    /// A model request failed.
    pub fn failed(&self, series: &Series, error_type: &'static str) {
        let Endpoint { model, endpoint } = series.labels.clone();
        self.failed.get_or_create(&Failed { model, endpoint, error_type }).inc();
    }

    /// One part of a request took so long.
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages.of(stage).observe(took.as_secs_f64());
    }

    /// A body was taken in.
    pub fn received(&self, bytes: usize) {
        self.bytes_in.inc_by(bytes as u64);
    }

    /// So much was sent to a client.
    pub fn sent(&self, bytes: u64) {
        self.bytes_out.inc_by(bytes);
    }

    /// A stream ended.
    pub fn stream_ended(&self, end: StreamEnd) {
        self.stream_ends.of(end).inc();
    }

    /// A client left.
    pub fn aborted(&self, phase: Phase) {
        self.aborts.of(phase).inc();
    }

    /// A worker answered an attempt.
    pub fn worker_answered(&self, status: StatusCode) {
        self.upstream.get_or_create(&[("status_code", status.as_u16())]).inc();
    }

    /// An attempt failed.
    pub fn worker_failed(&self, fault: WorkerFault) {
        self.faults.of(fault).inc();
    }

    /// A comment was sent.
    pub fn kept_alive(&self) {
        self.keep_alives.inc();
    }

    /// Counts a request in flight until dropped.
    #[must_use]
    pub fn in_flight(&self) -> GaugeGuard {
        GaugeGuard::new(&self.active)
    }

    /// Counts a stream until dropped.
    #[must_use]
    pub fn stream(&self) -> GaugeGuard {
        GaugeGuard::new(&self.streams)
    }

    /// Counts a connection until dropped.
    #[must_use]
    pub fn connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.connections)
    }
}

impl Series {
    /// A request goes to a worker.
    pub fn asked(&self, is_stream: bool) {
        if is_stream {
            self.streamed.inc()
        } else {
            self.whole.inc()
        };
    }

    /// Its answer ended.
    pub fn ended(&self, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
    }

    /// The first content of a stream came.
    pub fn first_token(&self, took: Duration) {
        if let Some([first, _]) = &self.streaming {
            first.observe(took.as_secs_f64());
        }
    }

    /// Another piece of a stream came.
    pub fn next_token(&self, took: Duration) {
        if let Some([_, between]) = &self.streaming {
            between.observe(took.as_secs_f64());
        }
    }

    /// A worker told what an answer cost.
    pub fn usage(&self, usage: Usage) {
        for (counter, count) in self.tokens.iter().zip([usage.prompt, usage.completion, usage.cached]) {
            counter.inc_by(count.unwrap_or(0));
        }
    }
}
