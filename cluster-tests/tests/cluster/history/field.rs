//! FIELD.md bug 10, by its parts: what users of gateways lose most often of their history.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;

use super::Call;
use super::Fleet;
use super::RESPONSES;
use super::STARTING;
use super::call;
use crate::ask::ADMIN_KEY;
use crate::case::Case;
use crate::fleet::Start;

/// Turns of a chain, each made and read at the next node.
const TURNS: usize = 9;
/// By then a response whose client left is over.
const OVER_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn field_10(case: &Case) {
    let mut fleet = Fleet::new(case, 3);
    let worker = fleet.worker("m").await;
    let conversation = fleet.keeping(&Start::flags(&["--worker-urls", &worker.url()])).await;
    chain(&fleet).await;
    case.figure(format_args!("{TURNS} turns, each at the next node, read at all at once"));
    client_leaves(&fleet, &worker).await;
    case.figure("a client that leaves ends its response, and what it saw is kept");
    not_stored(&fleet).await;
    strangers(&fleet, &conversation).await;
    case.figure("another tenant finds nothing");
    deleted_meanwhile(&fleet, &worker).await;
    case.figure("a conversation that is deleted while it is answered stays deleted");
    unreachable_is_not_404(case, &mut fleet).await;
    case.figure("without a majority it is 503, and afterwards all is there");
    fleet.check_alive();
}

fn path(response: &Value) -> String {
    format!("{RESPONSES}/{}", response["id"].as_str().unwrap_or_else(|| panic!("an id: {response}")))
}

async fn made(fleet: &Fleet<'_>, at: usize, body: Value) -> Value {
    let (status, response) = fleet.told(at, Call::post(RESPONSES, &body.to_string())).await;
    assert_eq!((status, &response["status"]), (200, &json!("completed")), "{response}");
    response
}

/// Wrong-node reads, and reads right after completion: whoever made it, everybody has it at once, and the next turn can be made anywhere.
async fn chain(fleet: &Fleet<'_>) {
    let mut previous = Value::Null;
    for turn in 0..TURNS {
        let response = made(
            fleet,
            turn % 3,
            json!({"model": "m", "input": format!("turn {turn}"), "previous_response_id": previous}),
        )
        .await;
        for at in 0..3 {
            assert_eq!(fleet.told(at, Call::get(&path(&response))).await, (200, response.clone()), "node {at}");
        }
        previous = response["id"].clone();
    }
}

/// A client goes away before its response is completed: the worker is stopped, and the response is over at all, with what the client saw.
async fn client_leaves(fleet: &Fleet<'_>, worker: &Upstream) {
    worker.script(vec![Step::stream_head(), Step::preamble(), Step::content("hel"), Step::WaitForClose]);
    let before = worker.aborts();
    let body = json!({"model": "m", "input": "left alone", "stream": true}).to_string();
    let mut client = Client::connect(fleet.nodes[1].http).await;
    client.start_post(RESPONSES, &format!("authorization: Bearer {ADMIN_KEY}\r\n"), &body).await;
    assert!(client.read_until("\"hel\"").await, "a piece comes");
    let text = client.unread();
    let id = text.split("\"id\":\"resp_").nth(1).and_then(|it| it.split('"').next()).expect("an id");
    let path = format!("{RESPONSES}/resp_{id}");
    drop(client);
    within("the worker is stopped", OVER_MAX, async || worker.aborts() > before).await;
    for at in 0..3 {
        within("it is over", OVER_MAX, async || fleet.told(at, Call::get(&path)).await.1["status"] == "cancelled")
            .await;
        let found = fleet.told(at, Call::get(&path)).await.1;
        assert!(found["output"].to_string().contains("hel"), "node {at}: {found}");
    }
}

/// What was not to be stored is nowhere.
async fn not_stored(fleet: &Fleet<'_>) {
    let response = made(fleet, 0, json!({"model": "m", "input": "hi", "store": false})).await;
    for at in 0..3 {
        assert_eq!(fleet.told(at, Call::get(&path(&response))).await.0, 404, "node {at}");
    }
}

