//! Chunks of a chat completion as typed events, and as the items that they add up to.
//!
//! One text grows at a time; calls of tools may grow side by side, and are done together when something else begins.

use serde_json::Value;
use serde_json::json;

use super::Draw;
use super::Object;
use super::object::Finished;

/// Why an answer cannot be gone on with. The worker's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// It says so.
    #[error("{message}")]
    Worker {
        /// A stable code.
        code: String,
        /// In its words.
        message: String,
    },
    /// It is no answer.
    #[error("the worker's answer is no chat completion")]
    Malformed,
}

/// Which text grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Reasoning,
    Output,
    Refusal,
}

impl Text {
    /// Type of the part, name of its field, and of its events.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Reasoning => ("reasoning_text", "text", "response.reasoning_text"),
            Self::Output => ("output_text", "text", "response.output_text"),
            Self::Refusal => ("refusal", "refusal", "response.refusal"),
        }
    }
}

/// What grows.
#[derive(Debug, Default)]
enum Open {
    #[default]
    Nothing,
    /// The part of this kind of the last item.
    Text(Text, String, Vec<Value>),
    /// Places of items, by the worker's numbers of the calls.
    Calls(Vec<(u64, usize)>),
}

/// See the file's header.
#[derive(Debug, Default)]
pub struct Translator {
    items: Vec<Object>,
    open: Open,
    next: u64,
    finish: Option<String>,
    usage: Option<Value>,
    error: Option<(String, String)>,
}

impl Translator {
    /// An event of this type with the next number.
    pub fn number(&mut self, kind: &str, fields: Value) -> Value {
        let mut event = Object::new();
        event.insert("type".to_owned(), Value::from(kind));
        event.insert("sequence_number".to_owned(), Value::from(self.next));
        if let Value::Object(fields) = fields {
            event.extend(fields);
        }
        self.next += 1;
        Value::Object(event)
    }

    /// The items so far.
    #[must_use]
    pub fn items(&self) -> &[Object] {
        &self.items
    }

    /// Goes on from an event that was made before, by whoever made it; each in turn from the first on. Afterwards what is open can be ended, not grown.
    pub fn seen(&mut self, event: &Value) {
        self.next += 1;
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let at = event.get("output_index").and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
        match (text("type"), at.and_then(|it| self.items.get_mut(it)), at) {
            ("response.output_item.added", _, _) => self.seen_added(event.get("item")),
            ("response.content_part.added", _, _) => {
                let kind = event.pointer("/part/type").and_then(Value::as_str);
                let kind = [Text::Reasoning, Text::Refusal].into_iter().find(|it| Some(it.names().0) == kind);
                self.open = Open::Text(kind.unwrap_or(Text::Output), String::new(), Vec::new());
            }
            ("response.output_text.delta" | "response.reasoning_text.delta" | "response.refusal.delta", _, _) => {
                if let Open::Text(_, whole, _) = &mut self.open {
                    whole.push_str(text("delta"));
                }
            }
            ("response.function_call_arguments.delta", Some(item), _) => {
                if let Some(Value::String(whole)) = item.get_mut("arguments") {
                    whole.push_str(text("delta"));
                }
            }
            ("response.content_part.done", Some(item), _) => {
                if let (Some(Value::Array(parts)), Some(part)) = (item.get_mut("content"), event.get("part")) {
                    parts.push(part.clone());
                }
                self.open = Open::Nothing;
            }
            ("response.output_item.done", Some(item), Some(at)) => {
                if let Some(Value::Object(done)) = event.get("item") {
                    item.clone_from(done);
                }
                if let Open::Calls(calls) = &mut self.open {
                    calls.retain(|it| it.1 != at);
                }
            }
            _ => {}
        }
    }

    fn seen_added(&mut self, item: Option<&Value>) {
        let Some(Value::Object(item)) = item else { return };
        let at = self.items.len();
        if item.get("type").and_then(Value::as_str) == Some("function_call") {
            if !matches!(self.open, Open::Calls(_)) {
                self.open = Open::Calls(Vec::new());
            }
            if let Open::Calls(calls) = &mut self.open {
                calls.push((at as u64, at));
            }
        }
        self.items.push(item.clone());
    }

    /// Takes a whole answer.
    pub fn whole(&mut self, answer: &Value, draw: Draw<'_>) -> Result<Vec<Value>, Broken> {
        let mut events = Vec::new();
        self.take(answer, "message", draw, &mut events)?;
        Ok(events)
    }

    /// Takes a chunk of a streamed one.
    pub fn chunk(&mut self, chunk: &Value, draw: Draw<'_>) -> Result<Vec<Value>, Broken> {
        let mut events = Vec::new();
        self.take(chunk, "delta", draw, &mut events)?;
        Ok(events)
    }

