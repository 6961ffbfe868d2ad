//! Anything at any route: an answer in a schema, never the gateway's own failure. The routes are those of the table, so a new one is among them.

use proptest::prelude::*;

use super::history::Kept;
use super::*;
use crate::api::routes::ROUTES;
use crate::api::routes::Serve;
use crate::base::fuzz;
use crate::dialects::Family;

/// A body of each schema that a route takes.
fn good(schema: &str) -> &'static str {
    match schema {
        "" => "",
        "ChatRequest" => {
            r#"{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stream":true,"stream_options":{"x":1},"tools":[{"type":"function"}]}"#
        }
        "CompletionRequest" => r#"{"model":"m","prompt":["a",[1,2]],"stream":true,"stream_options":null}"#,
        "InputRequest" => r#"{"model":"m","input":["a","b"],"user":"x"}"#,
        "RerankRequest" => r#"{"model":"m","query":"x","documents":["y",{"text":"z"}]}"#,
        "TokenizeRequest" => r#"{"model":"m","text":"x","prompt":"x","tokens":[1,2]}"#,
        "GenerateRequest" => r#"{"model":"m","text":"x","input_ids":[1,2],"stream":false}"#,
        "MessagesRequest" => {
            r#"{"model":"m","max_tokens":9,"system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"x"}]}"#
        }
        "ResponsesRequest" => {
            r#"{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"see"}]},{"type":"function_call","call_id":"a","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"a","output":"1"}],"stream":true,"metadata":{"a":"b"},"tools":[{"type":"function","name":"f","parameters":{}}],"text":{"format":{"type":"json_schema","name":"n","schema":{}}},"previous_response_id":null}"#
        }
        "NewConversation" | "NewItems" => {
            r#"{"items":[{"role":"user","content":"x","id":"msg_a"},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"y"}]}],"metadata":{"a":"b"}}"#
        }
        "ConversationChange" => r#"{"metadata":{"a":"b"}}"#,
        "NewFault" => {
            r#"{"kind":"delay","nodes":["*"],"direction":"in","ms":20,"jitter_ms":5,"for":"500ms","ratio":0.5,"worker":"*","status":503,"after_bytes":9,"offset_seconds":-3,"group":"both"}"#
        }
        "NewWorker" => {
            r#"{"url":"http://h:1/base","api_key":"k","models":["m"],"priority":50,"cost":1.5,"labels":{"a":"b"},"draining":false}"#
        }
        "WorkerChange" => r#"{"draining":true,"cost":2,"models":["m"],"api_key":null,"labels":{}}"#,
        "NewKey" => r#"{"name":"app","tenant":"team","role":"admin","key":"sk-0123456789abcdef"}"#,
        "KeyChange" | "TenantChange" | "ModelChange" => {
            r#"{"limits":[{"what":"requests","per":"minute","limit":60},{"what":"streams","limit":null}],"enabled":true,"disabled":false}"#
        }
        "NewTenant" => r#"{"name":"team","enabled":true}"#,
        "NewPolicies" => r#"{"default":"random","models":[{"model":"llama*","policy":"bucket"}]}"#,
        "HistoryRows" => "\u{1}\u{1}\u{1}a\u{1}b",
        other => panic!("a schema without a body here: {other}"),
    }
}

/// What a path may have in the place of an id or behind it.
const PARTS: &[&str] = &[
    "m",
    "resp_1",
    "conv_1",
    "msg_a",
    "%",
    "%00",
    "..%2f..",
    "%ff",
    "w-18446744073709551616",
    "k-zz",
    "team",
    "a?limit=-1",
    "a?stream=true&starting_after=1e9",
    "a?after=%00&order=x",
];

#[test]
fn every_schema_that_a_route_takes_has_a_body_here() {
    let bodies = ROUTES.iter().map(|it| good(it.takes).len()).sum::<usize>();
    assert!(bodies > 1000, "there are some");
}

/// Routes that take a body.
fn taking() -> Vec<usize> {
    (0..ROUTES.len()).filter(|it| !ROUTES[*it].takes.is_empty()).collect()
}

/// Like a body, or in each place what is of another kind.
fn bodies(good: &str) -> BoxedStrategy<Vec<u8>> {
    let damaged = fuzz::damaged(vec![good.as_bytes().to_vec()]);
    match serde_json::from_str(good) {
        Ok(json) => prop_oneof![damaged, fuzz::odd_json(vec![json])].boxed(),
        Err(_none) => damaged.boxed(),
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_any_body_at_any_route_gets_an_answer_in_a_schema(
        (route, body) in prop_oneof![0..ROUTES.len(), prop::sample::select(taking())].prop_flat_map(|at| (Just(at), bodies(good(ROUTES[at].takes)))),
        part in 0..PARTS.len(),
        other in 0..PARTS.len(),
        is_kept in any::<bool>(),
    ) {
        let route = &ROUTES[route];
        let path = route.path.replace("{id}", PARTS[part]).replace("{item_id}", PARTS[other]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
        let reply = runtime.block_on(async {
            let edge = if is_kept { Kept::new().node(1) } else { Edge::new() };
            edge.worker(&["m"], [whole(200, ANSWER)]);
            let answered = async {
                let (head, body) = edge.begin(request(route.method, &path, body)).await.into_parts();
                let bytes = body.collect().await.expect("our bodies do not fail").to_bytes();
                // An export is no text.
                Reply { status: head.status, headers: head.headers, body: String::from_utf8_lossy(&bytes).into_owned() }
            };
            let reply = tokio::time::timeout(Duration::from_secs(3600), answered).await;
            assert_eq!(edge.load(), (0, 0), "nothing is left behind");
            reply.expect("an answer in the end")
        });
        let status = reply.status.as_u16();
        prop_assert!(status != 500 && (200..600).contains(&status), "{} {path}: {status} {}", route.method, reply.body);
        if status >= 400 {
            let is_anthropic = matches!(route.serve, Serve::Model(wire) | Serve::Kept(wire) if wire.family == Family::Anthropic);
            let error = &reply.json()["error"];
            prop_assert!(error["message"].is_string() && error["type"].is_string() && (is_anthropic || error["code"].is_string()), "{}", reply.body);
        }
    }
}
