//! The HTTP edge: connections, the route table, model requests, the admin API, and the one error mapping.
//!
//! *Invariants:* every answer that is not a worker's own follows the client's error schema; nothing here chooses a worker
//! or decides on a worker's health.

pub mod admin;
pub mod audit;
pub mod candidates;
pub mod config;
mod conversations;
pub mod cors;
pub mod error;
pub mod explain;
mod faults;
pub mod gateway;
pub mod intake;
pub mod metrics;
pub mod models;
pub mod openapi;
pub mod ratelimit;
mod relay;
pub mod responses;
pub mod routes;
pub mod series;
pub mod serve;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt as _;

/// A response.
pub type Response = http::Response<axum::body::Body>;

/// A body that is there already.
pub fn full(bytes: Bytes) -> axum::body::Body {
    axum::body::Body::from(bytes)
}

/// An answer that ends before its end. The connection (h1) or stream (h2) is broken off, so that the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not complete")]
pub struct CutShort;

/// A body that is made as it is read.
pub fn flowing<B>(body: B) -> axum::body::Body
where
    B: http_body::Body<Data = Bytes, Error = CutShort> + Send + 'static,
{
    axum::body::Body::new(body.boxed_unsync())
}

/// A JSON answer of ours.
#[must_use]
pub fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(full(Bytes::from(value.to_string())));
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The last part of a request's path, unescaped; at most 300 characters of it.
#[must_use]
pub fn last_segment<B>(request: &http::Request<B>) -> String {
    unescaped(request.uri().path().rsplit('/').next().unwrap_or_default())
}

/// The part of a path at this place, counted from 0, in the same way.
#[must_use]
pub fn segment(path: &str, place: usize) -> String {
    unescaped(path.trim_start_matches('/').split('/').nth(place).unwrap_or_default())
}

fn unescaped(raw: &str) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        // `from_str_radix` alone would take a sign for a digit.
        let digits = tail.get(..2).filter(|it| it.iter().all(u8::is_ascii_hexdigit));
        let hex = digits.and_then(|it| u8::from_str_radix(std::str::from_utf8(it).ok()?, 16).ok());
        match (first, hex) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).chars().take(300).collect()
}

/// `/metrics` over `render`.
pub fn metrics_routes(render: impl Fn() -> String + Clone + Send + Sync + 'static) -> axum::Router {
    let handler = move || {
        let text = render();
        async move { ([(http::header::CONTENT_TYPE, crate::observability::metrics::CONTENT_TYPE)], text) }
    };
    axum::Router::new().route("/metrics", axum::routing::get(handler))
}

/// Serves routes on a listener of its own until stopped.
pub async fn serve_plain(listener: tokio::net::TcpListener, routes: axum::Router, stop: crate::base::tasks::Stop) {
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "the metrics listener ended");
    }
}

#[cfg(test)]
mod tests;
