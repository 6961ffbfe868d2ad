//! Wire APIs as pure translations between bytes and [`form`], the one internal form of a request and of an event stream.
//!
//! Nothing here waits, reads a clock or knows a worker. Same dialect on both sides: bodies pass by splicing bytes
//! ([`json`] finds the few fields that are ours), so what we do not own arrives unchanged. Each endpoint is one
//! [`Wire`]: a constant in a file of its own.

pub mod anthropic;
pub mod form;
pub mod json;
pub mod openai;
pub mod responses;
pub mod sglang;
pub mod sse;

use std::borrow::Cow;

use bytes::Bytes;

use self::form::Observed;
use self::form::Request;
use self::form::Usage;
use self::json::Object;

/// Whose error schema and end marker an endpoint follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `{"error":{"message","type","param","code"}}`, streams end with `data: [DONE]`.
    OpenAi,
    /// The same, but streams are typed events: they end with a terminal one, and an error is `{"type":"error",...}`.
    Responses,
    /// `{"type":"error","error":{"type","message"}}`, streams end with `message_stop`.
    Anthropic,
}

/// Why a well-formed body is not a request of its endpoint. The client's fault; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// A field has the wrong type.
    #[error("`{field}` must be {expected}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A field is missing.
    #[error("`{0}` is required")]
    Missing(&'static str),
    /// A field that decides where the request goes is given twice.
    #[error("`{0}` is given twice")]
    Repeated(&'static str),
}

impl BadRequest {
    /// The field to name in the error body.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            Self::WrongType { field, .. } | Self::Missing(field) | Self::Repeated(field) => field,
        }
    }
}

/// How one endpoint is read and watched.
pub struct Wire {
    /// The name in metrics and logs.
    pub name: &'static str,
    /// Whose errors it speaks.
    pub family: Family,
    /// Reads a request body.
    pub read: for<'a> fn(&Object<'a>) -> Result<Request<'a>, BadRequest>,
    /// What one event of a streamed answer is; `None`: the endpoint never streams.
    pub observe: Option<fn(&[u8]) -> Observed>,
    /// Whether a stream without the end marker is incomplete.
    pub needs_done: bool,
    /// The usage of a whole answer.
    pub usage: fn(&Object<'_>) -> Usage,
    /// What the model computes.
    pub tokens: Tokens,
}

/// Of which tokens a model computes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Of none: a tokenizer answers.
    None,
    /// Of the prompt.
    Prompt,
    /// Of the prompt and of the answer.
    PromptAndAnswer,
}

/// The public face of an error, before it is written in a family's schema.
#[derive(Clone, Debug)]
pub struct ErrorText {
    /// What happened and what to do next.
    pub message: String,
    /// The family-neutral kind, e.g. `invalid_request_error`.
    pub kind: &'static str,
    /// A stable code for programs.
    pub code: &'static str,
    /// The field at fault.
    pub param: Option<Cow<'static, str>>,
}

impl Family {
    /// An error as a whole response body.
    #[must_use]
    pub fn error_body(self, error: &ErrorText) -> Bytes {
        let value = match self {
            Self::OpenAi | Self::Responses => serde_json::json!({"error": {
                "message": error.message, "type": error.kind, "param": error.param, "code": error.code}}),
            Self::Anthropic => serde_json::json!({"type": "error", "error": {
                "type": error.kind, "message": error.message}}),
        };
        Bytes::from(value.to_string())
    }

    /// An error as the last event of a stream that had begun, after so many others. No end marker follows it.
    #[must_use]
    pub fn error_event(self, error: &ErrorText, events_before: u64) -> Bytes {
        let (name, data) = match self {
            Self::OpenAi => ("", self.error_body(error)),
            Self::Anthropic => ("event: error\n", self.error_body(error)),
            Self::Responses => {
                let value = serde_json::json!({"type": "error", "sequence_number": events_before,
                    "code": error.code, "message": error.message, "param": error.param});
                ("event: error\n", Bytes::from(value.to_string()))
            }
        };
        let mut event = Vec::with_capacity(name.len() + data.len() + 8);
        for part in [name.as_bytes(), b"data: ", &data, b"\n\n"] {
            event.extend_from_slice(part);
        }
        Bytes::from(event)
    }
}

#[cfg(test)]
mod tests;
