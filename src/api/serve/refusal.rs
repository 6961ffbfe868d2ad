//! What a client is told whose request never became one.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::Version;
use http::header;

use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::limits::HEADERS_MAX;
use crate::dialects::Family;

use super::super::Response;
use super::super::error::ApiError;
use super::super::metrics::Metrics;

/// Why a request's head was not taken. Always the client's fault; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// Not HTTP, or framed so that two servers could read it differently.
    #[error(
        "the request's head is not valid HTTP: check the request line, the headers and how the body's length is given"
    )]
    Malformed,
    /// RFC 9112 3.2: none, or more than one.
    #[error("an HTTP/1.1 request must have exactly one `Host` header")]
    Host,
    /// Too many bytes or lines.
    #[error("the request's head is longer than {HEAD_BYTES_MAX} bytes or has more than {HEADERS_MAX} headers")]
    TooLarge,
    /// A path and query beyond what any route takes.
    #[error("the request's URL is too long: send parameters in the body")]
    UrlTooLong,
    /// Slow, or stopped in the middle.
    #[error("the request's head was not complete within: {0:?}")]
    Late(Duration),
}

impl BadHead {
    /// What the HTTP library meant with a status.
    pub(super) fn of(status: u16) -> Self {
        match status {
            414 => Self::UrlTooLong,
            431 => Self::TooLarge,
            _ => Self::Malformed,
        }
    }

    /// Counts it as a request to no route.
    pub(super) fn counted(self, metrics: &Metrics) -> Self {
        let (status, _, code) = ApiError::BadHead(self).classify();
        let series = metrics.route("other", "other");
        metrics.requested(&series);
        metrics.answered(&series, status, Some(code));
        self
    }

    /// A whole answer, after which the connection is closed.
    pub(super) fn answer(self) -> Response {
        let mut response = ApiError::BadHead(self).response(Family::OpenAi);
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// The same as the bytes of HTTP/1.1, where the library no longer speaks.
    pub(super) fn raw(self) -> Bytes {
        let error = ApiError::BadHead(self);
        let (status, body) = (error.classify().0, Family::OpenAi.error_body(&error.text()));
        let mut raw = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        raw.extend_from_slice(&body);
        Bytes::from(raw)
    }
}

/// What the HTTP library leaves for us to check.
pub(super) fn check<B>(request: &http::Request<B>) -> Result<(), BadHead> {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let is_wrong = match request.version() {
        Version::HTTP_11 => hosts != 1,
        _ => hosts > 1,
    };
    if is_wrong { Err(BadHead::Host) } else { Ok(()) }
}
