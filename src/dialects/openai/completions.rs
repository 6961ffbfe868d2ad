//! `/v1/completions`: a prompt of text or token ids, or several.

use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::Tokens;
use crate::dialects::Wire;
use crate::dialects::form::Mark;
use crate::dialects::form::Piece;
use crate::dialects::form::Prompt;
use crate::dialects::form::Request;
use crate::dialects::json::Object;
use crate::dialects::json::Value;

/// How completions are read and watched.
pub const WIRE: Wire = Wire {
    name: "completions",
    family: Family::OpenAi,
    read,
    observe: Some(super::chat::observe),
    needs_done: true,
    usage: super::answer_usage,
    tokens: Tokens::PromptAndAnswer,
};

fn read<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let model = super::model(body)?;
    let is_stream = super::stream(body)?;
    let mut prompt = Prompt::default();
    match body.get("prompt") {
        Some(member) => push_texts(&mut prompt, member.value, "prompt")?,
        // Workers take `prompt_embeds` instead; they judge what is missing.
        None if body.get("prompt_embeds").is_some() => {}
        None => return Err(BadRequest::Missing("prompt")),
    }
    let usage_splice = super::usage_splice(body, is_stream)?;
    Ok(Request { model, is_stream, prompt: Some(prompt), usage_splice })
}

/// Adds a text, a list of texts, a list of token ids, or a list of those.
pub(in crate::dialects) fn push_texts<'a>(
    prompt: &mut Prompt<'a>,
    value: Value<'a>,
    field: &'static str,
) -> Result<(), BadRequest> {
    let wrong = || BadRequest::WrongType { field, expected: "a string, an array of strings or token ids" };
    if let Some(text) = value.string_raw() {
        prompt.pieces.push(Piece::Text(text));
        return Ok(());
    }
    if !value.is_array() {
        return Err(wrong());
    }
    for (index, item) in value.items().enumerate() {
        if let Some(token) = item.as_u64() {
            prompt.pieces.push(Piece::Token(u32::try_from(token).map_err(|_too_large| wrong())?));
            continue;
        }
        if index > 0 {
            prompt.pieces.push(Piece::Mark(Mark::Next));
        }
        match item.string_raw() {
            Some(text) => prompt.pieces.push(Piece::Text(text)),
            None if item.is_array() || item.is_object() => prompt.pieces.push(Piece::Json(item.raw())),
            None => return Err(wrong()),
        }
    }
    Ok(())
}
