//! What is said of requests and of admin edits: one line each, at `debug` and at `info`, and nothing else of a request.

use std::net::SocketAddr;

use cluster_tests::Capture;
use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use serde_json::Value;
use serde_json::json;
use smg::config::Sources;

/// The lines that speak of `needle`, once there is one.
async fn lines(capture: &Capture, needle: &str) -> Vec<Value> {
    let told = || capture.lines().into_iter().filter(|it| it.contains(needle)).collect::<Vec<_>>();
    eventually("there is a line", async || !told().is_empty()).await;
    told().iter().map(|it| serde_json::from_str(it).unwrap_or_else(|error| panic!("{error}: {it}"))).collect()
}

/// The one line of a request; with a worker, of one whose client leaves once that worker has it.
async fn line(capture: &Capture, at: SocketAddr, leaves: Option<&Upstream>, id: &str, body: &str) -> Value {
    let before = leaves.map_or(0, |it| it.requests().len());
    let mut client = Client::connect(at).await;
    client.start_post("/v1/chat/completions?a=b", &format!("x-request-id: {id}\r\n"), body).await;
    match leaves {
        None => {
            let answer = client.answer().await;
            assert!(answer.head.contains(&format!("x-request-id: {id}\r\n")), "{}", answer.head);
        }
        Some(worker) => eventually("the worker has it", async || worker.requests().len() > before).await,
    }
    drop(client);
    let mut lines = lines(capture, id).await;
    assert_eq!(lines.len(), 1, "one line a request: {lines:?}");
    let line = lines.remove(0);
    assert_eq!((&line["level"], &line["target"]), (&json!("DEBUG"), &json!("access")), "{line}");
    assert_eq!((&line["method"], &line["path"]), (&json!("POST"), &json!("/v1/chat/completions")), "{line}");
    line
}

#[tokio::test]
async fn a_request_is_one_line_of_the_access_log_however_it_ends() {
    let capture = Capture::start();
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let at = node.address;

    let whole = line(&capture, at, None, "line-whole", &chat("hi", false)).await;
    for (field, expected) in [
        ("status", json!(200)),
        ("model", json!("m")),
        ("worker", json!(worker.url())),
        ("policy", json!("cache_aware")),
        ("tenant", json!("anonymous")),
        ("attempts", json!(1)),
        ("input_tokens", json!(5)),
        ("output_tokens", json!(1)),
    ] {
        assert_eq!(whole[field], expected, "{field}: {whole}");
    }
    let parts = ["body_ms", "queue_ms", "parse_ms", "route_ms", "upstream_ms", "total_ms"];
    assert!(parts.iter().all(|it| whole[it].is_number()), "{whole}");

    worker.script(vec![Step::stream_head(), Step::content("a"), Step::end()]);
    let stream = line(&capture, at, None, "line-stream", &chat("hi", true)).await;
    assert_eq!((&stream["status"], &stream["output_tokens"]), (&json!(200), &json!(2)), "{stream}");
    assert!(stream["first_token_ms"].as_f64() > Some(0.0) && stream["bytes_sent"].as_u64() > Some(20), "{stream}");

    worker.script(vec![Step::stream_head(), Step::content("a"), Step::Close]);
    let broken = line(&capture, at, None, "line-broken", &chat("hi", true)).await;
    assert_eq!((&broken["status"], &broken["error"]), (&json!(200), &json!("worker_failed")), "{broken}");

    let refused = line(&capture, at, None, "line-refused", "{").await;
    assert_eq!((&refused["status"], &refused["error"]), (&json!(400), &json!("invalid_json")), "{refused}");

    worker.script(vec![Step::WaitForClose]);
    let left = line(&capture, at, Some(&worker), "line-left", &chat("hi", false)).await;
    assert_eq!((&left["status"], &left["left_in"]), (&Value::Null, &json!("upstream")), "{left}");
    node.shutdown().await;
}

#[tokio::test]
async fn an_admin_edit_says_who_did_what_to_which_worker_and_what_changed() {
    let capture = Capture::start();
    let (worker, added) = (Upstream::start("one").await, Upstream::start("two").await);
    let node = node(config(&[&worker])).await;
    let flags = vec![("api-key".to_owned(), vec!["ops:team:admin:sk-of-ops".to_owned()])];
    let loaded = Sources { flags, ..Sources::default() }.load().unwrap_or_else(|errors| panic!("{errors}"));
    drop(node.reload(loaded, None));
    let call = async |method: &str, path: &str, body: &str| {
        let mut client = Client::connect(node.address).await;
        let (len, key) = (body.len(), "x-api-key: sk-of-ops");
        let head = format!("{method} {path} HTTP/1.1\r\nhost: t\r\n{key}\r\ncontent-length: {len}\r\n\r\n{body}");
        client.send(head.as_bytes()).await;
        client.answer().await.json()
    };
    let new = json!({"url": added.url(), "api_key": "sk-of-two"}).to_string();
    let one = format!("/workers/{}", call("POST", "/workers", &new).await["id"].as_str().expect("an id"));
    call("PATCH", &one, "{\"draining\": true}").await;
    call("DELETE", &one, "").await;
    let audit = async || {
        let told = lines(&capture, &added.url()).await;
        told.into_iter().filter(|it| it["target"] == "audit").collect::<Vec<_>>()
    };
    eventually("all three are told", async || audit().await.len() >= 3).await;
    let audit = audit().await;
    let actions: Vec<_> = audit.iter().map(|it| it["action"].as_str().unwrap_or_default()).collect();
    assert_eq!(actions, ["worker_added", "worker_changed", "worker_removed"]);
    for line in &audit {
        assert_eq!((&line["level"], &line["key"], &line["tenant"]), (&json!("INFO"), &json!("ops"), &json!("team")));
        assert_eq!(line["worker"], json!(added.url()));
    }
    let state = |line: &Value, field: &str| {
        let shown: Value = serde_json::from_str(line[field].as_str().unwrap_or_default()).expect("is JSON");
        (shown["state"].clone(), shown["has_api_key"].clone())
    };
    assert_eq!(audit[0]["before"], "null");
    assert_eq!(state(&audit[1], "before"), (json!("ready"), json!(true)));
    assert_eq!(state(&audit[1], "after"), (json!("draining"), json!(true)));
    assert_eq!(audit[2]["after"], "null");
    node.shutdown().await;
}
