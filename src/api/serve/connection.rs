//! One client connection from its first byte to its last: protocol, requests, drain, and an end by the book.
//!
//! h2 is known by ALPN, or by its preface on a plain port. *Invariants:* a connection that we end while its client may
//! still be sending is closed in two steps, so that the answer is not lost with the rest (RFC 9112 9.6); a node that
//! stops waits no longer than [`LINGER`] for a connection without a request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use bytes::Bytes;
use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::Service;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use crate::base::limits;
use crate::base::tasks::Stop;

use super::super::gateway::Gateway;
use super::Edge;
use super::body::Outgoing;
use super::refusal;
use super::refusal::BadHead;
use super::stream::Stream;
use super::watch::Overdue;
use super::watch::Patience;
use super::watch::Watch;

/// What an h2 connection begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// After our last byte, how long the client's are read and thrown away, or an idle h2 client may take to say goodbye; and
/// how long a node that stops waits for a request to begin. Less cuts what is on a slow line, more delays the stop.
const LINGER: Duration = Duration::from_secs(2);
/// The same for another request on a kept connection, which is answered and told to be the last. Its client sent it before it could know that we stop: less
/// than a round trip, and a busy node's delay in reading, loses it; more delays every stop.
const LINGER_KEPT: Duration = Duration::from_millis(500);

/// Streams a client may have open on one h2 connection; more are refused by the h2 stack.
const STREAMS_MAX: u32 = 1024;

/// How often an h2 client is asked whether it lives.
const PING: Duration = Duration::from_secs(20);

/// Serves a connection to its end.
pub(super) async fn run(edge: Edge, stream: TcpStream, peer: SocketAddr, stop: Stop) {
    let _open = edge.gateway.metrics.connection();
    let opening = async {
        let Some(tls) = edge.tls.clone() else {
            let (start, is_h2) = protocol(&stream).await.ok()?;
            return Some(Opened::Plain(stream, start, is_h2));
        };
        tls.accept(stream).await.ok().map(|it| Opened::Tls(Box::new(it)))
    };
    let stopped = async {
        stop.cancelled().await;
        edge.gateway.clock.sleep(LINGER).await; // what was sent before we stopped may still be on its way
    };
    let opened = tokio::select! {
        () = stopped => return,
        opened = tokio::time::timeout(edge.gateway.config.head_timeout, opening) => opened,
    };
    match opened {
        Ok(Some(Opened::Plain(stream, start, is_h2))) => serve(edge, stream, start, peer, is_h2, stop).await,
        Ok(Some(Opened::Tls(stream))) => {
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve(edge, stream, Bytes::new(), peer, is_h2, stop).await;
        }
        Ok(None) | Err(_) => {} // it left, or said nothing
    }
}

