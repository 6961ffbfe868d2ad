//! The side of a node that reaches workers which others do not: takes their streams, asks its own worker, passes the answer on.
//!
//! *Invariants:* the worker is one of this node's registry that it reaches by itself; what is held of other nodes' requests is bounded in
//! streams and in bytes; no load guard is taken here, see `mod.rs`. *Absent on purpose:* evidence for the worker's health: the
//! caller has it, and probes of this node's own.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::metrics::Forwarding;
use super::super::metrics::Metrics;
use super::super::metrics::Turned;
use super::super::registry::Registry;
use super::super::worker::Answer;
use super::super::worker::AnswerBody;
use super::super::worker::Call;
use super::super::worker::CallError;
use super::super::worker::Segments;
use super::NO_WAY;
use super::OWN_HEAD_BYTES;
use super::OWN_HEADERS;
use super::header::Opening;
use super::header::VERDICT;
use super::header::Verdict;
use super::overloaded;
use super::whole;
use crate::base::limits::FORWARDED_BYTES_MAX;
use crate::base::limits::FORWARDED_FROM_NODES_MAX;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::limits::HEADERS_MAX;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::transport::Stream;

/// Ends with the transport, so that who comes while this node drains is told at once to go elsewhere.
const DRIVER: Task = Task { name: "forwarding", stage: Stage::Carry, on_end: OnEnd::StopNode };
/// Waited for when the node drains, as clients' streams are.
const REQUEST: Task = Task { name: "forwarded-request", stage: Stage::Serve, on_end: OnEnd::Fine };
const REFUSAL: Task = Task { name: "forwarded-refusal", stage: Stage::Carry, on_end: OnEnd::Fine };

/// Longest wait for the opening, and then for the head of the request. They are sent together.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a whole request, which its caller has whole already: what the largest takes at 20 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bodies are counted in pieces of this many bytes.
const PIECE_BYTES: usize = 1 << 10;

/// See the file's header.
#[derive(Clone)]
struct Owner {
    registry: Arc<Registry>,
    metrics: Metrics,
    streams: Arc<Semaphore>,
    pieces: Arc<Semaphore>,
}

/// Starts taking what other nodes forward.
pub fn start(inbox: mpsc::Receiver<Stream>, registry: Arc<Registry>, metrics: Metrics, tasks: &Tasks) {
    start_bounded(inbox, registry, metrics, tasks, FORWARDED_FROM_NODES_MAX, FORWARDED_BYTES_MAX);
}

/// The same with bounds that a test can reach.
pub(super) fn start_bounded(
    inbox: mpsc::Receiver<Stream>,
    registry: Arc<Registry>,
    metrics: Metrics,
    tasks: &Tasks,
    streams_max: usize,
    bytes_max: usize,
) {
    let streams = Arc::new(Semaphore::new(streams_max));
    let pieces = Arc::new(Semaphore::new(bytes_max / PIECE_BYTES));
    let owner = Owner { registry, metrics, streams, pieces };
    let spawner = tasks.clone();
    tasks.spawn(DRIVER, |stop| owner.run(inbox, stop, spawner));
}

impl Owner {
    async fn run(self, mut inbox: mpsc::Receiver<Stream>, stop: Stop, tasks: Tasks) {
        let draining = tasks.stop(Stage::Serve);
        loop {
            let stream = tokio::select! {
                () = stop.cancelled() => return,
                stream = inbox.recv() => stream,
            };
            // BOUND: a peer may open only so many streams; what is beyond our own bound is refused in words, see `answer`.
            let Some(stream) = stream else { return stop.cancelled().await };
            let (task, place) = if draining.is_cancelled() {
                (REFUSAL, Place::Draining)
            } else {
                (REQUEST, Arc::clone(&self.streams).try_acquire_owned().map_or(Place::None, Place::Taken))
            };
            let owner = self.clone();
            tasks.spawn(task, |_| async move { owner.serve(stream, place).await });
        }
    }

    async fn serve(self, mut stream: Stream, place: Place) {
        let Ok(Ok(opening)) = timeout(HEAD_TIMEOUT, Opening::read(&mut stream)).await else {
            return self.metrics.turned_away(Turned::Unreadable);
        };
        let _active = self.metrics.forwards(Forwarding::In);
        let (owner, place) = (&self, &place);
        let service =
            service_fn(
                |request| async move { Ok::<_, Infallible>(rendered(owner.answer(opening, place, request).await)) },
            );
        let mut builder = http1::Builder::new();
        builder.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        builder.max_headers(HEADERS_MAX + OWN_HEADERS).max_buf_size(HEAD_BYTES_MAX + OWN_HEAD_BYTES);
        let _ = builder.serve_connection(TokioIo::new(stream), service).await; // the caller left, or the worker broke off
    }

    async fn answer(&self, opening: Opening, place: &Place, request: Request<Incoming>) -> Result<Answer, CallError> {
        let (head, body) = request.into_parts();
        let known = self.registry.get(opening.worker).filter(|it| it.through.is_none());
        let entry = match (place, known) {
            (Place::Taken(_), Some(entry)) => entry,
            (Place::None, Some(_)) => {
                self.metrics.turned_away(Turned::TooMany);
                skip(body).await;
                return Ok(overloaded());
            }
            (_, None) | (Place::Draining, _) => {
                self.metrics.turned_away(Turned::NoWay);
                skip(body).await;
                return Err(NO_WAY);
            }
        };
        let Some(pieces) = self.room(&body) else {
            self.metrics.turned_away(Turned::TooMuch);
            skip(body).await;
            return Ok(overloaded());
        };
        let whole = timeout(BODY_TIMEOUT, body.collect()).await;
        let body = whole.map_err(|_elapsed| CallError::Lost)?.map_err(|_lost| CallError::Lost)?.to_bytes();
        let call = Call {
            method: head.method,
            path: head.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers: head.headers,
            body: Segments::from(body),
            first_byte_timeout: opening.first_byte_timeout,
        };
        let answer = entry.worker.call(call).await;
        drop(pieces);
        answer
    }

    /// Room for a request of that length, which its caller knows.
    fn room(&self, body: &Incoming) -> Option<OwnedSemaphorePermit> {
        let len = usize::try_from(body.size_hint().exact()?).ok()?;
        let pieces = u32::try_from(len.div_ceil(PIECE_BYTES)).ok()?;
        Arc::clone(&self.pieces).try_acquire_many_owned(pieces).ok()
    }
}

/// Whether a stream is one of those that there may be.
enum Place {
    Taken(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
    None,
    Draining,
}

/// Reads a request that is refused to its end, without keeping it: a caller that is still writing would not see the answer.
async fn skip(mut body: Incoming) {
    let read = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = timeout(BODY_TIMEOUT, read).await; // late: it hears of it when it is cut off
}

fn rendered(answer: Result<Answer, CallError>) -> Response<AnswerBody> {
    let (verdict, answer) = match answer {
        Ok(answer) => (Verdict::Answered, answer),
        Err(error) => {
            let (headers, body) = (http::HeaderMap::new(), whole(Bytes::new()));
            (Verdict::of(&error), Answer { status: StatusCode::BAD_GATEWAY, headers, body })
        }
    };
    let mut response = Response::new(Box::pin(Patient { body: answer.body, broken: None }) as AnswerBody);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(VERDICT, verdict.header());
    response
}

/// A body that breaks off lets what came before it leave first. The server would throw it away, and the caller would never learn that the
/// worker had begun to answer.
struct Patient {
    body: AnswerBody,
    broken: Option<CallError>,
}

impl Body for Patient {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = self.body.as_mut().poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = polled {
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
