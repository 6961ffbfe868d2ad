//! `/v1/chat/completions`.

use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::Tokens;
use crate::dialects::Wire;
use crate::dialects::form::Event;
use crate::dialects::form::Observed;
use crate::dialects::form::Prompt;
use crate::dialects::form::Request;
use crate::dialects::json;
use crate::dialects::json::Object;
use crate::dialects::json::Value;

use super::push_messages;
use super::push_tools;

/// How chat completions are read and watched.
pub const WIRE: Wire = Wire {
    name: "chat",
    family: Family::OpenAi,
    read,
    observe: Some(observe),
    needs_done: true,
    usage: super::answer_usage,
    tokens: Tokens::PromptAndAnswer,
};

fn read<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let model = super::model(body)?;
    let is_stream = super::stream(body)?;
    let mut prompt = Prompt::default();
    push_tools(&mut prompt, body);
    push_messages(&mut prompt, body)?;
    let usage_splice = super::usage_splice(body, is_stream)?;
    Ok(Request { model, is_stream, prompt: Some(prompt), usage_splice })
}

/// What a streamed chunk of chat or completions is.
#[must_use]
pub fn observe(data: &[u8]) -> Observed {
    if data == b"[DONE]" {
        return Event::Done.into();
    }
    let Ok(chunk) = json::parse(data) else { return Event::Malformed.into() };
    if let Some(error) = chunk.get("error").filter(|it| !it.value.is_null()) {
        let is_refusal =
            matches!(error.value.get("code").and_then(Value::as_u64), Some(400..=407 | 409..=428 | 431..=499));
        return if is_refusal { Event::Refusal.into() } else { Event::Error.into() };
    }
    let usage = chunk.get("usage").filter(|it| it.value.is_object()).map(|it| super::usage_of(it.value));
    let Some(choices) = chunk.get("choices") else {
        return Observed { event: if usage.is_some() { Event::Usage } else { Event::Preamble }, usage };
    };
    // Content outranks the end of another choice, since a retry would be visible from it on; either outranks nothing.
    let rank = |event: &Event| [Event::Preamble, Event::Finish, Event::Content].iter().position(|it| it == event);
    let event = choices.value.items().map(choice_event).max_by_key(rank);
    let alone = if usage.is_some() { Event::Usage } else { Event::Preamble };
    Observed { event: event.unwrap_or(alone), usage }
}

fn choice_event(choice: Value<'_>) -> Event {
    let mut finished = false;
    for member in choice.entries() {
        match member.key {
            b"delta" if member.value.entries().any(|it| is_content(it.key, it.value)) => return Event::Content,
            b"text" if member.value.string_raw().is_some_and(|it| !it.is_empty()) => return Event::Content,
            b"finish_reason" if !member.value.is_null() => finished = true,
            _ => {}
        }
    }
    if finished { Event::Finish } else { Event::Preamble }
}

/// Anything a person or a program would see. Roles and empty texts are not.
fn is_content(key: &[u8], value: Value<'_>) -> bool {
    key != b"role" && !value.is_null() && !matches!(value.raw(), b"\"\"" | b"[]" | b"{}")
}
