//! What a request asks for, read where it lies: one struct for every dialect, strings borrowed from the body.
//!
//! Unknown fields are ignored as real engines ignore them. Reading validates the JSON and nothing is read twice.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::lab::engine::tokens;
use crate::lab::engine::tokens::Token;

/// The fields that any endpoint reads.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ask<'a> {
    pub(super) model: Option<String>,
    #[serde(borrow)]
    pub(super) messages: Option<Vec<Message<'a>>>,
    #[serde(borrow)]
    pub(super) system: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) instructions: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) prompt: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) content: Option<&'a RawValue>,
    pub(super) input_ids: Option<Vec<Token>>,
    #[serde(borrow)]
    pub(super) input: Option<&'a RawValue>,
    pub(super) tokens: Option<Vec<Token>>,
    pub(super) max_tokens: Option<i64>,
    pub(super) max_completion_tokens: Option<i64>,
    pub(super) max_output_tokens: Option<usize>,
    pub(super) min_tokens: Option<usize>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) n: Option<usize>,
    pub(super) stop: Option<OneOrMany>,
    pub(super) stop_sequences: Option<Vec<String>>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    pub(super) tools: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    pub(super) tool_choice: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) response_format: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
    pub(super) top_logprobs: Option<i64>,
    pub(super) temperature: Option<f64>,
    pub(super) top_p: Option<f64>,
    pub(super) presence_penalty: Option<f64>,
    pub(super) frequency_penalty: Option<f64>,
    pub(super) echo: Option<bool>,
    pub(super) cache_salt: Option<String>,
    pub(super) sampling_params: Option<Sampling>,
    pub(super) options: Option<OllamaOptions>,
}

/// SGLang's `sampling_params`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sampling {
    pub(super) max_new_tokens: Option<usize>,
    pub(super) ignore_eos: Option<bool>,
    pub(super) stop: Option<OneOrMany>,
}

/// Ollama's `options`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OllamaOptions {
    pub(super) num_predict: Option<usize>,
    pub(super) stop: Option<OneOrMany>,
}

/// `stream_options`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamOptions {
    pub(super) include_usage: bool,
    pub(super) continuous_usage_stats: bool,
}

/// A string or a list of them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    pub(super) role: String,
    #[serde(borrow, default)]
    pub(super) content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
}

/// The text of a JSON string; `None` for anything else.
pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|it| it.0)
}

/// The text of message content: a string, or the parts of a list one after another (what is not text counts as its
/// JSON, so two different images are two different prompts).
pub(super) fn content(raw: &RawValue) -> Cow<'_, str> {
    if let Some(text) = string(raw) {
        return text;
    }
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(raw.get()) else { return Cow::Borrowed(raw.get()) };
    let mut whole = String::new();
    for part in parts {
        match serde_json::from_str::<Part<'_>>(part.get()) {
            Ok(Part { text: Some(text), .. }) => whole.push_str(&text.0),
            Ok(Part { content: Some(inner), .. }) => whole.push_str(&content(inner)),
            _ => whole.push_str(part.get()),
        }
    }
    Cow::Owned(whole)
}

/// A prompt as the engine sees it: segments cut one by one (see [`tokens`]).
#[derive(Debug, Default)]
pub(super) struct Prompt {
    /// Tokens in all segments.
    pub(super) len: usize,
    /// The tokens, when `keep` was asked for: a worker without a cache only counts.
    pub(super) tokens: Vec<Token>,
    /// Names the prompt; the answer's text follows from it.
    pub(super) digest: u64,
    /// What the user said last, for tools and `say:`.
    pub(super) last_user: String,
    /// Whether the last turn is a tool's answer, after which no tool is called again.
    pub(super) is_after_tool: bool,
    /// Tokens that its answer may have.
    pub(super) room: usize,
    keep: bool,
}

