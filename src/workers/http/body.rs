//! The body of a worker's answer: gathered, and giving its connection back at its end.
//!
//! hyper hands over one HTTP chunk each time its connection's task runs, and engines write an event a chunk. Passed on one
//! by one, each costs a write to the client. So after a piece the connection's task gets one more turn for each piece that
//! has arrived already; what came is passed on as one. Nothing waits: a piece that is alone goes out after that turn.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use bytes::BytesMut;
use http_body::Body;
use http_body::Frame;
use hyper::body::Incoming;

use super::super::worker::CallError;
use super::pool::Line;
use super::pool::Pools;
use super::pool::Seat;
use crate::base::clock::Clock;

/// Pieces are gathered up to this many bytes. Larger saves nothing more, and a slow reader holds no more than this.
const GATHERED_BYTES_MAX: usize = 32 << 10;

/// Where a line goes back to when its answer was read to the end.
pub(super) struct Home {
    pub(super) pools: Arc<Pools>,
    pub(super) thread: usize,
    pub(super) clock: Clock,
}

/// What an answer occupies until its end.
pub(super) enum Hold {
    Line(Option<(Line, Home)>),
    Seat { _seat: Seat },
}

/// A body that gives its connection back at its end; dropped before, the connection closes.
pub(super) struct AnswerBody<B = Incoming> {
    body: B,
    hold: Hold,
    gathered: Gathered,
    /// What ended the gathering and is passed on after it.
    behind: Option<Result<Frame<Bytes>, CallError>>,
    /// Of the connection behind this. `None` (h2: its flow control gives large pieces anyway): nothing is gathered.
    turns: Option<Turns>,
}

impl<B: Body<Data = Bytes> + Unpin> AnswerBody<B> {
    /// A body that has just begun.
    pub(super) fn new(body: B, hold: Hold, turns: Option<Turns>) -> Self {
        let mut new = Self { body, hold, gathered: Gathered::default(), behind: None, turns };
        if new.body.is_end_stream() {
            new.ended();
        }
        new
    }

    fn ended(&mut self) {
        let Hold::Line(held) = &mut self.hold else { return };
        let Some((line, home)) = held.take() else { return };
        home.pools.put(home.thread, line, home.clock.now());
    }

    /// The next frame as it comes.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if polled.is_none() || (matches!(polled, Some(Ok(_))) && self.body.is_end_stream()) {
            self.ended();
        }
        Poll::Ready(polled.map(|frame| frame.map_err(|_lost| CallError::Lost)))
    }

    /// Takes what has arrived. `Pending`: the connection has not had its turn since the last piece.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let before = self.turns.as_ref().map(Turns::count);
            match self.poll_one(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => self.gathered.push(piece, before),
                    Err(trailers) => self.behind = Some(Ok(trailers)),
                },
                Poll::Ready(Some(Err(error))) => self.behind = Some(Err(error)),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending if self.gathered.at != before => return Poll::Ready(()),
                Poll::Pending => {
                    // Behind the connection's task, which was woken when the last piece was taken.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
            let is_full = self.turns.is_none() || self.gathered.len() >= GATHERED_BYTES_MAX;
            if self.behind.is_some() || is_full || self.body.is_end_stream() {
                return Poll::Ready(());
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        if self.behind.is_none() {
            ready!(self.gather(cx));
        }
        Poll::Ready(match self.gathered.take() {
            Some(pieces) => Some(Ok(Frame::data(pieces))),
            None => self.behind.take(),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.gathered.is_empty() && self.behind.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// How often a connection's task was run. A body is polled more than once in a turn of its own, so it cannot tell by
/// itself whether its connection ran in between.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<AtomicU64>);

impl Turns {
    /// Runs `connection`, counting.
    pub(super) async fn counted(self, connection: impl Future) {
        let mut connection = std::pin::pin!(connection);
        std::future::poll_fn(|cx| {
            self.0.fetch_add(1, Ordering::Relaxed);
            connection.as_mut().poll(cx).map(drop)
        })
        .await;
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Pieces that go out as one. A single one is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
    /// The connection's turns when the last piece was taken.
    at: Option<u64>,
}

impl Gathered {
    fn push(&mut self, piece: Bytes, at: Option<u64>) {
        self.at = at;
        if self.is_empty() {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(GATHERED_BYTES_MAX / 4);
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&piece);
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self) -> Option<Bytes> {
        let (first, all) = (std::mem::take(&mut self.first), self.all.split().freeze());
        Some(if all.is_empty() { first } else { all }).filter(|it| !it.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;

    use super::*;

    enum Turn {
        Piece(&'static str),
        /// The body is polled again before its connection ran.
        Again,
        /// The connection ran and had nothing.
        Nothing,
        Lost,
    }
    use Turn::*;

    /// A connection that is somewhere in `script`; it runs between two polls but for `Again`.
    struct Scripted(VecDeque<Turn>, Turns);

    impl Body for Scripted {
        type Data = Bytes;
        type Error = CallError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
            let Some(turn) = self.0.pop_front() else { return Poll::Ready(None) };
            match turn {
                Piece(text) => return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes()))))),
                Lost => return Poll::Ready(Some(Err(CallError::Lost))),
                Nothing => drop(self.1.0.fetch_add(1, Ordering::Relaxed)),
                Again => {}
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    async fn pieces(script: impl IntoIterator<Item = Turn>) -> Vec<Result<Bytes, CallError>> {
        let turns = Turns::default();
        let body = Scripted(script.into_iter().collect(), turns.clone());
        let mut body = AnswerBody::new(body, Hold::Line(None), Some(turns));
        let mut found = Vec::new();
        while let Some(frame) = body.frame().await {
            found.push(frame.map(|frame| frame.into_data().expect("is data")));
        }
        found
    }

    fn ok(text: &'static str) -> Result<Bytes, CallError> {
        Ok(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn pieces_that_have_arrived_go_out_as_one() {
        assert_eq!(pieces([Piece("a"), Again, Again, Piece("b"), Piece("c"), Again, Piece("d")]).await, [ok("abcd")]);
    }

    #[tokio::test]
    async fn a_connection_that_has_nothing_more_lets_go_what_was_gathered() {
        let script = [Nothing, Piece("a"), Again, Piece("b"), Again, Nothing, Again, Nothing, Piece("c")];
        assert_eq!(pieces(script).await, [ok("ab"), ok("c")]);
    }

    #[tokio::test]
    async fn an_error_comes_behind_what_arrived_before_it() {
        assert_eq!(pieces([Piece("a"), Piece("b"), Lost]).await, [ok("ab"), Err(CallError::Lost)]);
    }

    #[tokio::test]
    async fn gathering_is_bounded() {
        static HALF: [u8; GATHERED_BYTES_MAX / 2] = [b'x'; GATHERED_BYTES_MAX / 2];
        let half = std::str::from_utf8(&HALF).expect("is text");
        let found = pieces((0..5).map(|_| Piece(half))).await;
        let lengths: Vec<usize> = found.iter().map(|it| it.as_ref().expect("is data").len()).collect();
        assert_eq!(lengths, [GATHERED_BYTES_MAX, GATHERED_BYTES_MAX, GATHERED_BYTES_MAX / 2]);
    }
}
