//! Requests both ways, and every stream of events held to its rules.

use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

use super::checker::check;
use super::*;
use crate::base::fuzz;

fn create(body: Value) -> Result<Create, Refused> {
    Create::read(body)
}

fn items(create: &Create) -> Vec<Object> {
    let own = |it: &Given| match it {
        Given::Item(item) => Some(item.clone()),
        Given::Reference(_) => None,
    };
    create.input.iter().filter_map(own).collect()
}

fn chat(body: Value) -> Value {
    let create = create(body).unwrap();
    let own = items(&create);
    Value::Object(request(&create, &own).unwrap())
}

fn refused(body: Value) -> String {
    let read = create(body).and_then(|it| request(&it, &items(&it)));
    read.expect_err("it is refused").to_string()
}

#[test]
fn a_text_is_a_chat_of_one_message() {
    let asked = chat(
        json!({"model": "m", "input": "hi", "instructions": "be brief", "max_output_tokens": 9, "temperature": 0, "top_k": 3}),
    );
    assert_eq!(
        asked,
        json!({"model": "m", "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
            "max_tokens": 9, "temperature": 0, "top_k": 3})
    );
    let streamed = chat(json!({"model": "m", "input": "hi", "stream": true}));
    assert_eq!((&streamed["stream"], &streamed["stream_options"]), (&json!(true), &json!({"include_usage": true})));
}

