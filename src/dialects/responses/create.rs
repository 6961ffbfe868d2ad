//! What a client asks for, read and checked.

use serde_json::Value;

use super::Object;
use super::input;
use super::input::Given;

/// Most pairs that a client may note on a response.
const METADATA_MAX: usize = 16;

/// Why a request is none that can be served. The client's fault; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not what the API says.
    #[error("`{field}` must be {expected}")]
    Invalid {
        /// Which field, as a path.
        field: String,
        /// What it must be.
        expected: &'static str,
    },
    /// It is, and this gateway cannot do it.
    #[error("`{field}` is not supported here: {instead}")]
    Unsupported {
        /// Which field, as a path.
        field: String,
        /// What to do.
        instead: &'static str,
    },
}

impl Refused {
    /// It is not what the API says.
    pub fn invalid(field: impl Into<String>, expected: &'static str) -> Self {
        Self::Invalid { field: field.into(), expected }
    }

    /// This gateway cannot do it.
    pub fn unsupported(field: impl Into<String>, instead: &'static str) -> Self {
        Self::Unsupported { field: field.into(), instead }
    }

    /// The field to name in the error body.
    #[must_use]
    pub fn field(&self) -> &str {
        let (Self::Invalid { field, .. } | Self::Unsupported { field, .. }) = self;
        field
    }
}

/// A request to create a response.
#[derive(Clone, Debug)]
pub struct Create {
    /// Which model.
    pub model: String,
    /// The new input.
    pub input: Vec<Given>,
    /// The response that it continues.
    pub previous: Option<String>,
    /// The conversation that it belongs to.
    pub conversation: Option<String>,
    /// Whether it can be read later.
    pub is_stored: bool,
    /// Whether events are wanted.
    pub is_stream: bool,
    /// Whether the client does not wait.
    pub is_background: bool,
    /// Whether old items may be left out where the model cannot read all.
    pub may_truncate: bool,
    /// What the answer may have besides: names of `include`.
    pub include: Vec<String>,
    /// As it came, without what is above: options of the model, and what the response shows again.
    pub(super) rest: Object,
}

/// Makes what is shown where nothing was given.
type Absent = fn() -> Value;

/// Fields of `rest` that a response shows again, with what it shows where they were not given.
pub(super) const SHOWN: &[(&str, Absent)] = &[
    ("instructions", || Value::Null),
    ("max_output_tokens", || Value::Null),
    ("max_tool_calls", || Value::Null),
    ("metadata", || Value::Object(Object::new())),
    ("parallel_tool_calls", || Value::Bool(true)),
    ("prompt_cache_key", || Value::Null),
    ("reasoning", || serde_json::json!({"effort": null, "summary": null})),
    ("safety_identifier", || Value::Null),
    ("service_tier", || Value::from("default")),
    ("temperature", || Value::from(1.0)),
    ("text", || serde_json::json!({"format": {"type": "text"}})),
    ("tool_choice", || Value::from("auto")),
    ("tools", || Value::Array(Vec::new())),
    ("top_logprobs", || Value::from(0)),
    ("top_p", || Value::from(1.0)),
    ("truncation", || Value::from("disabled")),
    ("user", || Value::Null),
];

const INCLUDES: &[&str] = &["message.output_text.logprobs", "reasoning.encrypted_content"];

impl Create {
    /// Reads one.
    pub fn read(body: Value) -> Result<Self, Refused> {
        let Value::Object(mut rest) = body else { return Err(Refused::invalid("body", "an object")) };
        // Null is as good as absent everywhere.
        rest.retain(|_, value| !value.is_null());
        let model = text(&mut rest, "model")?.ok_or_else(|| Refused::invalid("model", "the name of a model"))?;
        let input = input::read(rest.remove("input"), "input")?;
        let previous = text(&mut rest, "previous_response_id")?;
        let conversation = conversation(rest.remove("conversation"))?;
        if previous.is_some() && conversation.is_some() {
            return Err(Refused::invalid("conversation", "left out where `previous_response_id` is given"));
        }
        let is_stored = flag(&mut rest, "store")?.unwrap_or(true);
        let is_stream = flag(&mut rest, "stream")?.unwrap_or(false);
        let is_background = flag(&mut rest, "background")?.unwrap_or(false);
        if is_background && !is_stored {
            return Err(Refused::invalid("store", "true where `background` is: else nobody could read the response"));
        }
        if conversation.is_some() && !is_stored {
            return Err(Refused::invalid("store", "true where `conversation` is given: its items are kept there"));
        }
        let may_truncate = match rest.get("truncation").map(Value::as_str) {
            None | Some(Some("disabled")) => false,
            Some(Some("auto")) => true,
            Some(_) => return Err(Refused::invalid("truncation", "`auto` or `disabled`")),
        };
        let include = include(rest.remove("include"))?;
        check(&rest)?;
        Ok(Self {
            model,
            input,
            previous,
            conversation,
            is_stored,
            is_stream,
            is_background,
            may_truncate,
            include,
            rest,
        })
    }

