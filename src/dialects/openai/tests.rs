//! Reading requests, asking for usage, and knowing what a chunk is.

use proptest::prelude::*;

use super::*;
use crate::dialects::form::Event;
use crate::dialects::json::parse;

fn rendered(body: &str) -> Vec<u8> {
    let object = parse(body.as_bytes()).expect("valid");
    let mut out = Vec::new();
    (chat::WIRE.read)(&object).expect("a request").prompt.expect("a prompt").render(&mut out, usize::MAX);
    out
}

/// The body as the worker gets it.
fn spliced(body: &str) -> Option<String> {
    let object = parse(body.as_bytes()).expect("valid");
    let splice = (chat::WIRE.read)(&object).expect("a request").usage_splice?;
    Some(format!("{}{}{}", &body[..splice.range.start], splice.text, &body[splice.range.end..]))
}

#[test]
fn a_conversation_renders_as_a_prefix_of_its_next_turn_whatever_its_json_looks_like() {
    let first = rendered(
        r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Gr\u00fc\u00dfe"}]}"#,
    );
    let second = rendered(
        r#"{ "messages" : [ {"content":"Be kind.","role":"system"}, {"role":"user","content":[{"type":"text","text":"Grüße"}]},
            {"role":"assistant","content":"Hello"} ] }"#,
    );
    assert!(second.starts_with(&first));
}

#[test]
fn roles_tools_and_images_are_part_of_the_rendering() {
    let base = rendered(r#"{"messages":[{"role":"user","content":"x"}]}"#);
    for other in [
        r#"{"messages":[{"role":"system","content":"x"}]}"#,
        r#"{"messages":[{"role":"user","content":"x"}],"tools":[{"type":"function"}]}"#,
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"a"}},{"type":"text","text":"x"}]}]}"#,
        r#"{"messages":[{"role":"user","name":"bob","content":"x"}]}"#,
    ] {
        assert_ne!(rendered(other), base, "{other}");
    }
}

