//! A worker behind HTTP/1.1, or h2 where TLS agrees on it.
//!
//! Idle connections are kept per edge thread and a connection is run by the request that uses it, so a request never
//! crosses threads or tasks (`pool`). How a connection is made, and to whom, is `dial`'s.
//! *Invariants:* the client's credentials never travel on; redirects are not followed; dropping a call or a body closes
//! the connection (h1) or resets the stream (h2), which is how the worker learns that nobody waits any more (P7).

pub(super) mod body;
mod dial;
mod hurt;
pub(super) mod pool;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::Uri;
use http::header;
use http::uri::PathAndQuery;
use http::uri::Scheme;

use super::address::Origin;
use super::worker::Answer;
use super::worker::BoxFuture;
use super::worker::Call;
use super::worker::CallError;
use super::worker::Segments;
use super::worker::Worker;
use crate::base::clock::Instant;
use crate::base::secret::Secret;

use body::Hold;
use body::Home;
use body::ReturningBody;
use dial::Fresh;
use pool::Pools;
use pool::Seat;
use pool::Way;

pub use dial::Dialer;
pub use dial::TlsError;
pub use pool::set_thread_index;

/// Headers of a client's request that end here: credentials, and what the connection to the worker decides itself.
const OURS: [HeaderName; 6] = [
    header::HOST,
    header::AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::ACCEPT_ENCODING,
    header::COOKIE,
];

/// One worker spoken to over HTTP.
pub struct HttpWorker {
    origin: Origin,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    dialer: Dialer,
    pools: Arc<Pools>,
}

impl HttpWorker {
    /// A worker at `origin`; `key` is sent as its bearer token.
    #[must_use]
    pub fn new(origin: Origin, key: Option<&Secret>, dialer: Dialer) -> Self {
        let host = HeaderValue::from_str(origin.authority.as_str()).expect("an authority is a valid header value");
        let authorization = key.and_then(|key| {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { origin, host, authorization, dialer, pools: Pools::new() }
    }

    async fn exchange(&self, call: Call) -> Result<Answer, CallError> {
        let path = self.path(&call.path)?;
        let now = self.dialer.clock.now();
        let oldest = now.checked_sub(self.dialer.idle_timeout).unwrap_or(now);
        if let Some(way) = self.pools.take(oldest, now) {
            let shared = way.trunk();
            match self.send(way, &call, &path).await {
                // A kept connection that died before any response byte: once more, on a fresh one (P6). A single
                // stream that was reset is the worker's answer to this request and not such a death.
                Err(CallError::Lost) if shared.is_none_or(|trunk| trunk.sender.is_closed()) => {
                    self.dialer.metrics.stale_connection();
                }
                done => return done,
            }
        }
        let way = match self.dialer.connect(&self.origin).await? {
            Fresh::H1(line) => Way::Line(line),
            Fresh::H2(trunk) => {
                let trunk = Arc::new(trunk);
                self.pools.share(&trunk, now);
                Way::Seat(Seat::take(&trunk))
            }
        };
        self.send(way, &call, &path).await
    }

    async fn send(&self, way: Way, call: &Call, path: &PathAndQuery) -> Result<Answer, CallError> {
        let late = |_elapsed| CallError::FirstByteTimeout(call.first_byte_timeout);
        let (response, hold) = match way {
            Way::Line(mut line) => {
                let request = self.request(call, Uri::from(path.clone()), Some(&self.host));
                let sending = line.send(request);
                let sent = tokio::time::timeout(call.first_byte_timeout, sending).await.map_err(late)?;
                let home = Home { pools: Arc::clone(&self.pools), thread: Pools::here(), clock: self.dialer.clock };
                (sent, Hold::Line(Some((line, home))))
            }
            Way::Seat(seat) => {
                let request = self.request(call, self.absolute(path)?, None);
                let mut sender = seat.0.sender.clone();
                let sending = sender.send_request(request);
                let sent = tokio::time::timeout(call.first_byte_timeout, sending).await.map_err(late)?;
                (sent, Hold::Seat { _seat: seat })
            }
        };
        let (mut head, body) = response.map_err(|it| judge(&it)).map(Response::into_parts)?;
        if head.status.is_informational() {
            return Err(CallError::Protocol); // 101: nobody asked for another protocol
        }
        remove_hop_by_hop(&mut head.headers);
        let body = Box::pin(ReturningBody::new(body, hold));
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn path(&self, below: &str) -> Result<PathAndQuery, CallError> {
        let path = match self.origin.base_path.as_str() {
            "" => below.to_owned(),
            base => format!("{base}{below}"),
        };
        PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(|_malformed| CallError::Protocol)
    }

    fn absolute(&self, path: &PathAndQuery) -> Result<Uri, CallError> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.origin.is_tls { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(self.origin.authority.clone());
        parts.path_and_query = Some(path.clone());
        Uri::from_parts(parts).map_err(|_malformed| CallError::Protocol)
    }

    fn request(&self, call: &Call, uri: Uri, host: Option<&HeaderValue>) -> Request<Segments> {
        let mut request = Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.clone_from(&call.headers);
        remove_hop_by_hop(headers);
        remove_ours(headers);
        if let Some(host) = host {
            headers.insert(header::HOST, host.clone());
        }
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        request
    }
}

impl Worker for HttpWorker {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        if self.dialer.chaos.is_well() {
            return Box::pin(self.exchange(call));
        }
        let hurt = self.dialer.chaos.call(|| self.origin.url());
        Box::pin(hurt::exchange(hurt, self.dialer.clock, self.dialer.connect_timeout, call, |call| self.exchange(call)))
    }

    fn close_idle(&self, unused_since: Instant) -> usize {
        self.pools.close_idle(unused_since)
    }
}

/// What hyper's error means for the caller: an answer that breaks HTTP is the worker's doing and not tried again here.
pub(super) fn judge(error: &hyper::Error) -> CallError {
    if error.is_parse() { CallError::Protocol } else { CallError::Lost }
}

/// Takes away what of a client's request ends here.
pub(super) fn remove_ours(headers: &mut HeaderMap) {
    for ours in &OURS {
        headers.remove(ours);
    }
    headers.remove("x-api-key");
}

/// RFC 9110 §7.6.1, and what `connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|it| it.to_str().ok())
            .flat_map(|it| it.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    for name in [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    headers.remove("proxy-authorization");
    headers.remove("http2-settings");
}
