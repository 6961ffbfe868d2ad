//! The bugs that users of such gateways hit most, each under its number in the field study: those that concern which
//! worker is used, and what is believed of it.

use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::idle;
use cluster_tests::in_turn;
use cluster_tests::node;
use cluster_tests::workers;
use smg::node::Node;
use tokio::sync::Semaphore;

const CHAT: &str = "/v1/chat/completions";

async fn post(node: &Node, path: &str, body: &str) -> cluster_tests::Answer {
    Client::connect(node.address).await.post(path, body).await
}

#[tokio::test]
async fn field_04_a_removed_worker_finishes_what_it_has_and_gets_nothing_more() {
    let (ghost, other) = (Upstream::start("ghost").await, Upstream::start("other").await);
    let node = node(in_turn(&[&ghost, &other])).await;
    let gate = Arc::new(Semaphore::new(0));
    let wait = Step::Await(Arc::clone(&gate));
    let begin = [Step::stream_head(), Step::content("seen"), wait, Step::content("rest"), Step::end()];
    for worker in [&ghost, &other] {
        worker.script(begin.to_vec());
    }
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", true)).await;
        assert!(client.read_until("seen").await);
        streams.push(client);
    }
    assert_eq!((ghost.requests().len(), other.requests().len()), (1, 1));
    let listed = workers(&node).await;
    let id =
        listed.iter().find(|it| it["url"] == ghost.url()).expect("listed")["id"].as_str().expect("an id").to_owned();
    let mut client = Client::connect(node.address).await;
    client.send(format!("DELETE /workers/{id} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer().await.status, 200);
    for _ in 0..10 {
        assert_eq!(post(&node, CHAT, &chat("hi", false)).await.status, 200);
    }
    assert_eq!(ghost.requests().len(), 1);
    gate.add_permits(2);
    for mut client in streams {
        let answer = client.answer().await;
        assert!(answer.is_complete && answer.text().contains("rest"), "{}", answer.text());
    }
    node.shutdown().await;
}

#[tokio::test]
async fn field_04_an_address_taken_over_by_another_model_gets_no_request_for_the_old_one() {
    let (old, other) = (Upstream::start("old").await, Upstream::start("other").await);
    let mut config = in_turn(&[&old, &other]);
    config.workers.probe_interval = Duration::from_millis(40);
    let node = node(config).await;
    let address = old.address();
    old.kill().await;
    let new = Upstream::serving("new", "n", address).await;
    let models = async || Client::connect(node.address).await.get("/v1/models").await.text();
    eventually("the new model is known", async || models().await.contains("\"n\"")).await;
    let before = new.requests().len();
    for _ in 0..10 {
        assert_eq!(post(&node, CHAT, &chat("hi", false)).await.json()["choices"][0]["message"]["content"], "other");
    }
    assert_eq!(new.requests().len(), before);
    let answer = post(&node, CHAT, r#"{"model":"n","messages":[]}"#).await;
    assert_eq!(answer.json()["choices"][0]["message"]["content"], "new");
    node.shutdown().await;
}

#[tokio::test]
async fn field_05_bad_requests_open_no_breaker_and_a_dead_affine_worker_costs_nobody() {
    let (first, second) = (Upstream::start("first").await, Upstream::start("second").await);
    let node = node(config(&[&first, &second])).await; // cache_aware: a prompt goes back to who has it
    let bad = Step::answer("400 Bad Request", "", r#"{"error":{"message":"no"}}"#);
    [&first, &second].iter().for_each(|it| it.always(bad.clone()));
    let mut client = Client::connect(node.address).await;
    for _ in 0..200 {
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 400);
    }
    assert!(workers(&node).await.iter().all(|it| it["state"] == "ready"));
    first.always(Step::completion("first"));
    second.always(Step::completion("second"));
    let long = chat(&"the same beginning ".repeat(500), false);
    let holder = client.post(CHAT, &long).await.json()["choices"][0]["message"]["content"].clone();
    for _ in 0..5 {
        assert_eq!(client.post(CHAT, &long).await.json()["choices"][0]["message"]["content"], holder, "affine");
    }
    let (dead, alive) = if holder == "first" { (first, second) } else { (second, first) };
    dead.kill().await;
    for _ in 0..50 {
        assert_eq!(client.post(CHAT, &long).await.status, 200);
    }
    assert!(alive.requests().len() >= 50);
    node.shutdown().await;
}

#[tokio::test]
async fn field_05_saturation_is_no_death_and_a_400_closes_no_breaker() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.breaker_failures = 3;
    config.workers.breaker_open = Duration::from_millis(200);
    let node = node(config).await;
    let mut client = Client::connect(node.address).await;
    let state = async || workers(&node).await[0]["state"].clone();
    worker.always(Step::answer("503 Service Unavailable", "retry-after: 1\r\n", "{}"));
    for _ in 0..20 {
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 503);
    }
    assert_eq!(state().await, "paused", "busy, not broken");
    worker.always(Step::completion("fine"));
    eventually("it is asked again", async || client.post(CHAT, &chat("hi", false)).await.status == 200).await;
    assert_eq!(state().await, "ready");
    worker.always(Step::answer("500 Internal Server Error", "", "{}"));
    for _ in 0..5 {
        client.post(CHAT, &chat("hi", false)).await;
    }
    assert_eq!(state().await, "tripped");
    worker.always(Step::answer("400 Bad Request", "", "{}"));
    eventually("half-open", async || state().await == "ready").await;
    assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 400);
    eventually("half-open still", async || state().await == "ready").await;
    // Neither for nor against: one failure is enough to open it again.
    worker.script(Step::answer("500 Internal Server Error", "", "{}"));
    client.post(CHAT, &chat("hi", false)).await;
    assert_eq!(state().await, "tripped", "a 400 proved nothing");
    node.shutdown().await;
}

