//! A history as Jepsen writes it, so that others' checkers can read it.

use std::fmt::Write as _;

use serde_json::Value;

use super::history::Event;
use super::history::Kind;
use super::history::Process;

/// One map a line. Operations on lists are transactions of one step, `[[:append key n]]` and `[[:r key [n ...]]]`; everything else is `[key value]` under its name.
#[must_use]
pub fn edn(events: &[Event]) -> String {
    let mut text = String::new();
    for (index, event) in events.iter().enumerate() {
        let kind = match event.kind {
            Kind::Invoke => "invoke",
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info => "info",
        };
        let process = match event.process {
            Process::Client(number) => number.to_string(),
            Process::Nemesis => ":nemesis".to_owned(),
        };
        let (f, value) = operation(event);
        // A String takes everything.
        let _ = write!(
            text,
            "{{:type :{kind}, :process {process}, :f :{f}, :value {value}, :time {}, :index {index}",
            event.time
        );
        if let Some(node) = event.node {
            let _ = write!(text, ", :node \"n{node}\"");
        }
        if let Some(error) = &event.error {
            let _ = write!(text, ", :error {}", form(&Value::from(error.as_str())));
        }
        text.push_str("}\n");
    }
    text
}

fn operation(event: &Event) -> (String, String) {
    let key = form(&Value::from(event.key.as_str()));
    match (event.workload.as_str(), event.f.as_str()) {
        ("lists", "append") => ("txn".to_owned(), format!("[[:append {key} {}]]", form(&event.value))),
        ("lists", "read" | "final") => ("txn".to_owned(), format!("[[:r {key} {}]]", form(&event.value))),
        (_, f) => (f.replace('_', "-"), format!("[{key} {}]", form(&event.value))),
    }
}

fn form(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        // EDN knows the escapes that JSON writes for what is printable.
        Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(form).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, it)| format!("{} {}", form(&Value::from(name.as_str())), form(it)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
    }
}
