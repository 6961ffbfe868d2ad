//! The life of a model request: key, body, admission, parse, route, attempts, answer.
//!
//! *Invariants:* until content was sent to the client a failed attempt goes to a worker not yet tried, and cannot be
//! seen (P6); whatever ends a request drops its load guard, its permit and its worker's connection (P7).

mod account;
mod attempt;
mod job;
mod left;
mod live;
mod parser;
mod spans;

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http::request::Parts;
use http_body::Body;
use http_body::Frame;
use http_body_util::StreamBody;

use crate::base::clock::Instant;
use crate::dialects::Family;
use crate::dialects::Wire;
use crate::dialects::form;
use crate::dialects::json;
use crate::routing::explain::Explanation;
use crate::tenancy::keys::Principal;

use self::account::Account;
use self::attempt::Opened;
use self::job::Job;
use self::job::Planned;
pub use self::job::model;
use self::live::Live;
use super::CutShort;
use super::Response;
use super::error::ApiError;
use super::error::WorkerFailure;
use super::faults::Fault;
use super::faults::planted;
use super::gateway::Gateway;
use super::intake::Held;
use super::metrics::Stage;

/// What the client gets, and which worker it is from.
type Opening = Pin<Box<dyn Future<Output = Result<(Opened, HeaderMap), ApiError>> + Send>>;

/// Longest time between two looks at what ends a request from outside: its total time, and the node's end.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Serves one model request.
pub async fn serve<B>(gateway: Arc<Gateway>, wire: &'static Wire, request: Request<B>) -> Response
where
    B: Body<Data = Bytes> + Unpin,
{
    match Taken::take(gateway, wire, request).await {
        Ok(taken) => taken.ask(std::future::ready(Ok(ControlFlow::Continue(())))).await,
        Err(refused) => refused,
    }
}

/// A model request whose key was checked and whose body is here. Dropped, it counts as one whose client left.
pub struct Taken {
    gateway: Arc<Gateway>,
    wire: &'static Wire,
    /// Its head.
    pub head: Parts,
    /// Its body.
    pub held: Held,
    /// Whose it is.
    pub principal: Arc<Principal>,
    account: Account,
}

impl Taken {
    /// Takes a request in; or answers why not.
    pub async fn take<B>(gateway: Arc<Gateway>, wire: &'static Wire, request: Request<B>) -> Result<Self, Response>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, body) = request.into_parts();
        let mut account = Account::open(&gateway, wire, &head);
        let started = account.times.started;
        let taking = async {
            let principal = gateway.admit(gateway.keys.authenticate(&head.headers)?)?;
            let held = read(&gateway, &head, body).await?;
            gateway.metrics.received(held.bytes.len());
            account.lap(Stage::Body);
            Ok((principal, held))
        };
        match in_time(&gateway, started, taking).await {
            Ok((principal, held)) => Ok(Self { gateway, wire, head, held, principal, account }),
            Err(error) => Err(refuse(account, wire, &error)),
        }
    }

    /// One that was made here.
    pub fn made(
        gateway: Arc<Gateway>,
        wire: &'static Wire,
        head: Parts,
        held: Held,
        principal: Arc<Principal>,
    ) -> Self {
        let account = Account::open(&gateway, wire, &head);
        Self { gateway, wire, head, held, principal, account }
    }

    /// It is answered without a worker.
    pub fn answer(mut self, mut response: Response) -> Response {
        self.account.served(response.status());
        response.headers_mut().insert("x-request-id", self.account.request_id.clone());
        response
    }

    /// It is answered with an error of ours.
    pub fn refuse(self, error: &ApiError) -> Response {
        refuse(self.account, self.wire, error)
    }

    /// Asks a worker, once `before` allows it or has no answer of its own. Until then no worker is chosen.
    pub async fn ask<F>(self, before: F) -> Response
    where
        F: Future<Output = Result<ControlFlow<Response>, ApiError>>,
    {
        let (wire, id) = (self.wire, self.account.request_id.clone());
        let mut response = match admit(self, before).await {
            Ok(ControlFlow::Continue((job, planned))) => {
                let limits = job.account.as_ref().map(Account::limits).unwrap_or_default();
                let mut response = answer(job, planned).await.unwrap_or_else(|error| error.response(wire.family));
                // What refuses says itself why: a worker's own limits are not ours.
                if response.status().is_success() {
                    response.headers_mut().extend(limits);
                }
                response
            }
            Ok(ControlFlow::Break(response)) => response,
            Err(error) => error.response(wire.family),
        };
        response.headers_mut().insert("x-request-id", id);
        response
    }
}

/// The body of a request, as it must be.
pub async fn read<B>(gateway: &Gateway, head: &Parts, body: B) -> Result<Held, ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    if let Some(encoding) = head.headers.get(header::CONTENT_ENCODING).filter(|it| *it != "identity") {
        return Err(ApiError::Encoded(String::from_utf8_lossy(encoding.as_bytes()).chars().take(32).collect()));
    }
    Ok(gateway.intake.read(body).await?)
}

