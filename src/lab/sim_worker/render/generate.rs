//! SGLang's own `/generate`: a stream repeats the whole text so far in every event.

use serde_json::Value;
use serde_json::json;

use super::Render;
use super::Turn;
use super::put;
use crate::lab::sim_worker::reply::Finish;

/// SGLang's native answer.
#[derive(Default)]
pub(in crate::lab::sim_worker) struct Generate {
    text: String,
}

impl Render for Generate {
    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        self.text.push_str(&turn.replies[0].piece(index));
        let emitted = index + 1;
        put(out, format_args!("data: {}\n\n", body(turn, &self.text, emitted)));
    }

    fn close(&mut self, _: &Turn, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        let reply = &turn.replies[0];
        put(out, format_args!("{}", body(turn, &reply.text(), reply.len)));
    }
}

fn body(turn: &Turn, text: &str, emitted: usize) -> Value {
    let reply = &turn.replies[0];
    let finish = match &reply.finish {
        _ if emitted < reply.len => Value::Null,
        Finish::Length => json!({"type": "length", "length": emitted}),
        Finish::StopText(text) => json!({"type": "stop", "matched": text}),
        Finish::Stop | Finish::ToolCalls => json!({"type": "stop", "matched": 2}),
    };
    let ids = reply.tokens();
    json!({
        "text": text,
        "output_ids": &ids[..emitted.min(ids.len())],
        "meta_info": {
            "id": format!("{:032x}", turn.id), "finish_reason": finish, "prompt_tokens": turn.prompt_tokens,
            "weight_version": "default", "total_retractions": 0, "completion_tokens": emitted,
            "cached_tokens": turn.cached.unwrap_or(0), "e2e_latency": 0.0,
        },
    })
}
