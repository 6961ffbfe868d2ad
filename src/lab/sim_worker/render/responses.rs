//! OpenAI's `/v1/responses`, the part that carries one answer: no stored state, no built-in tools.

use serde_json::Value;
use serde_json::json;

use super::Render;
use super::Turn;
use super::put;
use super::put_event;
use crate::lab::sim_worker::reply::Finish;

/// Responses.
#[derive(Default)]
pub(in crate::lab::sim_worker) struct Responses {
    sequence: u64,
}

impl Responses {
    fn event(&mut self, mut event: Value, out: &mut Vec<u8>) {
        event["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        put_event(out, &event);
    }
}

impl Render for Responses {
    fn open(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        for kind in ["response.created", "response.in_progress"] {
            let response = response(turn, "in_progress", &json!([]), &Value::Null);
            self.event(json!({"type": kind, "response": response}), out);
        }
        let item = item(turn, "in_progress", None);
        self.event(json!({"type": "response.output_item.added", "output_index": 0, "item": item}), out);
        if turn.replies[0].tool.is_none() {
            let (id, part) = (item_id(turn), part(""));
            let event = json!({"type": "response.content_part.added", "item_id": id, "output_index": 0,
                "content_index": 0, "part": part});
            self.event(event, out);
        }
    }

    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        let (id, piece) = (item_id(turn), turn.replies[0].piece(index));
        let event = match turn.replies[0].tool {
            Some(_) => json!({"type": "response.function_call_arguments.delta", "item_id": id, "output_index": 0,
                "delta": piece}),
            None => json!({"type": "response.output_text.delta", "item_id": id, "output_index": 0,
                "content_index": 0, "delta": piece, "logprobs": []}),
        };
        self.event(event, out);
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        let (id, text) = (item_id(turn), turn.replies[0].text());
        if turn.replies[0].tool.is_some() {
            let event = json!({"type": "response.function_call_arguments.done", "item_id": id, "output_index": 0,
                "arguments": text});
            self.event(event, out);
        } else {
            let place = json!({"item_id": id, "output_index": 0, "content_index": 0});
            let mut done = place.clone();
            done["type"] = json!("response.output_text.done");
            done["text"] = json!(text);
            done["logprobs"] = json!([]);
            self.event(done, out);
            let mut done = place;
            done["type"] = json!("response.content_part.done");
            done["part"] = part(&text);
            self.event(done, out);
        }
        let item = item(turn, "completed", Some(&text));
        self.event(json!({"type": "response.output_item.done", "output_index": 0, "item": item}), out);
        let (kind, status) = match turn.replies[0].finish {
            Finish::Length => ("response.incomplete", "incomplete"),
            Finish::Stop | Finish::StopText(_) | Finish::ToolCalls => ("response.completed", "completed"),
        };
        let response = response(turn, status, &json!([item]), &usage(turn));
        self.event(json!({"type": kind, "response": response}), out);
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        let status = if turn.replies[0].finish == Finish::Length { "incomplete" } else { "completed" };
        let output = json!([item(turn, "completed", Some(&turn.replies[0].text()))]);
        put(out, format_args!("{}", response(turn, status, &output, &usage(turn))));
    }
}

fn response(turn: &Turn, status: &str, output: &Value, usage: &Value) -> Value {
    let cut = (status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
    json!({
        "id": format!("resp_{:032x}", turn.id), "object": "response", "created_at": turn.created, "status": status,
        "model": turn.model, "output": output, "usage": usage, "error": null, "incomplete_details": cut,
        "instructions": null, "metadata": {}, "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
        "temperature": 1.0, "top_p": 1.0, "previous_response_id": null, "background": false,
    })
}

fn item(turn: &Turn, status: &str, text: Option<&str>) -> Value {
    let id = item_id(turn);
    match &turn.replies[0].tool {
        Some(name) => json!({"type": "function_call", "id": id, "call_id": format!("call_{:032x}", turn.id),
            "name": name, "arguments": text.unwrap_or_default(), "status": status}),
        None => {
            let content: Vec<Value> = text.map(part).into_iter().collect();
            json!({"type": "message", "id": id, "role": "assistant", "status": status, "content": content})
        }
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn item_id(turn: &Turn) -> String {
    let kind = if turn.replies[0].tool.is_some() { "fc" } else { "msg" };
    format!("{kind}_{:032x}", turn.id)
}

fn usage(turn: &Turn) -> Value {
    let (input, output) = (turn.prompt_tokens, turn.completion_tokens(usize::MAX));
    json!({
        "input_tokens": input, "input_tokens_details": {"cached_tokens": turn.cached.unwrap_or(0)},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": input + output,
    })
}
