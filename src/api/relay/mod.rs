//! The life of a model request: key, body, admission, parse, route, attempts, answer.
//!
//! *Invariants:* until content was sent to the client a failed attempt goes to a worker not yet tried, and cannot be
//! seen (P6); whatever ends a request drops its load guard, its permit and its worker's connection (P7).

mod account;
mod attempt;
mod job;
mod live;
mod spans;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http_body::Body;
use http_body::Frame;
use http_body_util::StreamBody;

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
use self::live::Live;
use super::Response;
use super::error::ApiError;
use super::gateway::Gateway;
use super::intake::Held;
use super::metrics::Stage;

type Opening = Pin<Box<dyn Future<Output = Result<Opened, ApiError>> + Send>>;

/// Serves one model request.
pub async fn serve<B>(gateway: Arc<Gateway>, wire: &'static Wire, request: Request<B>) -> Response
where
    B: Body<Data = Bytes> + Unpin,
{
    let (head, body) = request.into_parts();
    let account = Account::open(&gateway, wire, &head);
    let id = account.request_id.clone();
    let mut response = match admit(gateway, wire, head, body, account).await {
        Ok((job, planned)) => answer(job, planned).await.unwrap_or_else(|error| error.response(wire.family)),
        Err(error) => error.response(wire.family),
    };
    response.headers_mut().insert("x-request-id", id);
    response
}

/// Everything up to the choice of a worker.
async fn admit<B>(
    gateway: Arc<Gateway>,
    wire: &'static Wire,
    head: http::request::Parts,
    body: B,
    mut account: Account,
) -> Result<(Job, Planned), ApiError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let prepared = async {
        let principal = gateway.keys.authenticate(&head.headers)?;
        let held = gateway.intake.read(body).await?;
        gateway.metrics.received(held.bytes.len());
        account.lap(Stage::Body);
        let permit = gateway.admission.admit().await?;
        account.lap(Stage::Queue);
        let body = held.bytes.clone();
        let object = json::parse(&body)?;
        let parsed = (wire.read)(&object)?;
        let mut job = Job::new(Arc::clone(&gateway), wire, head, &parsed, held, principal)?;
        job.keep(permit, &account);
        account.lap(Stage::Parse);
        let planned = job.plan(parsed.prompt.as_ref())?;
        account.lap(Stage::Route);
        account.planned(&job, &planned);
        Ok((job, planned))
    };
    let prepared = prepared.await;
    match prepared {
        Ok((mut job, planned)) => {
            job.account = Some(account);
            Ok((job, planned))
        }
        Err(error) => {
            account.refused(&error);
            Err(error)
        }
    }
}

async fn answer(job: Job, planned: Planned) -> Result<Response, ApiError> {
    let (is_stream, family) = (job.is_stream, job.wire.family);
    let headers = job.response_headers(&planned);
    let gateway = Arc::clone(&job.gateway);
    let keep_alive = gateway.config.stream_keep_alive;
    let mut opening = open(job, planned);
    if !is_stream || keep_alive.is_zero() {
        return opening.await.map(|opened| respond(opened, headers));
    }
    match tokio::time::timeout(keep_alive, &mut opening).await {
        Ok(opened) => opened.map(|opened| respond(opened, headers)),
        // ORDER: the head goes out before any content, so that proxies in between keep the silent stream open.
        Err(_elapsed) => Ok(stream(Streaming::Opening(opening, gateway, family), headers)),
    }
}

/// Where a request would go. Nothing is sent, counted or remembered.
pub fn explain(
    gateway: Arc<Gateway>,
    wire: &'static Wire,
    head: http::request::Parts,
    parsed: &form::Request<'_>,
    held: Held,
    principal: Arc<Principal>,
) -> Result<Explanation, ApiError> {
    Job::new(gateway, wire, head, parsed, held, principal)?.explain(parsed.prompt.as_ref())
}

fn open(mut job: Job, planned: Planned) -> Opening {
    Box::pin(async move {
        let total = job.gateway.config.request_timeout;
        let opened = tokio::time::timeout(total, attempts(&mut job, planned)).await;
        let opened = opened.unwrap_or_else(|_elapsed| Err(job::timed_out(total)));
        match &opened {
            Ok(Opened::Whole(whole)) => job.served(whole),
            Ok(Opened::Live(_)) => {} // settled by what flows
            Err(error) => job.refused(error),
        }
        opened
    })
}

async fn attempts(job: &mut Job, mut planned: Planned) -> Result<Opened, ApiError> {
    loop {
        match attempt::attempt(job, planned).await {
            Ok(opened) => return Ok(opened),
            Err(failed) => match job.next(failed).await {
                Ok(again) => planned = again,
                Err(job::End::Error(error)) => return Err(error),
                Err(job::End::Pass(whole)) => return Ok(Opened::Whole(whole)),
            },
        }
    }
}

fn respond(opened: Opened, headers: http::HeaderMap) -> Response {
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
    Opening(Opening, Arc<Gateway>, Family),
    Live(Box<Live>),
    Over,
}

fn stream(state: Streaming, mut headers: http::HeaderMap) -> Response {
    let is_raw = matches!(&state, Streaming::Live(live) if !live.is_events());
    let frames = futures_util::stream::unfold(state, |state| async move {
        let (bytes, state) = state.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), state))
    });
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
    async fn next(self) -> Option<(Bytes, Self)> {
        match self {
            Self::Over => None,
            Self::Live(mut live) => {
                let bytes = live.next().await?;
                Some((bytes, Self::Live(live)))
            }
            Self::Opening(mut opening, gateway, family) => {
                let opened = tokio::time::timeout(gateway.config.stream_keep_alive, &mut opening).await;
                match opened {
                    Err(_elapsed) => {
                        gateway.metrics.kept_alive();
                        Some((Bytes::from_static(b": keep-alive\n\n"), Self::Opening(opening, gateway, family)))
                    }
                    Ok(Ok(Opened::Live(mut live))) => {
                        let bytes = live.next().await?;
                        Some((bytes, Self::Live(live)))
                    }
                    Ok(Ok(Opened::Whole(whole))) => Some((whole.into_error_event(family), Self::Over)),
                    Ok(Err(error)) => Some((family.error_event(&error.text()), Self::Over)),
                }
            }
        }
    }
}
