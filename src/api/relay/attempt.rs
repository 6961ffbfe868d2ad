//! One attempt: a call to one worker, read far enough to know that the client may see it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt as _;

use crate::base::clock::Clock;
use crate::base::limits::RESPONSE_HELD_BYTES_MAX;
use crate::dialects::form::Usage;
use crate::dialects::json;
use crate::observability::traces::span::Span;
use crate::observability::traces::span::keys;
use crate::routing::Feedback;
use crate::routing::Route;
use crate::workers::health::Outcome;
use crate::workers::health::pause;
use crate::workers::load::FirstToken;
use crate::workers::worker::Answer;
use crate::workers::worker::AnswerBody;
use crate::workers::worker::Call;

use super::super::error::WorkerFailure;
use super::job::Failed;
use super::job::Job;
use super::job::Planned;
use super::job::Whole;
use super::live::Live;
use super::live::Placed;
use super::spans;

/// An answer that the client may see.
pub(super) enum Opened {
    /// Complete.
    Whole(Whole),
    /// To be continued.
    Live(Box<Live>),
}

/// Tries one worker.
pub(super) async fn attempt(job: &mut Job, planned: Planned) -> Result<Opened, Failed> {
    let gateway = Arc::clone(&job.gateway);
    let sent = gateway.clock.now();
    job.note(|it| it.attempt(&planned));
    let Planned { entry, route } = planned;
    let mut span = job.span.attempt();
    spans::worker(&mut span, &entry, &route);
    span.until_settled("abandoned");
    let streams = job.is_stream && job.wire.observe.is_some();
    let first_token = if streams { FirstToken::Seen } else { FirstToken::Unseen };
    let acquire = || entry.load.acquire(sent, route.new_tokens, first_token);
    let guard = match &gateway.ledger {
        Some(ledger) => ledger.started(entry.id, route.new_tokens, acquire),
        None => acquire(),
    };
    let call = Call {
        method: http::Method::POST,
        path: job.path.clone(),
        headers: job.worker_headers(&span),
        body: job.segments(),
        first_byte_timeout: gateway.config.first_token_timeout,
    };
    let answered = entry.worker.call(call).await;
    let now = gateway.clock.now();
    let answer = answered.map_err(|error| {
        span.fail("not_answered");
        entry.ended(now, sent, if error.may_have_run() { Outcome::Failure } else { Outcome::Unreachable });
        gateway.router.observe(now, Feedback::NotServed { placed: &route.placed });
        Failed { cause: error.into(), retry_after: None, whole: None }
    })?;
    job.note(|it| it.head(answer.status));
    span.set(keys::STATUS, u64::from(answer.status.as_u16()));
    if let Some(outcome) = failure_of(&answer) {
        span.fail("status");
        gateway.router.observe(now, Feedback::NotServed { placed: &route.placed });
        entry.ended(now, sent, outcome);
        return refused(job, answer, outcome).await;
    }
    let is_events =
        answer.headers.get(header::CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
    let placed = Placed { entry, route, guard, sent };
    match job.wire.observe.filter(|_| is_events) {
        Some(observe) => streamed(job, Live::events(job, answer, observe, placed), span).await,
        None => collected(job, answer, placed, span).await,
    }
}

/// An answer in events: opened once there is content.
async fn streamed(job: &mut Job, live: Live, mut span: Span) -> Result<Opened, Failed> {
    let mut live = Box::new(live);
    match live.open().await {
        Ok(()) => {
            job.note(|it| it.first_content(true));
            live.take_guards(job, span);
            Ok(Opened::Live(live))
        }
        Err(cause) => {
            span.fail("no_content");
            let whole = live.said().filter(|_| cause == WorkerFailure::InStream).map(Whole::bad_gateway);
            Err(Failed { cause, retry_after: None, whole })
        }
    }
}

/// Any other answer: opened once it is there as a whole, or is longer than we hold back.
async fn collected(job: &mut Job, answer: Answer, mut placed: Placed, mut span: Span) -> Result<Opened, Failed> {
    job.note(|it| it.first_content(false));
    let gateway = Arc::clone(&job.gateway);
    let Answer { status, headers, body } = answer;
    let held = hold(body, gateway.config.idle_timeout).await;
    let now = gateway.clock.now();
    match held {
        Ok(Held::Whole(body)) => {
            span.settled();
            placed.entry.ended(now, placed.sent, Outcome::Success);
            let usage = json::parse(&body).map(|it| (job.wire.usage)(&it)).unwrap_or_default();
            job.note(|it| it.usage(usage));
            spans::usage(&mut job.span, usage);
            gateway.router.observe(now, Feedback::Served { placed: &placed.route.placed, usage });
            if usage.completion.unwrap_or(0) <= 1 {
                // Nothing was generated, so all of the time went into reading.
                placed.guard.prefill_done(now);
                placed.guard.learn(computed(&placed.route, usage));
            }
            Ok(Opened::Whole(Whole { status, headers, body }))
        }
        Ok(Held::Part(start, body)) => {
            let mut live = Box::new(Live::raw(job, Answer { status, headers, body }, start, placed));
            live.take_guards(job, span);
            Ok(Opened::Live(live))
        }
        Err(cause) => {
            span.fail("incomplete");
            placed.entry.ended(now, placed.sent, Outcome::Failure);
            gateway.router.observe(now, Feedback::NotServed { placed: &placed.route.placed });
            Err(Failed { cause, retry_after: None, whole: None })
        }
    }
}

/// Tokens of the prompt that the worker had to compute: as it says, else as was expected.
pub(super) fn computed(route: &Route, usage: Usage) -> u64 {
    usage.prompt.map_or(route.new_tokens, |it| it.saturating_sub(usage.cached.unwrap_or(route.expected_cached_tokens)))
}

/// What a status says of the worker; `None` for success.
fn failure_of(answer: &Answer) -> Option<Outcome> {
    match answer.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some(Outcome::Busy(retry_after(answer))),
        status if status.is_server_error() => Some(Outcome::Failure),
        status if status.is_client_error() => Some(Outcome::Neutral),
        _ => None,
    }
}