/// The prompt of a Responses request: `input` is a text, or items of which messages are turns and the rest counts as is.
pub(super) fn responses(ask: &Ask<'_>, input: &RawValue, mut prompt: Prompt) -> Prompt {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(input.get()) else {
        prompt.push_turn("user", &content(input));
        return ask.conversation(prompt);
    };
    for item in items {
        match serde_json::from_str::<Message<'_>>(item.get()) {
            Ok(message) => prompt.push_turn(&message.role, &message.content.map(content).unwrap_or_default()),
            Err(_) => prompt.push_turn("tool", item.get()), // a call or its output
        }
    }
    ask.conversation(prompt)
}

/// What is kept of the last user turn, in bytes: enough to find a tool's name or a city in it.
const LAST_USER_BYTES_MAX: usize = 4096;

impl Prompt {
    /// Empty.
    pub(super) fn new(keep: bool, seed: u64) -> Self {
        Self { keep, digest: seed, room: usize::MAX, ..Self::default() }
    }

    /// Appends a segment.
    pub(super) fn push(&mut self, text: &str) {
        self.len += tokens::count(text.len());
        self.digest = xxh3_64_with_seed(text.as_bytes(), self.digest);
        if self.keep {
            tokens::encode(text.as_bytes(), &mut self.tokens);
        }
    }

    /// Appends ready-made tokens: each counts as one, whatever text it stands for.
    pub(super) fn push_tokens(&mut self, ids: &[Token]) {
        self.len += ids.len();
        for id in ids {
            self.digest = xxh3_64_with_seed(&id.to_le_bytes(), self.digest);
        }
        if self.keep {
            self.tokens.extend_from_slice(ids);
        }
    }

    /// Appends one turn in ChatML.
    pub(super) fn push_turn(&mut self, role: &str, text: &str) {
        self.open_turn(role);
        self.push(text);
        self.push("<|im_end|>\n");
        self.is_after_tool = role == "tool";
        if role == "user" {
            self.last_user.clear();
            self.last_user.push_str(&text[..text.floor_char_boundary(LAST_USER_BYTES_MAX)]);
        }
    }

    /// Begins the turn that will be generated.
    pub(super) fn open_turn(&mut self, role: &str) {
        match role {
            "user" => self.push("<|im_start|>user\n"),
            "assistant" => self.push("<|im_start|>assistant\n"),
            other => self.push(&format!("<|im_start|>{other}\n")),
        }
    }
}

impl Ask<'_> {
    /// The conversation as a prompt: tools, system text, turns, and the head of the answer.
    pub(super) fn conversation(&self, mut prompt: Prompt) -> Prompt {
        if let Some(tools) = self.tools.as_ref().filter(|it| !it.is_empty()) {
            let listed: Vec<_> = tools.iter().map(|it| it.get()).collect();
            prompt.push_turn("system", &listed.join("\n"));
        }
        for raw in [self.system, self.instructions].into_iter().flatten() {
            prompt.push_turn("system", &content(raw));
        }
        for message in self.messages.iter().flatten() {
            let text = message.content.map(content).unwrap_or_default();
            match message.tool_calls.filter(|it| it.get() != "null") {
                Some(calls) => prompt.push_turn(&message.role, &format!("{text}{}", calls.get())),
                None => prompt.push_turn(&message.role, &text),
            }
        }
        prompt.open_turn("assistant");
        prompt
    }

    /// The answer's bound in tokens, by whatever name it was given.
    pub(super) fn output_max(&self) -> Option<usize> {
        let named = self.max_completion_tokens.or(self.max_tokens);
        named
            .map(|it| usize::try_from(it).unwrap_or(0))
            .or(self.max_output_tokens)
            .or_else(|| self.sampling_params.as_ref().and_then(|it| it.max_new_tokens))
            .or_else(|| self.options.as_ref().and_then(|it| it.num_predict))
    }

    /// Texts that end the answer, by whatever name they were given.
    pub(super) fn stops(&mut self) -> Vec<String> {
        let nested = self.sampling_params.as_mut().and_then(|it| it.stop.take());
        let nested = nested.or_else(|| self.options.as_mut().and_then(|it| it.stop.take()));
        let mut stops = self.stop.take().or(nested).map(OneOrMany::into_vec).unwrap_or_default();
        stops.extend(self.stop_sequences.take().unwrap_or_default());
        stops.retain(|it| !it.is_empty());
        stops
    }
}
