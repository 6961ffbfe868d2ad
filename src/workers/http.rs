//! A worker behind HTTP/1.1 or, over TLS where it offers it, still HTTP/1.1: one request a connection at a time.
//!
//! Idle connections are kept per edge thread and each connection's task runs on the thread that opened it, so a request
//! never crosses threads. There is no cap on connections in use (FIELD c6); idle ones are bounded.
//! *Invariants:* the client's credentials never travel on; redirects are not followed; dropping a call or a body closes
//! the connection, which is how the worker learns that nobody waits any more (P7).

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http_body::Body;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address;
use super::address::Origin;
use super::metrics::Metrics;
use super::worker::Answer;
use super::worker::BoxFuture;
use super::worker::Call;
use super::worker::CallError;
use super::worker::ConnectFailure;
use super::worker::Segments;
use super::worker::Worker;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const CONNECTION: Task = Task { name: "worker-connection", stage: Stage::Carry, on_end: OnEnd::Fine };

/// Idle connections kept per worker and thread; more are closed. Fewer would reconnect under bursts.
const IDLE_MAX: usize = 256;

/// Pools per worker; edge threads share them by index.
const POOLS: usize = 64;

thread_local! {
    static THREAD: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Tells this thread its number, so that it finds its own idle connections.
pub fn set_thread_index(index: usize) {
    THREAD.set(index % POOLS);
}

/// What all HTTP workers of a node share.
#[derive(Clone)]
pub struct Dialer {
    /// Owns connection tasks.
    pub tasks: Tasks,
    /// TLS towards workers.
    pub tls: TlsConnector,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Idle connections older than this are not used again.
    pub idle_timeout: Duration,
    /// Counts.
    pub metrics: Metrics,
    /// Time.
    pub clock: Clock,
}

struct Idle {
    sender: SendRequest<Segments>,
    since: Instant,
}

/// One worker spoken to over HTTP.
pub struct HttpWorker {
    origin: Origin,
    host: HeaderValue,
    authorization: Option<HeaderValue>,
    dialer: Dialer,
    pools: Arc<[Mutex<Vec<Idle>>]>,
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
        let pools = (0..POOLS).map(|_| Mutex::new(Vec::new())).collect();
        Self { origin, host, authorization, dialer, pools }
    }

    async fn exchange(&self, call: Call) -> Result<Answer, CallError> {
        let path = format!("{}{}", self.origin.base_path, call.path);
        let first_byte = call.first_byte_timeout;
        let sending = async {
            let mut reused = self.checkout();
            loop {
                let was_reused = reused.is_some();
                let mut sender = match reused.take() {
                    Some(sender) => sender,
                    None => self.connect().await?,
                };
                let request = self.request(&call, &path)?;
                match tokio::time::timeout(first_byte, sender.send_request(request)).await {
                    Err(_elapsed) => return Err(CallError::FirstByteTimeout(first_byte)),
                    Ok(Ok(response)) => return Ok((sender, response)),
                    // An idle connection that died before any response byte: once more, on a fresh one (P6).
                    Ok(Err(_)) if was_reused => self.dialer.metrics.stale_connection(),
                    Ok(Err(error)) if error.is_parse() => return Err(CallError::Protocol),
                    Ok(Err(_)) => return Err(CallError::Lost),
                }
            }
        };
        let (sender, response) = sending.await?;
        let (mut head, body) = response.into_parts();
        remove_hop_by_hop(&mut head.headers);
        let since = self.dialer.clock.now();
        let home = Home { pools: Arc::clone(&self.pools), thread: THREAD.get(), idle: Some(Idle { sender, since }) };
        let body = ReturningBody { body, home, clock: self.dialer.clock };
        Ok(Answer { status: head.status, headers: head.headers, body: Box::pin(body) })
    }

    fn request(&self, call: &Call, path: &str) -> Result<http::Request<Segments>, CallError> {
        let mut request = http::Request::new(call.body.clone());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = path.parse().map_err(|_| CallError::Protocol)?;
        let headers = request.headers_mut();
        headers.clone_from(&call.headers);
        remove_hop_by_hop(headers);
        for ours in
            [header::AUTHORIZATION, header::CONTENT_LENGTH, header::EXPECT, header::ACCEPT_ENCODING, header::COOKIE]
        {
            headers.remove(ours);
        }
        headers.remove("x-api-key");
        headers.insert(header::HOST, self.host.clone());
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        Ok(request)
    }

    fn checkout(&self) -> Option<SendRequest<Segments>> {
        let now = self.dialer.clock.now();
        let mut pool = self.pools[THREAD.get()].lock();
        while let Some(idle) = pool.pop() {
            if idle.sender.is_ready() && now.saturating_duration_since(idle.since) < self.dialer.idle_timeout {
                return Some(idle.sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<SendRequest<Segments>, CallError> {
        let timeout = self.dialer.connect_timeout;
        let connected = tokio::time::timeout(timeout, self.dial()).await;
        let result = connected.unwrap_or(Err(CallError::ConnectTimeout(timeout)));
        match &result {
            Ok(_) => self.dialer.metrics.connected(),
            Err(_) => self.dialer.metrics.connect_failed(),
        }
        result
    }

    async fn dial(&self) -> Result<SendRequest<Segments>, CallError> {
        let failed = CallError::Connect;
        let found = tokio::net::lookup_host((self.origin.host.as_str(), self.origin.port)).await;
        let found: Vec<SocketAddr> = found.map_err(|_| failed(ConnectFailure::NoAddress))?.collect();
        let allowed: Vec<SocketAddr> = found.iter().copied().filter(|it| address::is_allowed(it.ip())).collect();
        if allowed.is_empty() {
            let why = if found.is_empty() { ConnectFailure::NoAddress } else { ConnectFailure::Forbidden };
            return Err(failed(why));
        }
        let stream = TcpStream::connect(&allowed[..]).await.map_err(|_| failed(ConnectFailure::Refused))?;
        let _ = stream.set_nodelay(true); // a socket without it is slower, not wrong
        if !self.origin.is_tls {
            return self.handshake(TokioIo::new(stream)).await;
        }
        let name = self.origin.host.clone().try_into().map_err(|_| failed(ConnectFailure::Tls))?;
        let stream = self.dialer.tls.connect(name, stream).await.map_err(|_| failed(ConnectFailure::Tls))?;
        self.handshake(TokioIo::new(stream)).await
    }

    async fn handshake<T>(&self, io: TokioIo<T>) -> Result<SendRequest<Segments>, CallError>
    where
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new().handshake(io).await.map_err(|_| CallError::Lost)?;
        self.dialer.tasks.spawn(CONNECTION, |_| async move {
            let _ = connection.await; // its caller sees the error
        });
        Ok(sender)
    }
}

impl Worker for HttpWorker {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(self.exchange(call))
    }
}

/// RFC 9110 §7.6.1, and what `connection` names.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(named) = headers.get(header::CONNECTION).and_then(|it| it.to_str().ok()).map(str::to_owned) {
        for name in named.split(',') {
            headers.remove(name.trim());
        }
    }
    for name in [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    headers.remove("proxy-authorization");
}

/// Where a connection goes back to when its answer was read to the end.
struct Home {
    pools: Arc<[Mutex<Vec<Idle>>]>,
    thread: usize,
    idle: Option<Idle>,
}

/// A body that gives its connection back at its end; dropped before, the connection closes.
struct ReturningBody {
    body: Incoming,
    home: Home,
    clock: Clock,
}

impl ReturningBody {
    fn give_back(&mut self) {
        let Some(mut idle) = self.home.idle.take() else { return };
        idle.since = self.clock.now();
        let mut pool = self.home.pools[self.home.thread].lock();
        if pool.len() < IDLE_MAX {
            pool.push(idle);
        }
    }
}

impl Body for ReturningBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if self.body.is_end_stream() => self.give_back(),
            _ => {}
        }
        polled.map_err(|_| CallError::Lost)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
