//! Workers that only one node reaches (a loopback address): the others reach them through that node, its *owner*.
//!
//! ```text
//! caller                                      owner
//!   │── stream of the lane `forward` ──────────▶│
//!   │── opening {worker, first byte timeout} ──▶│   the worker must be in its registry, and reached by itself
//!   │── request, HTTP/1.1 ─────────────────────▶│──▶ worker, with the worker's own key
//!   │◀── answer with a verdict in its head ─────│◀──
//! ```
//! [`ForwardWorker`] is the caller's side, one more kind of worker; [`owner`] the other. *Invariants:* a stream carries one exchange; a call or
//! body that is dropped resets it, and that aborts the request at the worker (P7); a worker's key never travels, nor does a
//! client's; an owner goes to workers of its registry only, so no address comes from a caller; what was forwarded is not
//! forwarded again; the load guard is the caller's, the owner takes none, so the request counts once.

mod header;
pub mod owner;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Uri;
use http::header as names;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::header::Opening;
use self::header::VERDICT;
use self::header::Verdict;
use super::http::body::Hold;
use super::http::body::ReturningBody;
use super::http::judge;
use super::http::pool::Line;
use super::http::remove_hop_by_hop;
use super::http::remove_ours;
use super::metrics::Forwarding;
use super::metrics::Metrics;
use super::metrics::Turned;
use super::worker::Answer;
use super::worker::AnswerBody;
use super::worker::BoxFuture;
use super::worker::Call;
use super::worker::CallError;
use super::worker::ConnectFailure;
use super::worker::Segments;
use super::worker::Worker;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::limits::FORWARDED_TO_NODE_MAX;
use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::limits::HEADERS_MAX;
use crate::observability::metrics::GaugeGuard;
use crate::transport;
use crate::transport::Peer;
use crate::transport::Stream;

/// What the way through another node may take beyond what the worker may. Shorter would cut off what the owner is about to tell.
const DETOUR: Duration = Duration::from_secs(2);

/// Room in a head for what the two ends add to it.
const OWN_HEAD_BYTES: usize = 4 << 10;
const OWN_HEADERS: usize = 8;

/// Nothing was sent.
const NO_WAY: CallError = CallError::Connect(ConnectFailure::NoWay);

/// Who is behind a storage id, if it is a member that is spoken to.
pub type FindPeer = Arc<dyn Fn(StorageId) -> Option<Arc<Peer>> + Send + Sync>;

/// The way to other nodes.
#[derive(Clone)]
pub struct Ways {
    /// This node.
    pub me: StorageId,
    /// How they are spoken to.
    pub transport: transport::Handle,
    /// Who they are.
    pub find: FindPeer,
}

/// What all forwarded workers of a node share. Without ways it reaches nobody: a node alone.
#[derive(Clone, Default)]
pub struct Forwarder {
    ways: Option<Ways>,
    places: Arc<Mutex<BTreeMap<StorageId, Arc<Semaphore>>>>,
}

impl Forwarder {
    /// One that goes these ways.
    #[must_use]
    pub fn new(ways: Ways) -> Self {
        Self { ways: Some(ways), places: Arc::default() }
    }

    /// Whether a worker with this owner is reached through somebody else.
    #[must_use]
    pub fn is_elsewhere(&self, via: Option<StorageId>) -> bool {
        via.is_some_and(|owner| self.ways.as_ref().is_none_or(|it| it.me != owner))
    }

    /// A place among the streams to one node, unless there are as many as there may be.
    fn place(&self, owner: StorageId) -> Option<OwnedSemaphorePermit> {
        let mut places = self.places.lock();
        // BOUND: nodes without a stream are dropped, so there are at most as many as there are streams.
        places.retain(|it, free| *it == owner || free.available_permits() < FORWARDED_TO_NODE_MAX);
        let of_it = places.entry(owner).or_insert_with(|| Arc::new(Semaphore::new(FORWARDED_TO_NODE_MAX)));
        Arc::clone(of_it).try_acquire_owned().ok()
    }
}

/// A worker that is reached through its owner.
pub struct ForwardWorker {
    worker: WorkerId,
    owner: StorageId,
    forwarder: Forwarder,
    connect_timeout: Duration,
    metrics: Metrics,
}