/// Ids of another tenant: as if they were not there, whatever one tries.
async fn strangers(fleet: &Fleet<'_>, conversation: &str) {
    let (status, answer) = fleet.ask(0, "POST", "/tenants", &json!({"name": "others"})).await.expect("it answers");
    assert_eq!(status, 201, "{answer}");
    let (status, key) =
        fleet.ask(0, "POST", "/keys", &json!({"name": "app", "tenant": "others"})).await.expect("it answers");
    assert_eq!(status, 201, "{key}");
    let key = key["key"].as_str().expect("a key");
    let theirs = made(fleet, 0, json!({"model": "m", "input": "secret", "conversation": conversation})).await;
    let record = format!("/v1/conversations/{conversation}");
    let chained = json!({"model": "m", "input": "x", "previous_response_id": theirs["id"]}).to_string();
    let inside = json!({"model": "m", "input": "x", "conversation": conversation}).to_string();
    let referred =
        json!({"model": "m", "input": [{"type": "item_reference", "id": theirs["output"][0]["id"]}]}).to_string();
    for at in 0..3 {
        let node = fleet.nodes[at].http;
        within("the key is known", STARTING, async || {
            let known = Call { api_key: Some(key), ..Call::get("/v1/models") };
            call(node, &known).await.is_ok_and(|it| it.0 == 200)
        })
        .await;
        for request in [
            Call::get(&path(&theirs)),
            Call::get(&format!("{}/input_items", path(&theirs))),
            Call::post(&format!("{}/cancel", path(&theirs)), ""),
            Call::delete(&path(&theirs)),
            Call::get(&record),
            Call::get(&format!("{record}/items")),
            Call::post(&record, r#"{"metadata":{"a":"b"}}"#),
            Call::post(&format!("{record}/items"), r#"{"items":[{"role":"user","content":"x"}]}"#),
            Call::delete(&record),
            Call::post(RESPONSES, &chained),
            Call::post(RESPONSES, &inside),
            Call::post(RESPONSES, &referred),
        ] {
            let (status, answer) = fleet.told(at, Call { api_key: Some(key), ..request }).await;
            let told = format!("{} {} {}: {status} {answer}", request.method, request.path, request.body);
            assert!([400, 404].contains(&status) && !answer.to_string().contains("secret"), "{told}");
        }
    }
    assert_eq!(fleet.told(1, Call::get(&path(&theirs))).await, (200, theirs), "it is as it was");
    assert_eq!(fleet.told(1, Call::get(&record)).await.0, 200);
}

/// A conversation is deleted while a response in it is made. The response ends; the conversation does not come back.
async fn deleted_meanwhile(fleet: &Fleet<'_>, worker: &Upstream) {
    let conversation = fleet.conversation().await;
    let record = format!("/v1/conversations/{conversation}");
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let mut steps = vec![Step::Await(std::sync::Arc::clone(&gate))];
    steps.extend(Step::completion("late"));
    worker.script(steps);
    let before = worker.requests().len();
    let body = json!({"model": "m", "input": "slow", "conversation": conversation}).to_string();
    let request = Call::post(RESPONSES, &body);
    let asking = fleet.told(0, request);
    let deleting = async {
        within("the worker is asked", STARTING, async || worker.requests().len() > before).await;
        assert_eq!(fleet.told(1, Call::delete(&record)).await.0, 200);
        gate.add_permits(1);
    };
    let ((status, response), ()) = tokio::join!(asking, deleting);
    assert!(status == 200 || response["error"].is_object(), "{status} {response}");
    for at in 0..3 {
        assert_eq!(fleet.told(at, Call::get(&record)).await.0, 404, "node {at}");
        assert_eq!(fleet.told(at, Call::get(&format!("{record}/items"))).await.0, 404, "node {at}");
        if status == 200 {
            assert_eq!(fleet.told(at, Call::get(&path(&response))).await, (200, response.clone()), "node {at}");
        }
    }
}

/// What cannot be read now is not "not found".
async fn unreachable_is_not_404(case: &Case, fleet: &mut Fleet<'_>) {
    let response = made(fleet, 0, json!({"model": "m", "input": "hi"})).await;
    fleet.kill(1);
    fleet.kill(2);
    let (status, after, body) = call(fleet.nodes[0].http, &Call::get(&path(&response))).await.expect("it answers");
    assert!(status == 503 && after.is_some(), "{status} {}", String::from_utf8_lossy(&body));
    let nothing = call(fleet.nodes[0].http, &Call::get("/v1/responses/resp_nobodys")).await.expect("it answers");
    case.did(format_args!("alone: an id that is nobody's is answered {}", nothing.0));
    fleet.start(1, &Start::default());
    fleet.start(2, &Start::default());
    fleet.whole(STARTING).await;
    fleet.one_history(3).await;
    for at in 0..3 {
        assert_eq!(fleet.told(at, Call::get(&path(&response))).await, (200, response.clone()), "node {at}");
    }
}
