//! Limits of keys, tenants and models at the edge of one node that leads its own group: who is refused, where, in which words, and what is told to those who are not.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::Answer;
use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::eventually;
use cluster_tests::node;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::api::routes::ROUTES;
use smg::api::routes::Serve;
use smg::base::setting::Setting as _;
use smg::node::Node;
use smg::tenancy::limit_spec::LimitSpec;
use tempfile::TempDir;

use super::mesh::meshed;
use super::tenants::call;

/// A group of one, then a share. Many times what it takes.
const DIVIDED: Duration = Duration::from_secs(30);

/// A node with one worker of the model `org/m`, which answers whatever it is asked.
async fn start(limits: &[&str]) -> (Node, Upstream, TempDir) {
    let worker = Upstream::serving("one", "org/m", ([127, 0, 0, 1], 0).into()).await;
    worker.always(Step::completion("hi"));
    let data = tempfile::tempdir().expect("a directory");
    let mut config = meshed(data.path(), 0, &[], &[]);
    config.workers.urls = vec![worker.url()];
    config.tenancy.limits = limits.iter().map(|it| LimitSpec::parse(it).expect("a limit")).collect();
    (node(config).await, worker, data)
}

/// Any model request: it has the fields of all of them.
fn body() -> Value {
    json!({"model": "org/m", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi", "text": "hi", "query": "q",
        "documents": ["d"], "tokens": [1], "max_tokens": 4})
}

async fn chat(node: SocketAddr, key: &str) -> Answer {
    call(node, "POST", "/v1/chat/completions", key, &body()).await
}

/// Sets one limit and waits until this node holds it.
async fn limit(node: SocketAddr, path: &str, what: &str, limit: u64) {
    let body = json!({"limits": [{"what": what, "per": "minute", "limit": limit}]});
    let answer = call(node, "PATCH", path, "", &body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    held(node, path, what, limit).await;
}

async fn held(node: SocketAddr, path: &str, what: &str, limit: u64) {
    let share = async || {
        let answer = call(node, "GET", path, "", &Value::Null).await.json();
        let limits = answer["limits"].as_array().cloned().unwrap_or_default();
        limits.into_iter().find(|it| it["what"] == what).and_then(|it| it["here"]["share"].as_u64())
    };
    within(&format!("{what} of {path} are divided"), DIVIDED, async || share().await == Some(limit)).await;
}

async fn lift(node: SocketAddr, path: &str, what: &str) {
    let body = json!({"limits": [{"what": what, "per": "minute", "limit": null}]});
    assert_eq!(call(node, "PATCH", path, "", &body).await.status, 200);
}

async fn add_key(node: SocketAddr, name: &str) -> (String, String) {
    let made = call(node, "POST", "/keys", "", &json!({"name": name, "tenant": "team"})).await.json();
    let text = |field: &str| made[field].as_str().expect("is told").to_owned();
    (format!("/keys/{}", text("id")), text("key"))
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let mut lines = answer.head.lines().filter_map(|it| it.split_once(": "));
    lines.find(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1.trim())
}

fn number(answer: &Answer, name: &str) -> u64 {
    let value = header(answer, name).unwrap_or_else(|| panic!("no {name}: {:?}", answer.head));
    value.trim_end_matches('s').parse().expect("a number")
}

#[tokio::test]
async fn a_limit_of_a_model_holds_at_every_endpoint_that_costs_and_needs_no_key() {
    let (node, worker, _data) = start(&["model:org/m:requests:minute:0"]).await;
    let at = node.address;
    held(at, "/models/org%2Fm", "requests", 0).await;
    let models = ROUTES.iter().filter(|it| matches!(it.serve, Serve::Model(_) | Serve::Kept(_)));
    let mut paths = 0;
    for route in models {
        // What means nothing there is refused by name, where it is not passed on.
        let kept = json!({"model": "org/m", "input": "hi"});
        let body = if matches!(route.serve, Serve::Kept(_)) { kept } else { body() };
        let answer = call(at, route.method, route.path, "", &body).await;
        assert_eq!(answer.status, 429, "{}: {}", route.path, answer.text());
        let text = answer.text();
        assert!(text.contains("the limit of model `org/m` is 0 requests per minute"), "{}: {text}", route.path);
        paths += 1;
    }
    assert!(paths >= 12, "{paths} endpoints");
    assert_eq!(worker.requests(), Vec::<String>::new(), "no worker was asked");
    let later = json!({"limits": [{"what": "tokens", "per": "second", "limit": 5}]});
    let other = call(at, "PATCH", "/models/not-yet-served", "", &later).await;
    assert_eq!(other.status, 200, "it may be limited before it is served");
    let listed = call(at, "GET", "/models", "", &Value::Null).await.json();
    let named =
        |name: &str| listed["models"].as_array().and_then(|it| it.iter().find(|it| it["name"] == name).cloned());
    assert_eq!(named("org/m").expect("is listed")["workers"], 1);
    assert_eq!(named("not-yet-served").expect("is listed")["limits"][0]["limit"], 5);
    assert_eq!(call(at, "DELETE", "/models/org%2Fm", "", &Value::Null).await.status, 200);
    assert_eq!(chat(at, "").await.status, 200, "nothing is limited any more");
    assert_eq!(call(at, "DELETE", "/models/org%2Fm", "", &Value::Null).await.status, 404);
    node.shutdown().await;
}

#[tokio::test]
async fn a_request_takes_from_all_limits_or_from_none_and_is_told_what_is_left() {
    let (node, _worker, _data) = start(&[]).await;
    let at = node.address;
    assert_eq!(call(at, "POST", "/tenants", "", &json!({"name": "team"})).await.status, 201);
    let (path, key) = add_key(at, "app").await;
    let (_, other) = add_key(at, "other").await;
    let answer = chat(at, &key).await;
    assert_eq!((answer.status, header(&answer, "x-ratelimit-limit-requests")), (200, None), "nothing is limited");
    limit(at, &path, "requests", 10).await;
    limit(at, "/tenants/team", "requests", 1000).await;
    limit(at, "/models/org%2Fm", "tokens", 0).await;
    // Whatever the model refuses burns nothing of key and tenant.
    for _ in 0..20 {
        let answer = chat(at, &key).await;
        assert_eq!((answer.status, number(&answer, "x-ratelimit-limit-tokens")), (429, 0), "{}", answer.text());
        assert!(answer.text().contains("request_exceeds_limit") && answer.text().contains("model `org/m`"));
    }
    let tokenized = call(at, "POST", "/v1/tokenize", &other, &body()).await;
    assert_eq!(tokenized.status, 200, "a tokenizer costs a request and no tokens: {}", tokenized.text());
    lift(at, "/models/org%2Fm", "tokens").await;
    let answer = chat(at, &key).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        (number(&answer, "x-ratelimit-limit-requests"), number(&answer, "x-ratelimit-remaining-requests")),
        (10, 9),
        "the key's limit is the tightest, and only what was admitted was taken"
    );
    assert!((1..=60).contains(&number(&answer, "x-ratelimit-reset-requests")));
    // Two windows may be touched.
    let mut admitted = 0;
    for _ in 0..40 {
        let answer = chat(at, &key).await;
        if answer.status == 200 {
            admitted += 1;
            continue;
        }
        let text = answer.text();
        assert!(
            text.contains("rate_limit_exceeded") && text.contains("key `app` has used up its limit of 10 requests"),
            "{text}"
        );
        assert_eq!((answer.status, number(&answer, "x-ratelimit-remaining-requests")), (429, 0));
        assert!(number(&answer, "retry-after") >= 1);
    }
    assert!((9..=20).contains(&admitted), "{admitted} of 10 a minute");
    let answer = chat(at, &other).await;
    assert_eq!(answer.status, 200, "another key of the tenant goes on: {}", answer.text());
    assert_eq!(number(&answer, "x-ratelimit-limit-requests"), 1000);
    eventually("what was spent is shown", async || {
        let shown = call(at, "GET", &path, "", &Value::Null).await.json();
        shown["limits"][0]["here"]["spent"].as_u64().is_some_and(|it| it > admitted)
    })
    .await;
    node.shutdown().await;
}

