//! SGLang's native `/generate`: cumulative texts, usage in `meta_info`.

use super::BadRequest;
use super::Family;
use super::Tokens;
use super::Wire;
use super::form::Event;
use super::form::Observed;
use super::form::Prompt;
use super::form::Request;
use super::form::Usage;
use super::json;
use super::json::Object;
use super::json::Value;
use super::openai;

/// How `/generate` is read and watched.
pub const GENERATE: Wire = Wire {
    name: "generate",
    family: Family::OpenAi,
    read,
    observe: Some(observe),
    needs_done: true,
    usage: answer_usage,
    tokens: Tokens::PromptAndAnswer,
};

fn read<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let mut prompt = Prompt::default();
    match (body.get("text"), body.get("input_ids")) {
        (Some(text), _) => openai::completions::push_texts(&mut prompt, text.value, "text")?,
        (None, Some(ids)) => openai::completions::push_texts(&mut prompt, ids.value, "input_ids")?,
        (None, None) => return Err(BadRequest::Missing("text")),
    }
    let (model, is_stream) = (openai::model(body)?, openai::stream(body)?);
    Ok(Request { model, is_stream, prompt: Some(prompt), usage_splice: None })
}

fn usage_of(meta: Value<'_>) -> Usage {
    let number = |name| meta.get(name).and_then(Value::as_u64);
    Usage { prompt: number("prompt_tokens"), completion: number("completion_tokens"), cached: number("cached_tokens") }
}

fn answer_usage(body: &Object<'_>) -> Usage {
    body.get("meta_info").map(|it| usage_of(it.value)).unwrap_or_default()
}

fn observe(data: &[u8]) -> Observed {
    if data == b"[DONE]" {
        return Event::Done.into();
    }
    let Ok(chunk) = json::parse(data) else { return Event::Malformed.into() };
    if chunk.get("error").is_some_and(|it| !it.value.is_null()) {
        return Event::Error.into();
    }
    let usage = chunk.get("meta_info").map(|it| usage_of(it.value));
    Observed { event: Event::Content, usage }
}
