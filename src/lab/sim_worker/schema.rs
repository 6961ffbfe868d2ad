//! The smallest value that a JSON schema accepts, for structured output and for the arguments of tool calls.
//!
//! Covers what structured-output clients send: types, `properties` with `required`, `enum`, `const`, `items` with
//! `minItems`, `anyOf`/`oneOf`/`allOf`, local `$ref`, `minLength`, `minimum`. Patterns and formats are not honoured.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

/// Deeper schemas end in `null`: a recursive `$ref` would not end at all.
const DEPTH_MAX: usize = 32;

/// An instance of `schema`. `word` fills strings that have no other bound.
pub(super) fn instance(schema: &Value, word: &str) -> Value {
    build(schema, schema, word, 0)
}

fn build(root: &Value, schema: &Value, word: &str, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    if let Some(fixed) = schema.get("const") {
        return fixed.clone();
    }
    if let Some(first) = schema.pointer("/enum/0") {
        return first.clone();
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix('#')) {
        return root.pointer(target).map_or(Value::Null, |it| build(root, it, word, depth + 1));
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema.pointer(&format!("/{key}/0")) {
            return build(root, first, word, depth + 1);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::Array(kinds)) => kinds.first().and_then(Value::as_str),
        Some(kind) => kind.as_str(),
        None => schema.get("properties").map(|_| "object"),
    };
    match kind {
        Some("string") => text(schema, word),
        Some("integer") => json!(schema.get("minimum").and_then(Value::as_f64).map_or(1, |it| it.ceil() as i64)),
        Some("number") => json!(schema.get("minimum").and_then(Value::as_f64).unwrap_or(1.5)),
        Some("boolean") => json!(true),
        Some("array") => array(root, schema, word, depth),
        Some("null") => Value::Null,
        _ => object(root, schema, word, depth),
    }
}

fn text(schema: &Value, word: &str) -> Value {
    let at_least = schema.get("minLength").and_then(Value::as_u64).unwrap_or(0) as usize;
    let at_most = schema.get("maxLength").and_then(Value::as_u64).unwrap_or(u64::MAX) as usize;
    let padding = std::iter::repeat_n('x', at_least.min(1 << 16).saturating_sub(word.chars().count()));
    Value::String(word.chars().chain(padding).take(at_most).collect())
}

fn array(root: &Value, schema: &Value, word: &str, depth: usize) -> Value {
    let at_least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).min(64) as usize;
    let item = schema.get("items").map_or(Value::String(word.to_owned()), |it| build(root, it, word, depth + 1));
    Value::Array(vec![item; at_least])
}

fn object(root: &Value, schema: &Value, word: &str, depth: usize) -> Value {
    let mut fields = Map::new();
    let required = schema.get("required").and_then(Value::as_array);
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let is_required = required.is_none_or(|names| names.iter().any(|it| it == name));
        if is_required {
            fields.insert(name.clone(), build(root, field, word, depth + 1));
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_has_what_its_schema_requires_and_nothing_else() {
        let schema = json!({
            "type": "object", "required": ["city", "days", "unit", "tags", "next"],
            "properties": {
                "city": {"type": "string", "minLength": 6}, "days": {"type": "integer", "minimum": 3},
                "unit": {"enum": ["c", "f"]}, "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2},
                "next": {"$ref": "#/$defs/next"}, "optional": {"type": "string"}
            },
            "$defs": {"next": {"anyOf": [{"type": "null"}, {"type": "string"}]}}
        });
        let expected = json!({"city": "Romexx", "days": 3, "unit": "c", "tags": [true, true], "next": null});
        assert_eq!(instance(&schema, "Rome"), expected);
    }

    #[test]
    fn a_schema_that_names_itself_ends() {
        let schema = json!({"type": "object", "properties": {"child": {"$ref": "#"}}});
        assert!(instance(&schema, "x").to_string().len() < 1000);
    }
}
