//! `/v1/chat/completions` as vLLM writes it.

use serde_json::json;

use super::Render;
use super::Turn;
use super::finish_reason;
use super::logprob;
use super::put;
use super::put_stop_reason;
use super::put_string;
use crate::lab::sim_worker::reply::Finish;
use crate::lab::sim_worker::reply::Reply;

/// Chat completions.
#[derive(Default)]
pub(in crate::lab::sim_worker) struct Chat {
    /// What every chunk of this stream begins with.
    head: Vec<u8>,
}

impl Render for Chat {
    fn open(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        put(
            &mut self.head,
            format_args!(
                "data: {{\"id\":\"chatcmpl-{:032x}\",\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":",
                turn.id, turn.created
            ),
        );
        put_string(&mut self.head, &turn.model);
        self.head.extend_from_slice(b",\"choices\":[");
        for choice in 0..turn.replies.len() {
            out.extend_from_slice(&self.head);
            put(
                out,
                format_args!(
                    "{{\"index\":{choice},\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"logprobs\":null,\
                     \"finish_reason\":null}}],\"prompt_token_ids\":null"
                ),
            );
            end_chunk(turn, 0, out);
        }
    }

    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        for (choice, reply) in turn.replies.iter().enumerate().filter(|(_, it)| index < it.len) {
            out.extend_from_slice(&self.head);
            put(out, format_args!("{{\"index\":{choice},\"delta\":{{"));
            put_delta(turn, reply, index, out);
            let is_cut_here = reply.finish == Finish::Length && index + 1 == reply.len;
            out.extend_from_slice(b"},\"logprobs\":");
            if turn.has_logprobs && reply.tool.is_none() {
                put(out, format_args!("{}", json!({"content": [logprob(&reply.piece(index))]})));
            } else {
                out.extend_from_slice(b"null");
            }
            if is_cut_here {
                out.extend_from_slice(b",\"finish_reason\":\"length\",\"stop_reason\":null,\"token_ids\":null}]");
            } else {
                out.extend_from_slice(b",\"finish_reason\":null,\"token_ids\":null}]");
            }
            end_chunk(turn, index + 1, out);
        }
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        for (choice, reply) in turn.replies.iter().enumerate().filter(|(_, it)| it.finish != Finish::Length) {
            out.extend_from_slice(&self.head);
            let delta = if reply.tool.is_some() { "{}" } else { "{\"content\":\"\"}" };
            let reason = finish_reason(&reply.finish);
            put(
                out,
                format_args!(
                    "{{\"index\":{choice},\"delta\":{delta},\"logprobs\":null,\"finish_reason\":\"{reason}\",\"stop_reason\":"
                ),
            );
            put_stop_reason(out, &reply.finish);
            out.extend_from_slice(b",\"token_ids\":null}]");
            end_chunk(turn, usize::MAX, out);
        }
        if turn.stream_options.include_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            turn.usage(usize::MAX, out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "{{\"id\":\"chatcmpl-{:032x}\",\"object\":\"chat.completion\",\"created\":{},\"model\":",
                turn.id, turn.created
            ),
        );
        put_string(out, &turn.model);
        out.extend_from_slice(b",\"choices\":[");
        for (choice, reply) in turn.replies.iter().enumerate() {
            if choice > 0 {
                out.push(b',');
            }
            put_choice(turn, choice, reply, out);
        }
        out.extend_from_slice(b"],\"service_tier\":null,\"system_fingerprint\":null,\"usage\":");
        turn.usage(usize::MAX, out);
        out.extend_from_slice(b",\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"kv_transfer_params\":null}");
    }
}

/// Ends a chunk, with running usage when that was asked for.
fn end_chunk(turn: &Turn, emitted: usize, out: &mut Vec<u8>) {
    if turn.stream_options.include_usage && turn.stream_options.continuous_usage_stats {
        out.extend_from_slice(b",\"usage\":");
        turn.usage(emitted, out);
    }
    out.extend_from_slice(b"}\n\n");
}

fn put_delta(turn: &Turn, reply: &Reply, index: usize, out: &mut Vec<u8>) {
    let piece = reply.piece(index);
    let Some(name) = &reply.tool else {
        out.extend_from_slice(b"\"content\":");
        put_string(out, &piece);
        return;
    };
    let call = if index == 0 {
        json!({"id": call_id(turn.id), "type": "function", "index": 0, "function": {"name": name, "arguments": piece}})
    } else {
        json!({"index": 0, "function": {"arguments": piece}})
    };
    put(out, format_args!("\"tool_calls\":[{call}]"));
}

fn put_choice(turn: &Turn, choice: usize, reply: &Reply, out: &mut Vec<u8>) {
    put(out, format_args!("{{\"index\":{choice},\"message\":{{\"role\":\"assistant\",\"content\":"));
    let calls = match &reply.tool {
        Some(name) => {
            out.extend_from_slice(b"null");
            let function = json!({"name": name, "arguments": reply.text()});
            json!([{"id": call_id(turn.id), "type": "function", "function": function}]).to_string()
        }
        None => {
            put_string(out, &reply.text());
            "[]".to_owned()
        }
    };
    put(
        out,
        format_args!(
            ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null,\"tool_calls\":{calls},\
             \"reasoning\":null}},\"logprobs\":"
        ),
    );
    if turn.has_logprobs && reply.tool.is_none() {
        let all: Vec<_> = (0..reply.len).map(|index| logprob(&reply.piece(index))).collect();
        put(out, format_args!("{}", json!({ "content": all })));
    } else {
        out.extend_from_slice(b"null");
    }
    put(out, format_args!(",\"finish_reason\":\"{}\",\"stop_reason\":", finish_reason(&reply.finish)));
    put_stop_reason(out, &reply.finish);
    out.extend_from_slice(b",\"token_ids\":null}");
}

fn call_id(id: u64) -> String {
    format!("chatcmpl-tool-{id:032x}")
}
