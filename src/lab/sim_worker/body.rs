//! The body of an answer: whole, or told token by token at the engine's and the reader's pace.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Context;
use std::task::Poll;

use bytes::Bytes;
use futures_util::Stream;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;

use super::render::Render;
use super::render::Turn;
use super::reply::Finish;
use super::shared::Ticket;
use crate::base::clock::Instant;
use crate::lab::engine::driver::Running;

/// What a worker sends back.
pub(super) enum SimBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// Event by event as fast as the reader takes them.
    AtOnce {
        /// What is told.
        teller: Box<Teller>,
        /// Whether the last event had a write of its own.
        has_yielded: bool,
    },
    /// Event by event as the engine has them.
    Paced(Pin<Box<dyn Stream<Item = Bytes> + Send>>, Arc<Fate>),
}

/// What became of a streamed answer, for whoever holds its body.
#[derive(Debug, Default)]
pub(super) struct Fate {
    is_ended: AtomicBool,
    is_cut: AtomicBool,
}

impl SimBody {
    /// A stream of `teller`'s events; `running` when the engine keeps time, the one that is told first.
    pub(super) fn stream(teller: Teller, running: Vec<Running>) -> Self {
        if running.is_empty() {
            return Self::AtOnce { teller: Box::new(teller), has_yielded: true };
        }
        let fate = Arc::clone(&teller.fate);
        let stream = futures_util::stream::unfold((teller, running), |(mut teller, mut running)| async move {
            if let Some(told) = running.first_mut().filter(|_| teller.waits_for_token()) {
                let progress = told.beyond(teller.told).await;
                teller.learn(progress.emitted, progress.cached);
            }
            teller.tell().map(|event| (event, (teller, running)))
        });
        Self::Paced(Box::pin(stream), fate)
    }

    /// Whether the engine is done with it, though the client may not have it all.
    pub(super) fn is_ended(&self) -> bool {
        self.fate().is_none_or(|it| it.is_ended.load(Relaxed))
    }

    /// A fault ends it: dropping it now is no abort by the client.
    pub(super) fn cut(&self) {
        if let Some(fate) = self.fate() {
            fate.is_cut.store(true, Relaxed);
        }
    }

    fn fate(&self) -> Option<&Fate> {
        match self {
            Self::Whole(_) => None,
            Self::AtOnce { teller, .. } => Some(&teller.fate),
            Self::Paced(_, fate) => Some(fate),
        }
    }
}

impl From<Vec<u8>> for SimBody {
    fn from(whole: Vec<u8>) -> Self {
        Self::Whole(Some(whole.into()))
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Self::Whole(whole) => Poll::Ready(whole.take()),
            Self::AtOnce { teller, has_yielded } => {
                if !*has_yielded && teller.writes_each_event {
                    // Pending makes hyper write what it has; a real engine's events are single writes too.
                    *has_yielded = true;
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                *has_yielded = false;
                let next = teller.told + 1;
                teller.learn(next, teller.turn.cached);
                Poll::Ready(teller.tell())
            }
            Self::Paced(stream, _) => stream.as_mut().poll_next(context),
        };
        next.map(|it| it.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, Bytes::len) as u64),
            Self::AtOnce { .. } | Self::Paced(..) => SizeHint::default(),
        }
    }
}

/// Tells one turn: knows what was told and what may be told. Dropped before the end it counts an abort, by its ticket.
pub(super) struct Teller {
    pub(super) turn: Turn,
    render: Box<dyn Render>,
    ticket: Option<Ticket>,
    /// What comes first, until it is told.
    opening: Vec<u8>,
    /// Tokens told.
    told: usize,
    /// Tokens there.
    emitted: usize,
    last_token: Option<Instant>,
    writes_each_event: bool,
    fate: Arc<Fate>,
}

impl Teller {
    pub(super) fn new(turn: Turn, render: Box<dyn Render>, ticket: Ticket) -> Self {
        Self {
            turn,
            render,
            writes_each_event: ticket.shared.options.write_each_event,
            ticket: Some(ticket),
            opening: Vec::new(),
            told: 0,
            emitted: 0,
            last_token: None,
            fate: Arc::default(),
        }
    }

    /// The same, ready to be streamed.
    pub(super) fn opened(mut self) -> Self {
        self.render.open(&self.turn, &mut self.opening);
        self
    }

    /// The answer in one piece, when every token is there.
    pub(super) fn whole(mut self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        self.learn(usize::MAX, self.turn.cached);
        self.render.whole(&self.turn, &mut out);
        self.end();
        out
    }

    /// Takes note of what the engine has; what was cached counts only when it is told at all.
    pub(super) fn learn(&mut self, emitted: usize, cached: Option<usize>) {
        let emitted = emitted.min(self.turn.len());
        for index in self.emitted..emitted {
            self.count(index);
        }
        self.emitted = emitted;
        if self.turn.cached.is_some() {
            self.turn.cached = cached.or(self.turn.cached);
        }
    }

    /// Tokens there.
    pub(super) fn emitted(&self) -> usize {
        self.emitted
    }

    /// Whether there are tokens to come.
    pub(super) fn wants_token(&self) -> bool {
        self.emitted < self.turn.len()
    }

    /// The engine did not take it: nobody aborted.
    pub(super) fn refused(self) {
        self.fate.is_cut.store(true, Relaxed);
    }

    fn waits_for_token(&self) -> bool {
        self.opening.is_empty() && self.told < self.turn.len() && self.emitted <= self.told
    }

    /// The next bytes: the opening, each token, the closing, then nothing.
    fn tell(&mut self) -> Option<Bytes> {
        self.ticket.as_ref()?;
        if !self.opening.is_empty() {
            return Some(std::mem::take(&mut self.opening).into());
        }
        let mut out = Vec::with_capacity(320);
        if self.told < self.turn.len() {
            if self.emitted <= self.told {
                return None; // the engine has stopped: the ticket counts it as aborted
            }
            self.render.token(&self.turn, self.told, &mut out);
            self.told += 1;
            return Some(out.into());
        }
        self.render.close(&self.turn, &mut out);
        self.end();
        Some(out.into())
    }

    /// Counts token `index` of every choice as it comes: what is given up later was computed all the same.
    fn count(&mut self, index: usize) {
        let Some(ticket) = &self.ticket else { return };
        let meters = &ticket.shared.meters;
        let now = ticket.shared.clock.now();
        let before = self.last_token.replace(now);
        if before.is_none() {
            meters.prompt_tokens.fetch_add(self.turn.computed_tokens as u64, Relaxed);
        }
        for _ in self.turn.replies.iter().filter(|it| index < it.len) {
            meters.generation_tokens.fetch_add(1, Relaxed);
            match before {
                None => meters.first_token.observe(now - ticket.started),
                Some(before) => meters.between_tokens.observe(now - before),
            }
        }
    }

    fn end(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.fate.is_ended.store(true, Relaxed);
        let meters = &ticket.shared.meters;
        let took = ticket.shared.clock.now() - ticket.started;
        for reply in &self.turn.replies {
            let is_cut = reply.finish == Finish::Length;
            if is_cut { &meters.finished_length } else { &meters.finished_stop }.fetch_add(1, Relaxed);
            meters.whole.observe(took);
        }
        ticket.done();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        if self.fate.is_cut.load(Relaxed)
            && let Some(ticket) = self.ticket.take()
        {
            ticket.done();
        }
    }
}
