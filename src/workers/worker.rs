//! What every worker can do: take one call, answer it. HTTP and the in-memory fake implement it; `conformance.rs` holds
//! the one suite both pass.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use smallvec::SmallVec;

use crate::base::clock::Instant;

/// A body spliced from shared pieces: what the client sent, with our few bytes between. Nothing is copied.
#[derive(Clone, Debug, Default)]
pub struct Segments(SmallVec<[Bytes; 3]>);

impl Segments {
    /// Appends a piece; empty ones are dropped.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.0.push(piece);
        }
    }

    /// Bytes in all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One contiguous copy, for tests and for fakes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl From<Bytes> for Segments {
    fn from(piece: Bytes) -> Self {
        let mut segments = Self::default();
        segments.push(piece);
        segments
    }
}

impl Body for Segments {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready((!self.0.is_empty()).then(|| Ok(Frame::data(self.0.remove(0)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

/// One request to a worker. Cheap to clone: a retry sends the same pieces again.
#[derive(Clone, Debug)]
pub struct Call {
    /// HTTP method.
    pub method: Method,
    /// Path and query below the worker's base URL, beginning with `/`.
    pub path: String,
    /// Headers to send. Hop-by-hop headers, `host`, `content-length` and credentials are the worker's own business.
    pub headers: HeaderMap,
    /// The body.
    pub body: Segments,
    /// Longest wait for the response head, counted from the moment a connection is there.
    pub first_byte_timeout: Duration,
}

/// A worker's answer; dropping `body` before its end cancels the request at the worker.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// End-to-end headers (hop-by-hop ones are removed).
    pub headers: HeaderMap,
    /// The body, polled at the client's pace.
    pub body: AnswerBody,
}

/// The body of an [`Answer`].
pub type AnswerBody = Pin<Box<dyn Body<Data = Bytes, Error = CallError> + Send>>;

/// Why a call brought no (whole) answer. The client's request is untouched by any of these; whether a retry is safe
/// depends on what the client was already sent, which the caller knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The TCP or TLS connection could not be made: refused, unreachable, bad certificate. Nothing was sent.
    #[error("cannot connect to the worker: {0}")]
    Connect(ConnectFailure),
    /// The connection was not there in time. Nothing was sent.
    #[error("the worker did not accept a connection within: {0:?}")]
    ConnectTimeout(Duration),
    /// The connection ended after the request was (perhaps partly) sent and before the answer was complete.
    #[error("the worker closed the connection before its answer was complete")]
    Lost,
    /// No response head in time; the request was cancelled.
    #[error("the worker sent no response head within: {0:?}")]
    FirstByteTimeout(Duration),
    /// The answer breaks HTTP.
    #[error("the worker's answer is not valid HTTP")]
    Protocol,
}

/// What kept a connection from being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// Nobody listens, or the path to the host is closed.
    #[error("refused or unreachable")]
    Refused,
    /// The name has no address.
    #[error("name has no address")]
    NoAddress,
    /// Every address is one that workers may not have (link-local, metadata, outside the allow-list).
    #[error("address not allowed")]
    Forbidden,
    /// TLS failed.
    #[error("TLS handshake failed")]
    Tls,
    /// It is reached through another node, which cannot be reached, or does not reach it itself.
    #[error("the node that reaches it cannot be reached")]
    NoWay,
}

impl CallError {
    /// Whether the request can have reached the worker. `false`: trying elsewhere can never run it twice.
    #[must_use]
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectTimeout(_) => false,
            Self::Lost | Self::FirstByteTimeout(_) | Self::Protocol => true,
        }
    }
}

/// A boxed future, as object-safe async methods return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that answers model requests.
pub trait Worker: Send + Sync {
    /// Sends one request. Resolves at the response head; dropping the future cancels the request at the worker. A reused
    /// connection that dies before any response byte is replaced by a fresh one once, inside (P6).
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>>;

    /// Closes connections that were not used since `unused_since`; returns how many idle ones stay.
    fn close_idle(&self, unused_since: Instant) -> usize;
}