fn refuse(mut account: Account, wire: &Wire, error: &ApiError) -> Response {
    account.refused(error);
    let mut response = error.response(wire.family);
    response.headers_mut().insert("x-request-id", account.request_id.clone());
    response
}

/// Does `work` unless the request's time or the node's is over.
async fn in_time<T>(
    gateway: &Gateway,
    started: Instant,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let total = gateway.config.request_timeout;
    let mut work = std::pin::pin!(work);
    loop {
        let left = (started + total) - gateway.clock.now();
        if gateway.phase.is_cut_off() {
            return Err(ApiError::Draining);
        }
        if left.is_zero() {
            return Err(ApiError::TookTooLong(total));
        }
        if let Ok(done) = tokio::time::timeout(TICK.min(left), &mut work).await {
            return done;
        }
    }
}

/// Everything up to the choice of a worker.
async fn admit<F>(taken: Taken, before: F) -> Result<ControlFlow<Response, (Job, Planned)>, ApiError>
where
    F: Future<Output = Result<ControlFlow<Response>, ApiError>>,
{
    let Taken { gateway, wire, head, held, principal, mut account } = taken;
    let started = account.times.started;
    let prepared = async {
        let permit = gateway.admission.admit().await?;
        account.lap(Stage::Queue);
        let body = held.bytes.clone();
        let object = json::parse(&body)?;
        let parsed = (wire.read)(&object)?;
        let mut job = Job::new(Arc::clone(&gateway), wire, head, &parsed, held, principal).await?;
        job.keep(permit, &account);
        account.lap(Stage::Parse);
        account.allowed(gateway.budgets.take(&job.principal, &job.model, job.expected()).await?);
        if let ControlFlow::Break(response) = before.await? {
            account.served(response.status());
            job.span.settled();
            return Ok(ControlFlow::Break(response));
        }
        let planned = job.plan(parsed.prompt.as_ref()).await?;
        account.lap(Stage::Route);
        account.planned(&job, &planned);
        Ok(ControlFlow::Continue((job, planned)))
    };
    let prepared = in_time(&gateway, started, prepared).await;
    match prepared {
        Ok(ControlFlow::Continue((mut job, planned))) => {
            job.account = Some(account);
            Ok(ControlFlow::Continue((job, planned)))
        }
        Ok(ControlFlow::Break(response)) => Ok(ControlFlow::Break(response)),
        Err(error) => {
            account.refused(&error);
            Err(error)
        }
    }
}

async fn answer(job: Job, planned: Planned) -> Result<Response, ApiError> {
    let (is_stream, family) = (job.is_stream, job.wire.family);
    let gateway = Arc::clone(&job.gateway);
    let keep_alive = gateway.config.stream_keep_alive;
    let mut opening = open(job, planned);
    if planted(Fault::LeftRequestsGoOn) {
        opening = left::opened(&gateway, opening);
    }
    if !is_stream || keep_alive.is_zero() {
        return opening.await.map(respond);
    }
    match tokio::time::timeout(keep_alive, &mut opening).await {
        Ok(opened) => opened.map(respond),
        // ORDER: the head goes out before any content, so that proxies in between keep the silent stream open.
        // It names no worker: another one may answer in the end.
        Err(_elapsed) => {
            let quiet_since = gateway.clock.now() - keep_alive; // a comment is due
            Ok(stream(Streaming::Early(Early { opening, gateway, family, quiet_since }), HeaderMap::new()))
        }
    }
}

/// Where a request would go. Nothing is sent, counted or remembered.
pub async fn explain(
    gateway: Arc<Gateway>,
    wire: &'static Wire,
    head: Parts,
    parsed: &form::Request<'_>,
    held: Held,
    principal: Arc<Principal>,
) -> Result<Explanation, ApiError> {
    Job::new(gateway, wire, head, parsed, held, principal).await?.explain(parsed.prompt.as_ref()).await
}

