//! A worker's answer to the chat request, read as events of the response that it makes.
//!
//! What the relay gives is either whole or a stream; it has deadlines of its own, retries until content, and puts its own failures into the stream as an error. Here nothing of that is done again.
//! *Invariant:* between two steps the events are whole groups: what they leave open can be ended by whoever reads them.

use std::collections::VecDeque;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use serde_json::Value;

use crate::dialects::responses::Broken;
use crate::dialects::responses::Translator;
use crate::dialects::sse;
use crate::dialects::sse::Splitter;
use crate::history::Handle;

use super::super::Response;

/// Longest answer that is read, as it comes from the worker. BOUND: a command may bring more than twice as much into history.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;
const WORKER_FAILED: &str = "worker_failed";
const TOO_LONG: &str = "the worker's answer is longer than a response may be";

/// See the file's header.
pub(super) struct Answer {
    body: Body,
    is_stream: bool,
    splitter: Splitter,
    /// Whole events that were cut from what came.
    ready: VecDeque<Bytes>,
    history: Handle,
    pub translator: Translator,
    /// What was read.
    bytes: usize,
    is_over: bool,
}

/// What comes of it.
pub(super) enum Step {
    /// Events of the response.
    Events(Vec<Value>),
    /// A comment of the worker's or the relay's, to keep the stream open.
    Comment(Bytes),
}

impl Answer {
    pub(super) fn new(response: Response, history: Handle, translator: Translator) -> Self {
        let kind = response.headers().get(CONTENT_TYPE);
        let is_stream = kind.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"));
        let (splitter, ready) = (Splitter::default(), VecDeque::new());
        Self { body: response.into_body(), is_stream, splitter, ready, history, translator, bytes: 0, is_over: false }
    }

    /// The next events; `None`: the answer has ended, well or not, as the translator knows.
    pub(super) async fn next(&mut self) -> Option<Step> {
        if self.is_over {
            return None;
        }
        if self.is_stream { self.next_of_stream().await } else { self.whole().await }
    }

    async fn next_of_stream(&mut self) -> Option<Step> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if sse::is_comment(&event) {
                    return Some(Step::Comment(event));
                }
                let Some(data) = sse::data(&event) else { continue };
                if *data == *b"[DONE]" {
                    self.is_over = true;
                    return None;
                }
                match self.taken(&data, false) {
                    Some(events) if events.is_empty() => {}
                    Some(events) => return Some(Step::Events(events)),
                    None => return None,
                }
            }
            match self.body.frame().await {
                None => {
                    self.is_over = true;
                    return None;
                }
                Some(Err(_cut_short)) => return self.failed("the worker's answer ended early"),
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    self.bytes += piece.len();
                    if self.bytes > ANSWER_BYTES_MAX {
                        return self.failed(TOO_LONG);
                    }
                    if self.splitter.push(piece).is_err() {
                        return self.failed("the worker sent a malformed stream");
                    }
                    while let Some(event) = self.splitter.next() {
                        self.ready.push_back(event); // BOUND: one read
                    }
                }
            }
        }
    }

    async fn whole(&mut self) -> Option<Step> {
        let mut all = Vec::new();
        loop {
            match self.body.frame().await {
                None => break,
                Some(Err(_cut_short)) => return self.failed("the worker's answer ended early"),
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    all.extend_from_slice(&piece);
                    if all.len() > ANSWER_BYTES_MAX {
                        return self.failed(TOO_LONG);
                    }
                }
            }
        }
        let events = self.taken(&all, true)?;
        self.is_over = true;
        Some(Step::Events(events))
    }

    /// What a chunk, or the whole, means. `None`: it is the end of all.
    fn taken(&mut self, data: &[u8], is_whole: bool) -> Option<Vec<Value>> {
        let Ok(value) = serde_json::from_slice::<Value>(data) else {
            self.failed("the worker's answer is no JSON");
            return None;
        };
        let history = &self.history;
        let draw = &mut |prefix: &'static str| history.draw(prefix).to_string();
        let taken = if is_whole { self.translator.whole(&value, draw) } else { self.translator.chunk(&value, draw) };
        match taken {
            Ok(events) => return Some(events),
            Err(Broken::Worker { code, message }) => self.translator.fail(&code, &message),
            Err(error @ Broken::Malformed) => self.translator.fail(WORKER_FAILED, &error.to_string()),
        }
        self.is_over = true;
        None
    }

    fn failed(&mut self, message: &str) -> Option<Step> {
        self.translator.fail(WORKER_FAILED, message);
        self.is_over = true;
        None
    }

    /// What was made. The worker's connection is gone with the rest.
    pub(super) fn into_translator(self) -> Translator {
        self.translator
    }

    /// Reads what follows the end, so that the worker's connection can be used again. The relay bounds how long that takes.
    pub(super) async fn rest(mut self) {
        while let Some(Ok(_)) = self.body.frame().await {}
    }
}

/// What an answer that is no success says: code and message.
pub(super) fn told(body: &[u8], status: http::StatusCode) -> (String, String) {
    let error = serde_json::from_slice::<Value>(body).ok();
    let text = |name: &str| {
        let error = error.as_ref()?;
        let error = error.get("error").filter(|it| it.is_object()).unwrap_or(error);
        error.get(name)?.as_str().map(ToOwned::to_owned)
    };
    let message = text("message").unwrap_or_else(|| format!("the worker answered with status {}", status.as_u16()));
    (text("code").unwrap_or_else(|| WORKER_FAILED.to_owned()), message)
}
