//! `/v1/completions` as vLLM writes it.

use serde_json::json;

use super::FINGERPRINT;
use super::Render;
use super::Turn;
use super::finish_reason;
use super::put;
use super::put_stop_reason;
use super::put_string;
use crate::lab::sim_worker::reply::Reply;

/// Text completions. `echo` is what comes before the first token when the caller wants the prompt back.
#[derive(Default)]
pub(in crate::lab::sim_worker) struct Completions {
    pub(in crate::lab::sim_worker) echo: String,
}

impl Completions {
    fn head(turn: &Turn, out: &mut Vec<u8>) {
        put(
            out,
            format_args!(
                "{{\"id\":\"cmpl-{:032x}\",\"object\":\"text_completion\",\"created\":{},\"model\":",
                turn.id, turn.created
            ),
        );
        put_string(out, &turn.model);
        out.extend_from_slice(b",\"choices\":[");
    }

    fn choice(turn: &Turn, index: usize, reply: &Reply, text: &str, is_last: bool, out: &mut Vec<u8>) {
        put(out, format_args!("{{\"index\":{index},\"text\":"));
        put_string(out, text);
        if turn.has_logprobs && !text.is_empty() {
            let logprobs = json!({"text_offset": [0], "token_logprobs": [-0.25], "tokens": [text], "top_logprobs": [{text: -0.25}]});
            put(out, format_args!(",\"logprobs\":{logprobs}"));
        } else {
            out.extend_from_slice(b",\"logprobs\":null");
        }
        if is_last {
            put(out, format_args!(",\"finish_reason\":\"{}\",\"stop_reason\":", finish_reason(&reply.finish)));
            put_stop_reason(out, &reply.finish);
        } else {
            out.extend_from_slice(b",\"finish_reason\":null,\"stop_reason\":null");
        }
    }

    fn chunk(turn: &Turn, index: usize, text: &str, emitted: usize, out: &mut Vec<u8>) {
        let reply = &turn.replies[index];
        let is_last = emitted >= reply.len && (emitted == usize::MAX || reply.ends_with_text);
        out.extend_from_slice(b"data: ");
        Self::head(turn, out);
        Self::choice(turn, index, reply, text, is_last, out);
        out.extend_from_slice(b",\"prompt_token_ids\":null,\"token_ids\":null}]");
        if is_last && !turn.stream_options.include_usage {
            out.extend_from_slice(FINGERPRINT);
        }
        if turn.stream_options.include_usage && turn.stream_options.continuous_usage_stats {
            out.extend_from_slice(b",\"usage\":");
            turn.usage(emitted, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"}\n\n");
    }
}

impl Render for Completions {
    fn token(&mut self, turn: &Turn, index: usize, out: &mut Vec<u8>) {
        for (choice, reply) in turn.replies.iter().enumerate().filter(|(_, it)| index < it.len) {
            let echo = if index == 0 { self.echo.as_str() } else { "" };
            Self::chunk(turn, choice, &format!("{echo}{}", reply.piece(index)), index + 1, out);
        }
    }

    fn close(&mut self, turn: &Turn, out: &mut Vec<u8>) {
        for (choice, _) in turn.replies.iter().enumerate().filter(|(_, it)| !it.ends_with_text) {
            Self::chunk(turn, choice, "", usize::MAX, out);
        }
        if turn.stream_options.include_usage {
            out.extend_from_slice(b"data: ");
            Self::head(turn, out);
            out.extend_from_slice(b"],\"usage\":");
            turn.usage_at_end(None, out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn whole(&self, turn: &Turn, out: &mut Vec<u8>) {
        Self::head(turn, out);
        for (choice, reply) in turn.replies.iter().enumerate() {
            if choice > 0 {
                out.push(b',');
            }
            Self::choice(turn, choice, reply, &format!("{}{}", self.echo, reply.text()), true, out);
            out.extend_from_slice(b",\"token_ids\":null,\"prompt_logprobs\":null,\"prompt_token_ids\":null");
            out.extend_from_slice(b",\"routed_experts\":null}");
        }
        out.extend_from_slice(b"],\"service_tier\":null");
        out.extend_from_slice(FINGERPRINT);
        out.extend_from_slice(b",\"usage\":");
        turn.usage_of_whole(None, out);
        out.extend_from_slice(b",\"kv_transfer_params\":null,\"ec_transfer_params\":null,\"metrics\":null}");
    }
}
