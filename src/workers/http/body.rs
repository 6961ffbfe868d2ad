//! The body of a worker's answer: it runs the connection it is read from, and gives it back at its end.
//!
//! Engines write an event a chunk, and hyper hands over a chunk at a time. Because the connection is run from here, whoever
//! reads gets one chunk after the other until nothing more has arrived, and writes them to the client together.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use hyper::body::Incoming;

use super::super::worker::CallError;
use super::pool::Line;
use super::pool::Pools;
use super::pool::Seat;
use crate::base::clock::Clock;

/// Where a line goes back to when its answer was read to the end.
pub(in crate::workers) struct Home {
    pub(super) pools: Arc<Pools>,
    pub(super) thread: usize,
    pub(super) clock: Clock,
}

/// What an answer occupies until its end.
pub(in crate::workers) enum Hold {
    Line(Option<(Line, Home)>),
    /// A line that nobody uses again.
    Alone(Line),
    Seat {
        _seat: Seat,
    },
}

impl Hold {
    fn run(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Line(Some((line, _))) | Self::Alone(line) => line.run(cx),
            Self::Line(None) | Self::Seat { .. } => {}
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
pub(in crate::workers) struct ReturningBody {
    body: Incoming,
    hold: Hold,
}

impl ReturningBody {
    /// A body that has just begun.
    pub(in crate::workers) fn new(body: Incoming, mut hold: Hold) -> Self {
        if body.is_end_stream() {
            hold.give_back();
        }
        Self { body, hold }
    }
}

impl Body for ReturningBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending() {
            this.hold.run(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        let polled = ready!(polled);
        if polled.is_none() || (matches!(polled, Some(Ok(_))) && this.body.is_end_stream()) {
            this.hold.give_back();
        }
        Poll::Ready(polled.map(|frame| frame.map_err(|_lost| CallError::Lost)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
