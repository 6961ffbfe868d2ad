//! The rules of a stream of typed events, for tests: numbers without a gap, one terminal event at the end, and each item added, then growing, then done, as it is in the response.

use serde_json::Value;
use serde_json::json;

/// What a client may rely on, of a whole stream.
pub fn check(events: &[Value], last: &Value) {
    let terminal = |it: &Value| {
        let kind = it["type"].as_str().unwrap_or_default();
        ["response.completed", "response.incomplete", "response.failed"].contains(&kind)
    };
    assert_eq!(events.iter().position(terminal), Some(events.len() - 1), "one terminal event, and it is the last");
    assert_eq!(events[0]["type"], "response.created");
    let mut items: Vec<Value> = Vec::new();
    let mut texts: std::collections::BTreeMap<(u64, u64), String> = Default::default();
    for (number, event) in (0..).zip(events) {
        assert_eq!(event["sequence_number"], json!(number), "numbers have no gap: {event}");
        let kind = event["type"].as_str().unwrap();
        let at = event["output_index"].as_u64();
        let part = (at.unwrap_or(0), event["content_index"].as_u64().unwrap_or(0));
        if let (Some(at), Some(id)) = (at, event.get("item_id")) {
            assert_eq!(items[at as usize]["id"], *id, "{event}");
            assert_eq!(items[at as usize]["status"], "in_progress", "nothing grows that is done: {event}");
        }
        match kind {
            "response.output_item.added" => {
                assert_eq!(at, Some(items.len() as u64));
                assert_eq!(event["item"]["status"], "in_progress");
                items.push(event["item"].clone());
            }
            "response.content_part.added" => assert!(texts.insert(part, String::new()).is_none()),
            "response.output_text.delta" | "response.reasoning_text.delta" | "response.refusal.delta" => {
                texts.get_mut(&part).expect("a part that was added").push_str(event["delta"].as_str().unwrap());
            }
            "response.function_call_arguments.delta" => {
                texts.entry(part).or_default().push_str(event["delta"].as_str().unwrap())
            }
            "response.output_text.done" | "response.reasoning_text.done" => {
                assert_eq!(event["text"], json!(texts[&part]))
            }
            "response.refusal.done" => assert_eq!(event["refusal"], json!(texts[&part])),
            "response.function_call_arguments.done" => {
                assert_eq!(event["arguments"], json!(texts.get(&part).cloned().unwrap_or_default()));
            }
            "response.content_part.done" => {
                let text = event["part"].get("text").or_else(|| event["part"].get("refusal"));
                assert_eq!(text, Some(&json!(texts[&part])));
            }
            "response.output_item.done" => {
                let item = &mut items[at.unwrap() as usize];
                assert_eq!(item["status"], "in_progress");
                *item = event["item"].clone();
                assert_ne!(item["status"], "in_progress");
            }
            "response.created"
            | "response.queued"
            | "response.in_progress"
            | "response.completed"
            | "response.incomplete"
            | "response.failed" => {}
            other => panic!("unknown event {other}"),
        }
    }
    assert_eq!(last["output"], json!(items), "the response has each item as it was when it was done");
}
