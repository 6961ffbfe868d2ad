//! Responses and conversations that are kept: what clients see, what history has, and what is left when either goes away.

mod background;
mod conversations;
mod faults;
mod isolation;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::*;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::dialects::responses::checker::check;
use crate::history::Memory;
use crate::history::Unavailable;
use crate::history::backend::Doing;
use crate::history::backend::Reading;
use crate::history::machine::Outcome;

const RESPONSES: &str = "/v1/responses";
const HELLO: &str = r#"{"model":"m","input":"hi"}"#;
const TASK: Task = Task { name: "history", stage: Stage::Agree, on_end: OnEnd::Log };

/// Memory that cannot be reached when a test says so, as without a majority.
#[derive(Default)]
struct Flaky {
    inner: Memory,
    is_down: AtomicBool,
    /// What comes takes effect, but nobody is told.
    is_mute: AtomicBool,
}

impl Backend for Flaky {
    fn name(&self) -> &'static str {
        "flaky"
    }

    fn commands(&self) -> u64 {
        self.inner.commands()
    }

    fn propose(&self, entry: Vec<u8>, limit: Duration) -> Doing<'_, Result<Outcome, Unavailable>> {
        Box::pin(async move {
            if self.is_down.load(Ordering::Relaxed) {
                Clock.sleep(limit).await;
                return Err(Unavailable::Unreached);
            }
            let done = self.inner.propose(entry, limit).await;
            if self.is_mute.load(Ordering::Relaxed) {
                Clock.sleep(limit).await;
                return Err(Unavailable::Unreached);
            }
            done
        })
    }

    fn read(&self, reading: Reading, limit: Duration) -> Doing<'_, Result<(), Unavailable>> {
        if self.is_down.load(Ordering::Relaxed) {
            return Box::pin(async { Err(Unavailable::Unreached) });
        }
        self.inner.read(reading, limit)
    }

    fn is_watcher(&self) -> bool {
        true
    }
}

/// Nodes over one history.
pub(super) struct Kept {
    backend: Arc<Flaky>,
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { backend: Arc::default() }
    }

    pub(super) fn node(&self, number: u128) -> Edge {
        self.node_with(number, Settings::default())
    }

    fn node_with(&self, number: u128, settings: Settings) -> Edge {
        let backend: Arc<dyn Backend> = Arc::clone(&self.backend) as _;
        let edge = Edge::with(Settings { history: Some((backend, StorageId(number))), ..settings });
        let history = edge.gateway.history.clone().expect("it is kept");
        edge.gateway.node.tasks.spawn(TASK, |stop| crate::history::run(history, stop));
        super::super::responses::start(&edge.gateway);
        edge
    }

    /// Everything that is kept, keys and values.
    async fn rows(&self) -> Vec<u8> {
        let (told, rows) = tokio::sync::oneshot::channel();
        let told = parking_lot::Mutex::new(Some(told));
        let reading = move |rows: &dyn crate::history::Rows| {
            let all = rows.scan(&[], &[0xFF; 64], usize::MAX, false);
            let told = told.lock().take();
            drop(told.map(|it| {
                it.send(all.into_iter().flat_map(|(key, value)| [key, value].concat()).collect::<Vec<u8>>())
            }));
        };
        self.backend.inner.read(Box::new(reading), Duration::ZERO).await.expect("it is memory");
        rows.await.expect("it was read")
    }

    async fn has(&self, text: &str) -> bool {
        let rows = self.rows().await;
        rows.windows(text.len()).any(|it| it == text.as_bytes())
    }
}

/// A node with a worker that plays `scripts`.
fn one(scripts: impl IntoIterator<Item = Vec<Step>>) -> (Kept, Edge, Played) {
    let kept = Kept::new();
    let edge = kept.node(1);
    let worker = edge.worker(&["m"], scripts);
    (kept, edge, worker)
}

