//! The driver: one task listens, one task serves each connection.
//!
//! Ordinary answers go through hyper. An answer with a fault below HTTP is handed out of the connection: hyper is taken
//! apart, and [`super::sabotage`] writes to the bare socket.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;

use super::faults::Rule;
use super::handle;
use super::handle::Incoming;
use super::handle::Outgoing;
use super::sabotage;
use super::shared::Shared;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

const LISTEN: Task = Task { name: "sim-listen", stage: Stage::Accept, on_end: OnEnd::Fine };
const CONNECTION: Task = Task { name: "sim-connection", stage: Stage::Serve, on_end: OnEnd::Fine };

/// Connections the kernel holds until they are accepted.
const BACKLOG: u32 = 4096;

/// What a request hands out of its connection.
pub(super) type Handover = Arc<Mutex<Option<(Outgoing, Rule)>>>;

type Served = Pin<Box<dyn Future<Output = Result<Outgoing, std::convert::Infallible>> + Send>>;

/// Listens until `stop` or the tasks' own end.
pub(super) fn listen(shared: Arc<Shared>, listener: TcpListener, tasks: &Tasks, stop: Stop) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let owner = tasks.clone();
    tasks.spawn(LISTEN, |stage| async move {
        tokio::select! {
            () = accept(shared, listener, address, owner, stop.clone()) => {}
            () = stop.cancelled() => {}
            () = stage.cancelled() => {}
        }
    });
    Ok(address)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, address: SocketAddr, tasks: Tasks, stop: Stop) {
    let mut closed_until = shared.closed_until.subscribe();
    let mut listener = Some(listener);
    loop {
        let until = *closed_until.borrow_and_update();
        if let Some(until) = until.filter(|it| *it > shared.clock.now()) {
            listener = None; // the port is closed: connecting is refused
            tokio::select! {
                () = shared.clock.sleep(until - shared.clock.now()) => {}
                _ = closed_until.changed() => {}
            }
            continue;
        }
        let Some(open) = &listener else {
            listener = bind(address).ok();
            if listener.is_none() {
                shared.clock.sleep(std::time::Duration::from_millis(10)).await; // somebody else has the port
            }
            continue;
        };
        tokio::select! {
            accepted = open.accept() => match accepted {
                Ok((stream, _)) => {
                    let (shared, stop) = (Arc::clone(&shared), stop.clone());
                    tasks.spawn(CONNECTION, |stage| connection(shared, stream, stage, stop));
                }
                // Out of descriptors, mostly: whoever holds them lets go.
                Err(_) => shared.clock.sleep(std::time::Duration::from_millis(10)).await,
            },
            _ = closed_until.changed() => {}
        }
    }
}

/// Listens where somebody may just have listened.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, stage: Stop, stop: Stop) {
    let number = shared.meters.connections.fetch_add(1, Relaxed) + 1;
    shared.meters.connections_open.fetch_add(1, Relaxed);
    let _ = stream.set_nodelay(true); // refused only by a socket that is already dead
    tokio::select! {
        () = serve(&shared, stream, number) => {}
        () = stage.cancelled() => {}
        () = stop.cancelled() => {}
    }
    shared.meters.connections_open.fetch_sub(1, Relaxed);
}

async fn serve(shared: &Arc<Shared>, stream: TcpStream, number: u64) {
    let handover = Handover::default();
    let service = {
        let (shared, handover) = (Arc::clone(shared), Arc::clone(&handover));
        hyper::service::service_fn(move |request: Incoming| -> Served {
            let (shared, handover) = (Arc::clone(&shared), Arc::clone(&handover));
            Box::pin(async move {
                let (outgoing, fault) = handle::handle(&shared, request, number).await;
                let Some(fault) = fault else { return Ok(outgoing) };
                *handover.lock() = Some((outgoing, fault));
                std::future::pending().await // the connection's own task takes it from here
            })
        })
    };
    let mut builder = http1::Builder::new();
    builder.pipeline_flush(true).auto_date_header(false);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service);
    let handed = std::future::poll_fn(|context| {
        let polled = connection.poll_without_shutdown(context);
        if let Some(handed) = handover.lock().take() {
            return Poll::Ready(Some(handed));
        }
        polled.map(|_| None) // however it ended, the client is gone
    })
    .await;
    let stream = connection.into_parts().io.into_inner();
    match handed {
        Some((outgoing, fault)) => sabotage::play(shared, stream, outgoing, &fault).await,
        None => drop(stream),
    }
}