#[test]
fn usage_is_asked_for_where_the_client_did_not() {
    let with = |options: &str| format!(r#"{{"model":"m","messages":[],"stream":true{options}}}"#);
    for (options, expected) in [
        ("", true),
        (r#","stream_options":null"#, true),
        (r#","stream_options":{}"#, true),
        (r#","stream_options":{"include_usage":false}"#, true),
        (r#","stream_options":{"x":1}"#, true),
        (r#","stream_options":{"include_usage":true}"#, false),
    ] {
        let text = spliced(&with(options));
        assert_eq!(text.is_some(), expected, "{options}");
        if let Some(text) = text {
            let value: serde_json::Value = serde_json::from_str(&text).expect("still JSON");
            assert_eq!(value["stream_options"]["include_usage"], true, "{text}");
        }
    }
    assert_eq!(spliced(r#"{"messages":[]}"#), None);
}

proptest! {
    /// FIELD e7: what we do not own arrives unchanged.
    #[test]
    fn field_e7_a_splice_changes_nothing_but_include_usage(extra in prop::collection::btree_map("[a-z]{1,8}", any::<String>(), 0..6), at in 0usize..3) {
        let mut body = serde_json::json!({"model": "m", "messages": [], "stream": true});
        for (key, value) in &extra {
            body[format!("x_{key}")] = value.clone().into();
        }
        if at == 1 { body["stream_options"] = serde_json::json!({"other": 1}); }
        if at == 2 { body["stream_options"] = serde_json::json!({"include_usage": false, "other": 1}); }
        let after: serde_json::Value = serde_json::from_str(&spliced(&body.to_string()).expect("spliced")).expect("JSON");
        body["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(after, body);
    }
}

fn any_body() -> impl Strategy<Value = String> {
    let space = prop::sample::select(vec!["", " ", "\n", "\t ", "  \r\n"]);
    let value = prop::sample::select(vec![
        "1.50",
        "1e999",
        "-0.0",
        "null",
        "[1, 2 ,3]",
        r#"{"a": {"stream_options":{}} }"#,
        r#""\u00e9\ud83d\ude80\/""#,
        "\"Gr\u{fc}\u{df}e \u{1F680}\"",
        r#""}],\"stream\":false""#,
        "{ }",
        r#""""#,
    ]);
    let field = ("[a-z_]{1,6}", value).prop_map(|(key, value)| format!("\"x_{key}\":{value}"));
    let options = prop::sample::select(vec![
        "",
        r#""stream_options" : null"#,
        r#""stream_options":{ }"#,
        r#""stream_options":{"include_usage": false , "b":[1.0]}"#,
        r#""stream_options":{"b":2e0}"#,
    ]);
    (prop::collection::vec(field, 0..6), options, space, any::<prop::sample::Index>()).prop_map(
        |(mut fields, options, space, at)| {
            let ours =
                [r#""stream":true"#, r#""model":"m""#, r#""messages":[{"role" : "user","content":"\ud800 \u00fc"}]"#];
            fields.extend(ours.map(str::to_owned));
            if !options.is_empty() {
                fields.insert(at.index(fields.len()), options.to_owned());
            }
            format!("{space}{{{space}{}{space}}}{space}", fields.join(&format!("{space},{space}")))
        },
    )
}

proptest! {
    /// FIELD e7, 14: every byte of the client arrives, in its place; ours stand in one gap, or for one value that asked for no usage.
    #[test]
    fn field_14_splicing_keeps_every_byte_that_is_not_ours(body in any_body()) {
        let after = spliced(&body).expect("usage is asked for");
        let object = parse(body.as_bytes()).expect("valid");
        let splice = (chat::WIRE.read)(&object).expect("a request").usage_splice.expect("a splice");
        let (before, behind) = (&body[..splice.range.start], &body[splice.range.end..]);
        prop_assert!(after.starts_with(before) && after.ends_with(behind));
        prop_assert_eq!(&after[before.len()..after.len() - behind.len()], splice.text);
        prop_assert!(["", "null", "false"].contains(&&body[splice.range.clone()]), "{}", &body[splice.range.clone()]);
        let again = parse(after.as_bytes()).expect("still JSON");
        let asked = again.get("stream_options").expect("there").value.get("include_usage").and_then(Value::as_bool);
        prop_assert_eq!(asked, Some(true));
    }
}

#[test]
fn chunks_are_known_for_what_they_are() {
    for (data, expected) in [
        (
            r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            Event::Preamble,
        ),
        (r#"{"choices":[{"delta":{"content":"a"}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{"reasoning":"a"}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, Event::Finish),
        (r#"{"choices":[{"delta":{},"finish_reason":"stop"},{"delta":{"content":"b"}}]}"#, Event::Content),
        (r#"{"choices":[{"text":"a"}]}"#, Event::Content),
        (r#"{"choices":[],"usage":{"prompt_tokens":3}}"#, Event::Usage),
        (r#"{"error":{"message":"x"}}"#, Event::Error),
        (r#"{"error":{"message":"x","code":500}}"#, Event::Error),
        (r#"{"error":{"message":"x","code":429}}"#, Event::Error),
        (r#"{"error":{"message":"x","type":"BadRequestError","code":400}}"#, Event::Refusal),
        ("[DONE]", Event::Done),
        (r#"{"choices":[{"del"#, Event::Malformed),
        ("", Event::Malformed),
    ] {
        assert_eq!(chat::observe(data.as_bytes()).event, expected, "{data}");
    }
    let told = chat::observe(br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":1}}}"#);
    assert_eq!(told.usage, Some(Usage { prompt: Some(3), completion: Some(2), cached: Some(1) }));
}

#[test]
fn wrong_types_are_named() {
    for (body, field) in [
        (r#"{"model":1,"messages":[]}"#, "model"),
        (r#"{"model":"a","model":"b","messages":[]}"#, "model"),
        (r#"{"messages":[],"stream":"yes"}"#, "stream"),
        (r#"{"messages":{}}"#, "messages"),
        (r#"{"messages":[1]}"#, "messages"),
        (r#"{}"#, "messages"),
        (r#"{"messages":[],"stream_options":3}"#, "stream_options"),
    ] {
        let object = parse(body.as_bytes()).expect("valid JSON");
        assert_eq!((chat::WIRE.read)(&object).expect_err("refused").field(), field, "{body}");
    }
}