fn open(mut job: Job, planned: Planned) -> Opening {
    Box::pin(async move {
        let gateway = Arc::clone(&job.gateway);
        let started = job.account.as_ref().map_or_else(|| gateway.clock.now(), |it| it.times.started);
        let opened = in_time(&gateway, started, attempts(&mut job, planned)).await;
        match &opened {
            Ok((Opened::Whole(whole), _)) => job.served(whole),
            Ok((Opened::Live(_), _)) => {} // settled by what flows
            Err(error) => job.refused(error),
        }
        opened
    })
}

async fn attempts(job: &mut Job, mut planned: Planned) -> Result<(Opened, HeaderMap), ApiError> {
    loop {
        let headers = planned.headers();
        match attempt::attempt(job, planned).await {
            Ok(opened) => return Ok((opened, headers)),
            Err(failed) => match job.next(failed).await {
                Ok(again) => planned = again,
                Err(job::End::Error(error)) => return Err(error),
                Err(job::End::Pass(whole)) => return Ok((Opened::Whole(whole), headers)),
            },
        }
    }
}

fn respond((opened, headers): (Opened, HeaderMap)) -> Response {
    match opened {
        Opened::Whole(whole) => {
            let mut response = Response::new(super::full(whole.body));
            *response.status_mut() = whole.status;
            *response.headers_mut() = whole.headers;
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.headers_mut().extend(headers);
            if !response.status().is_success() {
                response.extensions_mut().insert(super::error::Code("worker"));
            }
            response
        }
        Opened::Live(mut live) => {
            let (status, mut worker_headers) = live.head();
            worker_headers.extend(headers);
            let mut response = stream(Streaming::Live(live), worker_headers);
            *response.status_mut() = status;
            response
        }
    }
}

/// A streamed body: still opening, flowing, or over.
enum Streaming {
    Early(Early),
    Live(Box<Live>),
    Over,
}

/// A stream whose head is out and whose content is not there yet.
struct Early {
    opening: Opening,
    gateway: Arc<Gateway>,
    family: Family,
    quiet_since: Instant,
}

fn stream(state: Streaming, mut headers: HeaderMap) -> Response {
    let is_raw = matches!(&state, Streaming::Live(live) if !live.is_events());
    let frames = futures_util::stream::unfold(state, |state| async move {
        let (bytes, state) = state.next().await?;
        Some((bytes.map(Frame::data), state))
    });
    // Who reads on after the end, as the maker of a response does, is told again that it is the end.
    let frames = frames.fuse();
    let mut response = Response::new(super::flowing(StreamBody::new(frames)));
    *response.status_mut() = StatusCode::OK;
    if !is_raw {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    }
    *response.headers_mut() = headers;
    response
}

impl Streaming {
    async fn next(self) -> Option<(Result<Bytes, CutShort>, Self)> {
        match self {
            Self::Over => None,
            Self::Live(mut live) => {
                let bytes = live.next().await?;
                Some((bytes, Self::Live(live)))
            }
            Self::Early(early) => early.next().await,
        }
    }
}

impl Early {
    async fn next(mut self) -> Option<(Result<Bytes, CutShort>, Streaming)> {
        let due = self.quiet_since + self.gateway.config.stream_keep_alive;
        let Ok(opened) = tokio::time::timeout_at(due, &mut self.opening).await else {
            self.gateway.metrics.kept_alive();
            self.quiet_since = self.gateway.clock.now();
            return Some((Ok(Bytes::from_static(b": keep-alive\n\n")), Streaming::Early(self)));
        };
        let last = match opened {
            Ok((Opened::Live(mut live), _)) if live.is_events() => {
                let bytes = live.next().await?;
                return Some((bytes, Streaming::Live(live)));
            }
            // The client was promised events.
            Ok((Opened::Live(_), _)) => {
                let error = ApiError::WorkerFailed { cause: WorkerFailure::Malformed, attempts: 1 };
                self.family.error_event(&error.text(), 0)
            }
            Ok((Opened::Whole(whole), _)) => whole.into_error_event(self.family),
            Err(error) => self.family.error_event(&error.text(), 0),
        };
        Some((Ok(last), Streaming::Over))
    }
}
