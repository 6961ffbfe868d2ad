//! `/v1/responses`: passed through to workers that speak it, or asked of any worker as a chat completion.

use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::Tokens;
use crate::dialects::Wire;
use crate::dialects::form::Event;
use crate::dialects::form::Mark;
use crate::dialects::form::Observed;
use crate::dialects::form::Piece;
use crate::dialects::form::Prompt;
use crate::dialects::form::Request;
use crate::dialects::form::Usage;
use crate::dialects::json;
use crate::dialects::json::Object;
use crate::dialects::json::Value;

/// How responses are read and watched. Their streams end with a terminal event, not with `[DONE]`.
pub const WIRE: Wire = Wire {
    name: "responses",
    family: Family::Responses,
    read,
    observe: Some(observe),
    needs_done: true,
    usage: super::answer_usage,
    tokens: Tokens::PromptAndAnswer,
};

/// The same endpoint where history has it: what a worker is asked then is a chat completion, made of the request and of what came before.
pub const KEPT: Wire = Wire { name: WIRE.name, ..super::chat::WIRE };

fn read<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let mut prompt = Prompt::default();
    super::push_tools(&mut prompt, body);
    if let Some(text) = body.get("instructions").and_then(|it| it.value.string_raw()) {
        prompt.pieces.extend([
            Piece::Mark(Mark::Message),
            Piece::Text(b"system"),
            Piece::Mark(Mark::Content),
            Piece::Text(text),
        ]);
    }
    let input = body.get("input").map(|it| it.value);
    match input {
        Some(text) if text.string_raw().is_some() => {
            prompt.pieces.extend([Piece::Mark(Mark::Message), Piece::Text(b"user"), Piece::Mark(Mark::Content)]);
            super::push_content(&mut prompt, text);
        }
        Some(items) if items.is_array() => items.items().for_each(|item| super::push_message(&mut prompt, item)),
        Some(_) => return Err(BadRequest::WrongType { field: "input", expected: "a string or an array of items" }),
        None => {}
    }
    Ok(Request {
        model: super::model(body)?,
        is_stream: super::stream(body)?,
        prompt: Some(prompt),
        usage_splice: None,
    })
}

fn observe(data: &[u8]) -> Observed {
    if data == b"[DONE]" {
        return Event::Done.into();
    }
    let Ok(event) = json::parse(data) else { return Event::Malformed.into() };
    let Some(kind) = event.get("type").and_then(|it| it.value.string_raw()) else { return Event::Malformed.into() };
    let usage = || -> Option<Usage> {
        let response = event.get("response")?.value;
        response.get("usage").filter(|it| Value::is_object(*it)).map(super::usage_of)
    };
    match kind {
        b"response.created" | b"response.queued" | b"response.in_progress" => Event::Preamble.into(),
        b"response.completed" | b"response.incomplete" => Observed { event: Event::Done, usage: usage() },
        b"response.failed" => Observed { event: Event::Error, usage: usage() },
        b"error" => Event::Error.into(),
        _ => Event::Content.into(),
    }
}
