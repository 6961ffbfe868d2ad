//! Events and usage of every family: what is content, what ends a stream, what is broken, and what it cost.

use proptest::prelude::*;

use super::*;
use crate::dialects::form::Event;
use crate::dialects::form::Observed;
use crate::dialects::form::Usage;

fn observed(wire: &Wire, data: &str) -> Observed {
    (wire.observe.expect("it streams"))(data.as_bytes())
}

fn check(wire: &Wire, rows: &[(&str, Event)]) {
    for (data, expected) in rows {
        assert_eq!(observed(wire, data).event, *expected, "{}: {data}", wire.name);
    }
}

fn usage(prompt: impl Into<Option<u64>>, completion: impl Into<Option<u64>>, cached: impl Into<Option<u64>>) -> Usage {
    Usage { prompt: prompt.into(), completion: completion.into(), cached: cached.into() }
}

#[test]
fn chat_and_completions_chunks_are_known_for_what_they_are() {
    let rows = [
        (r#"{"choices":[]}"#, Event::Preamble),
        (r#"{"choices":null}"#, Event::Preamble),
        (r#"{"id":"1"}"#, Event::Preamble),
        (r#"{"choices":[{"delta":null}]}"#, Event::Preamble),
        (r#"{"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[]}}]}"#, Event::Preamble),
        (r#"{"choices":[{"delta":{"refusal":"no"}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{"reasoning_content":"hm"}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{"content":" "}}]}"#, Event::Content),
        (r#"{"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}"#, Event::Content),
        (r#"{"choices":[{"text":"","finish_reason":"length"}]}"#, Event::Finish),
        (r#"{"choices":[{"text":""}]}"#, Event::Preamble),
        (r#"{"choices":[{"delta":{},"finish_reason":"stop"},{"delta":{}}]}"#, Event::Finish),
        (r#"{"choices":[{"delta":{}},{"delta":{},"finish_reason":"stop"}]}"#, Event::Finish),
        (r#"{"usage":{"prompt_tokens":1}}"#, Event::Usage),
        (r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}"#, Event::Content),
        (r#"{"error":null,"choices":[{"delta":{"content":"a"}}]}"#, Event::Content),
        (r#"{"error":"out of memory"}"#, Event::Error),
        (r#"{"error":{"message":"x"},"choices":[]}"#, Event::Error),
        ("[DONE]", Event::Done),
        ("[done]", Event::Malformed),
        ("null", Event::Malformed),
        ("[1]", Event::Malformed),
        (r#"{"choices":[}"#, Event::Malformed),
        (r#"{} {}"#, Event::Malformed),
        ("\u{feff}{}", Event::Malformed),
    ];
    check(&chat::WIRE, &rows);
    check(&completions::WIRE, &rows);
}

#[test]
fn anthropic_events_are_known_for_what_they_are() {
    check(
        &anthropic::MESSAGES,
        &[
            (r#"{"type":"message_start","message":{}}"#, Event::Preamble),
            (r#"{"type":"content_block_start","content_block":{"type":"text","text":""}}"#, Event::Preamble),
            (r#"{"type":"ping"}"#, Event::Preamble),
            (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#, Event::Content),
            (r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#, Event::Finish),
            (r#"{"type":"message_stop"}"#, Event::Done),
            (r#"{"type":"error","error":{"type":"overloaded_error"}}"#, Event::Error),
            (r#"{"type":7}"#, Event::Malformed),
            (r#"{}"#, Event::Malformed),
            ("[DONE]", Event::Malformed),
        ],
    );
}

#[test]
fn responses_events_are_known_for_what_they_are() {
    check(
        &responses::WIRE,
        &[
            (r#"{"type":"response.created","response":{}}"#, Event::Preamble),
            (r#"{"type":"response.in_progress"}"#, Event::Preamble),
            (r#"{"type":"response.queued"}"#, Event::Preamble),
            (r#"{"type":"response.output_text.delta","delta":"a"}"#, Event::Content),
            (r#"{"type":"response.completed","response":{}}"#, Event::Done),
            (r#"{"type":"response.incomplete","response":{}}"#, Event::Done),
            (r#"{"type":"response.failed","response":{}}"#, Event::Error),
            (r#"{"type":"error","message":"x"}"#, Event::Error),
            (r#"{"delta":"a"}"#, Event::Malformed),
            ("[DONE]", Event::Done),
        ],
    );
}

#[test]
fn generate_chunks_are_known_for_what_they_are() {
    check(
        &sglang::GENERATE,
        &[
            (r#"{"text":"a","meta_info":{}}"#, Event::Content),
            (r#"{"output_ids":[1]}"#, Event::Content),
            (r#"{"error":{"message":"x"}}"#, Event::Error),
            (r#"{"text":"a","error":null}"#, Event::Content),
            ("[DONE]", Event::Done),
            ("{", Event::Malformed),
        ],
    );
}

#[test]
fn usage_is_read_from_the_event_that_carries_it_in_each_family() {
    for (wire, data, expected) in [
        (
            &chat::WIRE,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}}"#,
            usage(9, 2, 8),
        ),
        (
            &chat::WIRE,
            r#"{"choices":[],"usage":{"prompt_tokens":9,"prompt_tokens_details":null}}"#,
            usage(9, None, None),
        ),
        (&chat::WIRE, r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"2"}}"#, Usage::default()),
        (&chat::WIRE, r#"{"usage":{"prompt_tokens":18446744073709551616}}"#, Usage::default()),
        (
            &responses::WIRE,
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":2,"input_tokens_details":{"cached_tokens":8}}}}"#,
            usage(9, 2, 8),
        ),
        (
            &responses::WIRE,
            r#"{"type":"response.failed","response":{"usage":{"input_tokens":9}}}"#,
            usage(9, None, None),
        ),
        (
            &sglang::GENERATE,
            r#"{"text":"a","meta_info":{"prompt_tokens":9,"completion_tokens":2,"cached_tokens":8}}"#,
            usage(9, 2, 8),
        ),
        (
            &anthropic::MESSAGES,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":1,"cache_read_input_tokens":5,"cache_creation_input_tokens":3,"output_tokens":1}}}"#,
            usage(9, 1, 5),
        ),
        (&anthropic::MESSAGES, r#"{"type":"message_delta","usage":{"output_tokens":7}}"#, usage(None, 7, None)),
        (
            &anthropic::MESSAGES,
            r#"{"type":"message_start","message":{"usage":{"input_tokens":18446744073709551615,"cache_read_input_tokens":18446744073709551615}}}"#,
            usage(u64::MAX, None, u64::MAX),
        ),
    ] {
        assert_eq!(observed(wire, data).usage.unwrap_or_default(), expected, "{}: {data}", wire.name);
    }
    for (wire, data) in [
        (&chat::WIRE, r#"{"choices":[],"usage":null}"#),
        (&chat::WIRE, r#"{"choices":[],"usage":7}"#),
        (&anthropic::MESSAGES, r#"{"type":"message_delta","usage":null}"#),
        (&anthropic::MESSAGES, r#"{"type":"message_start","message":null}"#),
        (&responses::WIRE, r#"{"type":"response.completed","response":{"usage":null}}"#),
        (&responses::WIRE, r#"{"type":"response.completed"}"#),
    ] {
        assert_eq!(observed(wire, data).usage, None, "{}: {data}", wire.name);
    }
}

#[test]
fn usage_of_a_whole_answer_is_that_of_its_stream() {
    let chat = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":8}}}"#;
    let anthropic = r#"{"type":"message","usage":{"input_tokens":4,"cache_read_input_tokens":5,"output_tokens":2}}"#;
    let generate = r#"{"text":"","meta_info":{"prompt_tokens":9,"completion_tokens":2,"cached_tokens":5}}"#;
    for (wire, body, expected) in [
        (&chat::WIRE, chat, usage(9, 2, 8)),
        (&completions::WIRE, chat, usage(9, 2, 8)),
        (&inputs::EMBEDDINGS, r#"{"usage":{"prompt_tokens":9,"total_tokens":9}}"#, usage(9, None, None)),
        (&responses::WIRE, r#"{"usage":{"input_tokens":9,"output_tokens":2}}"#, usage(9, 2, None)),
        (&sglang::GENERATE, generate, usage(9, 2, 5)),
        (&anthropic::MESSAGES, anthropic, usage(9, 2, 5)),
        (&anthropic::COUNT_TOKENS, r#"{"input_tokens":9}"#, Usage::default()),
        (&chat::WIRE, r#"{"usage":[9]}"#, Usage::default()),
        (&chat::WIRE, r#"{}"#, Usage::default()),
    ] {
        let object = json::parse(body.as_bytes()).expect("valid");
        assert_eq!((wire.usage)(&object), expected, "{}: {body}", wire.name);
    }
}

/// `None` of a report takes nothing away, whatever came before; what a later one tells wins.
#[test]
fn later_reports_win_field_by_field() {
    let (first, second) = (usage(9, 1, 5), usage(None, 7, None));
    assert_eq!(first.merged(second), usage(9, 7, 5));
    assert_eq!(Usage::default().merged(first), first);
    assert_eq!(first.merged(Usage::default()), first);
}

proptest! {
    #[test]
    fn no_bytes_make_an_observer_panic_and_no_text_but_json_is_an_event(data in prop_oneof![
        any::<Vec<u8>>(),
        r#"\{("(type|choices|usage|error|message|response|meta_info|delta)":[\[\]{}"a-z0-9:,]{0,12},?){0,4}\}?"#.prop_map(String::into_bytes),
    ]) {
        for wire in WIRES {
            let Some(observe) = wire.observe else { continue };
            let event = observe(&data).event;
            let is_json = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&data).is_ok();
            if !is_json && data != b"[DONE]" {
                prop_assert_eq!(event, Event::Malformed, "{}", wire.name);
            }
        }
    }

    #[test]
    fn merging_is_associative(reports in prop::collection::vec(any::<(Option<u64>, Option<u64>, Option<u64>)>(), 3)) {
        let [a, b, c] = [0, 1, 2].map(|at: usize| usage(reports[at].0, reports[at].1, reports[at].2));
        prop_assert_eq!(a.merged(b).merged(c), a.merged(b.merged(c)));
    }

    /// Content is content in whatever order the choices of a chunk stand.
    #[test]
    fn the_order_of_choices_does_not_change_what_a_chunk_is(mut kinds in prop::collection::vec(0_usize..3, 1..5), turn in 0_usize..4) {
        let choice = |kind: &usize| [r#"{"delta":{}}"#, r#"{"delta":{},"finish_reason":"stop"}"#, r#"{"delta":{"content":"a"}}"#][*kind];
        let chunk = |kinds: &[usize]| format!(r#"{{"choices":[{}]}}"#, kinds.iter().map(choice).collect::<Vec<_>>().join(","));
        let before = observed(&chat::WIRE, &chunk(&kinds)).event;
        let turn = turn % kinds.len();
        kinds.rotate_left(turn);
        prop_assert_eq!(observed(&chat::WIRE, &chunk(&kinds)).event, before);
    }
}
