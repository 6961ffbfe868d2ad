//! What a request is computed from: a conversation, a text, token ids, or a list of those.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::answers::Dialect;
use super::answers::keeps_tokens;
use super::ask::Ask;
use super::ask::Prompt;
use super::ask::string;
use super::refusal::Refusal;
use super::shared::Shared;
use crate::lab::engine::tokens::Token;

/// The prompts of a request: one, but for completions of a list. Or which field is missing.
pub(super) fn prompts(shared: &Shared, dialect: Dialect, ask: &Ask<'_>) -> Result<Vec<Prompt>, Refusal> {
    let mut prompt = Prompt::new(keeps_tokens(shared), shared.options.seed);
    match dialect {
        Dialect::Chat | Dialect::Messages | Dialect::OllamaChat => {
            let messages = ask.messages.as_ref().ok_or(Refusal::Missing("messages"))?;
            if messages.is_empty() {
                return Err(impossible("Cannot apply chat template to an empty conversation.", None));
            }
            return Ok(vec![ask.conversation(prompt)]);
        }
        Dialect::Responses => {
            let input = ask.input.ok_or(Refusal::Missing("input"))?;
            return Ok(vec![super::ask::responses(ask, input, prompt)]);
        }
        Dialect::Completions | Dialect::Generate | Dialect::OllamaGenerate => {}
    }
    if let Some(ids) = &ask.input_ids {
        prompt.push_tokens(ids);
        return Ok(vec![prompt]);
    }
    let Some(raw) = ask.prompt.or(ask.text).filter(|it| !matches!(it.get(), "null" | "\"\"")) else {
        return Err(impossible("Either prompt or prompt_embeds must be provided and non-empty.", Some("prompt")));
    };
    of_parts(shared, raw)
}

/// The prompts of a completion.
fn of_parts(shared: &Shared, raw: &RawValue) -> Result<Vec<Prompt>, Refusal> {
    let Ok(parts) = serde_json::from_str::<Parts<'_>>(raw.get()) else {
        let message = "1 validation error: body, prompt: Input should be a valid string";
        return Err(Refusal::Malformed(message.to_owned()));
    };
    let empty = || Prompt::new(keeps_tokens(shared), shared.options.seed);
    let of_text = |text: &str| {
        let mut prompt = empty();
        prompt.push(text);
        text.clone_into(&mut prompt.last_user);
        prompt
    };
    let of_ids = |ids: &Vec<Token>| {
        let mut prompt = empty();
        prompt.push_tokens(ids);
        prompt
    };
    let prompts: Vec<Prompt> = match &parts {
        Parts::Text(text) => vec![of_text(text)],
        Parts::Ids(ids) if ids.is_empty() => Vec::new(),
        Parts::Ids(ids) => vec![of_ids(ids)],
        Parts::Texts(texts) => texts.iter().map(|it| of_text(it)).collect(),
        Parts::Lists(lists) => lists.iter().map(of_ids).collect(),
    };
    if prompts.is_empty() { Err(impossible("You must pass at least one prompt", None)) } else { Ok(prompts) }
}

/// What `prompt` may be.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Parts<'a> {
    Text(#[serde(borrow)] Cow<'a, str>),
    Ids(Vec<Token>),
    Texts(Vec<String>),
    Lists(Vec<Vec<Token>>),
}

pub(super) fn prompt_text(ask: &Ask<'_>) -> String {
    ask.prompt.or(ask.text).and_then(string).map(Cow::into_owned).unwrap_or_default()
}

fn impossible(message: &str, param: Option<&'static str>) -> Refusal {
    Refusal::Impossible { message: message.to_owned(), param }
}
