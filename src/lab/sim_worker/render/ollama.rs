//! Ollama's `/api/chat` and `/api/generate`: a stream is one JSON object a line.

use serde_json::Value;
use serde_json::json;

use super::Render;
use super::Turn;
use super::put;
use crate::lab::sim_worker::reply::Finish;

/// Ollama's own answers.
pub(in crate::lab::sim_worker) struct Ollama {
    /// `/api/chat` rather than `/api/generate`.
    pub(in crate::lab::sim_worker) is_chat: bool,
}

impl Ollama {
    fn line(&self, turn: &Turn, text: &str) -> Value {
        let mut line = json!({"model": turn.model, "created_at": "2023-11-14T22:13:20Z", "done": false});
        if self.is_chat {
            line["message"] = json!({"role": "assistant", "content": text});
        } else {
            line["response"] = json!(text);
        }
        line
    }

    fn last(&self, turn: &Turn, text: &str) -> Value {
        let mut line = self.line(turn, text);
        line["done"] = json!(true);
        line["done_reason"] = json!(if turn.replies[0].finish == Finish::Length { "length" } else { "stop" });
        line["prompt_eval_count"] = json!(turn.prompt_tokens);
        line["eval_count"] = json!(turn.completion_tokens(usize::MAX));
        for name in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
            line[name] = json!(1_000_000);
        }
        if let (Some(name), true) = (&turn.replies[0].tool, self.is_chat) {
            let arguments: Value = serde_json::from_str(&turn.replies[0].text()).unwrap_or_default();
            let calls = json!([{"function": {"name": name, "arguments": arguments}}]);
            line["message"] = json!({"role": "assistant", "content": "", "tool_calls": calls});
        }
        line
    }
}

impl Render for Ollama {
    fn stream_type(&self) -> &'static str {
        "application/x-ndjson"
    }

    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        if turn.replies[0].tool.is_none() {
            put(out, format_args!("{}\n", self.line(turn, &turn.replies[0].piece(index))));
        }
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        put(out, format_args!("{}\n", self.last(turn, "")));
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        let text = if turn.replies[0].tool.is_some() { String::new() } else { turn.replies[0].text() };
        put(out, format_args!("{}", self.last(turn, &text)));
    }
}
