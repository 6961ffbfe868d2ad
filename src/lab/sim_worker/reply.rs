//! What the "model" says: seeded text, a literal, JSON for a schema, or a tool call, cut into tokens.
//!
//! A seeded answer is never held: its i-th token follows from the prompt's digest and i. Every seeded token is exactly
//! four bytes, so the answer, sent back as the next turn of the conversation, is found in the prefix cache.

use std::borrow::Cow;

use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::ask::Ask;
use super::ask::Prompt;
use super::schema;
use crate::lab::engine::tokens;
use crate::lab::engine::tokens::Token;

const FIRST: [&str; 8] = ["When", "Once", "Then", "Here", "Soon", "Each", "Many", "They"];
const NEXT: [&str; 32] = [
    " the", " sun", " and", " sea", " low", " sky", " far", " old", " red", " fox", " ran", " saw", " how", " its",
    " day", " end", " new", " air", " sat", " all", " for", " one", " two", " can", " see", " map", " our", " way",
    " key", " had", " not", " but",
];

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// By itself.
    Stop,
    /// At one of the caller's stop texts.
    StopText(String),
    /// At the caller's bound.
    Length,
    /// With a tool call.
    ToolCalls,
}

/// What is said.
#[derive(Clone, Debug)]
enum Said {
    Seeded(u64),
    Pieces(Vec<String>),
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    said: Said,
    /// Tokens in it.
    pub(super) len: usize,
    /// Why it ends.
    pub(super) finish: Finish,
    /// The tool called; then the pieces are its arguments.
    pub(super) tool: Option<String>,
    /// The caller demanded a call: vLLM then has an empty text beside it rather than none.
    pub(super) is_forced: bool,
    /// Whether the last token is said with the reason of the end: an end without text is told apart.
    pub(super) ends_with_text: bool,
}

/// A tool that is called.
struct Call {
    name: String,
    arguments: Value,
    is_forced: bool,
    /// By its name, the OpenAI way, which vLLM ends with "stop".
    is_named: bool,
}

impl Reply {
    /// Decides what is said to `prompt`, as choice `index`, in at most `output_max` tokens.
    pub(super) fn plan(ask: &Ask<'_>, prompt: &Prompt, stops: &[String], natural: usize, index: usize) -> Self {
        if let Some(call) = tool_call(ask, prompt) {
            let pieces = pieces(&call.arguments.to_string());
            let (len, is_forced) = (pieces.len(), call.is_forced);
            let finish = if call.is_named { Finish::Stop } else { Finish::ToolCalls };
            let said = Said::Pieces(pieces);
            return Self { said, len, finish, tool: Some(call.name), is_forced, ends_with_text: false };
        }
        let output_max = ask.output_max().unwrap_or(usize::MAX).min(prompt.room);
        let literal = structured(ask).or_else(|| Some(prompt.last_user.strip_prefix("say:")?.trim().to_owned()));
        let (said, natural) = match literal {
            Some(text) => {
                let pieces = pieces(&text);
                let len = pieces.len();
                (Said::Pieces(pieces), len)
            }
            None => (Said::Seeded(xxh3_64_with_seed(&index.to_le_bytes(), prompt.digest)), seeded_len(ask, natural)),
        };
        let len = natural.min(output_max).max(1);
        let finish = if natural > len || ask_ignores_end(ask) { Finish::Length } else { Finish::Stop };
        let ends_with_text = finish == Finish::Length;
        let reply = Self { said, len, finish, tool: None, is_forced: false, ends_with_text };
        if stops.is_empty() { reply } else { reply.cut(stops) }
    }

    /// The text of token `index`.
    pub(super) fn piece(&self, index: usize) -> Cow<'_, str> {
        match &self.said {
            Said::Seeded(digest) if index == 0 => Cow::Borrowed(FIRST[(*digest % 8) as usize]),
            Said::Seeded(digest) => {
                let mixed = (digest ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                Cow::Borrowed(NEXT[(mixed >> 59) as usize])
            }
            Said::Pieces(pieces) => Cow::Borrowed(pieces.get(index).map_or("", String::as_str)),
        }
    }

    /// The whole text.
    pub(super) fn text(&self) -> String {
        let mut whole = String::with_capacity(self.len * tokens::TOKEN_BYTES);
        for index in 0..self.len {
            whole.push_str(&self.piece(index));
        }
        whole
    }

