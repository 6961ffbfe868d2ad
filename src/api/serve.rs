//! Listening and connections: one acceptor, and edge threads that each own the connections given to them.
//!
//! An edge thread is a single-threaded runtime: a request, its worker's connection and its stream stay on one core.
//! *Invariants:* a client that does not finish its request head in time is closed; TCP_NODELAY is always set.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::limits;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::workers;

use super::gateway::Gateway;
use super::metrics as api_metrics;

const CONNECTION: Task = Task { name: "client-connection", stage: Stage::Serve, on_end: OnEnd::Fine };
const ACCEPT: Task = Task { name: "accept", stage: Stage::Accept, on_end: OnEnd::StopNode };
const EDGE: Task = Task { name: "edge", stage: Stage::Serve, on_end: OnEnd::StopNode };

/// Accepted connections that wait for their edge thread. Beyond it the acceptor waits, and the kernel's backlog with it.
const HANDOVER_LEN: usize = 256;

/// What every connection needs.
#[derive(Clone)]
pub struct Edge {
    /// The routes.
    pub routes: Router,
    /// Their handles.
    pub gateway: Arc<Gateway>,
    /// Owner of connections.
    pub tasks: Tasks,
    /// TLS towards clients.
    pub tls: Option<TlsAcceptor>,
}

/// Starts the edge threads and the acceptor.
pub fn start(listener: TcpListener, threads: usize, edge: &Edge) -> std::io::Result<()> {
    let places = Arc::new(Semaphore::new(edge.gateway.config.max_connections.min(Semaphore::MAX_PERMITS)));
    let mut lanes = Vec::with_capacity(threads);
    for index in 0..threads {
        let (lane, inbox) = mpsc::channel(HANDOVER_LEN);
        lanes.push(lane);
        let edge = edge.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = edge.tasks.stop(Stage::Carry);
        std::thread::Builder::new().name(format!("edge-{index}")).spawn(move || {
            workers::http::set_thread_index(index);
            runtime.block_on(async move {
                edge.tasks.clone().spawn(EDGE, |stop| take_connections(edge, inbox, stop));
                stop.cancelled().await;
            });
        })?;
    }
    edge.tasks.spawn(ACCEPT, |stop| accept(listener, lanes, places, stop));
    Ok(())
}

/// A connection on its way to its edge thread, with its place among those that may be open.
struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    at: Instant,
}

async fn accept(listener: TcpListener, lanes: Vec<mpsc::Sender<Accepted>>, places: Arc<Semaphore>, stop: Stop) {
    let mut next = 0;
    loop {
        // BOUND: at the most connections there may be, new ones wait in the kernel's backlog.
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, or the client left: neither goes away by trying at once.
            Clock.sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true); // slower without, not wrong
        let Ok(stream) = stream.into_std() else { continue };
        let _ = lanes[next % lanes.len()].send(Accepted { stream, peer, place, at: Clock.now() }).await; // gone: its thread ended, and the node with it
        next += 1;
    }
}

async fn take_connections(edge: Edge, mut inbox: mpsc::Receiver<Accepted>, stop: Stop) {
    loop {
        let Accepted { stream, peer, place, at } = tokio::select! {
            () = stop.cancelled() => return,
            taken = inbox.recv() => match taken {
                Some(taken) => taken,
                // The acceptor ended with its stage: nothing new comes, what there is goes on.
                None => return stop.cancelled().await,
            },
        };
        edge.gateway.metrics.stage(api_metrics::Stage::Accept, Clock.now() - at);
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let edge = edge.clone();
        edge.tasks.clone().spawn(CONNECTION, |stop| async move {
            connection(edge, stream, peer, stop).await;
            drop(place);
        });
    }
}

async fn connection(edge: Edge, stream: TcpStream, peer: SocketAddr, stop: Stop) {
    let _open = edge.gateway.metrics.connection();
    let head_timeout = edge.gateway.config.head_timeout;
    let Some(tls) = &edge.tls else {
        let mut start = [0; 4];
        let peeked = tokio::time::timeout(head_timeout, stream.peek(&mut start)).await;
        let Ok(Ok(len)) = peeked else { return };
        let is_h2 = start[..len].starts_with(b"PRI");
        return serve(edge, stream, peer, is_h2, stop).await;
    };
    let Ok(Ok(stream)) = tokio::time::timeout(head_timeout, tls.accept(stream)).await else { return };
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve(edge.clone(), stream, peer, is_h2, stop).await;
}

async fn serve<T>(edge: Edge, stream: T, peer: SocketAddr, is_h2: bool, stop: Stop)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = edge.routes;
    let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().oneshot(request)
    });
    let io = TokioIo::new(stream);
    // The outcome of a connection is its clients' business: requests log their own failures.
    if is_h2 {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_header_list_size(limits::HEAD_BYTES_MAX as u32);
        builder.keep_alive_interval(Duration::from_secs(20)).max_concurrent_streams(1024);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = &mut connection => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(edge.gateway.config.head_timeout);
        builder.max_buf_size(limits::HEAD_BYTES_MAX).max_headers(limits::HEADERS_MAX);
        let mut connection = std::pin::pin!(builder.serve_connection(io, service));
        tokio::select! {
            _ = &mut connection => {}
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}
