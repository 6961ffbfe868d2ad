//! The OpenAI wire API: one file an endpoint, and here what they share.

pub mod chat;
pub mod completions;
pub mod inputs;
pub mod responses;

use super::BadRequest;
use super::form::Mark;
use super::form::Piece;
use super::form::Prompt;
use super::form::Splice;
use super::form::Usage;
use super::json::Object;
use super::json::Value;

/// Reads `model`: a string, given once.
pub fn model<'a>(body: &Object<'a>) -> Result<Option<std::borrow::Cow<'a, str>>, BadRequest> {
    if body.repeats("model") {
        return Err(BadRequest::Repeated("model"));
    }
    let Some(member) = body.get("model") else { return Ok(None) };
    let wrong = BadRequest::WrongType { field: "model", expected: "a string" };
    member.value.as_str().map(Some).ok_or(wrong)
}

/// Reads `stream`: absent and `null` are `false`.
pub fn stream(body: &Object<'_>) -> Result<bool, BadRequest> {
    if body.repeats("stream") {
        return Err(BadRequest::Repeated("stream"));
    }
    match body.get("stream") {
        None => Ok(false),
        Some(member) if member.value.is_null() => Ok(false),
        Some(member) => {
            member.value.as_bool().ok_or(BadRequest::WrongType { field: "stream", expected: "true or false" })
        }
    }
}

/// How `stream_options.include_usage` has to be changed so that the worker tells the usage; `None`: it will anyway.
pub fn usage_splice(body: &Object<'_>, is_stream: bool) -> Result<Option<Splice>, BadRequest> {
    let wrong = BadRequest::WrongType { field: "stream_options", expected: "an object" };
    let Some(options) = body.get("stream_options").filter(|it| !it.value.is_null()) else {
        if !is_stream {
            return Ok(None);
        }
        let splice = match body.get("stream_options") {
            Some(null) => Splice { range: null.range(), text: r#"{"include_usage":true}"# },
            None => Splice { range: body.open..body.open, text: r#""stream_options":{"include_usage":true},"# },
        };
        return Ok(Some(splice));
    };
    if !options.value.is_object() || body.repeats("stream_options") {
        return Err(wrong);
    }
    if !is_stream {
        return Ok(None); // the worker judges it
    }
    let inside = options.at + 1;
    let mut entries = options.value.entries().peekable();
    let is_empty = entries.peek().is_none();
    // The last of repeated keys counts, as in most parsers.
    let asked = entries.filter(|it| it.is("include_usage")).last();
    Ok(match asked {
        Some(member) if member.value.as_bool() == Some(true) => None,
        Some(member) => {
            let start = options.at + member.at;
            Some(Splice { range: start..start + member.value.raw().len(), text: "true" })
        }
        None if is_empty => Some(Splice { range: inside..inside, text: r#""include_usage":true"# }),
        None => Some(Splice { range: inside..inside, text: r#""include_usage":true,"# }),
    })
}

/// The usage object of chat, completions, embeddings and responses.
#[must_use]
pub fn usage_of(value: Value<'_>) -> Usage {
    let mut usage = Usage::default();
    for member in value.entries() {
        match member.key {
            b"prompt_tokens" | b"input_tokens" => usage.prompt = member.value.as_u64(),
            b"completion_tokens" | b"output_tokens" => usage.completion = member.value.as_u64(),
            b"prompt_tokens_details" | b"input_tokens_details" => {
                usage.cached = member.value.get("cached_tokens").and_then(Value::as_u64);
            }
            _ => {}
        }
    }
    usage
}

/// The usage of a whole answer.
#[must_use]
pub fn answer_usage(body: &Object<'_>) -> Usage {
    body.get("usage").map(|it| usage_of(it.value)).unwrap_or_default()
}

/// Adds a message's content: a string, or a list of parts.
pub(super) fn push_content<'a>(prompt: &mut Prompt<'a>, content: Value<'a>) {
    if let Some(text) = content.string_raw() {
        prompt.pieces.push(Piece::Text(text));
        return;
    }
    for part in content.items() {
        let text = part.get("text").and_then(Value::string_raw);
        if let Some(text) = text {
            prompt.pieces.push(Piece::Text(text));
        } else {
            prompt.pieces.extend([Piece::Mark(Mark::Part), Piece::Json(part.raw())]);
        }
    }
}

/// Adds one chat message: role, content, then every other field a template can show, in their order.
pub(super) fn push_message<'a>(prompt: &mut Prompt<'a>, message: Value<'a>) {
    prompt.pieces.push(Piece::Mark(Mark::Message));
    if let Some(role) = message.get("role").and_then(Value::string_raw) {
        prompt.pieces.push(Piece::Text(role));
    }
    for member in message.entries() {
        match member.key {
            b"role" => {}
            _ if member.value.is_null() => {}
            b"content" => {
                prompt.pieces.push(Piece::Mark(Mark::Content));
                push_content(prompt, member.value);
            }
            b"tool_calls" => prompt.pieces.extend([Piece::Mark(Mark::Calls), Piece::Json(member.value.raw())]),
            key => prompt.pieces.extend([Piece::Mark(Mark::Field), Piece::Text(key), Piece::Json(member.value.raw())]),
        }
    }
}

/// Adds `messages`, which must be an array of objects.
pub(super) fn push_messages<'a>(prompt: &mut Prompt<'a>, body: &Object<'a>) -> Result<(), BadRequest> {
    let wrong = |expected| BadRequest::WrongType { field: "messages", expected };
    let messages = body.get("messages").ok_or(BadRequest::Missing("messages"))?.value;
    if !messages.is_array() {
        return Err(wrong("an array of messages"));
    }
    for message in messages.items() {
        if !message.is_object() {
            return Err(wrong("an array of objects"));
        }
        push_message(prompt, message);
    }
    Ok(())
}

/// Adds tool definitions.
pub(super) fn push_tools<'a>(prompt: &mut Prompt<'a>, body: &Object<'a>) {
    if let Some(tools) = body.get("tools").filter(|it| it.value.is_array()) {
        prompt.pieces.extend([Piece::Mark(Mark::Tools), Piece::Json(tools.value.raw())]);
    }
}

#[cfg(test)]
mod tests;
