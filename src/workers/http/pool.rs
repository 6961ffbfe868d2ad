//! Connections that wait for their next request, one pool a thread.
//!
//! A line is run by whoever uses it, within that request's own task: no second task is woken for each read, and a line that
//! is dropped closes at once, so a worker learns that nobody waits any more although it may not send a byte for minutes
//! (P7). An idle line is not run; what happened to it meanwhile is seen when it is taken or swept. Over h2 the streams of a thread share lines; a stream is reset alone.
//! *Invariants:* in use there is no bound (FIELD c6), idle there is; the lock is held for a push or a pop.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Waker;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http2;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::super::worker::Segments;
use crate::base::clock::Instant;

/// Idle connections kept per worker and thread; more are closed. Fewer would reconnect under bursts.
const IDLE_MAX: usize = 256;

/// Pools per worker. Edge threads have a pool each (beyond 63 they share); the last is for everybody else.
const POOLS: usize = 64;

/// Streams put on one h2 connection before another is opened: what RFC 9113 asks of every server at least. More would
/// wait unseen inside the h2 stack.
const STREAMS_MAX: usize = 100;

thread_local! {
    static THREAD: std::cell::Cell<usize> = const { std::cell::Cell::new(POOLS - 1) };
}

/// Tells this thread its number, so that it finds its own idle connections.
pub fn set_thread_index(index: usize) {
    THREAD.set(index % (POOLS - 1));
}

/// An h1 connection that carries one request at a time.
pub(in crate::workers) struct Line {
    sender: http1::SendRequest<Segments>,
    /// hyper's side of it; `None` once it has ended.
    connection: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Line {
    /// A connection that nobody runs yet.
    pub(in crate::workers) fn new(
        sender: http1::SendRequest<Segments>,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { sender, connection: Some(Box::pin(connection)) }
    }

    /// Lets the connection read and write what it can.
    pub(super) fn run(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
            self.connection = None;
        }
    }

    /// Sends a request and waits for the head of its answer; the body needs [`Line::run`] too.
    pub(in crate::workers) async fn send(&mut self, request: Request<Segments>) -> hyper::Result<Response<Incoming>> {
        let mut sending = std::pin::pin!(self.sender.send_request(request));
        std::future::poll_fn(|cx| {
            self.run(cx);
            sending.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can carry a request now, as far as can be seen without waiting.
    fn is_usable(&mut self) -> bool {
        self.run(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

/// An h2 connection, shared by the streams of its thread.
pub(super) struct Trunk {
    pub(super) sender: http2::SendRequest<Segments>,
    pub(super) streams: AtomicUsize,
    pub(super) _close: oneshot::Sender<()>,
}

/// One stream's place on a [`Trunk`].
pub(in crate::workers) struct Seat(pub(super) Arc<Trunk>);

impl Seat {
    pub(super) fn take(trunk: &Arc<Trunk>) -> Self {
        trunk.streams.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(trunk))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request is sent on.
pub(super) enum Way {
    /// A connection of its own.
    Line(Line),
    /// A stream on a shared one.
    Seat(Seat),
}

impl Way {
    /// The connection this shares with others.
    pub(super) fn trunk(&self) -> Option<Arc<Trunk>> {
        match self {
            Self::Line(_) => None,
            Self::Seat(seat) => Some(Arc::clone(&seat.0)),
        }
    }
}

#[derive(Default)]
struct Shelf {
    /// Oldest first; used from the end.
    lines: Vec<(Line, Instant)>,
    trunks: Vec<(Arc<Trunk>, Instant)>,
}

/// The idle connections to one worker.
pub(in crate::workers) struct Pools(Box<[Mutex<Shelf>]>);

impl Pools {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self((0..POOLS).map(|_| Mutex::default()).collect()))
    }

    /// Where this thread's connections are.
    pub(super) fn here() -> usize {
        THREAD.get()
    }

    /// A connection of this thread unused since no earlier than `oldest`, if there is one.
    pub(super) fn take(&self, oldest: Instant, now: Instant) -> Option<Way> {
        let mut shelf = self.0[Self::here()].lock();
        while let Some((mut line, since)) = shelf.lines.pop() {
            if since >= oldest && line.is_usable() {
                return Some(Way::Line(line));
            }
        }
        shelf.trunks.retain(|(trunk, _)| !trunk.sender.is_closed());
        let (trunk, since) =
            shelf.trunks.iter_mut().find(|(trunk, _)| trunk.streams.load(Ordering::Relaxed) < STREAMS_MAX)?;
        *since = now;
        Some(Way::Seat(Seat::take(trunk)))
    }

    /// Keeps a line for the next request of the thread it was opened on, unless it has just ended.
    pub(super) fn put(&self, thread: usize, mut line: Line, now: Instant) {
        if !line.is_usable() {
            return;
        }
        let mut shelf = self.0[thread].lock();
        if shelf.lines.len() < IDLE_MAX {
            shelf.lines.push((line, now));
        }
    }

    /// Makes an h2 connection known to the other requests of this thread.
    pub(super) fn share(&self, trunk: &Arc<Trunk>, now: Instant) {
        self.0[Self::here()].lock().trunks.push((Arc::clone(trunk), now));
    }

    /// Closes what was not used since `unused_since` or is dead; returns how many stay.
    pub(super) fn close_idle(&self, unused_since: Instant) -> usize {
        let close = |shelf: &mut Shelf| {
            let old = shelf.lines.partition_point(|(_, since)| *since < unused_since);
            shelf.lines.drain(..old);
            shelf.lines.retain_mut(|(line, _)| line.is_usable());
            let is_idle = |trunk: &Trunk| trunk.streams.load(Ordering::Relaxed) == 0;
            let is_old = |trunk: &Trunk, since: Instant| is_idle(trunk) && since < unused_since;
            shelf.trunks.retain(|(trunk, since)| !trunk.sender.is_closed() && !is_old(trunk, *since));
            shelf.lines.len() + shelf.trunks.iter().filter(|(trunk, _)| is_idle(trunk)).count()
        };
        self.0.iter().map(|shelf| close(&mut shelf.lock())).sum()
    }
}
