//! A worker in memory that plays a script: what tests put behind a registry instead of a server.
//!
//! It passes the same suite as the HTTP worker (`conformance.rs`), so what is proved with it holds for a real one. It knows
//! nothing of headers that end at a hop: those are HTTP's.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http_body::Body;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::worker::Answer;
use super::worker::BoxFuture;
use super::worker::Call;
use super::worker::CallError;
use super::worker::ConnectFailure;
use super::worker::Worker;
use crate::base::clock::Clock;
use crate::base::clock::Instant;

/// One thing a scripted worker does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Takes no connection.
    Refuse,
    /// Does nothing for so long.
    Wait(Duration),
    /// Does nothing any more.
    Stall,
    /// Is gone.
    Lose,
    /// Sends the head of its answer.
    Head(StatusCode, HeaderMap),
    /// Sends a piece of the body.
    Send(Bytes),
}

impl Step {
    /// A head without headers.
    #[must_use]
    pub fn status(status: StatusCode) -> Self {
        Self::Head(status, HeaderMap::new())
    }

    /// A piece of text.
    #[must_use]
    pub fn text(text: &'static str) -> Self {
        Self::Send(Bytes::from_static(text.as_bytes()))
    }
}

/// What a scripted worker has seen. Watch it to wait for something.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every request, in order of arrival.
    pub calls: Vec<Call>,
    /// Requests nobody waited for any more before their answer was complete.
    pub cancelled: usize,
}

/// Plays the next of its scripts for every call; the last one again when there are no more.
#[derive(Clone)]
pub struct Fake {
    scripts: Arc<Mutex<VecDeque<Vec<Step>>>>,
    seen: watch::Sender<Seen>,
}

impl Fake {
    /// A worker with these scripts.
    #[must_use]
    pub fn new(scripts: impl IntoIterator<Item = Vec<Step>>) -> Self {
        Self { scripts: Arc::new(Mutex::new(scripts.into_iter().collect())), seen: watch::Sender::default() }
    }

    /// What it has seen, now and later.
    #[must_use]
    pub fn seen(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    fn next_script(&self) -> VecDeque<Step> {
        let mut scripts = self.scripts.lock();
        let next = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() };
        next.unwrap_or_default().into()
    }

    async fn play(&self, call: Call) -> Result<Answer, CallError> {
        let mut steps = self.next_script();
        if matches!(steps.front(), Some(Step::Refuse)) {
            return Err(CallError::Connect(ConnectFailure::Refused));
        }
        let limit = call.first_byte_timeout;
        self.seen.send_modify(|seen| seen.calls.push(call));
        let mut presence = Presence { seen: self.seen.clone(), is_done: false };
        let head = tokio::time::timeout(limit, Self::head(&mut steps)).await;
        let head = head.map_err(|_elapsed| CallError::FirstByteTimeout(limit))?;
        let (status, headers) = head.inspect_err(|_| presence.is_done = true)?;
        let body = FakeBody { steps, waiting: None, presence };
        Ok(Answer { status, headers, body: Box::pin(body) })
    }

    async fn head(steps: &mut VecDeque<Step>) -> Result<(StatusCode, HeaderMap), CallError> {
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Wait(duration) => Clock.sleep(duration).await,
                Step::Stall => std::future::pending().await,
                Step::Head(status, headers) => return Ok((status, headers)),
                Step::Refuse | Step::Lose | Step::Send(_) => return Err(CallError::Lost),
            }
        }
        Err(CallError::Lost)
    }
}

impl Worker for Fake {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(self.play(call))
    }

    fn close_idle(&self, _: Instant) -> usize {
        0
    }
}

/// Counts a request as cancelled when it goes away before it is done.
struct Presence {
    seen: watch::Sender<Seen>,
    is_done: bool,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if !self.is_done {
            self.seen.send_modify(|seen| seen.cancelled += 1);
        }
    }
}

struct FakeBody {
    steps: VecDeque<Step>,
    waiting: Option<BoxFuture<'static, ()>>,
    presence: Presence,
}

impl Body for FakeBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                std::task::ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.steps.pop_front() {
                Some(Step::Wait(duration)) => self.waiting = Some(Box::pin(Clock.sleep(duration))),
                Some(Step::Stall) => self.waiting = Some(Box::pin(std::future::pending())),
                Some(Step::Send(piece)) => return Poll::Ready(Some(Ok(Frame::data(piece)))),
                Some(Step::Lose | Step::Refuse | Step::Head(..)) => {
                    self.presence.is_done = true;
                    return Poll::Ready(Some(Err(CallError::Lost)));
                }
                None => {
                    self.presence.is_done = true;
                    return Poll::Ready(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::conformance;

    #[tokio::test]
    async fn the_fake_conforms() {
        conformance::suite(|scripts| {
            let fake = Fake::new(scripts);
            let seen = fake.seen();
            std::future::ready((Arc::new(fake) as Arc<dyn Worker>, seen))
        })
        .await;
    }
}
