//! The response as clients see it, in the parts that history keeps: a body without status and output, and items.

use serde_json::Value;
use serde_json::json;

use super::Object;
use super::create::Create;
use super::create::SHOWN;

/// What a response shows besides status and output.
#[derive(Clone, Debug, PartialEq)]
pub struct Body(pub Object);

/// How an answer ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finished {
    /// Why it ended early.
    pub incomplete: Option<&'static str>,
    /// A fault: code and message.
    pub error: Option<(String, String)>,
    /// What it cost.
    pub usage: Option<Value>,
}

impl Finished {
    /// As the response says it.
    #[must_use]
    pub fn status(&self) -> &'static str {
        match (&self.error, self.incomplete) {
            (Some(_), _) => "failed",
            (None, Some(_)) => "incomplete",
            (None, None) => "completed",
        }
    }
}

impl Body {
    /// Of a response that begins.
    #[must_use]
    pub fn new(create: &Create, id: &str, created_s: u64) -> Self {
        let mut body = Object::new();
        for (name, value) in [
            ("id", Value::from(id)),
            ("object", Value::from("response")),
            ("created_at", Value::from(created_s)),
            ("background", Value::Bool(create.is_background)),
            ("conversation", create.conversation.as_ref().map_or(Value::Null, |id| json!({"id": id}))),
            ("error", Value::Null),
            ("incomplete_details", Value::Null),
            ("model", Value::from(create.model.as_str())),
            ("previous_response_id", create.previous.as_deref().map_or(Value::Null, Value::from)),
            ("store", Value::Bool(create.is_stored)),
            ("usage", Value::Null),
        ] {
            body.insert(name.to_owned(), value);
        }
        for (name, absent) in SHOWN {
            body.insert((*name).to_owned(), create.rest.get(*name).cloned().unwrap_or_else(absent));
        }
        Self(body)
    }

    /// The same once it has ended.
    pub fn finish(&mut self, finished: &Finished) {
        let error =
            finished.error.as_ref().map_or(Value::Null, |(code, message)| json!({"code": code, "message": message}));
        let details = finished.incomplete.map_or(Value::Null, |reason| json!({"reason": reason}));
        self.0.insert("error".to_owned(), error);
        self.0.insert("incomplete_details".to_owned(), details);
        self.0.insert("usage".to_owned(), finished.usage.clone().unwrap_or(Value::Null));
    }
}

/// The whole response.
#[must_use]
pub fn shown(body: &Body, status: &str, output: &[Object]) -> Value {
    let mut whole = body.0.clone();
    whole.insert("status".to_owned(), Value::from(status));
    whole.insert("output".to_owned(), Value::Array(output.iter().cloned().map(Value::Object).collect()));
    Value::Object(whole)
}

/// An event as it goes over the wire. It has a `type`.
#[must_use]
pub fn event(event: &Value) -> Vec<u8> {
    let kind = event.get("type").and_then(Value::as_str).unwrap_or_default();
    format!("event: {kind}\ndata: {event}\n\n").into_bytes()
}
