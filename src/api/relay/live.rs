//! A streamed answer on its way: pulled at the client's pace, watched event by event.
//!
//! Whole reads without anything to take out are passed on as they came. One timer a stream wakes at most once a second
//! for all of its deadlines. After content, a failure becomes the dialect's error event and the end, without `[DONE]`;
//! an answer that has no events is cut off, so that nobody takes what came of it for the whole.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::time::Sleep;

use crate::base::clock::Instant;
use crate::dialects::Family;
use crate::dialects::Wire;
use crate::dialects::form::Observed;
use crate::dialects::form::Usage;
use crate::observability::traces::span::Span;
use crate::routing::Feedback;
use crate::routing::Route;
use crate::workers::health::Outcome;
use crate::workers::load::LoadGuard;
use crate::workers::registry::Entry;
use crate::workers::worker::Answer;
use crate::workers::worker::CallError;

use super::super::CutShort;
use super::super::error::ApiError;
use super::super::error::WorkerFailure;
use super::super::error::WorkerFault;
use super::super::faults::Fault;
use super::super::faults::planted;
use super::super::gateway::Gateway;
use super::TICK;
use super::account::Account;
use super::attempt::NO_USAGE;
use super::attempt::computed;
use super::job::Guards;
use super::job::Job;
use super::left;
use super::parser::Ended;
use super::parser::Parser;
use super::spans;

/// How long the worker's answer may go on after its end marker before its connection is given up. It lets the connection
/// be used again: engines send the marker and the end of the body apart.
const LINGER: Duration = Duration::from_millis(250);

/// A streamed answer.
pub(super) struct Live {
    answer: Answer,
    parser: Option<Parser>,
    out: VecDeque<Bytes>,
    watch: Watch,
    gateway: Arc<Gateway>,
    entry: Arc<Entry>,
    route: Route,
    guard: LoadGuard,
    guards: Option<Guards>,
    /// The attempt's and the request's, in the order in which they end.
    spans: Option<(Span, Span)>,
    /// Taken over when the stream is open; dropped with it, it says that the client left.
    account: Option<Account>,
    wire: &'static Wire,
    is_over: bool,
}

/// A worker at work on a request.
pub(super) struct Placed {
    pub entry: Arc<Entry>,
    pub route: Route,
    pub guard: LoadGuard,
    /// When it was asked.
    pub sent: Instant,
}

