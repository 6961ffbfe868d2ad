//! The events of a response that is there already, as a client would have seen it made in one go.
//!
//! Why apart from [`super::stream`]: here nothing grows, and items have their names.

use serde_json::Value;
use serde_json::json;

use super::Object;
use super::stream::Translator;

/// All events of a response that has ended.
#[must_use]
pub fn replayed(response: &Value) -> Vec<Value> {
    let mut first = response.clone();
    first["status"] = Value::from("in_progress");
    first["output"] = json!([]);
    for absent in ["error", "incomplete_details", "usage"] {
        first[absent] = Value::Null;
    }
    let mut numbers = Translator::default();
    let mut events: Vec<Value> = ["response.created", "response.in_progress"]
        .map(|kind| numbers.number(kind, json!({"response": first})))
        .into();
    let items = response.get("output").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (at, item) in items.iter().enumerate() {
        replay(&mut numbers, at, item, &mut events);
    }
    events.push(numbers.number(terminal(response), json!({"response": response})));
    events
}

/// Which event ends a stream of this response. There is none of its own for what was cancelled.
#[must_use]
pub fn terminal(response: &Value) -> &'static str {
    match response.get("status").and_then(Value::as_str) {
        Some("completed") => "response.completed",
        Some("failed") => "response.failed",
        _ => "response.incomplete",
    }
}

fn replay(numbers: &mut Translator, at: usize, item: &Value, events: &mut Vec<Value>) {
    let mut begun = item.clone();
    begun["status"] = Value::from("in_progress");
    for (field, empty) in [("content", json!([])), ("arguments", json!(""))] {
        if begun.get(field).is_some() {
            begun[field] = empty;
        }
    }
    events.push(numbers.number("response.output_item.added", json!({"output_index": at, "item": begun})));
    let parts = item.get("content").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (index, part) in parts.iter().enumerate() {
        let place = json!({"item_id": item.get("id"), "output_index": at, "content_index": index});
        replay_part(numbers, &place, part, events);
    }
    if let Some(arguments) = item.get("arguments").and_then(Value::as_str) {
        let place = json!({"item_id": item.get("id"), "output_index": at});
        if !arguments.is_empty() {
            let delta = with(&place, json!({"delta": arguments}));
            events.push(numbers.number("response.function_call_arguments.delta", delta));
        }
        let done = with(&place, json!({"name": item.get("name"), "arguments": arguments}));
        events.push(numbers.number("response.function_call_arguments.done", done));
    }
    events.push(numbers.number("response.output_item.done", json!({"output_index": at, "item": item})));
}

fn replay_part(numbers: &mut Translator, place: &Value, part: &Value, events: &mut Vec<Value>) {
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    let (field, logprobs) = match kind {
        "refusal" => ("refusal", Value::Null),
        "output_text" => ("text", json!({"logprobs": part.get("logprobs").cloned().unwrap_or_else(|| json!([]))})),
        _ => ("text", Value::Null),
    };
    let text = part.get(field).and_then(Value::as_str).unwrap_or_default();
    let mut empty = part.clone();
    empty[field] = Value::from("");
    events.push(numbers.number("response.content_part.added", with(place, json!({"part": empty}))));
    if !text.is_empty() {
        let delta = with(&with(place, json!({"delta": text})), logprobs.clone());
        events.push(numbers.number(&format!("response.{kind}.delta"), delta));
    }
    let mut whole = Object::new();
    whole.insert(field.to_owned(), Value::from(text));
    let done = with(&with(place, Value::Object(whole)), logprobs);
    events.push(numbers.number(&format!("response.{kind}.done"), done));
    events.push(numbers.number("response.content_part.done", with(place, json!({"part": part}))));
}

/// Both objects' fields.
fn with(one: &Value, other: Value) -> Value {
    let mut all = one.as_object().cloned().unwrap_or_default();
    all.extend(other.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}
