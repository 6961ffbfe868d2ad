//! The account of one model request: everything that is counted and logged of it, settled once, when it is dropped.
//!
//! Whoever serves the request says how it ended ([`Account::served`], [`Account::failed`]); one that is dropped without
//! a word is one whose client left. *Invariants:* each request is settled exactly once, on every path; at the default
//! level no line is written; no prompt, header or key is in the line of the access log.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::request::Parts;

use crate::base::clock::Instant;
use crate::base::ids::RequestId;
use crate::dialects::Wire;
use crate::dialects::form::Usage;
use crate::observability::metrics::GaugeGuard;
use crate::tenancy::budget::Budget;

use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::super::metrics::Phase;
use super::super::metrics::Stage;
use super::super::metrics::StreamEnd;
use super::super::ratelimit;
use super::super::series::Series;
use super::attempt::NO_USAGE;
use super::job::Job;
use super::job::Planned;

/// See the file's header.
pub(super) struct Account {
    gateway: Arc<Gateway>,
    /// As the client gave it, or ours.
    pub request_id: HeaderValue,
    /// When what happened.
    pub times: Times,
    phase: Phase,
    end: Option<End>,
    series: Option<Arc<Series>>,
    stream: Option<GaugeGuard>,
    sent: u64,
    usage: Usage,
    /// What it holds of limits.
    budget: Budget,
    /// Only while somebody reads the access log.
    line: Option<Box<Line>>,
}

/// Moments of one request.
pub(super) struct Times {
    /// Its head was there.
    pub started: Instant,
    /// Its body was there.
    pub queued: Instant,
    /// Its last part ended.
    pub last: Instant,
    /// Content was there that is not on its way to the client.
    first_content: Option<Instant>,
}

#[derive(Clone, Copy)]
struct End {
    status: StatusCode,
    error: Option<&'static str>,
}

/// What the access log says beyond the account.
#[derive(Default)]
struct Line {
    path: String,
    endpoint: &'static str,
    tenant: String,
    model: String,
    worker: String,
    policy: &'static str,
    attempts: u32,
    stages: [f64; 7],
}

impl Account {
    /// The head of a request is there.
    pub(super) fn open(gateway: &Arc<Gateway>, wire: &'static Wire, head: &Parts) -> Self {
        let started = gateway.clock.now();
        let line = tracing::enabled!(target: "access", tracing::Level::DEBUG)
            .then(|| Box::new(Line { path: head.uri.path().to_owned(), endpoint: wire.name, ..Line::default() }));
        Self {
            gateway: Arc::clone(gateway),
            request_id: request_id(gateway, head),
            times: Times { started, queued: started, last: started, first_content: None },
            phase: Phase::Body,
            end: None,
            series: None,
            stream: None,
            sent: 0,
            usage: NO_USAGE,
            budget: Budget::default(),
            line,
        }
    }

    /// A part of the request is behind it.
    pub(super) fn lap(&mut self, stage: Stage) {
        let now = self.gateway.clock.now();
        self.stage(stage, now - self.times.last);
        self.times.last = now;
        match stage {
            Stage::Body => (self.phase, self.times.queued) = (Phase::Queue, now),
            Stage::Queue => self.phase = Phase::Upstream,
            _ => {}
        }
    }

    fn stage(&mut self, stage: Stage, took: Duration) {
        self.gateway.metrics.stage(stage, took);
        if let Some(line) = &mut self.line
            && let Some(at) = stage_index(stage)
        {
            line.stages[at] += took.as_secs_f64();
        }
    }

    /// The limits that apply to it allow it.
    pub(super) fn allowed(&mut self, budget: Budget) {
        self.budget = budget;
    }

    /// What its client is told of them.
    pub(super) fn limits(&self) -> HeaderMap {
        ratelimit::left(&self.budget, self.gateway.clock.now())
    }

    /// A worker is asked for the first time.
    pub(super) fn planned(&mut self, job: &Job, planned: &Planned) {
        let series = self.gateway.metrics.models().series(job.wire, job.model.as_str());
        series.asked(job.is_stream);
        self.series = Some(series);
        if let Some(line) = &mut self.line {
            line.model = job.model.to_string();
            line.tenant = job.principal.tenant.to_string();
            line.policy = planned.route.policy;
        }
    }

    /// A worker is asked.
    pub(super) fn attempt(&mut self, planned: &Planned) {
        self.phase = Phase::Upstream;
        self.times.last = self.gateway.clock.now();
        self.budget.sent();
        if let Some(line) = &mut self.line {
            line.worker = planned.entry.spec.label().into_owned();
            line.attempts += 1;
        }
    }

    /// The worker's head is there; content may not be.
    pub(super) fn head(&mut self, status: StatusCode) {
        self.gateway.metrics.worker_answered(status);
        self.lap(Stage::Upstream);
        self.phase = Phase::FirstToken;
    }