/// Times of one stream.
struct Watch {
    started: Instant,
    /// When this attempt was sent.
    sent: Instant,
    last: Instant,
    last_sent: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Live {
    /// A stream of events, not yet opened.
    pub(super) fn events(job: &Job, answer: Answer, observe: fn(&[u8]) -> Observed, held: Placed) -> Self {
        let parser = Parser::new(observe, !job.asked_for_usage);
        Self::new(job, answer, Some(parser), held)
    }

    /// A long answer that is no stream of events; `start` was read already.
    pub(super) fn raw(job: &Job, answer: Answer, start: Bytes, held: Placed) -> Self {
        let mut live = Self::new(job, answer, None, held);
        live.out.push_back(start);
        live
    }

    fn new(job: &Job, answer: Answer, parser: Option<Parser>, held: Placed) -> Self {
        let Placed { entry, route, guard, sent } = held;
        let (now, config) = (job.gateway.clock.now(), &job.gateway.config);
        let first = TICK.min(config.first_token_timeout).min(config.idle_timeout);
        let sleep = Box::pin(tokio::time::sleep_until(now + first));
        Self {
            answer,
            parser,
            out: VecDeque::new(),
            watch: Watch {
                started: job.account.as_ref().map_or(now, |it| it.times.started),
                sent,
                last: now,
                last_sent: now,
                sleep,
            },
            gateway: Arc::clone(&job.gateway),
            entry,
            route,
            guard,
            guards: None,
            spans: None,
            account: None,
            wire: job.wire,
            is_over: false,
        }
    }

    /// Takes over what is given back at the end.
    pub(super) fn take_guards(&mut self, job: &mut Job, mut attempt: Span) {
        attempt.settled();
        job.span.settled();
        self.guards = job.guards.take();
        self.account = job.account.take();
        self.spans = Some((attempt, std::mem::take(&mut job.span)));
    }

    pub(super) fn is_events(&self) -> bool {
        self.parser.is_some()
    }

    /// The worker's status and headers.
    pub(super) fn head(&mut self) -> (StatusCode, HeaderMap) {
        let mut headers = std::mem::take(&mut self.answer.headers);
        if self.parser.is_some() {
            headers.remove(http::header::CONTENT_LENGTH);
        }
        (self.answer.status, headers)
    }

    /// The worker's own words for an error inside the stream, as the body of an answer; only where its events are such.
    pub(super) fn said(&self) -> Option<Bytes> {
        let said = self.parser.as_ref()?.said.clone()?;
        (self.wire.family != Family::Responses).then_some(said)
    }

    /// Reads up to the first content, holding back what opens the answer. A failure here cannot be seen by the client.
    pub(super) async fn open(&mut self) -> Result<(), WorkerFailure> {
        let opened = self.read_to_content().await;
        let now = self.gateway.clock.now();
        if opened.is_ok() {
            self.guard.prefill_done(now);
        } else {
            self.is_over = true;
            self.entry.ended(now, self.watch.sent, Outcome::Failure);
            self.gateway.router.observe(now, Feedback::NotServed { placed: &self.route.placed });
        }
        opened
    }

    async fn read_to_content(&mut self) -> Result<(), WorkerFailure> {
        loop {
            let more = self.fill(true).await?;
            let Some(parser) = &self.parser else { return Ok(()) };
            if parser.has_error && !parser.has_content {
                return Err(WorkerFailure::InStream);
            }
            if parser.has_content || parser.is_done {
                return Ok(());
            }
            if !more {
                return Err(WorkerFailure::Call(CallError::Lost));
            }
        }
    }

    /// The next bytes for the client; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, CutShort>> {
        loop {
            if let Some(bytes) = self.out.pop_front() {
                self.watch.last_sent = self.watch.last_sent.max(self.watch.last);
                if let Some(account) = &mut self.account {
                    account.sent(bytes.len());
                }
                return Some(Ok(bytes));
            }
            if self.is_over {
                self.linger().await;
                return None;
            }
            match self.fill(false).await {
                Ok(true) => {}
                Ok(false) => self.complete(),
                Err(_) if planted(Fault::CutStreamsEndWell) => self.complete(),
                Err(cause) => return Some(self.fail(cause)),
            }
        }
    }