#[test]
fn a_round_of_tools_is_one_message_of_the_assistant_and_one_of_each_tool() {
    let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "f", "arguments": "{}"});
    let asked = chat(json!({"model": "m", "input": [
        {"role": "developer", "content": "rules"},
        {"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:x", "detail": "low"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I call", "annotations": []}]},
        call("a"), call("b"),
        {"type": "function_call_output", "call_id": "a", "output": "1"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"role": "user", "content": "and?"},
    ], "tools": [{"type": "function", "name": "f", "description": null, "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": {"type": "function", "name": "f"},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "reasoning": {"effort": "low"}}));
    let calls = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    assert_eq!(
        asked["messages"],
        json!([
            {"role": "system", "content": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
            {"role": "assistant", "reasoning_content": "hm", "content": "I call", "tool_calls": [calls("a"), calls("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "1"},
            {"role": "tool", "tool_call_id": "b", "content": "2"},
            {"role": "user", "content": "and?"},
        ])
    );
    assert_eq!(
        asked["tools"],
        json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}}])
    );
    assert_eq!(asked["tool_choice"], json!({"type": "function", "function": {"name": "f"}}));
    assert_eq!(
        asked["response_format"],
        json!({"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": true}})
    );
    assert_eq!(asked["reasoning_effort"], "low");
}

#[test]
fn a_thought_stays_where_it_was_thought_also_when_nothing_was_said_after_it() {
    let thought = |text: &str| json!({"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": text}]});
    let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
    let asked = chat(json!({"model": "m", "input": [
        {"role": "user", "content": "1"}, thought("cut off"),
        {"role": "user", "content": "2"}, thought("first"), thought("then"), {"role": "assistant", "content": "said"}, thought("after"), call,
        {"type": "function_call_output", "call_id": "a", "output": "x"}, thought(""), {"role": "assistant", "content": "done"},
    ]}));
    let calls = json!([{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
    assert_eq!(
        asked["messages"],
        json!([
            {"role": "user", "content": "1"},
            {"role": "assistant", "reasoning_content": "cut off", "content": ""},
            {"role": "user", "content": "2"},
            {"role": "assistant", "reasoning_content": "first\nthen", "content": "said"},
            {"role": "assistant", "reasoning_content": "after", "content": null, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            {"role": "assistant", "content": "done"},
        ])
    );
}

#[test]
fn a_schema_reaches_the_worker_in_the_order_it_was_written_in() {
    let schema = r#"{"type":"object","properties":{"why":{"type":"string"},"answer":{"enum":["z","a"]}},"required":["why","answer"]}"#;
    let body = format!(
        r#"{{"model":"m","input":"x","tools":[{{"type":"function","name":"f","description":"d","parameters":{schema},"strict":true}}],
            "text":{{"format":{{"type":"json_schema","name":"n","strict":true,"schema":{schema}}}}}}}"#
    );
    let create = create(serde_json::from_str(&body).unwrap()).unwrap();
    let asked = Value::Object(request(&create, &items(&create)).unwrap()).to_string();
    let tools = format!(
        r#""tools":[{{"type":"function","function":{{"name":"f","description":"d","parameters":{schema},"strict":true}}}}]"#
    );
    assert!(asked.contains(&tools), "{asked}");
    assert!(asked.contains(&format!(r#""json_schema":{{"name":"n","strict":true,"schema":{schema}}}"#)), "{asked}");
    let told = shown(&Body::new(&create, "resp_1", 5), "in_progress", &[]).to_string();
    assert_eq!(told.matches(schema).count(), 2, "{told}");
}

#[test]
fn what_cannot_be_done_is_refused_by_name_and_says_what_to_do() {
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "m", "input": "x"});
        body[field] = value;
        body
    };
    for (body, said) in [
        (json!({"input": "x"}), "`model` must be the name of a model"),
        (with("input", json!(7)), "`input` must be a text or a list of items"),
        (with("input", json!([{"type": "web_search_call"}])), "`input[0].type` is not supported here"),
        (with("input", json!([{"role": "robot", "content": "x"}])), "`input[0].role` must be user"),
        (
            with("input", json!([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}])),
            "`input[0].content[0].file_id` is not supported",
        ),
        (with("input", json!([{"type": "function_call_output", "call_id": "c"}])), "`input[0].output` must be"),
        (with("tools", json!([{"type": "web_search"}])), "`tools[0].type` is not supported here: tools are functions"),
        (
            with("tool_choice", json!({"type": "function", "name": "g"})),
            "`tool_choice.name` must be the name of one of `tools`",
        ),
        (with("tool_choice", json!({"type": "file_search"})), "`tool_choice.type` is not supported"),
        (with("tool_choice", json!("required")), "`tool_choice` must be `none` or `auto` where no `tools` are given"),
        (with("prompt", json!({"id": "p"})), "`prompt` is not supported here"),
        (with("include", json!(["file_search_call.results"])), "`include` is not supported here"),
        (with("metadata", json!({"a": 1})), "`metadata` must be an object of at most 16 texts"),
        (with("temperature", json!(3)), "`temperature` must be a number from 0 to 2"),
        (with("max_output_tokens", json!(-1)), "`max_output_tokens` must be"),
        (with("truncation", json!("never")), "`truncation` must be `auto` or `disabled`"),
        (with("text", json!({"format": {"type": "xml"}})), "`text.format.type` must be"),
        (with("store", json!("yes")), "`store` must be true or false"),
        (
            json!({"model": "m", "input": "x", "background": true, "store": false}),
            "`store` must be true where `background` is",
        ),
        (
            json!({"model": "m", "input": "x", "conversation": "c", "store": false}),
            "`store` must be true where `conversation` is given",
        ),
        (
            json!({"model": "m", "input": "x", "previous_response_id": "a", "conversation": "b"}),
            "`conversation` must be left out",
        ),
    ] {
        let text = refused(body);
        assert!(text.starts_with(said), "{text} instead of {said}");
    }
    let create = create(json!({"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}], "conversation": {"id": "c"}, "user": null})).unwrap();
    assert_eq!(
        (create.input, create.conversation),
        (vec![Given::Reference(Reference("msg_1".to_owned()))], Some("c".to_owned()))
    );
}

// === streams ===

struct Ids(u64);

impl Ids {
    fn draw(&mut self) -> impl FnMut(&'static str) -> String + '_ {
        |prefix| {
            self.0 += 1;
            format!("{prefix}_{}", self.0)
        }
    }
}

/// The response that these chunks make, after its events were checked.
fn streamed(chunks: &[Value]) -> (Value, Vec<Value>) {
    let (mut translator, mut ids) = (Translator::default(), Ids(0));
    let mut body = Body::new(&create(json!({"model": "m", "input": "x"})).unwrap(), "resp_1", 5);
    let first = shown(&body, "in_progress", &[]);
    let mut events = vec![
        translator.number("response.created", json!({"response": first})),
        translator.number("response.in_progress", json!({"response": first})),
    ];
    for chunk in chunks {
        match translator.chunk(chunk, &mut ids.draw()) {
            Ok(more) => events.extend(more),
            Err(Broken::Worker { code, message }) => translator.fail(&code, &message),
            Err(Broken::Malformed) => translator.fail("server_error", "malformed"),
        }
    }
    let (finished, more) = translator.end();
    events.extend(more);
    body.finish(&finished);
    let last = shown(&body, finished.status(), translator.items());
    resumes(&events, &finished);
    events.push(translator.number(&format!("response.{}", finished.status()), json!({"response": last})));
    check(&events, &last);
    check(&replayed(&last), &last);
    (last, events)
}

/// Whoever has seen events up to anywhere between two chunks can end what is open as it would have been ended.
fn resumes(events: &[Value], finished: &Finished) {
    let last_open = events.iter().rposition(|it| it["type"].as_str().unwrap().ends_with(".delta"));
    let seen = last_open.map_or(events.len(), |it| it + 1);
    let mut resumed = Translator::default();
    events[..seen].iter().for_each(|it| resumed.seen(it));
    if finished.status() != "completed" {
        resumed.fail("x", "x");
    }
    let (_, more) = resumed.end();
    let mut whole: Vec<Value> = events[..seen].iter().cloned().chain(more).collect();
    let last = shown(&Body(Object::new()), "failed", resumed.items());
    whole.push(resumed.number("response.failed", json!({"response": last})));
    check(&whole, &last);
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta}]})
}

