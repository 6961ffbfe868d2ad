//! What all wires promise alike: bodies of every endpoint, events of every family, and errors their clients can read.

mod bodies;
mod errors;
mod events;
mod scanner;
mod streams;

use super::Wire;
use super::anthropic;
use super::form::Request;
use super::json;
use super::openai::chat;
use super::openai::completions;
use super::openai::inputs;
use super::openai::responses;
use super::sglang;

/// Every endpoint there is.
const WIRES: &[&Wire] = &[
    &chat::WIRE,
    &completions::WIRE,
    &responses::WIRE,
    &inputs::EMBEDDINGS,
    &inputs::CLASSIFY,
    &inputs::RERANK,
    &inputs::TOKENIZE,
    &inputs::DETOKENIZE,
    &sglang::GENERATE,
    &anthropic::MESSAGES,
    &anthropic::COUNT_TOKENS,
];

/// The smallest body that `wire` takes, as members of an object.
fn smallest(wire: &Wire) -> &'static str {
    match wire.name {
        "chat" | "messages" | "count_tokens" => r#""messages":[{"role":"user","content":"x"}]"#,
        "completions" => r#""prompt":"x""#,
        "responses" | "embeddings" | "classify" => r#""input":"x""#,
        "rerank" => r#""query":"x","documents":["y"]"#,
        "tokenize" | "detokenize" | "generate" => r#""text":"x""#,
        other => panic!("a wire without a body here: {other}"),
    }
}

/// Reads `body` and hands what was read to `then`.
fn with<T>(wire: &Wire, body: &str, then: impl FnOnce(Result<Request<'_>, super::BadRequest>) -> T) -> T {
    let object = json::parse(body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body}"));
    then((wire.read)(&object))
}

/// What the prefix map sees of a body.
fn rendered(wire: &Wire, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    with(wire, body, |request| {
        let request = request.unwrap_or_else(|error| panic!("{error}: {body}"));
        request.prompt.unwrap_or_default().render(&mut out, usize::MAX);
    });
    out
}
