//! The body of a worker's answer: gathered, and giving its connection back at its end.
//!
//! hyper hands over one HTTP chunk at a time, and engines write an event a chunk. Passed on one by one, each would cost a
//! write to the client. So what has arrived already is passed on as one piece; nothing waits for more.

use std::pin::Pin;
use std::sync::Arc;
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

impl Hold {
    fn run(&mut self, cx: &mut Context<'_>) {
        if let Self::Line(Some((line, _))) = self {
            line.run(cx);
        }
    }

    fn give_back(&mut self) {
        let Self::Line(held) = self else { return };
        if let Some((line, home)) = held.take() {
            home.pools.put(home.thread, line, home.clock.now());
        }
    }
}

/// A body that gives its connection back at its end; dropped before, the connection closes.
pub(super) struct ReturningBody<B = Incoming> {
    body: B,
    hold: Hold,
    gathered: Gathered,
    /// What ended the gathering and is passed on after it.
    behind: Option<Result<Frame<Bytes>, CallError>>,
}

impl<B: Body<Data = Bytes> + Unpin> ReturningBody<B> {
    /// A body that has just begun.
    pub(super) fn new(body: B, mut hold: Hold) -> Self {
        if body.is_end_stream() {
            hold.give_back();
        }
        Self { body, hold, gathered: Gathered::default(), behind: None }
    }

    /// The next frame as it comes. `Pending` only when the connection was run and had nothing.
    fn poll_one(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let mut polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() {
            self.hold.run(cx);
            polled = Pin::new(&mut self.body).poll_frame(cx);
        }
        let polled = ready!(polled);
        if polled.is_none() || (matches!(polled, Some(Ok(_))) && self.body.is_end_stream()) {
            self.hold.give_back();
        }
        Poll::Ready(polled.map(|frame| frame.map_err(|_lost| CallError::Lost)))
    }

    /// Takes what has arrived. `Pending`: nothing has.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.poll_one(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(piece) => self.gathered.push(piece),
                    Err(trailers) => self.behind = Some(Ok(trailers)),
                },
                Poll::Ready(Some(Err(error))) => self.behind = Some(Err(error)),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(()),
            }
            let is_full = self.gathered.len() >= GATHERED_BYTES_MAX;
            if is_full || self.behind.is_some() || self.body.is_end_stream() {
                return Poll::Ready(());
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReturningBody<B> {
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

/// Pieces that go out as one. A single one is not copied.
#[derive(Default)]
struct Gathered {
    first: Bytes,
    all: BytesMut,
}

impl Gathered {
    fn push(&mut self, piece: Bytes) {
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

    /// Pieces as they arrive; `None` is a pause. A body is asked twice before it counts as paused.
    struct Scripted(VecDeque<Option<Result<&'static str, CallError>>>);

    impl Body for Scripted {
        type Data = Bytes;
        type Error = CallError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
            match self.0.pop_front() {
                None => Poll::Ready(None),
                Some(Some(piece)) => Poll::Ready(Some(piece.map(|it| Frame::data(Bytes::from_static(it.as_bytes()))))),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            }
        }
    }

    async fn pieces(
        script: impl IntoIterator<Item = Option<&'static str>>,
        lost: bool,
    ) -> Vec<Result<Bytes, CallError>> {
        let script = script.into_iter().map(|it| it.map(Ok)).chain(lost.then_some(Some(Err(CallError::Lost))));
        let mut body = ReturningBody::new(Scripted(script.collect()), Hold::Line(None));
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
        assert_eq!(pieces([Some("a"), None, Some("b"), Some("c"), None, Some("d")], false).await, [ok("abcd")]);
    }

    #[tokio::test]
    async fn a_connection_that_has_nothing_more_lets_go_what_was_gathered() {
        let script = [None, None, Some("a"), Some("b"), None, None, None, None, Some("c")];
        assert_eq!(pieces(script, false).await, [ok("ab"), ok("c")]);
    }

    #[tokio::test]
    async fn an_error_comes_behind_what_arrived_before_it() {
        assert_eq!(pieces([Some("a"), Some("b")], true).await, [ok("ab"), Err(CallError::Lost)]);
    }

    #[tokio::test]
    async fn gathering_is_bounded() {
        static HALF: [u8; GATHERED_BYTES_MAX / 2] = [b'x'; GATHERED_BYTES_MAX / 2];
        let half = std::str::from_utf8(&HALF).expect("is text");
        let found = pieces((0..5).map(|_| Some(half)), false).await;
        let lengths: Vec<usize> = found.iter().map(|it| it.as_ref().expect("is data").len()).collect();
        assert_eq!(lengths, [GATHERED_BYTES_MAX, GATHERED_BYTES_MAX, GATHERED_BYTES_MAX / 2]);
    }
}