fn ended(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

/// Without what is drawn anew each time.
fn bare(response: &Value) -> Value {
    let mut output = response["output"].clone();
    for item in output.as_array_mut().into_iter().flatten() {
        item["id"] = Value::Null;
    }
    output
}

#[test]
fn thought_text_and_calls_are_items_in_order_and_the_same_whole() {
    let usage = json!({"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3, "created_cache_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}});
    let chunks = [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning_content": "let "})),
        delta(json!({"reasoning_content": "me"})),
        delta(json!({"content": "I "})),
        delta(json!({"content": "call"})),
        delta(json!({"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "f", "arguments": ""}}]})),
        delta(json!({"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{\"a\""}}]})),
        delta(
            json!({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "function": {"arguments": ":1}"}}]}),
        ),
        ended("tool_calls"),
        json!({"choices": [], "usage": usage}),
    ];
    let (response, events) = streamed(&chunks);
    assert_eq!(response["status"], "completed");
    assert_eq!(
        response["usage"],
        json!({"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4}, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 12})
    );
    let kinds: Vec<&str> =
        response["output"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call", "function_call"]);
    assert_eq!(response["output"][3]["arguments"], "{\"a\":1}");
    assert!(String::from_utf8(object::event(&events[0])).unwrap().starts_with("event: response.created\ndata: {"));
    let message = json!({"role": "assistant", "reasoning_content": "let me", "content": "I call", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{\"a\":1}"}}]});
    let (mut translator, mut ids) = (Translator::default(), Ids(0));
    translator
        .whole(
            &json!({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage}),
            &mut ids.draw(),
        )
        .unwrap();
    let (finished, _) = translator.end();
    assert_eq!((finished.status(), finished.usage), ("completed", Some(response["usage"].clone())));
    assert_eq!(bare(&shown(&Body(Object::new()), "completed", translator.items())), bare(&response));
}

#[test]
fn what_ends_early_or_fails_keeps_what_was_made() {
    let (response, _) = streamed(&[delta(json!({"content": "half"})), ended("length")]);
    assert_eq!(
        (&response["status"], &response["incomplete_details"]),
        (&json!("incomplete"), &json!({"reason": "max_output_tokens"}))
    );
    assert_eq!(
        (&response["output"][0]["status"], &response["output"][0]["content"][0]["text"]),
        (&json!("incomplete"), &json!("half"))
    );
    let (response, _) =
        streamed(&[delta(json!({"content": "half"})), json!({"error": {"code": "worker_failed", "message": "gone"}})]);
    assert_eq!(
        (&response["status"], &response["error"]),
        (&json!("failed"), &json!({"code": "worker_failed", "message": "gone"}))
    );
    assert_eq!(response["output"][0]["content"][0]["text"], "half");
    let (response, _) = streamed(&[json!({"choices": 1})]);
    assert_eq!(response["status"], "failed");
    let (response, _) = streamed(&[delta(json!({"refusal": "no"})), delta(json!({"content": "but"})), ended("stop")]);
    assert_eq!(
        response["output"][0]["content"],
        json!([{"type": "refusal", "refusal": "no"}, {"type": "output_text", "text": "but", "annotations": [], "logprobs": []}])
    );
}

