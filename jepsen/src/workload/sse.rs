//! Server-sent events of responses, as a history keeps them: number, kind, and a digest of the whole.

use serde_json::Value;
use serde_json::json;

/// The events of a text, whole ones only.
pub(super) fn events(text: &str) -> Vec<Value> {
    let whole = text.rfind("\n\n").map_or("", |end| &text[..end]);
    let data = whole.split("\n\n").filter_map(|it| it.lines().find_map(|line| line.strip_prefix("data: ")));
    data.filter_map(|it| serde_json::from_str(it).ok()).collect()
}

/// `[number, kind, digest]` of each.
pub(super) fn noted(events: &[Value]) -> Value {
    let one = |it: &Value| json!([it["sequence_number"], it["type"], digest(it)]);
    events.iter().map(one).collect()
}

/// Whether it is the last of its response.
pub(super) fn is_terminal(event: &Value) -> bool {
    matches!(event["type"].as_str(), Some("response.completed" | "response.incomplete" | "response.failed"))
}

/// The text that grew, and the text of the response that it ended with, as digests; of all events of one.
pub(super) fn texts(events: &[Value]) -> Option<(String, String)> {
    let end = events.last().filter(|it| is_terminal(it))?;
    let deltas = events.iter().filter(|it| it["type"] == "response.output_text.delta");
    let grown: String = deltas.filter_map(|it| it["delta"].as_str()).collect();
    let items = end["response"]["output"].as_array().into_iter().flatten();
    let parts = items.flat_map(|it| it["content"].as_array().into_iter().flatten());
    let ended: String = parts.filter_map(|it| it["text"].as_str()).collect();
    Some((digest(&Value::from(grown)), digest(&Value::from(ended))))
}

/// 64 bits of a value, whatever the order of its fields.
pub(super) fn digest(value: &Value) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    feed(value, &mut hash);
    format!("{hash:016x}")
}

/// FNV-1a over the values and their places.
fn feed(value: &Value, hash: &mut u64) {
    let mut text = |it: &str| {
        for byte in it.bytes().chain([0]) {
            *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|it| it.0);
            text("{");
            for (name, value) in fields {
                feed(&Value::String(name.clone()), hash);
                feed(value, hash);
            }
        }
        Value::Array(items) => {
            text("[");
            items.iter().for_each(|it| feed(it, hash));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text(&value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_of_an_event_is_none_and_the_order_of_fields_is_nothing() {
        let text = "event: a\ndata: {\"type\":\"a\",\"sequence_number\":0}\n\n: keep-alive\n\ndata: {\"type\":\"b\"}\n\ndata: {\"ty";
        let found = events(text);
        assert_eq!(found.iter().map(|it| it["type"].as_str()).collect::<Vec<_>>(), [Some("a"), Some("b")]);
        assert_eq!(digest(&json!({"a": 1, "b": [2]})), digest(&json!({"b": [2], "a": 1})));
        assert_ne!(digest(&json!({"a": 1, "b": [2]})), digest(&json!({"a": 1, "b": [3]})));
        assert_ne!(digest(&json!(["a", "b"])), digest(&json!(["ab", ""])));
    }
}