    /// What is said before everything else.
    #[must_use]
    pub fn instructions(&self) -> Option<&str> {
        self.rest.get("instructions").and_then(Value::as_str)
    }
}

fn text(rest: &mut Object, field: &'static str) -> Result<Option<String>, Refused> {
    match rest.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
        Some(_) => Err(Refused::invalid(field, "a text")),
    }
}

fn flag(rest: &mut Object, field: &'static str) -> Result<Option<bool>, Refused> {
    match rest.remove(field) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(Refused::invalid(field, "true or false")),
    }
}

fn conversation(given: Option<Value>) -> Result<Option<String>, Refused> {
    let id = match given {
        None => return Ok(None),
        Some(Value::String(id)) => Some(id),
        Some(Value::Object(mut it)) => it.remove("id").and_then(|it| it.as_str().map(ToOwned::to_owned)),
        Some(_) => None,
    };
    id.map(Some).ok_or_else(|| Refused::invalid("conversation", "an id, or an object with `id`"))
}

fn include(given: Option<Value>) -> Result<Vec<String>, Refused> {
    let Some(given) = given else { return Ok(Vec::new()) };
    let names = given.as_array().ok_or_else(|| Refused::invalid("include", "a list of names"))?;
    let known = |it: &Value| match it.as_str() {
        Some(name) => included(name).map(|()| name.to_owned()),
        None => Err(Refused::invalid("include", "a list of names")),
    };
    names.iter().map(known).collect()
}

/// Whether this can be included in an answer.
pub fn included(name: &str) -> Result<(), Refused> {
    if INCLUDES.contains(&name) {
        return Ok(());
    }
    let instead = "leave out what is not `message.output_text.logprobs` or `reasoning.encrypted_content`";
    Err(Refused::unsupported("include", instead))
}

fn check(rest: &Object) -> Result<(), Refused> {
    if rest.contains_key("prompt") {
        return Err(Refused::unsupported("prompt", "send the prompt's text as `instructions` and `input`"));
    }
    for (field, is_right, expected) in [
        ("instructions", Value::is_string as fn(&Value) -> bool, "a text"),
        ("max_output_tokens", |it| it.as_u64().is_some_and(|it| it > 0), "a whole number above 0"),
        ("max_tool_calls", |it| it.as_u64().is_some(), "a whole number"),
        ("parallel_tool_calls", Value::is_boolean, "true or false"),
        ("temperature", |it| it.as_f64().is_some_and(|it| (0.0..=2.0).contains(&it)), "a number from 0 to 2"),
        ("top_p", |it| it.as_f64().is_some_and(|it| (0.0..=1.0).contains(&it)), "a number from 0 to 1"),
        ("top_logprobs", |it| it.as_u64().is_some_and(|it| it <= 20), "a whole number from 0 to 20"),
        ("tools", Value::is_array, "a list"),
        ("text", Value::is_object, "an object"),
        ("reasoning", Value::is_object, "an object"),
        ("metadata", is_metadata, "an object of at most 16 texts: names up to 64 characters, values up to 512"),
    ] {
        if rest.get(field).is_some_and(|it| !is_right(it)) {
            return Err(Refused::invalid(field, expected));
        }
    }
    Ok(())
}

/// Whether it is what clients may note on a response or a conversation.
pub fn is_metadata(value: &Value) -> bool {
    let is_fitting = |(name, value): (&String, &Value)| {
        name.chars().count() <= 64 && value.as_str().is_some_and(|it| it.chars().count() <= 512)
    };
    value.as_object().is_some_and(|it| it.len() <= METADATA_MAX && it.iter().all(is_fitting))
}