fn deltas() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a-z]{0,3}".prop_map(|it| delta(json!({"content": it}))),
        "[a-z]{0,3}".prop_map(|it| delta(json!({"reasoning": it}))),
        "[a-z]{0,3}".prop_map(|it| delta(json!({"refusal": it}))),
        (0..3_u64, "[a-z]{0,3}").prop_map(|(index, it)| delta(
            json!({"tool_calls": [{"index": index, "function": {"name": "f", "arguments": it}}]})
        )),
        Just(ended("stop")),
        Just(ended("length")),
        Just(json!({"error": {"message": "x"}})),
        Just(json!({"choices": []})),
    ]
}

proptest! {
    #[test]
    fn any_chunks_make_a_stream_that_keeps_the_rules(chunks in proptest::collection::vec(deltas(), 0..20)) {
        let _checked = streamed(&chunks);
    }

    #[test]
    fn any_json_is_read_or_refused_without_a_panic(text in r#"\{("model":"m",)?("(input|tools|text|include|tool_choice|conversation)":(\[|\{|"x"|7|null|\[\{"role":"user"\}\])(\]|\})?,?){0,3}\}"#) {
        if let Ok(body) = serde_json::from_str(&text) {
            let _any = create(body).and_then(|it| request(&it, &items(&it)));
        }
    }
}

const CREATE: &str = r#"{"model":"m","instructions":"i","input":[{"role":"user","content":[{"type":"input_text","text":"see"},{"type":"input_image","image_url":"data:x"}]},
    {"type":"reasoning","id":"rs_1","summary":[],"content":[{"type":"reasoning_text","text":"hm"}]},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},
    {"type":"function_call_output","call_id":"a","output":[{"type":"input_text","text":"2"}]},{"type":"item_reference","id":"msg_1"}],"tools":[{"type":"function","name":"f","parameters":{}}],
    "tool_choice":{"type":"function","name":"f"},"text":{"format":{"type":"json_schema","name":"n","schema":{},"strict":true}},"reasoning":{"effort":"low"},"include":["reasoning.encrypted_content"],"metadata":{"a":"b"}}"#;

#[test]
fn a_request_with_anything_anywhere_is_read_or_refused() {
    for body in fuzz::each_odd_json(&serde_json::from_str(CREATE).unwrap()) {
        let _any = create(body).and_then(|it| request(&it, &items(&it)));
    }
}

#[test]
fn a_chunk_with_anything_anywhere_makes_a_stream_that_keeps_the_rules() {
    let first = delta(json!({"content": "x"}));
    for chunk in chunks() {
        for odd in fuzz::each_odd_json(&serde_json::from_slice(&chunk).unwrap()) {
            let _checked = streamed(&[first.clone(), odd]);
        }
    }
}

fn chunks() -> Vec<Vec<u8>> {
    let all = [
        delta(json!({"role": "assistant", "content": "hel"})),
        delta(json!({"reasoning": "hm"})),
        delta(json!({"tool_calls": [{"index": 1, "id": "a", "function": {"name": "f", "arguments": "{}"}}]})),
        ended("stop"),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}}),
        json!({"error": {"code": "worker_failed", "message": "gone"}}),
    ];
    all.map(|it| it.to_string().into_bytes()).into()
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_a_damaged_request_is_read_or_refused(bytes in prop_oneof![fuzz::damaged(vec![CREATE.as_bytes().to_vec()]), fuzz::odd_json(vec![serde_json::from_str(CREATE).unwrap()])]) {
        if let Ok(body) = serde_json::from_slice(&bytes) {
            let _any = create(body).and_then(|it| request(&it, &items(&it)));
        }
    }

    #[test]
    fn fuzz_damaged_chunks_make_a_stream_that_keeps_the_rules(all in proptest::collection::vec(prop_oneof![fuzz::damaged(chunks()), fuzz::odd_json(chunks().iter().map(|it| serde_json::from_slice(it).unwrap()).collect())], 0..10)) {
        let read: Vec<Value> = all.iter().filter_map(|it| serde_json::from_slice(it).ok()).collect();
        let _checked = streamed(&read);
    }
}