    /// Waits a little for the end of a body whose end marker was seen.
    async fn linger(&mut self) {
        if !self.parser.as_ref().is_some_and(|it| it.is_done) || self.answer.body.is_end_stream() {
            return;
        }
        let rest = async { while let Some(Ok(_)) = self.answer.body.frame().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await; // it goes on: the connection is closed with it
    }

    /// Waits for one piece of the answer and takes it in. `false`: the answer is over.
    async fn fill(&mut self, is_opening: bool) -> Result<bool, WorkerFailure> {
        if self.has_all() {
            return Ok(false); // it came with what opened the stream
        }
        loop {
            let frame = tokio::select! {
                biased;
                frame = self.answer.body.frame() => frame,
                () = &mut self.watch.sleep => {
                    if self.tick(is_opening)? {
                        return Ok(true);
                    }
                    continue;
                }
            };
            let Some(frame) = frame else {
                return self.end_of_body();
            };
            let Ok(piece) = frame?.into_data() else { continue };
            let now = self.gateway.clock.now();
            if let Some(account) = &self.account {
                account.next_token(now - self.watch.last);
            }
            self.watch.last = now;
            self.look_outside(now)?; // a worker that always has more never lets the timer speak
            let Some(parser) = &mut self.parser else {
                self.out.push_back(piece);
                return Ok(true);
            };
            parser.take(piece, &mut self.out)?;
            return Ok(!self.has_all());
        }
    }

    /// Whether nothing more is wanted of the worker. A body that is at its end is read to it.
    fn has_all(&self) -> bool {
        self.parser.as_ref().is_some_and(Parser::is_over) && !self.answer.body.is_end_stream()
    }

    /// Whether the answer may end here.
    fn end_of_body(&self) -> Result<bool, WorkerFailure> {
        match &self.parser {
            Some(parser) if self.wire.needs_done && !parser.is_done && !parser.has_error => {
                Err(WorkerFailure::Call(CallError::Lost))
            }
            _ => Ok(false),
        }
    }

    /// What ends a stream however well it flows: the node's end, and the request's time.
    fn look_outside(&self, now: Instant) -> Result<(), WorkerFailure> {
        let total = self.gateway.config.request_timeout;
        if self.gateway.phase.is_cut_off() {
            return Err(WorkerFailure::CutOff);
        }
        if now - self.watch.started >= total {
            return Err(WorkerFailure::Total(total));
        }
        Ok(())
    }

    /// Looks at every deadline; `true` when there is something to send.
    fn tick(&mut self, is_opening: bool) -> Result<bool, WorkerFailure> {
        let now = self.gateway.clock.now();
        let config = &self.gateway.config;
        // What opens a stream is no token yet, and neither is a worker's own keep-alive.
        let (since, limit) = match is_opening {
            true => (self.watch.sent, config.first_token_timeout),
            false => (self.watch.last, config.idle_timeout),
        };
        let next = (since + limit).min(now + TICK).max(now + Duration::from_millis(1));
        self.watch.sleep.as_mut().reset(next);
        self.look_outside(now)?;
        if now - since >= limit {
            return Err(if is_opening { WorkerFailure::NoToken(limit) } else { WorkerFailure::Idle(limit) });
        }
        let quiet = now - self.watch.last_sent;
        let is_due = !is_opening && self.parser.is_some() && !config.stream_keep_alive.is_zero();
        if is_due && quiet >= config.stream_keep_alive {
            self.watch.last_sent = now;
            self.gateway.metrics.kept_alive();
            self.out.push_back(Bytes::from_static(b": keep-alive\n\n"));
            return Ok(true);
        }
        Ok(false)
    }

    fn complete(&mut self) {
        let now = self.gateway.clock.now();
        self.is_over = true;
        self.guards = None;
        let (usage, ended) = self.parser.as_ref().map_or((NO_USAGE, Ended::Well), |it| (it.usage, it.ended()));
        let failure = match ended {
            Ended::Well => None,
            Ended::Refused => Some("refused"),
            Ended::Failed => Some(WorkerFault::InStream.as_str()),
        };
        self.end_spans(usage, failure);
        if ended == Ended::Failed {
            self.gateway.metrics.worker_failed(WorkerFault::InStream);
        }
        self.settle(usage, failure);
        self.gateway.router.observe(now, Feedback::Served { placed: &self.route.placed, usage });
        self.guard.learn(computed(&self.route, usage));
        self.entry.ended(
            now,
            self.watch.sent,
            match ended {
                Ended::Well => Outcome::Success,
                Ended::Refused => Outcome::Neutral,
                Ended::Failed => Outcome::Failure,
            },
        );
    }

    fn settle(&mut self, usage: Usage, failure: Option<&'static str>) {
        let Some(mut account) = self.account.take() else { return };
        account.usage(usage);
        // What is left to be sent, which is all that the account does not see.
        account.sent(self.out.iter().map(Bytes::len).sum());
        match failure {
            None => account.served(self.answer.status),
            Some(code) => account.broken(code),
        }
    }

    fn end_spans(&mut self, usage: Usage, failure: Option<&'static str>) {
        let Some((mut attempt, mut request)) = self.spans.take() else { return };
        spans::usage(&mut request, usage);
        if let Some(code) = failure {
            attempt.fail(code);
            request.fail(code);
        }
    }

    /// The error event that ends the stream; an answer without events is cut off.
    fn fail(&mut self, cause: WorkerFailure) -> Result<Bytes, CutShort> {
        let now = self.gateway.clock.now();
        self.is_over = true;
        self.guards = None;
        let usage = self.parser.as_ref().map_or(NO_USAGE, |it| it.usage);
        self.gateway.metrics.worker_failed(cause.fault());
        self.end_spans(usage, Some(cause.fault().as_str()));
        if cause != WorkerFailure::CutOff {
            self.entry.ended(now, self.watch.sent, Outcome::Failure);
        }
        let told = ApiError::WorkerFailed { cause, attempts: 1 }.text();
        self.settle(usage, Some(told.code));
        let events = self.parser.as_ref().ok_or(CutShort)?.events;
        Ok(self.wire.family.error_event(&told, events))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // A client may leave as soon as it has seen the end marker.
        if self.parser.as_ref().is_some_and(|it| it.is_done) {
            self.complete();
        } else {
            self.end_spans(self.parser.as_ref().map_or(NO_USAGE, |it| it.usage), Some("client_gone"));
            if planted(Fault::LeftRequestsGoOn) {
                left::read(&self.gateway, &mut self.answer.body);
            }
        }
    }
}
