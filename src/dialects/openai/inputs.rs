//! Endpoints that take an input and never stream: embeddings, rerank, classify, tokenize, detokenize.

use crate::dialects::BadRequest;
use crate::dialects::Family;
use crate::dialects::Tokens;
use crate::dialects::Wire;
use crate::dialects::form::Prompt;
use crate::dialects::form::Request;
use crate::dialects::json::Object;

use super::completions::push_texts;

const fn wire(
    name: &'static str,
    read: for<'a> fn(&Object<'a>) -> Result<Request<'a>, BadRequest>,
    tokens: Tokens,
) -> Wire {
    Wire { name, family: Family::OpenAi, read, observe: None, needs_done: false, usage: super::answer_usage, tokens }
}

/// `/v1/embeddings`.
pub const EMBEDDINGS: Wire = wire("embeddings", read_input, Tokens::Prompt);
/// `/v1/classify`.
pub const CLASSIFY: Wire = wire("classify", read_input, Tokens::Prompt);
/// `/rerank`, `/v1/rerank`.
pub const RERANK: Wire = wire("rerank", read_rerank, Tokens::Prompt);
/// `/v1/tokenize`, `/tokenize`: the worker's own tokenizer answers.
pub const TOKENIZE: Wire = wire("tokenize", read_any, Tokens::None);
/// `/v1/detokenize`, `/detokenize`.
pub const DETOKENIZE: Wire = wire("detokenize", read_any, Tokens::None);

fn read_input<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let mut prompt = Prompt::default();
    match (body.get("input"), body.get("messages")) {
        (Some(input), _) => push_texts(&mut prompt, input.value, "input")?,
        (None, Some(_)) => {} // chat-shaped input, which some engines take
        (None, None) => return Err(BadRequest::Missing("input")),
    }
    Ok(Request { model: super::model(body)?, prompt: Some(prompt), ..Request::default() })
}

fn read_rerank<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    let query = body.get("query").ok_or(BadRequest::Missing("query"))?;
    let documents = body.get("documents").ok_or(BadRequest::Missing("documents"))?;
    if !documents.value.is_array() {
        return Err(BadRequest::WrongType { field: "documents", expected: "an array" });
    }
    let mut prompt = Prompt::default();
    if let Some(text) = query.value.string_raw() {
        prompt.pieces.push(crate::dialects::form::Piece::Text(text));
    }
    Ok(Request { model: super::model(body)?, prompt: Some(prompt), ..Request::default() })
}

fn read_any<'a>(body: &Object<'a>) -> Result<Request<'a>, BadRequest> {
    Ok(Request { model: super::model(body)?, ..Request::default() })
}