    /// The first content is there.
    pub(super) fn first_content(&mut self, is_stream: bool) {
        self.phase = Phase::Answer;
        if is_stream {
            self.lap(Stage::FirstToken);
            self.times.first_content = Some(self.times.last);
            self.stream = Some(self.gateway.metrics.stream());
            if let Some(series) = &self.series {
                series.first_token(self.times.last - self.times.started);
            }
        }
    }

    /// Another piece came from the worker, so long after the one before.
    pub(super) fn next_token(&self, took: Duration) {
        if let Some(series) = &self.series {
            series.next_token(took);
        }
    }

    /// So much goes to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        if let Some(at) = self.times.first_content.take() {
            self.stage(Stage::FirstByte, self.gateway.clock.now() - at);
        }
    }

    /// What the worker said it cost.
    pub(super) fn usage(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// The client has, or will have, a whole answer.
    pub(super) fn served(&mut self, status: StatusCode) {
        let is_failure = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        self.end = Some(End { status, error: is_failure.then_some("worker_status") });
    }

    /// It has our own words. A body that broke off is left open: that client is gone.
    pub(super) fn refused(&mut self, error: &ApiError) {
        if !error.is_client_gone() {
            let (status, _, code) = error.classify();
            self.end = Some(End { status, error: Some(code) });
        }
    }

    /// Its answer broke off in the middle.
    pub(super) fn broken(&mut self, code: &'static str) {
        self.end = Some(End { status: StatusCode::OK, error: Some(code) });
    }

    fn log(&self, line: &Line, took: Duration) {
        let milliseconds = line.stages.map(|it| (it * 1e6).round() / 1e3);
        let [body, queue, parse, route, upstream, first_token, first_byte] = milliseconds;
        let phase = if self.end.is_none() { Some(self.phase.as_str()) } else { None };
        tracing::debug!(
            target: "access",
            request_id = self.request_id.to_str().unwrap_or_default(),
            method = "POST",
            path = line.path,
            endpoint = line.endpoint,
            tenant = line.tenant,
            model = line.model,
            worker = line.worker,
            policy = line.policy,
            attempts = line.attempts,
            status = self.end.map(|it| it.status.as_u16()),
            error = self.end.and_then(|it| it.error),
            left_in = phase,
            body_ms = body,
            queue_ms = queue,
            parse_ms = parse,
            route_ms = route,
            upstream_ms = upstream,
            first_token_ms = first_token,
            first_byte_ms = first_byte,
            total_ms = (took.as_secs_f64() * 1e6).round() / 1e3,
            bytes_sent = self.sent,
            input_tokens = self.usage.prompt,
            output_tokens = self.usage.completion,
            cached_tokens = self.usage.cached,
            "request"
        );
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let took = self.gateway.clock.now() - self.times.started;
        let metrics = &self.gateway.metrics;
        let Usage { prompt, completion, .. } = self.usage;
        self.budget.settle(self.gateway.clock.now(), prompt, completion);
        completion.into_iter().for_each(|it| self.gateway.budgets.learn(it));
        metrics.sent(self.sent);
        if self.end.is_none() {
            metrics.aborted(self.phase);
        }
        if self.stream.take().is_some() {
            metrics.stream_ended(match self.end {
                None => StreamEnd::ClientGone,
                Some(End { error: Some(_), .. }) => StreamEnd::WorkerFailed,
                Some(End { error: None, .. }) => StreamEnd::Complete,
            });
        }
        if let Some(series) = &self.series {
            if self.end.is_some() {
                series.ended(took);
            }
            series.usage(self.usage);
            if let Some(code) = self.end.and_then(|it| it.error) {
                metrics.models().failed(series, code);
            }
        }
        if let Some(line) = self.line.take() {
            self.log(&line, took);
        }
    }
}

/// Where a part of the request stands in the line of the access log.
fn stage_index(stage: Stage) -> Option<usize> {
    match stage {
        Stage::Accept => None,
        Stage::Body => Some(0),
        Stage::Queue => Some(1),
        Stage::Parse => Some(2),
        Stage::Route => Some(3),
        Stage::Upstream => Some(4),
        Stage::FirstToken => Some(5),
        Stage::FirstByte => Some(6),
    }
}

/// The first of the configured headers that is there and fit to be shown, or a new one.
fn request_id(gateway: &Gateway, head: &Parts) -> HeaderValue {
    let given = gateway.config.request_id_headers.iter().find_map(|name| head.headers.get(name.as_str()));
    let is_fit = |it: &&HeaderValue| it.len() <= RequestId::LEN_MAX && it.to_str().is_ok();
    given.filter(is_fit).cloned().unwrap_or_else(|| {
        let id = format!("req-{:016x}", gateway.entropy.next_u64());
        HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("req"))
    })
}