    /// The tokens, as the engine's cache sees them.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let mut all = Vec::with_capacity(self.len);
        for index in 0..self.len {
            tokens::encode(self.piece(index).as_bytes(), &mut all);
        }
        all
    }

    /// Ends the text before the first of the stop texts. What a token has before it is a piece of its own.
    fn cut(self, stops: &[String]) -> Self {
        let text = self.text();
        let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop))).min();
        let Some((at, stop)) = found else { return self };
        let (mut pieces, mut end) = (Vec::new(), 0);
        for piece in (0..self.len).map(|index| self.piece(index)) {
            if end >= at {
                break;
            }
            pieces.push(piece[..piece.len().min(at - end)].to_owned());
            end += piece.len();
        }
        let len = pieces.len().max(1);
        Self {
            said: Said::Pieces(pieces),
            len,
            finish: Finish::StopText(stop.clone()),
            ends_with_text: end > at,
            ..self
        }
    }
}

fn seeded_len(ask: &Ask<'_>, natural: usize) -> usize {
    match ask.output_max() {
        Some(output_max) if ask_ignores_end(ask) => output_max,
        _ => natural.max(ask.min_tokens.unwrap_or(1)),
    }
}

fn ask_ignores_end(ask: &Ask<'_>) -> bool {
    ask.output_max().is_some()
        && (ask.ignore_eos == Some(true) || ask.sampling_params.as_ref().and_then(|it| it.ignore_eos) == Some(true))
}

/// Cuts a text into tokens of whole characters.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = Vec::with_capacity(tokens::count(text.len()));
    let mut rest = text;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.floor_char_boundary(tokens::TOKEN_BYTES));
        pieces.push(piece.to_owned());
        rest = after;
    }
    pieces
}

/// The JSON that `response_format` asks for.
fn structured(ask: &Ask<'_>) -> Option<String> {
    let format: Value = serde_json::from_str(ask.response_format?.get()).ok()?;
    match format.get("type")?.as_str()? {
        "json_schema" => {
            let schema = format.pointer("/json_schema/schema").or_else(|| format.get("schema"))?;
            Some(schema::instance(schema, "text").to_string())
        }
        "json_object" => Some("{\"answer\": \"text\"}".to_owned()),
        _ => None,
    }
}

/// The call that `tool_choice` demands or, when it leaves the choice, that the prompt asks for by one of the words of a
/// tool's name ("What is the weather in Rome?" calls `get_weather`).
fn tool_call(ask: &Ask<'_>, prompt: &Prompt) -> Option<Call> {
    let tools = ask.tools.as_ref().filter(|it| !it.is_empty())?;
    let choice: Value = ask.tool_choice.map_or(Value::Null, |it| serde_json::from_str(it.get()).unwrap_or_default());
    let kind = choice.as_str().or_else(|| choice.get("type").and_then(Value::as_str)).unwrap_or("auto");
    let wanted = choice.pointer("/function/name").or_else(|| choice.get("name")).and_then(Value::as_str);
    let is_forced = wanted.is_some() || matches!(kind, "required" | "any");
    if kind == "none" || (prompt.is_after_tool && !is_forced) {
        return None;
    }
    let said = prompt.last_user.to_lowercase();
    for raw in tools {
        let tool: Value = serde_json::from_str(raw.get()).ok()?;
        let function = tool.get("function").unwrap_or(&tool);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_asked_for = || name.split('_').any(|word| word.len() > 3 && said.contains(&word.to_lowercase()));
        let is_chosen = wanted.map_or_else(|| is_forced || is_asked_for(), |it| it == name);
        if is_chosen {
            let parameters = function.get("parameters").or_else(|| function.get("input_schema"));
            let arguments = schema::instance(parameters.unwrap_or(&Value::Null), place(&prompt.last_user));
            let is_named = choice.pointer("/function/name").is_some();
            return Some(Call { name: name.to_owned(), arguments, is_forced, is_named });
        }
    }
    None
}

/// The word after "in", without punctuation: the city of a question about weather.
fn place(text: &str) -> &str {
    let after = text.rsplit_once(" in ").map_or("", |(_, after)| after);
    let word = after.split(|it: char| !it.is_alphanumeric()).next().unwrap_or_default();
    if word.is_empty() { "text" } else { word }
}
