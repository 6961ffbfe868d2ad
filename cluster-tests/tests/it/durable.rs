//! What the admin API changed survives a restart, and what cannot be kept is said.

use std::path::Path;

use cluster_tests::Client;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use serde_json::Value;
use serde_json::json;
use smg::config::Config;
use smg::node::Node;

/// A node over `directory`. The one before gives the directory up when its last connection is gone.
async fn start(directory: &Path, urls: &[String]) -> Node {
    let mut config: Config = config(&[]);
    config.workers.urls = urls.to_vec();
    config.node.data_dir = Some(directory.display().to_string());
    Node::start(config).await.expect("the node starts")
}

async fn call(node: &Node, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = Client::connect(node.address).await.call(method, path, &body).await;
    (answer.status, answer.json())
}

async fn urls(node: &Node) -> Vec<String> {
    let (_, listed) = call(node, "GET", "/workers", &Value::Null).await;
    let mut urls: Vec<_> = listed["workers"].as_array().expect("a list").iter().map(|it| it["url"].clone()).collect();
    urls.sort_by_key(ToString::to_string);
    urls.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

fn holds(directory: &Path, needle: &[u8]) -> bool {
    let entries = std::fs::read_dir(directory).expect("is read").map(|it| it.expect("an entry").path());
    entries.into_iter().any(|path| {
        if path.is_dir() {
            return holds(&path, needle);
        }
        let bytes = std::fs::read(&path).expect("is read");
        bytes.windows(needle.len()).any(|it| it == needle)
    })
}

#[tokio::test]
async fn workers_of_the_admin_api_survive_a_restart_with_their_keys_sealed_on_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let (kept, gone) = (Upstream::start("kept").await, Upstream::start("gone").await);
    let node = start(directory.path(), &[]).await;
    let added = json!({"url": kept.url(), "api_key": "sk-canary-1", "models": ["m"], "labels": {"zone": "a"}});
    let (status, worker) = call(&node, "POST", "/workers", &added).await;
    assert_eq!((status, &worker["durable"], &worker["source"]), (201, &json!(true), &json!("api")), "{worker}");
    let (_, other) = call(&node, "POST", "/workers", &json!({"url": gone.url(), "models": ["m"]})).await;
    let path = format!("/workers/{}", worker["id"].as_str().expect("an id"));
    let (status, changed) = call(&node, "PATCH", &path, &json!({"api_key": "sk-canary-2", "priority": 7})).await;
    assert_eq!((status, &changed["priority"], &changed["durable"]), (200, &json!(7), &json!(true)), "{changed}");
    let removed = format!("/workers/{}", other["id"].as_str().expect("an id"));
    assert_eq!(call(&node, "DELETE", &removed, &Value::Null).await.1["durable"], true);
    node.shutdown().await;
    assert!(holds(directory.path(), kept.url().as_bytes()), "the worker is in there");
    assert!(!holds(directory.path(), b"sk-canary"), "its keys are not");

    let node = start(directory.path(), &[]).await;
    assert_eq!(urls(&node).await, [kept.url()]);
    let (_, again) = call(&node, "GET", &path, &Value::Null).await;
    assert_eq!(
        (&again["priority"], &again["labels"], &again["has_api_key"]),
        (&json!(7), &json!({"zone": "a"}), &json!(true))
    );
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        kept.requests().iter().any(|it| it.contains("authorization: Bearer sk-canary-2")),
        "the key is opened again"
    );
    node.shutdown().await;
}

#[tokio::test]
async fn a_worker_of_a_flag_that_was_removed_stays_out_until_it_is_posted_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = Upstream::start("one").await;
    let flags = [worker.url()];
    let node = start(directory.path(), &flags).await;
    let (_, listed) = call(&node, "GET", "/workers", &Value::Null).await;
    let id = listed["workers"][0]["id"].as_str().expect("an id");
    assert_eq!(listed["workers"][0]["source"], "config");
    assert_eq!(call(&node, "DELETE", &format!("/workers/{id}"), &Value::Null).await.0, 200);
    node.shutdown().await;

    let node = start(directory.path(), &flags).await;
    let (_, listed) = call(&node, "GET", "/workers", &Value::Null).await;
    assert_eq!((&listed["total"], &listed["suppressed"]), (&json!(0), &json!([worker.url()])));
    assert_eq!(call(&node, "POST", "/workers", &json!({"url": worker.url()})).await.0, 201);
    node.shutdown().await;

    let node = start(directory.path(), &flags).await;
    assert_eq!(urls(&node).await, [worker.url()]);
    node.shutdown().await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_used_is_said_and_the_node_serves_without_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = Upstream::start("one").await;
    let holder = start(directory.path(), &[]).await;
    let file = directory.path().join("file");
    std::fs::write(&file, b"in the way").expect("is written");
    for unusable in [directory.path(), &file] {
        let node = start(unusable, &[]).await;
        let (status, added) = call(&node, "POST", "/workers", &json!({"url": worker.url(), "models": ["m"]})).await;
        assert_eq!((status, &added["durable"]), (201, &json!(false)), "{added}");
        let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        eventually("it is ready", async || call(&node, "GET", "/readiness", &Value::Null).await.0 == 200).await;
        assert_eq!(call(&node, "GET", "/readiness", &Value::Null).await.1["durability"], "unavailable");
        node.shutdown().await;
    }
    assert_eq!(call(&holder, "GET", "/readiness", &Value::Null).await.1["durability"], "on");
    holder.shutdown().await;
}