    fn take(&mut self, chunk: &Value, field: &str, draw: Draw<'_>, events: &mut Vec<Value>) -> Result<(), Broken> {
        if let Some(error) = chunk.get("error").filter(|it| !it.is_null()) {
            return Err(worker_error(error));
        }
        if let Some(usage) = chunk.get("usage").filter(|it| it.is_object()) {
            self.usage = Some(usage_of(usage));
        }
        let choices = chunk.get("choices").and_then(Value::as_array).ok_or(Broken::Malformed)?;
        let Some(choice) = choices.first() else { return Ok(()) };
        let nothing = Value::Null;
        let delta = choice.get(field).unwrap_or(&nothing);
        let text = |name: &str| delta.get(name).and_then(Value::as_str).filter(|it| !it.is_empty());
        if let Some(text) = text("reasoning_content").or_else(|| text("reasoning")) {
            self.grow(Text::Reasoning, text, &[], draw, events);
        }
        if let Some(text) = text("content") {
            let logprobs = choice.get("logprobs").and_then(|it| it.get("content")).and_then(Value::as_array);
            let logprobs: Vec<Value> = logprobs.into_iter().flatten().cloned().collect();
            self.grow(Text::Output, text, &logprobs, draw, events);
        }
        if let Some(text) = text("refusal") {
            self.grow(Text::Refusal, text, &[], draw, events);
        }
        let calls = delta.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for (at, call) in (0..).zip(calls) {
            self.call(call.get("index").and_then(Value::as_u64).unwrap_or(at), call, draw, events)?;
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish = Some(reason.to_owned());
        }
        Ok(())
    }

    // === texts ===

    fn grow(&mut self, kind: Text, delta: &str, logprobs: &[Value], draw: Draw<'_>, events: &mut Vec<Value>) {
        if !matches!(&self.open, Open::Text(open, ..) if *open == kind) {
            self.begin(kind, draw, events);
        }
        let Open::Text(_, text, all) = &mut self.open else { return };
        text.push_str(delta);
        all.extend_from_slice(logprobs);
        let mut fields = self.at_part();
        fields.insert("delta".to_owned(), Value::from(delta));
        if kind == Text::Output {
            fields.insert("logprobs".to_owned(), logprobs.iter().map(shown_logprob).collect());
        }
        events.push(self.number(&format!("{}.delta", kind.names().2), Value::Object(fields)));
    }

    fn begin(&mut self, kind: Text, draw: Draw<'_>, events: &mut Vec<Value>) {
        // A refusal after a text, or a text after a refusal, is another part of one message.
        let is_message = |it: &Open| matches!(it, Open::Text(Text::Output | Text::Refusal, ..));
        if is_message(&self.open) && kind != Text::Reasoning {
            self.close_part(events);
        } else {
            self.close("completed", events);
            let item = if kind == Text::Reasoning {
                json!({"id": draw("rs"), "type": "reasoning", "summary": [], "content": [], "status": "in_progress"})
            } else {
                json!({"id": draw("msg"), "type": "message", "status": "in_progress", "role": "assistant", "content": []})
            };
            self.add(item, events);
        }
        self.open = Open::Text(kind, String::new(), Vec::new());
        let mut fields = self.at_part();
        fields.insert("part".to_owned(), part(kind, "", &[]));
        events.push(self.number("response.content_part.added", Value::Object(fields)));
    }

    fn add(&mut self, item: Value, events: &mut Vec<Value>) {
        events.push(self.number("response.output_item.added", json!({"output_index": self.items.len(), "item": item})));
        if let Value::Object(item) = item {
            self.items.push(item);
        }
    }

    /// Where the part that grows is.
    fn at_part(&self) -> Object {
        let at = self.items.len().saturating_sub(1);
        let item = self.items.last();
        let id = item.and_then(|it| it.get("id")).cloned().unwrap_or_default();
        let index = item.and_then(|it| it.get("content")).and_then(Value::as_array).map_or(0, Vec::len);
        let mut fields = Object::new();
        fields.insert("item_id".to_owned(), id);
        fields.insert("output_index".to_owned(), Value::from(at));
        fields.insert("content_index".to_owned(), Value::from(index));
        fields
    }

    fn close_part(&mut self, events: &mut Vec<Value>) {
        let Open::Text(kind, text, logprobs) = std::mem::take(&mut self.open) else { return };
        let part = part(kind, &text, &logprobs);
        let at = self.at_part();
        let mut done = at.clone();
        done.insert(kind.names().1.to_owned(), Value::from(text));
        if kind == Text::Output {
            done.insert("logprobs".to_owned(), logprobs.iter().map(shown_logprob).collect());
        }
        events.push(self.number(&format!("{}.done", kind.names().2), Value::Object(done)));
        let mut done = at;
        done.insert("part".to_owned(), part.clone());
        events.push(self.number("response.content_part.done", Value::Object(done)));
        if let Some(Value::Array(parts)) = self.items.last_mut().and_then(|it| it.get_mut("content")) {
            parts.push(part);
        }
    }

    // === calls of tools ===