enum Opened {
    Plain(TcpStream, Bytes, bool),
    Tls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Whether a plain connection speaks h2, and what had to be read to know. Most often a look at what lies there is enough.
async fn protocol(stream: &TcpStream) -> std::io::Result<(Bytes, bool)> {
    let mut start = [0; PREFACE.len()];
    let len = stream.peek(&mut start).await?;
    if len == PREFACE.len() || !PREFACE.starts_with(&start[..len]) {
        return Ok((Bytes::new(), start == PREFACE));
    }
    // The preface in pieces: what was looked at stays there and would be seen again, so it has to be read.
    let mut read = BytesMut::with_capacity(PREFACE.len());
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        stream.readable().await?;
        match stream.try_read(&mut start[read.len()..]) {
            Ok(0) => break,
            Ok(len) => {
                let from = read.len();
                read.extend_from_slice(&start[from..from + len]);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let is_h2 = read == PREFACE;
    Ok((read.freeze(), is_h2))
}

async fn serve<T>(edge: Edge, io: T, start: Bytes, peer: SocketAddr, is_h2: bool, stop: Stop)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let config = &edge.gateway.config;
    let (head, idle, write) = (config.head_timeout, config.keep_alive_timeout, config.client_write_timeout);
    let watch = Watch::new(edge.gateway.clock, Patience { head, idle, write }, is_h2);
    let io = Stream::new(io, start, Arc::clone(&watch));
    let requests = Requests { routes: edge.routes, gateway: edge.gateway, peer, watch };
    // The outcome of a connection is its clients' business: requests log their own failures.
    if is_h2 { h2(io, requests, stop).await } else { h1(io, requests, stop).await }
}

async fn h1<T>(io: Stream<T>, requests: Requests, stop: Stop)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (watch, gateway) = (Arc::clone(&requests.watch), Arc::clone(&requests.gateway));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    builder.max_buf_size(limits::HEAD_BYTES_MAX).max_headers(limits::HEADERS_MAX);
    let mut connection = builder.serve_connection(TokioIo::new(io), requests);
    let mut overdue = std::pin::pin!(watch.overdue());
    let mut stopped = std::pin::pin!(async {
        stop.cancelled().await;
        // The library would close a connection without a request at once, and one may be on its way: its client does not know yet.
        let patience = if watch.is_fresh() { LINGER } else { LINGER_KEPT };
        let _ = tokio::time::timeout(patience, watch.touched()).await; // none came
    });
    let mut is_stopping = false;
    let late = loop {
        tokio::select! {
            biased; // what has come is read before an idle connection is closed
            _ = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break None,
            overdue = &mut overdue => break Some(overdue),
            () = &mut stopped, if !is_stopping => {
                is_stopping = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    let last_word = match late {
        None => watch.refused().map(BadHead::of),
        Some(Overdue::Head) if !watch.is_empty() => Some(BadHead::Late(gateway.config.head_timeout)),
        Some(Overdue::Write) => return, // it takes nothing, so there is no use in saying more
        Some(Overdue::Head | Overdue::Idle) => None,
    };
    let last_word = last_word.map(|it| it.counted(&gateway.metrics));
    let io = connection.into_parts().io.into_inner();
    tokio::select! {
        biased; // a stopping node says its last word, but waits for nobody's goodbye
        _ = tokio::time::timeout(LINGER, close(io, last_word, &watch)) => {}
        () = stop.cancelled() => {}
    }
}

/// Says the last word, ends our side, and reads on until the client has ended its own: bytes that nobody reads make the
/// kernel reset the connection, and with it what the client has not read yet.
async fn close<T>(mut io: Stream<T>, last_word: Option<BadHead>, watch: &Watch) -> std::io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Some(bad) = last_word {
        io.write_all(&bad.raw()).await?;
    }
    io.shutdown().await?;
    let mut scrap = BytesMut::new();
    while !watch.has_client_ended() {
        scrap.clear();
        scrap.reserve(16 << 10);
        io.read_buf(&mut scrap).await?;
    }
    Ok(())
}

async fn h2<T>(io: Stream<T>, requests: Requests, stop: Stop)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = Arc::clone(&requests.watch);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_header_list_size(u32::try_from(limits::HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    builder.keep_alive_interval(PING).max_concurrent_streams(STREAMS_MAX);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), requests));
    let mut overdue = std::pin::pin!(watch.overdue());
    let mut is_stopping = false;
    loop {
        tokio::select! {
            _ = &mut connection => return,
            overdue = &mut overdue => match overdue {
                Overdue::Head | Overdue::Idle => break,
                Overdue::Write => return,
            },
            () = stop.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
                // A client that does not answer our goodbye holds nobody up once its last stream ended.
                watch.hurry(LINGER);
                overdue.set(watch.overdue());
            }
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(LINGER, connection).await; // a client that does not answer is left
}

/// Hands requests to the routes.
struct Requests {
    routes: Router,
    gateway: Arc<Gateway>,
    peer: SocketAddr,
    watch: Arc<Watch>,
}

impl Service<Request<Incoming>> for Requests {
    type Response = http::Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, mut request: Request<Incoming>) -> Answering {
        self.watch.begin();
        let watch = Some(Arc::clone(&self.watch));
        let work = match refusal::check(&request) {
            Err(bad) => Work::Refused(Some(bad.counted(&self.gateway.metrics))),
            Ok(()) => {
                request.extensions_mut().insert(ConnectInfo(self.peer));
                Work::Routed(self.routes.clone().oneshot(request))
            }
        };
        Answering { work, watch }
    }
}

/// One request until its response's head.
struct Answering {
    work: Work,
    /// Goes on with the body; left here only when the request is given up.
    watch: Option<Arc<Watch>>,
}

#[expect(clippy::large_enum_variant, reason = "one lives for each request: a box would cost more than the room")]
enum Work {
    Refused(Option<BadHead>),
    Routed(Oneshot<Router, Request<Incoming>>),
}

impl Future for Answering {
    type Output = Result<http::Response<Outgoing>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let response = match &mut self.work {
            Work::Refused(bad) => bad.take().unwrap_or(BadHead::Malformed).answer(),
            Work::Routed(work) => match std::task::ready!(Pin::new(work).poll(cx)) {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        let Some(watch) = self.watch.take() else { return Poll::Pending }; // polled again after its end
        Poll::Ready(Ok(response.map(|body| Outgoing::new(body, watch))))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.end();
        }
    }
}