#[tokio::test]
async fn policies_by_model_are_in_force_at_once_and_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = Upstream::start("one").await;
    let flags = [worker.url()];
    let node = start(directory.path(), &flags).await;
    let route = async |node: &Node| {
        eventually("the model is known", async || {
            call(node, "GET", "/policies", &Value::Null).await.1["served"][0]["model"] == "m"
        })
        .await;
        let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
        answer.head.lines().find_map(|it| it.strip_prefix("x-smg-route: ").map(str::to_owned)).expect("a route")
    };
    assert!(route(&node).await.starts_with("cache_aware;"));
    let rules = json!({"models": [{"model": "m*", "policy": "round_robin"}]});
    let (status, set) = call(&node, "PUT", "/policies", &rules).await;
    assert_eq!((status, &set["source"], &set["durable"]), (200, &json!("api"), &json!(true)), "{set}");
    assert_eq!(set["served"], json!([{"model": "m", "policy": "round_robin"}]));
    assert!(route(&node).await.starts_with("round_robin;"));
    let bad = json!({"models": [{"model": "m", "policy": "best"}]});
    let (status, refused) = call(&node, "PUT", "/policies", &bad).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("refused")), "{refused}");
    node.shutdown().await;

    let node = start(directory.path(), &flags).await;
    assert!(route(&node).await.starts_with("round_robin;"));
    assert_eq!(call(&node, "DELETE", "/policies", &Value::Null).await.1["source"], "config");
    assert!(route(&node).await.starts_with("cache_aware;"));
    node.shutdown().await;
}

/// Every field that is answered is in the document, and every required one is answered.
fn fits(document: &Value, schema: &str, answer: &Value) {
    let schema = &document["components"]["schemas"][schema];
    let parts: Vec<&Value> = match schema["allOf"].as_array() {
        Some(parts) => parts.iter().collect(),
        None => vec![schema],
    };
    let resolved = parts.iter().map(|part| match part["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        Some(name) => &document["components"]["schemas"][name],
        None => part,
    });
    let resolved: Vec<&Value> = resolved.collect();
    for field in answer.as_object().expect("an object").keys() {
        assert!(
            resolved.iter().any(|it| !it["properties"][field].is_null()),
            "not in the document: {field} of {schema}"
        );
    }
    for field in resolved.iter().flat_map(|it| it["required"].as_array().into_iter().flatten()) {
        assert!(!answer[field.as_str().expect("a name")].is_null(), "not answered: {field} of {schema}");
    }
}

#[tokio::test]
async fn answers_of_ours_are_what_the_document_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let worker = Upstream::start("one").await;
    let node = start(directory.path(), &[]).await;
    let (_, document) = call(&node, "GET", "/openapi.json", &Value::Null).await;
    assert_eq!(document["openapi"], "3.1.0");
    let (_, added) = call(&node, "POST", "/workers", &json!({"url": worker.url()})).await;
    fits(&document, "ChangedWorker", &added);
    fits(&document, "ServedModel", &added["models"][0]);
    eventually("it is ready", async || call(&node, "GET", "/readiness", &Value::Null).await.0 == 200).await;
    let path = format!("/workers/{}", added["id"].as_str().expect("an id"));
    for (method, path, body, schema) in [
        ("GET", "/workers", Value::Null, "WorkerList"),
        ("GET", path.as_str(), Value::Null, "Worker"),
        ("PATCH", path.as_str(), json!({"draining": false}), "ChangedWorker"),
        ("GET", "/cluster/members", Value::Null, "MemberList"),
        ("GET", "/policies", Value::Null, "Policies"),
        ("PUT", "/policies", json!({"default": "random"}), "Policies"),
        ("GET", "/readiness", Value::Null, "Ready"),
        ("GET", "/health", Value::Null, "Alive"),
        ("GET", "/v1/models", Value::Null, "ModelList"),
        ("GET", "/v1/models/m", Value::Null, "ModelCard"),
        ("GET", "/v1/models/unknown", Value::Null, "Error"),
        ("POST", "/v1/route/explain", json!({"messages": []}), "Explanation"),
        ("DELETE", path.as_str(), Value::Null, "Removed"),
    ] {
        fits(&document, schema, &call(&node, method, path, &body).await.1);
    }
    node.shutdown().await;
}