#[tokio::test]
async fn field_05_a_refusal_inside_a_stream_is_passed_on_and_counts_against_nobody() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.breaker_failures = 3;
    let node = node(config).await;
    let openai = r#"{"error":{"message":"no such grammar","type":"BadRequestError","code":400}}"#;
    let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"no such tool"}}"#;
    for (path, body, data) in [
        (CHAT, chat("hi", true), openai),
        ("/v1/messages", r#"{"model":"m","stream":true,"messages":[]}"#.to_owned(), anthropic),
    ] {
        worker.always(vec![Step::stream_head(), Step::events(&[data, "[DONE]"]), Step::Send(b"0\r\n\r\n".to_vec())]);
        for _ in 0..10 {
            let answer = post(&node, path, &body).await;
            assert_eq!((answer.status, answer.text()), (200, format!("data: {data}\n\n")));
        }
    }
    assert_eq!(worker.requests().len(), 20, "no other worker would say anything else");
    assert_eq!(workers(&node).await[0]["state"], "ready");
    node.shutdown().await;
}

#[tokio::test]
async fn field_11_an_error_inside_a_stream_that_nobody_made_good_comes_in_its_own_words() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let data = r#"{"error":{"message":"out of memory","code":500}}"#;
    worker.always(vec![Step::stream_head(), Step::preamble(), Step::events(&[data]), Step::Close]);
    let answer = post(&node, CHAT, &chat("hi", true)).await;
    assert_eq!((answer.status, answer.text()), (502, data.to_owned()));
    node.shutdown().await;
}

#[tokio::test]
async fn field_06_load_returns_to_zero_whatever_happened() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.idle_timeout = Duration::from_millis(100);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n".to_vec();
    let ends = [
        Step::completion("fine"),
        vec![Step::Close],
        vec![Step::Send(head), Step::Close],
        vec![Step::stream_head(), Step::Close],
        vec![Step::stream_head(), Step::content("a"), Step::WaitForClose],
        vec![Step::stream_head(), Step::content("a"), Step::end()],
        Step::answer("500 Internal Server Error", "", "{}"),
        Step::answer("204 No Content", "", ""),
    ];
    for end in ends {
        for is_stream in [false, true] {
            worker.script(end.clone());
            post(&node, CHAT, &chat("hi", is_stream)).await;
        }
    }
    idle(&node).await;
    // Replaced while it works: the new entry begins at nothing, and nothing is counted for it that was another's.
    let gate = Arc::new(Semaphore::new(0));
    worker.script([Step::Await(Arc::clone(&gate))].into_iter().chain(Step::completion("late")).collect());
    let before = worker.requests().len();
    let mut client = Client::connect(node.address).await;
    client.start_post(CHAT, "", &chat("hi", false)).await;
    eventually("the worker has it", async || worker.requests().len() > before).await;
    let id = workers(&node).await[0]["id"].as_str().expect("an id").to_owned();
    let mut admin = Client::connect(node.address).await;
    admin.send(format!("DELETE /workers/{id} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
    assert_eq!(admin.answer().await.status, 200);
    let body = serde_json::json!({"url": worker.url()}).to_string();
    assert_eq!(post(&node, "/workers", &body).await.status, 201);
    gate.add_permits(1);
    assert_eq!(client.answer().await.status, 200);
    idle(&node).await;
    assert_eq!(post(&node, CHAT, &chat("hi", false)).await.status, 200);
    idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn field_11_when_every_worker_fails_before_content_the_status_is_real() {
    let (first, second) = (Upstream::start("first").await, Upstream::start("second").await);
    let node = node(in_turn(&[&first, &second])).await;
    for (fault, status) in [
        (vec![Step::Close], 502),
        (vec![Step::stream_head(), Step::preamble(), Step::Close], 502),
        (Step::answer("500 Internal Server Error", "", r#"{"theirs":1}"#), 500),
        (Step::answer("503 Service Unavailable", "retry-after: 3\r\n", r#"{"theirs":1}"#), 503),
    ] {
        [&first, &second].iter().for_each(|it| it.always(fault.clone()));
        let answer = post(&node, CHAT, &chat("hi", true)).await;
        assert!(answer.status == status && !answer.text().contains("data:"), "{}\n{}", answer.head, answer.text());
        assert!(answer.json().is_object());
    }
    node.shutdown().await;
}
