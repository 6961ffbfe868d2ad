//! Anthropic's `/v1/messages` as vLLM serves it: a stream names the whole input at first, and what of it was cached at
//! the end.

use serde_json::Value;
use serde_json::json;

use super::Render;
use super::Turn;
use super::put;
use super::put_event;
use crate::lab::sim_worker::reply::Finish;

/// Anthropic messages.
pub(in crate::lab::sim_worker) struct Messages;

impl Render for Messages {
    fn open(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        let usage = json!({"input_tokens": turn.prompt_tokens, "output_tokens": 0});
        let message = message(turn, &json!([]), &Value::Null, &usage);
        put_event(out, &json!({"type": "message_start", "message": message}));
        let block = match &turn.replies[0].tool {
            Some(name) => json!({"type": "tool_use", "id": tool_id(turn), "name": name, "input": {}}),
            None => json!({"type": "text", "text": ""}),
        };
        put_event(out, &json!({"type": "content_block_start", "index": 0, "content_block": block}));
    }

    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        let reply = &turn.replies[0];
        let piece = reply.piece(index);
        let delta = match reply.tool {
            Some(_) => json!({"type": "input_json_delta", "partial_json": piece}),
            None => json!({"type": "text_delta", "text": piece}),
        };
        put_event(out, &json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        put_event(out, &json!({"type": "content_block_stop", "index": 0}));
        let delta = json!({"stop_reason": stop_reason(turn), "stop_sequence": stop_sequence(turn)});
        put_event(out, &json!({"type": "message_delta", "delta": delta, "usage": usage(turn)}));
        put_event(out, &json!({"type": "message_stop"}));
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        let reply = &turn.replies[0];
        let block = match &reply.tool {
            Some(name) => {
                let input: Value = serde_json::from_str(&reply.text()).unwrap_or_default();
                json!({"type": "tool_use", "id": tool_id(turn), "name": name, "input": input})
            }
            None => json!({"type": "text", "text": reply.text()}),
        };
        put(out, format_args!("{}", message(turn, &json!([block]), &json!(stop_reason(turn)), &usage(turn))));
    }
}

fn message(turn: &Turn, content: &Value, stop: &Value, usage: &Value) -> Value {
    let sequence = if stop.is_null() { None } else { stop_sequence(turn) };
    json!({
        "id": format!("msg_{:032x}", turn.id), "type": "message", "role": "assistant", "model": turn.model,
        "content": content, "stop_reason": stop, "stop_sequence": sequence, "usage": usage,
    })
}

fn usage(turn: &Turn) -> Value {
    let cached = turn.cached.unwrap_or(0);
    json!({
        "input_tokens": turn.prompt_tokens - cached, "output_tokens": turn.completion_tokens(usize::MAX),
        "cache_creation_input_tokens": null, "cache_read_input_tokens": turn.cached,
    })
}

fn stop_reason(turn: &Turn) -> &'static str {
    match turn.replies[0].finish {
        Finish::Stop => "end_turn",
        Finish::StopText(_) => "stop_sequence",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
    }
}

fn stop_sequence(turn: &Turn) -> Option<&str> {
    match &turn.replies[0].finish {
        Finish::StopText(text) => Some(text),
        Finish::Stop | Finish::Length | Finish::ToolCalls => None,
    }
}

fn tool_id(turn: &Turn) -> String {
    format!("toolu_{:032x}", turn.id)
}
