//! A response's body on its way to the client.
//!
//! It tells the connection's [`Watch`] when it ends. Over h2, where one client may stop taking one stream and go on with
//! others, it can be taken away: its worker is freed at once, and the stream is reset when the client asks for more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use http_body::Body as _;
use http_body::Frame;
use http_body::SizeHint;
use parking_lot::Mutex;

use super::watch::Watch;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Largest piece handed to the h2 stack at a time. It takes in a piece whole, whatever the client has room for; smaller
/// costs frames, larger memory for clients that do not read.
const PIECE_LEN_MAX: usize = 64 << 10;

/// A body that may be taken away.
pub(super) struct Parcel {
    held: Mutex<Held>,
    /// One more than the milliseconds of the connection at which the last piece was handed over; 0 when more is asked for.
    offered: AtomicU64,
}

struct Held {
    body: Option<axum::body::Body>,
    /// What is left of a long piece.
    rest: Bytes,
}

/// The body as the HTTP library sees it.
pub(super) struct Outgoing {
    parcel: Arc<Parcel>,
    watch: Arc<Watch>,
}

/// The client took nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client took nothing of the answer for too long")]
pub(super) struct TakenAway;

impl Outgoing {
    pub(super) fn new(body: axum::body::Body, watch: Arc<Watch>) -> Self {
        let held = Mutex::new(Held { body: Some(body), rest: Bytes::new() });
        let parcel = Arc::new(Parcel { held, offered: AtomicU64::new(0) });
        if watch.is_h2() {
            watch.mind(&parcel);
        }
        Self { parcel, watch }
    }
}

impl Parcel {
    /// Since when the client has not asked for more, in milliseconds of the connection.
    pub(super) fn offered_since(&self) -> Option<u64> {
        self.offered.load(Relaxed).checked_sub(1)
    }

    /// Drops the body, and with it all that its request occupies.
    pub(super) fn take_away(&self) {
        self.offered.store(0, Relaxed);
        let body = self.held.lock().body.take();
        drop(body);
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Self { parcel, watch } = &*self;
        if !watch.is_h2() {
            return parcel.held.lock().poll_piece(cx, usize::MAX);
        }
        parcel.offered.store(0, Relaxed);
        let polled = parcel.held.lock().poll_piece(cx, PIECE_LEN_MAX);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            parcel.offered.store(watch.age() + 1, Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let held = self.parcel.held.lock();
        held.rest.is_empty() && held.body.as_ref().is_some_and(axum::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.parcel.held.lock().body.as_ref().map(axum::body::Body::size_hint).unwrap_or_default()
    }
}

impl Held {
    fn poll_piece(&mut self, cx: &mut Context<'_>, len_max: usize) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Some(Err(TakenAway.into()))) };
        let mut piece = std::mem::take(&mut self.rest);
        if piece.is_empty() {
            match std::task::ready!(Pin::new(body).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => piece = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
            }
        }
        if piece.len() > len_max {
            self.rest = piece.split_off(len_max);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.watch.end();
    }
}