async fn get(edge: &Edge, path: &str) -> Reply {
    edge.send(request("GET", path, Body::empty())).await
}

async fn delete(edge: &Edge, path: &str) -> Reply {
    edge.send(request("DELETE", path, Body::empty())).await
}

async fn created(edge: &Edge, body: Value) -> Value {
    let reply = edge.post(RESPONSES, &body.to_string()).await;
    assert_eq!(reply.status.as_u16(), 200, "{}", reply.body);
    reply.json()
}

fn path_of(response: &Value) -> String {
    format!("{RESPONSES}/{}", response["id"].as_str().expect("an id"))
}

/// The events of a stream, without comments.
fn events(body: &str) -> Vec<Value> {
    let event = |it: &str| {
        let (name, data) = it.split_once('\n').unwrap_or_else(|| panic!("a name and data: {it}"));
        let event: Value = serde_json::from_str(data.strip_prefix("data: ").expect("data")).expect("JSON");
        assert_eq!(name.strip_prefix("event: "), event["type"].as_str());
        event
    };
    body.split("\n\n").filter(|it| !it.is_empty() && !it.starts_with(':')).map(event).collect()
}

/// The response at the end of a stream that keeps the rules.
fn checked(body: &str) -> Value {
    let events = events(body);
    let last = events.last().expect("a terminal event")["response"].clone();
    check(&events, &last);
    last
}

/// What a worker was asked.
fn asked(worker: &Played, call: usize) -> Value {
    serde_json::from_str(&worker.body(call)).expect("JSON")
}

