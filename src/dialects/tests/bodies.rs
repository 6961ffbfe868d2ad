//! Reading bodies: what every endpoint takes, refuses and renders, and what a splice leaves alone.

use proptest::prelude::*;

use super::*;
use crate::dialects::form::Mark;

#[test]
fn every_endpoint_reads_its_smallest_body_with_and_without_a_model() {
    for wire in WIRES {
        let least = smallest(wire);
        with(wire, &format!("{{{least}}}"), |it| assert_eq!(it.expect("taken").model, None, "{}", wire.name));
        let named = format!(r#"{{"model":"org/m\u002d1","extra":{{"a":[1]}},{least}}}"#);
        with(wire, &named, |it| assert_eq!(it.expect("taken").model.as_deref(), Some("org/m-1"), "{}", wire.name));
    }
}

#[test]
fn every_endpoint_names_the_field_that_is_of_the_wrong_type() {
    for wire in WIRES {
        let least = smallest(wire);
        for (members, field) in [
            (r#""model":1"#, "model"),
            (r#""model":null"#, "model"),
            (r#""model":["m"]"#, "model"),
            (r#""model":"a","model":"a""#, "model"),
            (r#""model":"a","mod\u0065l":"b""#, "model"),
        ] {
            let body = format!("{{{members},{least}}}");
            with(wire, &body, |it| assert_eq!(it.expect_err(&body).field(), field, "{}: {body}", wire.name));
        }
    }
}

#[test]
fn endpoints_that_stream_agree_on_what_asks_for_a_stream() {
    for wire in WIRES.iter().filter(|it| it.observe.is_some()) {
        let least = smallest(wire);
        for (member, expected) in [
            ("", Some(false)),
            (r#""stream":true,"#, Some(true)),
            (r#""stre\u0061m":true,"#, Some(true)),
            (r#""stream":false,"#, Some(false)),
            (r#""stream":null,"#, Some(false)),
            (r#""stream":1,"#, None),
            (r#""stream":"true","#, None),
            (r#""stream":true,"stream":false,"#, None),
        ] {
            let body = format!("{{{member}{least}}}");
            with(wire, &body, |it| assert_eq!(it.map(|it| it.is_stream).ok(), expected, "{}: {body}", wire.name));
        }
    }
}

#[test]
fn what_is_missing_or_misshapen_is_named_by_each_endpoint() {
    for (wire, body, field) in [
        (&chat::WIRE, r#"{}"#, "messages"),
        (&chat::WIRE, r#"{"messages":null}"#, "messages"),
        (&chat::WIRE, r#"{"messages":["hi"]}"#, "messages"),
        (&completions::WIRE, r#"{}"#, "prompt"),
        (&completions::WIRE, r#"{"prompt":7}"#, "prompt"),
        (&completions::WIRE, r#"{"prompt":[1.5]}"#, "prompt"),
        (&completions::WIRE, r#"{"prompt":[-1]}"#, "prompt"),
        (&completions::WIRE, r#"{"prompt":[4294967296]}"#, "prompt"),
        (&completions::WIRE, r#"{"prompt":[null]}"#, "prompt"),
        (&responses::WIRE, r#"{"input":7}"#, "input"),
        (&responses::WIRE, r#"{"input":{}}"#, "input"),
        (&inputs::EMBEDDINGS, r#"{}"#, "input"),
        (&inputs::EMBEDDINGS, r#"{"input":true}"#, "input"),
        (&inputs::CLASSIFY, r#"{"inputs":"x"}"#, "input"),
        (&inputs::RERANK, r#"{"documents":[]}"#, "query"),
        (&inputs::RERANK, r#"{"query":"x"}"#, "documents"),
        (&inputs::RERANK, r#"{"query":"x","documents":"y"}"#, "documents"),
        (&sglang::GENERATE, r#"{}"#, "text"),
        (&sglang::GENERATE, r#"{"text":{}}"#, "text"),
        (&sglang::GENERATE, r#"{"input_ids":"a string is a text, but not a list of ids":1}"#, ""),
        (&sglang::GENERATE, r#"{"input_ids":7}"#, "input_ids"),
        (&anthropic::MESSAGES, r#"{"system":"x"}"#, "messages"),
        (&anthropic::MESSAGES, r#"{"messages":"x"}"#, "messages"),
        (&anthropic::MESSAGES, r#"{"messages":["x"]}"#, "messages"),
        (&anthropic::COUNT_TOKENS, r#"{"messages":{}}"#, "messages"),
    ] {
        if field.is_empty() {
            assert!(json::parse(body.as_bytes()).is_err(), "{body}");
            continue;
        }
        with(wire, body, |it| {
            let error = it.map(drop).expect_err(body);
            assert_eq!(error.field(), field, "{}: {body}", wire.name);
            assert!(error.to_string().contains(field), "{error}");
        });
    }
}

#[test]
fn what_changes_the_workers_prompt_changes_the_rendering() {
    let chat = |members: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"}}]{members}}}"#);
    let message = |members: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"{members}}}]}}"#);
    for wire in [&chat::WIRE, &anthropic::MESSAGES] {
        let base = rendered(wire, &chat(""));
        for other in [
            chat(r#","tools":[{"name":"f"}]"#),
            message(r#","name":"bob""#),
            message(r#","tool_call_id":"1""#),
            message(r#","tool_calls":[{"id":"1"}]"#),
            message(r#","reasoning_content":"hm""#),
            r#"{"messages":[{"role":"assistant","content":"x"}]}"#.to_owned(),
            r#"{"messages":[{"role":"user","content":"y"}]}"#.to_owned(),
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"x"},{"type":"image"}]}]}"#.to_owned(),
            r#"{"messages":[{"role":"user","content":"x"},{"role":"user","content":""}]}"#.to_owned(),
        ] {
            assert_ne!(rendered(wire, &other), base, "{}: {other}", wire.name);
        }
    }
    for (wire, one, other) in [
        (&completions::WIRE, r#"{"prompt":"ab"}"#, r#"{"prompt":"a"}"#),
        (&completions::WIRE, r#"{"prompt":["a","b"]}"#, r#"{"prompt":["ab"]}"#),
        (&completions::WIRE, r#"{"prompt":[1,2]}"#, r#"{"prompt":[1,3]}"#),
        (&responses::WIRE, r#"{"input":"x","instructions":"a"}"#, r#"{"input":"x"}"#),
        (&anthropic::MESSAGES, r#"{"messages":[],"system":"a"}"#, r#"{"messages":[],"system":"b"}"#),
        (&sglang::GENERATE, r#"{"input_ids":[1,2]}"#, r#"{"input_ids":[1]}"#),
        (&inputs::EMBEDDINGS, r#"{"input":"a"}"#, r#"{"input":"b"}"#),
        (&inputs::RERANK, r#"{"query":"a","documents":[]}"#, r#"{"query":"b","documents":[]}"#),
    ] {
        assert_ne!(rendered(wire, one), rendered(wire, other), "{}: {one} {other}", wire.name);
    }
}

#[test]
fn what_does_not_change_the_prompt_does_not_change_the_rendering() {
    for (wire, one, other) in [
        (
            &chat::WIRE,
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            r#"{"temperature":1,"messages":[{"content":"\u0078","role":"user","name":null}]}"#,
        ),
        (
            &chat::WIRE,
            r#"{"messages":[{"role":"user","content":"x"}]}"#,
            r#"{"messages":[{"role":"user","content":[{"text":"x","type":"text"}]}]}"#,
        ),
        (&chat::WIRE, r#"{"messages":[],"tools":[{"a": 1}]}"#, r#"{ "tools" : [ {"a":1} ], "messages":[]}"#),
        (&completions::WIRE, r#"{"prompt":"x"}"#, r#"{"prompt":["x"],"n":3}"#),
        (&completions::WIRE, r#"{"prompt":[[1, 2]]}"#, r#"{"prompt":[[1,2]]}"#),
        (&sglang::GENERATE, r#"{"text":"x"}"#, r#"{"text":"x","sampling_params":{}}"#),
        (&responses::WIRE, r#"{"input":"x"}"#, r#"{"input":[{"role":"user","content":"x"}]}"#),
        (
            &anthropic::MESSAGES,
            r#"{"messages":[],"system":"x"}"#,
            r#"{"messages":[],"system":[{"type":"text","text":"x"}]}"#,
        ),
    ] {
        assert_eq!(rendered(wire, one), rendered(wire, other), "{}: {one} {other}", wire.name);
    }
}

/// Any string that JSON can carry, as it stands in a body.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("encodes")
}

proptest! {
    #[test]
    fn no_text_imitates_a_structural_mark(texts in prop::collection::vec(any::<String>(), 1..5)) {
        let messages: Vec<_> = texts.iter().map(|it| format!(r#"{{"role":"user","content":{}}}"#, quoted(it))).collect();
        let out = rendered(&chat::WIRE, &format!(r#"{{"messages":[{}]}}"#, messages.join(",")));
        let marks = out.iter().filter(|it| **it == 0xFF).count();
        prop_assert_eq!(marks, 2 * texts.len(), "one for each message and one for its content");
        let parts: Vec<_> = out.split(|it| *it == 0xFF).filter(|it| it.first() == Some(&(Mark::Content as u8))).collect();
        let found: Vec<_> = parts.iter().map(|it| String::from_utf8_lossy(&it[1..]).into_owned()).collect();
        prop_assert_eq!(found, texts);
    }

    #[test]
    fn a_longer_conversation_begins_with_the_shorter_one(texts in prop::collection::vec((any::<bool>(), ".{0,30}"), 1..6)) {
        for wire in [&chat::WIRE, &anthropic::MESSAGES] {
            let message = |(user, text): &(bool, String)| {
                let role = if *user { "user" } else { "assistant" };
                format!(r#"{{"role":"{role}","content":{}}}"#, quoted(text))
            };
            let body = |turns: &[(bool, String)]| {
                format!(r#"{{"messages":[{}]}}"#, turns.iter().map(message).collect::<Vec<_>>().join(","))
            };
            let whole = rendered(wire, &body(&texts));
            for len in 0..texts.len() {
                prop_assert!(whole.starts_with(&rendered(wire, &body(&texts[..len]))));
            }
        }
    }

    /// Whoever parses the body after us reads `include_usage` as true, however the client wrote its options.
    #[test]
    fn a_worker_always_reads_that_usage_is_wanted(
        options in prop_oneof![
            Just(String::new()),
            Just(r#","stream_options":null"#.to_owned()),
            prop::collection::vec((prop_oneof![
                Just("include_usage"), Just(r"include\u005fusage"), Just("other"), Just(r"\u0069nclude_usage"),
            ], prop_oneof![Just("true"), Just("false"), Just("null"), Just("7"), Just("[1,{}]")], "[ \n]{0,2}"), 0..4)
                .prop_map(|members| {
                    let members: Vec<_> = members.iter().map(|(key, value, space)| format!("{space}\"{key}\"{space}:{space}{value}{space}")).collect();
                    format!(",\"stream_options\": {{ {} }}", members.join(","))
                }),
        ],
        completions_wire: bool,
    ) {
        let wire = if completions_wire { &completions::WIRE } else { &chat::WIRE };
        let body = format!(r#"{{"stream":true,{}{options},"last":[1, 2]}}"#, smallest(wire));
        let after = with(wire, &body, |request| match request.expect("taken").usage_splice {
            Some(splice) => format!("{}{}{}", &body[..splice.range.start], splice.text, &body[splice.range.end..]),
            None => body.clone(),
        });
        // serde_json keeps the last of repeated keys, as the engines' parsers do.
        let value: serde_json::Value = serde_json::from_str(&after).map_err(|it| TestCaseError::fail(format!("{it}: {after}")))?;
        prop_assert_eq!(&value["stream_options"]["include_usage"], &serde_json::Value::Bool(true), "{}", after);
        let mut before: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        if !before["stream_options"].is_object() { before["stream_options"] = serde_json::json!({}); }
        before["stream_options"]["include_usage"] = true.into();
        prop_assert_eq!(value, before, "nothing else changed");
    }

    #[test]
    fn no_object_makes_an_endpoint_panic(body in any_object()) {
        for wire in WIRES {
            let object = json::parse(body.as_bytes()).expect("valid");
            if let Ok(request) = (wire.read)(&object) {
                request.prompt.unwrap_or_default().render(&mut Vec::new(), 1000);
                if let Some(splice) = request.usage_splice {
                    prop_assert!(splice.range.end <= body.len() && body.is_char_boundary(splice.range.start));
                }
            }
        }
    }
}

/// Objects whose keys are the ones we read and whose values are anything.
fn any_object() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("-1e400".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just(r#""\ud800\u0000""#.to_owned()),
        Just("3".to_owned()),
        any::<String>().prop_map(|it| quoted(&it)),
    ];
    let key = prop_oneof![
        Just("model"),
        Just("messages"),
        Just("prompt"),
        Just("input"),
        Just("query"),
        Just("documents"),
        Just("stream"),
        Just("stream_options"),
        Just("include_usage"),
        Just("role"),
        Just("content"),
        Just("text"),
        Just("tools"),
        Just("tool_calls"),
        Just("system"),
        Just("instructions"),
        Just("input_ids"),
        Just(r"te\u0078t"),
    ];
    let value = leaf.prop_recursive(4, 40, 5, move |inner| {
        let object = prop::collection::vec((key.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            object.prop_map(|members| format!(
                "{{{}}}",
                members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect::<Vec<_>>().join(",")
            )),
        ]
    });
    let top = prop_oneof![
        Just("model"),
        Just("messages"),
        Just("prompt"),
        Just("input"),
        Just("query"),
        Just("documents"),
        Just("stream"),
        Just("stream_options"),
        Just("text"),
        Just("tools"),
        Just("system"),
        Just("instructions"),
        Just("input_ids"),
    ];
    prop::collection::vec((top, value), 0..6).prop_map(|members| {
        format!(
            "{{{}}}",
            members.iter().map(|(key, value)| format!("\"{key}\" : {value}")).collect::<Vec<_>>().join(",")
        )
    })
}

/// How deep JSON is nested.
fn deepest(body: &[u8]) -> usize {
    let (mut depth, mut most, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for byte in body {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => (depth, most) = (depth + 1, most.max(depth + 1)),
            b'}' | b']' if !is_text => depth -= 1,
            _ => {}
        }
    }
    most
}

/// Bodies of every endpoint, with all that we read in them.
fn valid() -> Vec<Vec<u8>> {
    let all = WIRES.iter().flat_map(|wire| {
        let least = smallest(wire);
        let options = ["{}", "null", r#"{"include_usage":true}"#, r#"{},"stream_options":{"x":1}"#];
        let with = options.map(|it| format!(r#"{{"stream":true,"stream_options":{it},{least}}}"#));
        let nested = [5, 127, 128, 500].map(|depth| format!(r#"{{"x":{}{},{least}}}"#, "[".repeat(depth), "]".repeat(depth)));
        with.into_iter().chain(nested).chain([format!("{{{least}}}"), format!(r#"{{"model":"org/m\u002d1", "stream" : true,"stream_options":{{"include_usage":false,"x":[1.50]}},"n":1,{least},"system":"s","tools":[{{"a": 1}}]}}"#)])
    });
    all.map(String::into_bytes).collect()
}

#[test]
fn a_body_that_is_cut_anywhere_is_refused() {
    for body in valid() {
        (0..body.len())
            .for_each(|len| assert!(json::parse(&body[..len]).is_err(), "{}", String::from_utf8_lossy(&body[..len])));
    }
}

proptest! {
    #![proptest_config(crate::base::fuzz::config())]

    /// Refused, or passed on with every byte in its place but for one gap in which usage is asked for.
    #[test]
    fn fuzz_a_damaged_body_is_refused_or_passed_on_byte_for_byte(body in crate::base::fuzz::damaged(valid())) {
        let read = crate::base::fuzz::within(1 << 20, || json::parse(&body));
        // serde takes no body that we refuse, and none that we take but for what it has bounds of its own for: numbers and depth.
        let serde = serde_json::from_slice::<serde_json::Value>(&body);
        prop_assert!(read.is_ok() || !serde.as_ref().is_ok_and(serde_json::Value::is_object), "{}", String::from_utf8_lossy(&body));
        let Ok(object) = read else { return Ok(()) };
        if let Err(error) = &serde {
            prop_assert!(["number out of range", "recursion limit", "surrogate", "unexpected end of hex escape"].iter().any(|it| error.to_string().contains(it)), "{error}: {}", String::from_utf8_lossy(&body));
        }
        prop_assert!(deepest(&body) <= crate::base::limits::JSON_DEPTH_MAX, "{}", String::from_utf8_lossy(&body));
        for wire in WIRES {
            let Ok(request) = (wire.read)(&object) else { continue };
            request.prompt.unwrap_or_default().render(&mut Vec::new(), 1000);
            let Some(splice) = request.usage_splice else { continue };
            prop_assert!(!object.repeats("stream_options"), "two readers would differ: {}", String::from_utf8_lossy(&body));
            let (before, behind) = (&body[..splice.range.start], &body[splice.range.end..]);
            let replaced = body[splice.range.clone()].trim_ascii();
            prop_assert!([&b""[..], b"null", b"false"].contains(&replaced), "{}", String::from_utf8_lossy(&body));
            let after = [before, splice.text.as_bytes(), behind].concat();
            let parsed = json::parse(&after);
            prop_assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(&after));
            // Where serde reads the body, it must read the same but for our field.
            let (Ok(mut old), Ok(new)) = (serde_json::from_slice::<serde_json::Value>(&body), serde_json::from_slice::<serde_json::Value>(&after)) else { continue };
            if !old["stream_options"].is_object() { old["stream_options"] = serde_json::json!({}); }
            old["stream_options"]["include_usage"] = true.into();
            prop_assert_eq!(new, old);
        }
    }
}