/// The pause a worker asks for with `Retry-After`.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    let date = answer.headers.get(header::DATE).and_then(|it| it.to_str().ok());
    pause(text, date, Clock.wall())
}

async fn refused(job: &Job, answer: Answer, outcome: Outcome) -> Result<Opened, Failed> {
    let Answer { status, headers, body } = answer;
    let whole = match hold(body, job.gateway.config.idle_timeout).await {
        Ok(Held::Whole(body)) => Some(Whole { status, headers, body }),
        Ok(Held::Part(..)) | Err(_) => None, // an error longer than we hold: our own words then
    };
    match (outcome, whole) {
        (Outcome::Neutral, Some(whole)) => Ok(Opened::Whole(whole)),
        (_, whole) => {
            let retry_after = if let Outcome::Busy(asked) = outcome { asked } else { None };
            Err(Failed { cause: WorkerFailure::Status(status.as_u16()), retry_after, whole })
        }
    }
}

enum Held {
    Whole(bytes::Bytes),
    Part(bytes::Bytes, AnswerBody),
}

/// Reads a body to its end, or as far as we hold one back.
async fn hold(mut body: AnswerBody, idle: Duration) -> Result<Held, WorkerFailure> {
    let mut first = bytes::Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_elapsed| WorkerFailure::Idle(idle))?;
        let Some(frame) = frame else { break };
        let Ok(piece) = frame.map_err(WorkerFailure::Call)?.into_data() else { continue };
        if first.is_empty() && joined.is_empty() {
            first = piece;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&piece);
        }
        if first.len() + joined.len() > RESPONSE_HELD_BYTES_MAX {
            let start = if joined.is_empty() { first } else { joined.freeze() };
            return Ok(Held::Part(start, body));
        }
    }
    Ok(Held::Whole(if joined.is_empty() { first } else { joined.freeze() }))
}

/// Nothing told.
pub(super) const NO_USAGE: Usage = Usage { prompt: None, completion: None, cached: None };