fn text_of(response: &Value) -> &str {
    response["output"][0]["content"][0]["text"].as_str().unwrap_or_default()
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = Clock.now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Clock.now() < end, "not in time: {what}");
        Clock.sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_is_made_on_a_chat_worker_and_is_there_afterwards() {
    let (_, edge, worker) = one([whole(200, ANSWER)]);
    let made =
        created(&edge, json!({"model": "m", "input": "hi", "instructions": "be brief", "metadata": {"a": "b"}})).await;
    assert_eq!((&made["object"], &made["status"], text_of(&made)), (&json!("response"), &json!("completed"), "hello"));
    assert_eq!(
        (&made["usage"]["input_tokens"], &made["usage"]["output_tokens"], &made["metadata"]),
        (&json!(3), &json!(1), &json!({"a": "b"}))
    );
    assert_eq!(worker.seen.borrow().calls[0].path, CHAT);
    assert_eq!(
        asked(&worker, 0)["messages"],
        json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}])
    );
    let path = path_of(&made);
    assert_eq!(get(&edge, &path).await.json(), made);
    let inputs = get(&edge, &format!("{path}/input_items")).await.json();
    assert_eq!((&inputs["object"], &inputs["data"][0]["content"][0]["text"]), (&json!("list"), &json!("hi")));
    let gone = delete(&edge, &path).await.json();
    assert_eq!(gone, json!({"id": made["id"], "object": "response", "deleted": true}));
    assert_eq!(delete(&edge, &path).await.error(), (404, "not_found".to_owned()));
    assert_eq!(get(&edge, &path).await.error(), (404, "not_found".to_owned()));
    assert_eq!(edge.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_streamed_one_keeps_the_rules_and_is_there_at_every_node() {
    let (kept, edge, _) = one([good_stream()]);
    let reply = edge.post(RESPONSES, &HELLO.replace("}", r#","stream":true}"#)).await;
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(reply.header("x-smg-worker").is_some() && reply.header("x-request-id").is_some());
    let last = checked(&reply.body);
    assert_eq!((&last["status"], text_of(&last)), (&json!("completed"), "hello"));
    let other = kept.node(2);
    assert_eq!(get(&other, &path_of(&last)).await.json(), last);
    assert_eq!(edge.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_chain_is_read_whole_and_one_with_a_hole_is_refused() {
    let (_, edge, worker) = one([whole(200, ANSWER)]);
    let mut last = created(&edge, json!({"model": "m", "input": "turn 0"})).await;
    let first = path_of(&last);
    for turn in 1..10 {
        let body = json!({"model": "m", "input": format!("turn {turn}"), "previous_response_id": last["id"]});
        last = created(&edge, body).await;
    }
    let messages = asked(&worker, 9)["messages"].clone();
    let messages = messages.as_array().expect("a list");
    assert_eq!(messages.len(), 19);
    assert_eq!(
        (&messages[0], &messages[1], &messages[18]),
        (
            &json!({"role": "user", "content": "turn 0"}),
            &json!({"role": "assistant", "content": "hello"}),
            &json!({"role": "user", "content": "turn 9"})
        )
    );
    delete(&edge, &first).await;
    let body = json!({"model": "m", "input": "x", "previous_response_id": last["id"]}).to_string();
    assert_eq!(edge.post(RESPONSES, &body).await.error(), (400, "previous_response_deleted".to_owned()));
    let body = json!({"model": "m", "input": "x", "previous_response_id": "resp_none"}).to_string();
    let none = edge.post(RESPONSES, &body).await;
    assert_eq!(none.error(), (400, "previous_response_not_found".to_owned()));
    assert_eq!(none.json()["error"]["param"], "previous_response_id");
    assert_eq!(worker.calls(), 10);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_stored_leaves_nothing_and_may_continue_what_is() {
    let (kept, edge, worker) = one([whole(200, ANSWER), whole(200, ANSWER), good_stream()]);
    let first = created(&edge, json!({"model": "m", "input": "a first secret"})).await;
    assert!(kept.has("a first secret").await);
    let rows = kept.rows().await;
    let body = json!({"model": "m", "input": "another secret", "store": false, "previous_response_id": first["id"], "metadata": {"k": "a third secret"}});
    let second = created(&edge, body.clone()).await;
    let mut streamed = body;
    streamed["stream"] = json!(true);
    let third = checked(&edge.post(RESPONSES, &streamed.to_string()).await.body);
    assert!(!kept.has("another secret").await && !kept.has("third secret").await);
    assert_eq!(kept.rows().await, rows, "not a byte more");
    for made in [second, third] {
        assert_eq!(made["status"], "completed");
        assert_eq!(get(&edge, &path_of(&made)).await.error().0, 404);
    }
    assert_eq!(asked(&worker, 1)["messages"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_round_of_tools_goes_through_history_and_references() {
    const CALLS: &str = r#"{"choices":[{"message":{"content":null,"reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#;
    let (_, edge, worker) = one([whole(200, CALLS), whole(200, ANSWER)]);
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]);
    let first = created(&edge, json!({"model": "m", "input": "call it", "tools": tools})).await;
    assert_eq!((&first["output"][0]["type"], &first["output"][1]["call_id"]), (&json!("reasoning"), &json!("c1")));
    let output = json!({"type": "function_call_output", "call_id": "c1", "output": "4"});
    let body = json!({"model": "m", "previous_response_id": first["id"], "tools": tools, "input": [output.clone()]});
    created(&edge, body).await;
    let messages = asked(&worker, 1)["messages"].clone();
    assert_eq!(
        messages[1],
        json!({"role": "assistant", "reasoning_content": "hm", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})
    );
    assert_eq!(messages[2], json!({"role": "tool", "tool_call_id": "c1", "content": "4"}));
    let reference = |it: &Value| json!({"type": "item_reference", "id": it["id"]});
    let by_name = json!({"model": "m", "input": [{"role": "user", "content": "call it"}, reference(&first["output"][1]), output]});
    created(&edge, by_name).await;
    assert_eq!(asked(&worker, 2)["messages"][2], json!({"role": "tool", "tool_call_id": "c1", "content": "4"}));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused_by_name_before_anything_is_kept() {
    let (kept, edge, worker) = one([whole(200, ANSWER)]);
    let rows = kept.rows().await;
    for (more, status, code, param) in [
        (json!({"tools": [{"type": "web_search"}]}), 400, "unsupported_value", "tools[0].type"),
        (json!({"temperature": 9}), 400, "invalid_value", "temperature"),
        (json!({"truncation": "auto"}), 400, "unsupported_value", "truncation"),
        (json!({"include": ["file_search_call.results"]}), 400, "unsupported_value", "include"),
        (json!({"conversation": "conv_none"}), 404, "not_found", "conversation"),
        (json!({"conversation": "../x"}), 404, "not_found", "conversation"),
        (json!({"input": [{"type": "item_reference", "id": "msg_none"}]}), 404, "not_found", "input"),
        (json!({"input": [{"role": "user", "content": "x", "id": "a b"}]}), 400, "invalid_value", "input[0].id"),
        (json!({"model": "other"}), 404, "model_not_found", "model"),
        (json!({"background": true, "model": "other"}), 404, "model_not_found", "model"),
        (json!({"background": true, "store": false}), 400, "invalid_value", "store"),
    ] {
        let mut body = json!({"model": "m", "input": "x"});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
        let reply = edge.post(RESPONSES, &body.to_string()).await;
        assert_eq!(reply.error(), (status, code.to_owned()), "{body}");
        assert_eq!(reply.json()["error"]["param"], param, "{body}");
    }
    assert_eq!(edge.post(RESPONSES, "{").await.error(), (400, "invalid_json".to_owned()));
    assert_eq!((kept.rows().await, worker.calls()), (rows, 0));
}

#[tokio::test(start_paused = true)]
async fn the_same_key_does_once_what_it_does_at_every_node() {
    let (kept, edge, worker) = one([whole(200, ANSWER), good_stream()]);
    let other = kept.node(2);
    other.worker(&["m"], [whole(200, ANSWER)]);
    let with_key = |body: &str, key: &str| with_header(post(RESPONSES, body), "idempotency-key", key);
    let first = edge.send(with_key(HELLO, "k1")).await.json();
    let again = other.send(with_key(HELLO, "k1")).await.json();
    assert_eq!((again, worker.calls()), (first, 1));
    let another = other.send(with_key(r#"{"model":"m","input":"ho"}"#, "k1")).await;
    assert_eq!(another.error(), (409, "idempotency_key_reused".to_owned()));
    let streamed = HELLO.replace('}', r#","stream":true}"#);
    let last = checked(&edge.send(with_key(&streamed, "k2")).await.body);
    assert_eq!(checked(&other.send(with_key(&streamed, "k2")).await.body), last);
    assert_eq!(worker.calls(), 2);
    let unstored = HELLO.replace('}', r#","store":false}"#);
    assert_eq!(edge.send(with_key(&unstored, "k3")).await.json()["error"]["param"], "Idempotency-Key");
    let long = "k".repeat(256);
    assert_eq!(edge.send(with_key(HELLO, &long)).await.error().0, 400);
}

#[tokio::test(start_paused = true)]
async fn without_history_responses_pass_through_and_nothing_else_is_there() {
    let edge = Edge::new();
    let worker = edge.worker(&["m"], [whole(200, r#"{"object":"response","output":[]}"#)]);
    let reply = edge.post(RESPONSES, HELLO).await;
    assert_eq!((reply.status.as_u16(), worker.body(0)), (200, HELLO.to_owned()));
    assert_eq!(worker.seen.borrow().calls[0].path, RESPONSES);
    for (method, path) in [
        ("GET", "/v1/responses/resp_1"),
        ("DELETE", "/v1/responses/resp_1"),
        ("POST", "/v1/responses/resp_1/cancel"),
        ("GET", "/v1/responses/resp_1/input_items"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/conv_1/items/msg_1"),
    ] {
        assert_eq!(edge.send(request(method, path, "{}")).await.error(), (404, "history_off".to_owned()), "{path}");
    }
}
