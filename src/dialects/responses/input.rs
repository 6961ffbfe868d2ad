//! Items that a client gives: read, checked, named.

use serde_json::Value;

use super::Draw;
use super::Object;
use super::create::Refused;

/// One item of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum Given {
    /// It is here.
    Item(Object),
    /// It is one that history has.
    Reference(Reference),
}

/// An item by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(pub String);

/// Reads an input: a text, or a list of items. `field`: what a refusal calls it.
pub fn read(input: Option<Value>, field: &str) -> Result<Vec<Given>, Refused> {
    match input {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => {
            let message = serde_json::json!({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]});
            Ok(message.as_object().cloned().map(Given::Item).into_iter().collect())
        }
        Some(Value::Array(items)) => {
            items.into_iter().enumerate().map(|(at, it)| item(it, format!("{field}[{at}]"))).collect()
        }
        Some(_) => Err(Refused::invalid(field, "a text or a list of items")),
    }
}

fn item(value: Value, path: String) -> Result<Given, Refused> {
    let Value::Object(mut item) = value else { return Err(Refused::invalid(path, "an item")) };
    let kind = match item.get("type").map(Value::as_str) {
        Some(Some(kind)) => kind.to_owned(),
        Some(None) => return Err(Refused::invalid(format!("{path}.type"), "a text")),
        None if item.contains_key("role") => "message".to_owned(),
        None if item.contains_key("id") => "item_reference".to_owned(),
        None => return Err(Refused::invalid(format!("{path}.type"), "given")),
    };
    match kind.as_str() {
        "message" => message(&mut item, &path)?,
        "function_call" => texts(&item, &path, &["call_id", "name", "arguments"])?,
        "function_call_output" => {
            texts(&item, &path, &["call_id"])?;
            output(&item, &path)?;
        }
        "reasoning" => {
            if !item.get("summary").is_none_or(Value::is_array) {
                return Err(Refused::invalid(format!("{path}.summary"), "a list"));
            }
        }
        "item_reference" => {
            texts(&item, &path, &["id"])?;
            let id = item.get("id").and_then(Value::as_str).unwrap_or_default();
            return Ok(Given::Reference(Reference(id.to_owned())));
        }
        _ => {
            return Err(Refused::unsupported(
                format!("{path}.type"),
                "items are messages, function calls and their outputs, reasoning, and references",
            ));
        }
    }
    item.insert("type".to_owned(), Value::from(kind));
    Ok(Given::Item(item))
}

fn texts(item: &Object, path: &str, fields: &[&str]) -> Result<(), Refused> {
    match fields.iter().find(|it| item.get(**it).and_then(Value::as_str).is_none()) {
        Some(missing) => Err(Refused::invalid(format!("{path}.{missing}"), "a text")),
        None => Ok(()),
    }
}

fn message(item: &mut Object, path: &str) -> Result<(), Refused> {
    let role = item.get("role").and_then(Value::as_str).unwrap_or_default();
    if !matches!(role, "user" | "assistant" | "system" | "developer") {
        return Err(Refused::invalid(format!("{path}.role"), "user, assistant, system or developer"));
    }
    let own = if role == "assistant" { "output_text" } else { "input_text" };
    match item.get("content") {
        Some(Value::String(text)) => {
            let part = if own == "output_text" {
                serde_json::json!({"type": own, "text": text, "annotations": []})
            } else {
                serde_json::json!({"type": own, "text": text})
            };
            item.insert("content".to_owned(), Value::Array(vec![part]));
            Ok(())
        }
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().try_for_each(|(at, it)| part(it, &format!("{path}.content[{at}]")))
        }
        _ => Err(Refused::invalid(format!("{path}.content"), "a text or a list of parts")),
    }
}

fn part(part: &Value, path: &str) -> Result<(), Refused> {
    let has_text = |field: &str| part.get(field).and_then(Value::as_str).is_some();
    let missing = |field: &str, expected| Err(Refused::invalid(format!("{path}.{field}"), expected));
    match part.get("type").and_then(Value::as_str) {
        Some("input_text" | "output_text" | "text") if has_text("text") => Ok(()),
        Some("input_text" | "output_text" | "text") => missing("text", "a text"),
        Some("refusal") if has_text("refusal") => Ok(()),
        Some("refusal") => missing("refusal", "a text"),
        Some("input_image") if has_text("image_url") => Ok(()),
        Some("input_image") => {
            Err(Refused::unsupported(format!("{path}.file_id"), "send the image as `image_url`, an address or data"))
        }
        Some("input_file") if has_text("file_data") => Ok(()),
        Some("input_file") => Err(Refused::unsupported(format!("{path}.file_id"), "send the file as `file_data`")),
        Some("input_audio") if part.get("input_audio").is_some_and(Value::is_object) => Ok(()),
        Some("input_audio") => missing("input_audio", "an object"),
        Some(_) => {
            Err(Refused::unsupported(format!("{path}.type"), "parts are texts, images, files, audio and refusals"))
        }
        None => missing("type", "given"),
    }
}

fn output(item: &Object, path: &str) -> Result<(), Refused> {
    match item.get("output") {
        Some(Value::String(_)) => Ok(()),
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().try_for_each(|(at, it)| part(it, &format!("{path}.output[{at}]")))
        }
        _ => Err(Refused::invalid(format!("{path}.output"), "a text or a list of parts")),
    }
}

/// The item as history keeps it: with a name and a status. What the client named keeps its name.
#[must_use]
pub fn named(mut item: Object, draw: Draw<'_>) -> (String, Object) {
    let prefix = match item.get("type").and_then(Value::as_str) {
        Some("function_call") => "fc",
        Some("function_call_output") => "fco",
        Some("reasoning") => "rs",
        _ => "msg",
    };
    let id = match item.get("id").and_then(Value::as_str) {
        Some(id) => id.to_owned(),
        None => draw(prefix),
    };
    item.insert("id".to_owned(), Value::from(id.as_str()));
    if prefix != "rs" && item.get("status").is_none_or(Value::is_null) {
        item.insert("status".to_owned(), Value::from("completed"));
    }
    (id, item)
}
