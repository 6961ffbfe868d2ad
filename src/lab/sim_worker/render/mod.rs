//! Answers in every dialect, written by hand straight into bytes: this is the path that a proxy's bench hammers.
//!
//! A dialect renders a [`Turn`] whole or token by token; it knows nothing of time, sockets or faults.

mod chat;
mod completions;
mod generate;
mod messages;
mod ollama;
mod responses;

use std::io::Write as _;

pub(super) use chat::Chat;
pub(super) use completions::Completions;
pub(super) use generate::Generate;
pub(super) use messages::Messages;
pub(super) use ollama::Ollama;
pub(super) use responses::Responses;
use serde_json::Value;
use serde_json::json;

use super::ask::StreamOptions;
use super::reply::Finish;
use super::reply::Reply;

/// Everything an answer says.
pub(super) struct Turn {
    pub(super) id: u64,
    pub(super) model: String,
    pub(super) created: u64,
    pub(super) replies: Vec<Reply>,
    /// Prompt tokens as they are told: each prompt once.
    pub(super) prompt_tokens: usize,
    /// Prompt tokens as the engine sees them: once for every choice.
    pub(super) computed_tokens: usize,
    /// Tokens in a cache block.
    pub(super) block_size: usize,
    /// Prompt tokens from the cache; `None`: not told.
    pub(super) cached: Option<usize>,
    pub(super) stream_options: StreamOptions,
    pub(super) has_logprobs: bool,
}

impl Turn {
    /// Tokens of all choices, when each has at most `emitted`.
    pub(super) fn completion_tokens(&self, emitted: usize) -> usize {
        self.replies.iter().map(|it| it.len.min(emitted)).sum()
    }

    /// Steps until every choice is whole.
    pub(super) fn len(&self) -> usize {
        self.replies.iter().map(|it| it.len).max().unwrap_or(0)
    }

    /// vLLM's `usage` when `emitted` tokens of each choice are there, up to what is told about the prompt.
    fn usage(&self, emitted: usize, out: &mut Vec<u8>) {
        let (prompt, completion) = (self.prompt_tokens, self.completion_tokens(emitted));
        put(
            out,
            format_args!(
                "{{\"prompt_tokens\":{prompt},\"total_tokens\":{},\"completion_tokens\":{completion}",
                prompt + completion
            ),
        );
    }

    /// The `usage` of an answer in one piece. `created`: blocks stored for the prompt, which chats tell.
    fn usage_of_whole(&self, created: Option<usize>, out: &mut Vec<u8>) {
        self.usage(usize::MAX, out);
        match self.cached {
            Some(cached) => {
                put(out, format_args!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached},"));
                match created {
                    Some(created) => put(out, format_args!("\"created_cache_tokens\":{created},")),
                    None => out.extend_from_slice(b"\"created_cache_tokens\":null,"),
                }
                out.extend_from_slice(b"\"multimodal_tokens\":null}");
            }
            None => out.extend_from_slice(b",\"prompt_tokens_details\":null"),
        }
        out.extend_from_slice(b",\"completion_tokens_details\":null}");
    }

    /// The `usage` at the end of a stream, which leaves out what is null, and the end of its event.
    fn usage_at_end(&self, created: Option<usize>, out: &mut Vec<u8>) {
        self.usage(usize::MAX, out);
        if let Some(cached) = self.cached {
            put(out, format_args!(",\"prompt_tokens_details\":{{\"cached_tokens\":{cached}"));
            if let Some(created) = created {
                put(out, format_args!(",\"created_cache_tokens\":{created}"));
            }
            out.push(b'}');
        }
        out.push(b'}');
        out.extend_from_slice(FINGERPRINT);
        out.extend_from_slice(b"}\n\n");
    }

    /// Tokens of the prompt's whole blocks that were not in the cache before.
    fn created(&self) -> usize {
        (self.prompt_tokens / self.block_size * self.block_size).saturating_sub(self.cached.unwrap_or(0))
    }
}

/// What vLLM ends its last chunk with, and an answer in one piece has before its usage.
const FINGERPRINT: &[u8] = br#","system_fingerprint":"vllm-0.32.0-sim""#;

/// One dialect's way of saying a [`Turn`]. A stream is `open`, `token` for each index, `close`.
pub(super) trait Render: Send {
    /// The media type of a stream.
    fn stream_type(&self) -> &'static str {
        "text/event-stream; charset=utf-8"
    }
    /// What comes before the first token.
    fn open(&mut self, _turn: &Turn, _out: &mut Vec<u8>) {}
    /// Token `index` of every choice that has one.
    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>);
    /// What comes after the last token.
    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>);
    /// The answer in one piece.
    fn whole(&self, turn: &Turn, out: &mut Vec<u8>);
}

/// Formats into bytes; a `Vec` takes everything.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes every byte");
}

/// Writes a JSON string.
fn put_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes every byte");
}

/// Writes one SSE event named by its own `type`, as Responses and Messages do.
fn put_event(out: &mut Vec<u8>, event: &Value) {
    let name = event.get("type").and_then(Value::as_str).unwrap_or("message");
    put(out, format_args!("event: {name}\ndata: {event}\n\n"));
}

/// OpenAI's word for an end.
fn finish_reason(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopText(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

/// vLLM's `stop_reason`: the text that ended the answer, if one did.
fn put_stop_reason(out: &mut Vec<u8>, finish: &Finish) {
    match finish {
        Finish::StopText(text) => put_string(out, text),
        Finish::Stop | Finish::Length | Finish::ToolCalls => out.extend_from_slice(b"null"),
    }
}

/// Logprobs of one token: certain, for a simulation.
fn logprob(piece: &str) -> Value {
    json!({"token": piece, "logprob": -0.25, "bytes": piece.as_bytes(), "top_logprobs": []})
}
