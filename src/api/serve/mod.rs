//! Listening and connections: one acceptor, and edge threads that each own the connections given to them.
//!
//! An edge thread is a single-threaded runtime: a request, its worker's connection and its stream stay on one core.
//! `connection` serves one client; `watch` knows what it is waited for.
//! *Invariants:* a client that does not finish its request head in time, or takes nothing of its answer, is closed, one
//! that pauses between requests is not, for long; TCP_NODELAY is always set.

mod body;
mod connection;
pub mod refusal;
mod stream;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::workers;

use super::gateway::Gateway;
use super::metrics;

const CONNECTION: Task = Task { name: "client-connection", stage: Stage::Serve, on_end: OnEnd::Fine };
const ACCEPT: Task = Task { name: "accept", stage: Stage::Accept, on_end: OnEnd::StopNode };
const EDGE: Task = Task { name: "edge", stage: Stage::Serve, on_end: OnEnd::StopNode };

/// Accepted connections that wait for their edge thread. Beyond it the acceptor waits, and the kernel's backlog with it.
const HANDOVER_LEN: usize = 256;

/// No connection for so long means that none is left in the kernel's backlog. Less could miss one that has arrived
/// without its event, more delays the stop.
const BACKLOG_QUIET: Duration = Duration::from_millis(10);

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
    let mut lanes = lanes.iter().cycle();
    loop {
        // BOUND: at the most connections there may be, new ones wait in the kernel's backlog.
        let place = tokio::select! {
            () = stop.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok(accepted) = accepted else {
            // Out of file descriptors, or the client left: neither goes away by trying at once.
            Clock.sleep(Duration::from_millis(10)).await;
            continue;
        };
        hand_over(accepted, place, lanes.next()).await;
    }
    // What waits in the kernel came before we stopped; it would be reset together with the listener.
    while let Ok(place) = Arc::clone(&places).try_acquire_owned() {
        let Ok(Ok(accepted)) = tokio::time::timeout(BACKLOG_QUIET, listener.accept()).await else { return };
        hand_over(accepted, place, lanes.next()).await;
    }
}

async fn hand_over(
    (stream, peer): (TcpStream, SocketAddr),
    place: OwnedSemaphorePermit,
    lane: Option<&mpsc::Sender<Accepted>>,
) {
    let _ = stream.set_nodelay(true); // slower without, not wrong
    if let (Ok(stream), Some(lane)) = (stream.into_std(), lane) {
        let _ = lane.send(Accepted { stream, peer, place, at: Clock.now() }).await; // gone: its thread ended, and the node with it
    }
}

async fn take_connections(edge: Edge, mut inbox: mpsc::Receiver<Accepted>, stop: Stop) {
    // The acceptor ends with its stage, and with it what comes here; what there is goes on.
    while let Some(Accepted { stream, peer, place, at }) = inbox.recv().await {
        edge.gateway.metrics.stage(metrics::Stage::Accept, Clock.now() - at);
        let Ok(stream) = TcpStream::from_std(stream) else { continue };
        let edge = edge.clone();
        edge.tasks.clone().spawn(CONNECTION, |stop| async move {
            connection::run(edge, stream, peer, stop).await;
            drop(place);
        });
    }
    stop.cancelled().await;
}
