//! What clients asked and got, and where the time went.
//!
//! What a request needs is found once: a route's counters when the routes are made, the series of its model by one look-up
//! (`series`). After that an observation is an index.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::observability::labels::ModelLabels;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::GaugeGuard;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

use super::error::WorkerFault;
use super::responses;
use super::series::Models;

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    path: &'static str,
    status_code: u16,
    error_code: &'static str,
}

/// Counters, gauges and histograms of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    routes: Routes,
    connections: Gauge,
    bytes_in: Counter,
    bytes_out: Counter,
    active: Gauge,
    streams: Gauge,
    stages: Each<Stage, Histogram>,
    stream_ends: Each<StreamEnd, Counter>,
    aborts: Each<Phase, Counter>,
    keep_alives: Counter,
    attempts: Attempts,
    models: Models,
    history: responses::metrics::Metrics,
}

/// Requests and answers by route.
#[derive(Clone, Debug)]
struct Routes {
    requests: Family<[(&'static str, &'static str); 2], Counter>,
    answers: Family<Answered, Counter>,
}

/// What workers answered to single attempts.
#[derive(Clone, Debug)]
struct Attempts {
    answers: Family<[(&'static str, u16); 1], Counter>,
    fine: Counter,
    faults: Each<WorkerFault, Counter>,
}

/// The counters of one route.
#[derive(Debug)]
pub struct RouteSeries {
    path: &'static str,
    requests: Counter,
    fine: Counter,
}

impl Attempts {
    #[rustfmt::skip]
    fn register(registry: &mut Registry) -> Self {
        let answers = registry.family("smg_router_upstream_responses", "Workers' answers to single attempts, by status, repeated ones included");
        Self {
            fine: answers.get_or_create_owned(&[("status_code", 200)]),
            answers,
            faults: registry.counters("smg_worker_errors", "Attempts at workers that failed, by how. Beyond `smg_worker_retries_total` they reached clients", "error_type"),
        }
    }
}

impl Metrics {
    /// Registers them. `models` bounds the models shown.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry, models: ModelLabels) -> Self {
        Self {
            routes: Routes {
                requests: registry.family("smg_http_requests", "Requests received, by method and route; `other` is every path that is none of ours"),
                answers: registry.family("smg_http_responses", "Answers, by route, status and stable error code (`none`, `worker`: the worker's own words). Alert on the share of 5xx; the code says what to look at"),
            },
            connections: registry.gauge("smg_http_connections_active", "Client connections open. Near `--max-connections`: new clients wait"),
            bytes_in: registry.counter("smg_http_request_bytes", "Bytes of model requests' bodies"),
            bytes_out: registry.counter("smg_http_response_bytes", "Bytes of answers to model requests"),
            active: registry.gauge("smg_router_requests_active", "Model requests admitted and not yet answered to the end"),
            streams: registry.gauge("smg_router_streams_active", "Streams that are flowing"),
            stages: registry.histograms("smg_router_stage_duration_seconds", "Seconds of each part of a model request. `accept`, `parse`, `route`, `first_byte` are the gateway's own: above 10 ms it lacks CPU. `body` is the client, `queue` the limit, `upstream` and `first_token` the worker", "stage", own_seconds),
            stream_ends: registry.counters("smg_router_streams", "Streams ended, by how. `worker_failed`: clients saw an error after content", "end"),
            aborts: registry.counters("smg_router_aborts", "Model requests whose client left, by how far they were. Many in `queue` or `first_token`: clients give up waiting", "phase"),
            keep_alives: registry.counter("smg_router_keep_alive_comments", "Comments sent into silent streams. Many: workers take long to the first token"),
            attempts: Attempts::register(registry),
            models: Models::register(registry, models),
            history: responses::metrics::Metrics::register(registry),
        }
    }

    /// The counters of a route, to be kept with it.
    #[must_use]
    pub fn route(&self, method: &'static str, path: &'static str) -> Arc<RouteSeries> {
        let requests = self.routes.requests.get_or_create_owned(&[("method", method), ("path", path)]);
        let fine = self.routes.answers.get_or_create_owned(&Answered { path, status_code: 200, error_code: "none" });
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
                self.routes.answers.get_or_create(&labels).inc()
            }
        };
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

    /// What is measured by model and endpoint.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// What is seen of history.
    #[must_use]
    pub fn history(&self) -> &responses::metrics::Metrics {
        &self.history
    }

    /// A worker answered an attempt.
    pub fn worker_answered(&self, status: StatusCode) {
        match status {
            StatusCode::OK => self.attempts.fine.inc(),
            other => self.attempts.answers.get_or_create(&[("status_code", other.as_u16())]).inc(),
        };
    }

    /// An attempt failed.
    pub fn worker_failed(&self, fault: WorkerFault) {
        self.attempts.faults.of(fault).inc();
    }

    /// A comment was sent.
    pub fn kept_alive(&self) {
        self.keep_alives.inc();
    }

    /// Model requests in flight.
    #[must_use]
    pub fn active(&self) -> u64 {
        u64::try_from(self.active.get()).unwrap_or(0)
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