    fn call(&mut self, index: u64, call: &Value, draw: Draw<'_>, events: &mut Vec<Value>) -> Result<(), Broken> {
        let known = match &self.open {
            Open::Calls(calls) => calls.iter().find(|it| it.0 == index).map(|it| it.1),
            Open::Nothing | Open::Text(..) => None,
        };
        let function = call.get("function");
        let text = |name: &str| function.and_then(|it| it.get(name)).and_then(Value::as_str);
        let at = match known {
            Some(at) => at,
            None => {
                let name = text("name").ok_or(Broken::Malformed)?;
                if !matches!(self.open, Open::Calls(_)) {
                    self.close("completed", events);
                    self.open = Open::Calls(Vec::new());
                }
                let at = self.items.len();
                let call_id = call.get("id").and_then(Value::as_str).filter(|it| !it.is_empty());
                let call_id = call_id.map_or_else(|| draw("call"), ToOwned::to_owned);
                self.add(json!({"id": draw("fc"), "type": "function_call", "call_id": call_id, "name": name, "arguments": "", "status": "in_progress"}), events);
                if let Open::Calls(calls) = &mut self.open {
                    calls.push((index, at));
                }
                at
            }
        };
        let Some(delta) = text("arguments").filter(|it| !it.is_empty()) else { return Ok(()) };
        if let Some(Value::String(arguments)) = self.items[at].get_mut("arguments") {
            arguments.push_str(delta);
        }
        let fields = json!({"item_id": self.items[at].get("id"), "output_index": at, "delta": delta});
        events.push(self.number("response.function_call_arguments.delta", fields));
        Ok(())
    }

    // === the end ===

    /// What grows is done.
    fn close(&mut self, status: &str, events: &mut Vec<Value>) {
        let places: Vec<usize> = match &self.open {
            Open::Nothing => return,
            Open::Text(..) => vec![self.items.len() - 1],
            Open::Calls(calls) => calls.iter().map(|it| it.1).collect(),
        };
        self.close_part(events);
        self.open = Open::Nothing;
        for at in places {
            self.items[at].insert("status".to_owned(), Value::from(status));
            if self.items[at].get("type").and_then(Value::as_str) == Some("function_call") {
                let item = &self.items[at];
                let fields = json!({"item_id": item.get("id"), "output_index": at, "name": item.get("name"), "arguments": item.get("arguments")});
                events.push(self.number("response.function_call_arguments.done", fields));
            }
            let fields = json!({"output_index": at, "item": self.items[at]});
            events.push(self.number("response.output_item.done", fields));
        }
    }

    /// The answer has ended: what still grows is done. A second end changes nothing.
    pub fn end(&mut self) -> (Finished, Vec<Value>) {
        let finished = self.finished();
        let mut events = Vec::new();
        self.close(if finished.status() == "completed" { "completed" } else { "incomplete" }, &mut events);
        (finished, events)
    }

    /// It ended with a fault.
    pub fn fail(&mut self, code: &str, message: &str) {
        self.error.get_or_insert_with(|| (code.to_owned(), message.to_owned()));
    }

    fn finished(&self) -> Finished {
        let incomplete = match self.finish.as_deref() {
            Some("length") => Some("max_output_tokens"),
            Some("content_filter") => Some("content_filter"),
            _ => None,
        };
        Finished { incomplete, error: self.error.clone(), usage: self.usage.clone() }
    }
}

fn part(kind: Text, text: &str, logprobs: &[Value]) -> Value {
    let (name, field, _) = kind.names();
    match kind {
        Text::Output => json!({"type": name, field: text, "annotations": [], "logprobs": logprobs}),
        Text::Reasoning | Text::Refusal => json!({"type": name, field: text}),
    }
}

/// Of an event: without bytes.
fn shown_logprob(logprob: &Value) -> Value {
    let bare = |it: &Value| json!({"token": it.get("token"), "logprob": it.get("logprob")});
    let tops = logprob.get("top_logprobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    json!({"token": logprob.get("token"), "logprob": logprob.get("logprob"), "top_logprobs": tops.iter().map(bare).collect::<Vec<_>>()})
}

fn usage_of(usage: &Value) -> Value {
    let number = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let (input, output) = (number("/prompt_tokens"), number("/completion_tokens"));
    // vLLM has a name of its own for it.
    let written =
        number("/prompt_tokens_details/cache_write_tokens").max(number("/prompt_tokens_details/created_cache_tokens"));
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": number("/prompt_tokens_details/cached_tokens"), "cache_write_tokens": written},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": number("/completion_tokens_details/reasoning_tokens")},
        "total_tokens": input.saturating_add(output), // a worker may say anything
    })
}

fn worker_error(error: &Value) -> Broken {
    let text = |name: &str| error.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    Broken::Worker {
        code: text("code").unwrap_or_else(|| "server_error".to_owned()),
        message: text("message").unwrap_or_else(|| "the worker failed".to_owned()),
    }
}
