//! The Anthropic wire API: `/v1/messages`, passed through to workers that speak it.

use super::BadRequest;
use super::Family;
use super::Tokens;
use super::Wire;
use super::form::Event;
use super::form::Mark;
use super::form::Observed;
use super::form::Piece;
use super::form::Prompt;
use super::form::Request;
use super::form::Usage;
use super::json;
use super::json::Object;
use super::json::Value;
use super::openai;

/// How messages are read and watched.
pub const MESSAGES: Wire = Wire {
    name: "messages",
    family: Family::Anthropic,
    read,
    observe: Some(observe),
    needs_done: true,
    usage: answer_usage,
    tokens: Tokens::PromptAndAnswer,
};

/// `/v1/messages/count_tokens`: the same body, never streamed.
pub const COUNT_TOKENS: Wire = Wire {
    name: "count_tokens",
    family: Family::Anthropic,
    read,
    observe: None,
    needs_done: false,
    usage: answer_usage,
    tokens: Tokens::None,
};

fn read<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let mut prompt = Prompt::default();
    openai::push_tools(&mut prompt, body);
    if let Some(system) = body.get("system") {
        prompt.pieces.extend([Piece::Mark(Mark::Message), Piece::Text(b"system"), Piece::Mark(Mark::Content)]);
        openai::push_content(&mut prompt, system.value);
    }
    openai::push_messages(&mut prompt, body)?;
    let (model, is_stream) = (openai::model(body)?, openai::stream(body)?);
    Ok(Request { model, is_stream, prompt: Some(prompt), usage_splice: None })
}

/// Prompt tokens here exclude cached ones; the form counts them in.
fn usage_of(value: Value<'_>) -> Usage {
    let number = |name| value.get(name).and_then(Value::as_u64);
    let cached = number("cache_read_input_tokens");
    let written = number("cache_creation_input_tokens").unwrap_or(0);
    let prompt = number("input_tokens").map(|fresh| fresh.saturating_add(cached.unwrap_or(0)).saturating_add(written));
    Usage { prompt, completion: number("output_tokens"), cached }
}

fn answer_usage(body: &Object<'_>) -> Usage {
    body.get("usage").map(|it| usage_of(it.value)).unwrap_or_default()
}

fn observe(data: &[u8]) -> Observed {
    let Ok(event) = json::parse(data) else { return Event::Malformed.into() };
    let Some(kind) = event.get("type").and_then(|it| it.value.string_raw()) else { return Event::Malformed.into() };
    match kind {
        b"message_start" => {
            let usage = event.get("message").and_then(|it| it.value.get("usage")).map(usage_of);
            Observed { event: Event::Preamble, usage }
        }
        b"content_block_start" | b"ping" => Event::Preamble.into(),
        b"message_delta" => {
            let usage = event.get("usage").filter(|it| it.value.is_object()).map(|it| usage_of(it.value));
            Observed { event: Event::Finish, usage }
        }
        b"message_stop" => Event::Done.into(),
        b"error" if event.get("error").is_some_and(|it| is_refusal(it.value)) => Event::Refusal.into(),
        b"error" => Event::Error.into(),
        _ => Event::Content.into(),
    }
}

fn is_refusal(error: Value<'_>) -> bool {
    let kind = error.get("type").and_then(Value::string_raw);
    matches!(kind, Some(b"invalid_request_error" | b"not_found_error" | b"permission_error" | b"request_too_large"))
}