/// A stream that is open until this is dropped.
async fn stream(node: SocketAddr, key: &str) -> Client {
    let mut body = body();
    body["stream"] = json!(true);
    let (body, mut client) = (body.to_string(), Client::connect(node).await);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(head.as_bytes()).await;
    client
}

#[tokio::test]
async fn streams_hold_their_place_until_they_end_whoever_ends_them() {
    let (node, worker, _data) = start(&[]).await;
    let at = node.address;
    assert_eq!(call(at, "POST", "/tenants", "", &json!({"name": "team"})).await.status, 201);
    let (path, key) = add_key(at, "app").await;
    let answer = call(at, "PATCH", &path, "", &json!({"limits": [{"what": "streams", "limit": 2}]})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let here =
        async |field: &str| call(at, "GET", &path, "", &Value::Null).await.json()["limits"][0]["here"][field].as_u64();
    within("it is divided", DIVIDED, async || here("share").await == Some(2)).await;
    for _ in 0..5 {
        assert_eq!(chat(at, &key).await.status, 200, "what is over is given back at once");
    }
    worker.always(Step::answer("500 Internal Server Error", "", "{}"));
    for _ in 0..5 {
        assert!(chat(at, &key).await.status >= 500, "what fails is, too");
    }
    worker.always(vec![Step::stream_head(), Step::content("a"), Step::WaitForClose]);
    let before = worker.requests().len();
    let (first, second) = (stream(at, &key).await, stream(at, &key).await);
    eventually("both are at the worker", async || worker.requests().len() == before + 2).await;
    assert_eq!((here("in_use").await, here("left").await), (Some(2), Some(0)));
    let refused = chat(at, &key).await;
    let text = refused.text();
    assert!(
        text.contains("rate_limit_exceeded") && text.contains("key `app` has used up its limit of 2 streams at a time"),
        "{text}"
    );
    assert_eq!((refused.status, number(&refused, "x-ratelimit-limit-streams")), (429, 2));
    assert_eq!((number(&refused, "retry-after"), header(&refused, "x-ratelimit-window")), (1, None));
    // Who waits is served when a client leaves.
    let third = stream(at, &key).await;
    drop(first);
    eventually("the third is at the worker", async || worker.requests().len() == before + 3).await;
    drop((second, third));
    eventually("all came back", async || here("in_use").await == Some(0)).await;
    node.shutdown().await;
}
