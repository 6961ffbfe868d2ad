//! `/v1/chat/completions` as vLLM writes it.

use serde_json::json;

use super::FINGERPRINT;
use super::Render;
use super::Turn;
use super::finish_reason;
use super::logprob;
use super::put;
use super::put_stop_reason;
use super::put_string;
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
                     \"finish_reason\":null}}]"
                ),
            );
            put_running_usage(turn, 0, out);
            out.extend_from_slice(b",\"prompt_token_ids\":null,\"prompt_text\":null}\n\n");
        }
    }

    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        for (choice, reply) in turn.replies.iter().enumerate().filter(|(_, it)| index < it.len) {
            out.extend_from_slice(&self.head);
            if let Some(name) = reply.tool.as_ref().filter(|_| index == 0) {
                let call = json!({"id": call_id(turn.id), "type": "function", "index": 0, "function": {"name": name}});
                put_call(choice, &call, out);
                end_chunk(turn, 0, out);
                out.extend_from_slice(&self.head);
            }
            put(out, format_args!("{{\"index\":{choice},\"delta\":{{"));
            put_delta(reply, index, out);
            let is_last = reply.ends_with_text && index + 1 == reply.len;
            out.extend_from_slice(b"},\"logprobs\":");
            if turn.has_logprobs && reply.tool.is_none() {
                put(out, format_args!("{}", json!({"content": [logprob(&reply.piece(index))]})));
            } else {
                out.extend_from_slice(b"null");
            }
            if is_last {
                put_end(turn, reply, out);
            } else {
                out.extend_from_slice(b",\"finish_reason\":null,\"token_ids\":null}]");
                end_chunk(turn, index + 1, out);
            }
        }
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        for (choice, reply) in turn.replies.iter().enumerate().filter(|(_, it)| !it.ends_with_text) {
            out.extend_from_slice(&self.head);
            put(out, format_args!("{{\"index\":{choice},\"delta\":{{}},\"logprobs\":null"));
            put_end(turn, reply, out);
        }
        if turn.stream_options.include_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b"],\"usage\":");
            turn.usage_at_end(Some(turn.created()), out);
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
        out.extend_from_slice(b"],\"service_tier\":null");
        out.extend_from_slice(FINGERPRINT);
        out.extend_from_slice(b",\"usage\":");
        turn.usage_of_whole(Some(turn.created()), out);
        out.extend_from_slice(b",\"prompt_logprobs\":null,\"prompt_token_ids\":null,\"prompt_text\":null");
        out.extend_from_slice(b",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
    }
}

/// The end of a choice's last chunk.
fn put_end(turn: &Turn, reply: &Reply, out: &mut Vec<u8>) {
    put(out, format_args!(",\"finish_reason\":\"{}\",\"stop_reason\":", finish_reason(&reply.finish)));
    put_stop_reason(out, &reply.finish);
    out.extend_from_slice(b",\"token_ids\":null}]");
    if !turn.stream_options.include_usage {
        out.extend_from_slice(FINGERPRINT);
    }
    end_chunk(turn, usize::MAX, out);
}

/// Ends a chunk, with running usage when that was asked for.
fn end_chunk(turn: &Turn, emitted: usize, out: &mut Vec<u8>) {
    put_running_usage(turn, emitted, out);
    out.extend_from_slice(b"}\n\n");
}

fn put_running_usage(turn: &Turn, emitted: usize, out: &mut Vec<u8>) {
    if turn.stream_options.include_usage && turn.stream_options.continuous_usage_stats {
        out.extend_from_slice(b",\"usage\":");
        turn.usage(emitted, out);
        out.extend_from_slice(b",\"completion_tokens_details\":null}");
    }
}

fn put_delta(reply: &Reply, index: usize, out: &mut Vec<u8>) {
    let piece = reply.piece(index);
    if reply.tool.is_none() {
        out.extend_from_slice(b"\"content\":");
        put_string(out, &piece);
    } else {
        let call = json!({"index": 0, "function": {"arguments": piece}});
        put(out, format_args!("\"content\":null,\"tool_calls\":[{call}]"));
    }
}

/// A chunk's choice that only names a tool.
fn put_call(choice: usize, call: &serde_json::Value, out: &mut Vec<u8>) {
    put(
        out,
        format_args!(
            "{{\"index\":{choice},\"delta\":{{\"content\":null,\"tool_calls\":[{call}]}},\"logprobs\":null,\
             \"finish_reason\":null,\"token_ids\":null}}]"
        ),
    );
}

fn put_choice(turn: &Turn, choice: usize, reply: &Reply, out: &mut Vec<u8>) {
    put(out, format_args!("{{\"index\":{choice},\"message\":{{\"role\":\"assistant\",\"content\":"));
    let calls = match &reply.tool {
        Some(name) => {
            out.extend_from_slice(if reply.is_forced { b"\"\"" } else { b"null" });
            let function = json!({"name": name, "arguments": reply.text()});
            let call = json!({"id": call_id(turn.id), "type": "function", "function": function});
            format!(",\"tool_calls\":[{call}]")
        }
        None => {
            put_string(out, &reply.text());
            String::new()
        }
    };
    put(
        out,
        format_args!(
            ",\"refusal\":null,\"annotations\":null,\"audio\":null,\"function_call\":null{calls},\
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
    out.extend_from_slice(b",\"token_ids\":null,\"routed_experts\":null}");
}

fn call_id(id: u64) -> String {
    format!("chatcmpl-tool-{id:032x}")
}
