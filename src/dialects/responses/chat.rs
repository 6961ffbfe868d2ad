//! A create request and its context as a chat completion.

use serde_json::Value;
use serde_json::json;

use super::Object;
use super::create::Create;
use super::create::Refused;

/// Options that mean the same there.
const SAME: &[&str] =
    &["temperature", "top_p", "user", "service_tier", "parallel_tool_calls", "prompt_cache_key", "safety_identifier"];
/// Options that are not the worker's, or are written otherwise there.
const OURS: &[&str] = &[
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "reasoning",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
];

/// What a worker is asked: all that came before, then what is new. `items`: the context and the input, oldest first. Fields that this gateway does not know are passed on.
pub fn request(create: &Create, items: &[Object]) -> Result<Object, Refused> {
    let rest = &create.rest;
    let mut chat = Object::new();
    chat.insert("model".to_owned(), Value::from(create.model.as_str()));
    chat.insert("messages".to_owned(), Value::Array(messages(create.instructions(), items)));
    for (name, value) in rest {
        if SAME.contains(&name.as_str()) || !OURS.contains(&name.as_str()) {
            chat.insert(name.clone(), value.clone());
        }
    }
    if let Some(most) = rest.get("max_output_tokens") {
        chat.insert("max_tokens".to_owned(), most.clone());
    }
    if let Some(effort) = rest.get("reasoning").and_then(|it| it.get("effort")).filter(|it| !it.is_null()) {
        chat.insert("reasoning_effort".to_owned(), effort.clone());
    }
    let format = rest.get("text").and_then(|it| it.get("format"));
    if let Some(format) = format.map(response_format).transpose()?.flatten() {
        chat.insert("response_format".to_owned(), format);
    }
    if let Some(verbosity) = rest.get("text").and_then(|it| it.get("verbosity")).filter(|it| !it.is_null()) {
        chat.insert("verbosity".to_owned(), verbosity.clone());
    }
    let tops = rest.get("top_logprobs").and_then(Value::as_u64).unwrap_or(0);
    if tops > 0 || create.include.iter().any(|it| it == "message.output_text.logprobs") {
        chat.insert("logprobs".to_owned(), Value::Bool(true));
        chat.insert("top_logprobs".to_owned(), Value::from(tops));
    }
    tools(rest, &mut chat)?;
    if create.is_stream || create.is_background {
        chat.insert("stream".to_owned(), Value::Bool(true));
        chat.insert("stream_options".to_owned(), json!({"include_usage": true}));
    }
    Ok(chat)
}

fn response_format(format: &Value) -> Result<Option<Value>, Refused> {
    match format.get("type").and_then(Value::as_str) {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "json_object"}))),
        Some("json_schema") => {
            let mut schema = format.as_object().cloned().unwrap_or_default();
            schema.retain(|name, _| name != "type");
            if !schema.get("schema").is_some_and(Value::is_object) {
                return Err(Refused::invalid("text.format.schema", "a JSON schema"));
            }
            schema.entry("name").or_insert_with(|| Value::from("answer"));
            Ok(Some(json!({"type": "json_schema", "json_schema": schema})))
        }
        Some(_) => Err(Refused::invalid("text.format.type", "text, json_object or json_schema")),
    }
}

fn tools(rest: &Object, chat: &mut Object) -> Result<(), Refused> {
    let given = rest.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut tools = Vec::with_capacity(given.len());
    for (at, tool) in given.iter().enumerate() {
        let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
        let Some(function) = tool.as_object().filter(|_| is_function) else {
            return Err(Refused::unsupported(
                format!("tools[{at}].type"),
                "tools are functions that the client carries out",
            ));
        };
        if function.get("name").and_then(Value::as_str).is_none() {
            return Err(Refused::invalid(format!("tools[{at}].name"), "a text"));
        }
        let mut function = function.clone();
        function.retain(|name, value| name != "type" && !value.is_null());
        tools.push(json!({"type": "function", "function": function}));
    }
    let names: Vec<&str> = given.iter().filter_map(|it| it.get("name").and_then(Value::as_str)).collect();
    let choice = match rest.get("tool_choice") {
        None => None,
        Some(Value::String(choice)) if choice == "required" && given.is_empty() => {
            return Err(Refused::invalid("tool_choice", "`none` or `auto` where no `tools` are given"));
        }
        Some(Value::String(choice)) if matches!(choice.as_str(), "none" | "auto" | "required") => {
            Some(Value::from(choice.as_str()))
        }
        Some(Value::Object(choice)) if choice.get("type").and_then(Value::as_str) == Some("function") => {
            let name = choice.get("name").and_then(Value::as_str).filter(|it| names.contains(it));
            let name = name.ok_or_else(|| Refused::invalid("tool_choice.name", "the name of one of `tools`"))?;
            Some(json!({"type": "function", "function": {"name": name}}))
        }
        Some(Value::Object(_)) => {
            return Err(Refused::unsupported("tool_choice.type", "choose `none`, `auto`, `required` or a function"));
        }
        Some(_) => return Err(Refused::invalid("tool_choice", "`none`, `auto`, `required` or a function")),
    };
    if !tools.is_empty() {
        chat.insert("tools".to_owned(), Value::Array(tools));
        if let Some(choice) = choice {
            chat.insert("tool_choice".to_owned(), choice);
        }
    } else {
        chat.remove("parallel_tool_calls"); // servers refuse it without tools
    }
    Ok(())
}