/// What a stream holds on to until it ends.
struct Held {
    _place: OwnedSemaphorePermit,
    _active: GaugeGuard,
}

impl ForwardWorker {
    /// A worker of another node. `connect_timeout` bounds the way to that node, and is what it is expected to grant the worker.
    #[must_use]
    pub fn new(
        worker: WorkerId,
        owner: StorageId,
        forwarder: Forwarder,
        connect_timeout: Duration,
        metrics: Metrics,
    ) -> Self {
        Self { worker, owner, forwarder, connect_timeout, metrics }
    }

    async fn exchange(&self, call: Call) -> Result<Answer, CallError> {
        let Some(place) = self.forwarder.place(self.owner) else {
            self.metrics.turned_away(Turned::TooMany);
            return Ok(overloaded());
        };
        let request = request(&call)?;
        let stream = timeout(self.connect_timeout, self.open(&call)).await;
        let stream = stream.unwrap_or(Err(NO_WAY)).inspect_err(|_| self.metrics.turned_away(Turned::NoWay))?;
        let held = Held { _place: place, _active: self.metrics.forwards(Forwarding::Out) };
        let mut builder = http1::Builder::new();
        builder.max_headers(HEADERS_MAX + OWN_HEADERS).max_buf_size(HEAD_BYTES_MAX + OWN_HEAD_BYTES);
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|_closed| CallError::Lost)?;
        let mut line = Line::new(sender, async move {
            let _ = connection.await; // whoever uses it sees the error
            drop(held);
        });
        let limit = call.first_byte_timeout.saturating_add(self.connect_timeout + DETOUR);
        let late = |_elapsed| CallError::FirstByteTimeout(call.first_byte_timeout);
        let response = timeout(limit, line.send(request)).await.map_err(late)?.map_err(|it| judge(&it))?;
        let (mut head, body) = Response::into_parts(response);
        let verdict = head.headers.remove(VERDICT).and_then(|it| Verdict::read(&it)).ok_or(CallError::Protocol)?;
        if verdict == Verdict::NoWay {
            self.metrics.turned_away(Turned::NoWay);
        }
        verdict.judge(call.first_byte_timeout, self.connect_timeout)?;
        remove_hop_by_hop(&mut head.headers);
        let body = Box::pin(ReturningBody::new(body, Hold::Alone(line)));
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A stream on which the opening was said.
    async fn open(&self, call: &Call) -> Result<Stream, CallError> {
        let ways = self.forwarder.ways.as_ref().ok_or(NO_WAY)?;
        let peer = (ways.find)(self.owner).ok_or(NO_WAY)?;
        let mut stream = ways.transport.open(&peer, self.connect_timeout).await.map_err(|_unreachable| NO_WAY)?;
        let opening = Opening { worker: self.worker, first_byte_timeout: call.first_byte_timeout };
        opening.write(&mut stream).await.map_err(|_lost| NO_WAY)?;
        Ok(stream)
    }
}

impl Worker for ForwardWorker {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(self.exchange(call))
    }

    fn close_idle(&self, _: Instant) -> usize {
        0 // a stream is not kept
    }
}

fn request(call: &Call) -> Result<Request<Segments>, CallError> {
    let mut request = Request::new(call.body.clone());
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = call.path.parse::<Uri>().map_err(|_malformed| CallError::Protocol)?;
    let headers = request.headers_mut();
    headers.clone_from(&call.headers);
    remove_hop_by_hop(headers);
    remove_ours(headers);
    Ok(request)
}

/// As many requests as there may be are on their way already: a pause is asked for as a worker would ask for it, so that the
/// request goes elsewhere and this worker is left alone for a moment without being held for broken, by a probe either.
fn overloaded() -> Answer {
    // Readable in every dialect.
    const SAID: &str = r#"{"type":"error","error":{"type":"overloaded_error","message":"too many requests are being forwarded to the node that reaches this worker"}}"#;
    let mut headers = HeaderMap::new();
    headers.insert(names::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(names::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Answer { status: StatusCode::TOO_MANY_REQUESTS, headers, body: whole(Bytes::from_static(SAID.as_bytes())) }
}

fn whole(bytes: Bytes) -> AnswerBody {
    Box::pin(Segments::from(bytes).map_err(|never| match never {}))
}