/// Items as messages. What one assistant said, thought and called is one message.
fn messages(instructions: Option<&str>, items: &[Object]) -> Vec<Value> {
    let mut messages: Vec<Object> = Vec::new();
    let mut system: Vec<String> = instructions.map(ToOwned::to_owned).into_iter().collect();
    for item in items {
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("message");
        let role = item.get("role").and_then(Value::as_str).unwrap_or("user");
        match (kind, role) {
            // Templates take one system message, and that first.
            ("message", "system" | "developer") if messages.is_empty() => system.push(joined(item.get("content"))),
            ("message", "assistant") => {
                let message =
                    assistant(&mut messages, |it| !it.contains_key("content") && !it.contains_key("tool_calls"));
                message.insert("content".to_owned(), Value::from(joined(item.get("content"))));
            }
            ("message", role) => {
                let role = if role == "developer" { "system" } else { role };
                messages.push(object(json!({"role": role, "content": content(item.get("content"))})));
            }
            ("function_call", _) => {
                let message = assistant(&mut messages, |_| true);
                let call = json!({"id": item.get("call_id"), "type": "function", "function": {"name": item.get("name"), "arguments": item.get("arguments")}});
                if let Value::Array(calls) = message.entry("tool_calls").or_insert_with(|| Value::Array(Vec::new())) {
                    calls.push(call);
                }
            }
            ("function_call_output", _) => {
                messages.push(object(json!({"role": "tool", "tool_call_id": item.get("call_id"), "content": content(item.get("output"))})));
            }
            ("reasoning", _) => think(&mut messages, &reasoning(item)),
            _ => {} // no other kind is taken in
        }
    }
    let system = (!system.is_empty()).then(|| json!({"role": "system", "content": system.join("\n\n")}));
    let whole = |mut it: Object| {
        if is_assistant(&it) {
            // Only beside calls may it be null.
            let nothing = if it.contains_key("tool_calls") { Value::Null } else { Value::from("") };
            it.entry("content").or_insert(nothing);
        }
        Value::Object(it)
    };
    system.into_iter().chain(messages.into_iter().map(whole)).collect()
}

fn is_assistant(message: &Object) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

/// The message of the assistant that is being said, or a new one.
fn assistant(messages: &mut Vec<Object>, takes: impl Fn(&Object) -> bool) -> &mut Object {
    if !messages.last().is_some_and(|it| is_assistant(it) && takes(it)) {
        messages.push(object(json!({"role": "assistant"})));
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

/// A thought begins a message of the assistant, also where nothing was said after it: the answer was cut off.
fn think(messages: &mut Vec<Object>, thought: &str) {
    if thought.is_empty() {
        return;
    }
    let message = assistant(messages, |it| !it.contains_key("content") && !it.contains_key("tool_calls"));
    let before = message.get("reasoning_content").and_then(Value::as_str);
    let whole = before.map_or_else(|| thought.to_owned(), |it| format!("{it}\n{thought}"));
    message.insert("reasoning_content".to_owned(), Value::from(whole));
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

fn reasoning(item: &Object) -> String {
    let texts = |field: &str| -> Vec<&str> {
        let parts = item.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        parts.iter().filter_map(|it| it.get("text").and_then(Value::as_str)).collect()
    };
    let whole = texts("content");
    if whole.is_empty() { texts("summary").join("\n") } else { whole.concat() }
}

/// All text of a content.
fn joined(content: Option<&Value>) -> String {
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let text = |it: &Value| {
                it.get("text").or_else(|| it.get("refusal")).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            parts.iter().map(text).collect()
        }
        _ => String::new(),
    }
}

/// A content as chat has it: a text where it is one, else parts.
fn content(content: Option<&Value>) -> Value {
    match content {
        Some(Value::Array(parts)) => match parts.as_slice() {
            [only] if only.get("text").is_some() => only.get("text").cloned().unwrap_or_default(),
            parts => Value::Array(parts.iter().map(part).collect()),
        },
        Some(Value::String(text)) => Value::from(text.as_str()),
        _ => Value::from(""),
    }
}

fn part(part: &Value) -> Value {
    match part.get("type").and_then(Value::as_str) {
        Some("input_image") => {
            let mut image = object(json!({"url": part.get("image_url")}));
            if let Some(detail) = part.get("detail").filter(|it| !it.is_null()) {
                image.insert("detail".to_owned(), detail.clone());
            }
            json!({"type": "image_url", "image_url": image})
        }
        Some("input_file") => {
            let mut file = object(json!({"file_data": part.get("file_data")}));
            if let Some(name) = part.get("filename").filter(|it| !it.is_null()) {
                file.insert("filename".to_owned(), name.clone());
            }
            json!({"type": "file", "file": file})
        }
        Some("input_audio") => json!({"type": "input_audio", "input_audio": part.get("input_audio")}),
        _ => json!({"type": "text", "text": part.get("text").or_else(|| part.get("refusal"))}),
    }
}
