//! What workers are waited for: connection, first token, pause, whole request; and what follows for their health.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::DEADLINE;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::in_turn;
use cluster_tests::node;
use cluster_tests::workers;
use smg::config::Config;
use smg::node::Node;
use tokio::net::TcpListener;

const CHAT: &str = "/v1/chat/completions";
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

/// All timeouts long, so that a test shortens the one it is about.
fn patient(mut config: Config) -> Config {
    config.server.first_token_timeout = LONG;
    config.server.idle_timeout = LONG;
    config.server.request_timeout = LONG;
    config.workers.connect_timeout = LONG;
    config
}

/// The status and the code of what a request ends with, streamed or not.
async fn ends_with(node: &Node, is_stream: bool) -> (u16, String) {
    let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", is_stream)).await;
    assert!(answer.is_complete && !answer.text().contains("[DONE]"), "{}", answer.text());
    let last = answer.text().trim_end().rsplit("data: ").next().expect("something").to_owned();
    let error: serde_json::Value = serde_json::from_str(&last).unwrap_or_else(|it| panic!("{it}: {}", answer.text()));
    (answer.status, error["error"]["code"].as_str().expect("a code").to_owned())
}

#[tokio::test]
async fn a_connection_that_is_not_there_in_time_is_a_connect_timeout_and_costs_nothing_beside_another_worker() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let good = Upstream::start("good").await;
    let mut config = patient(in_turn(&[]));
    config.workers.connect_timeout = SHORT;
    let node = Node::start(config).await.expect("starts");
    // It takes the connection and never the handshake.
    let url = format!("https://{}", silent.local_addr().expect("bound"));
    let body = serde_json::json!({"url": url, "models": ["m"]}).to_string();
    assert_eq!(Client::connect(node.address).await.post("/workers", &body).await.status, 201);
    assert_eq!(ends_with(&node, false).await, (504, "connect_timeout".to_owned()));
    let body = serde_json::json!({"url": good.url(), "models": ["m"]}).to_string();
    assert_eq!(Client::connect(node.address).await.post("/workers", &body).await.status, 201);
    for _ in 0..4 {
        assert_eq!(Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await.status, 200);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn no_head_or_no_token_in_time_is_a_first_token_timeout_and_aborts_the_worker() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.first_token_timeout = SHORT;
    let node = node(config).await;
    worker.script(vec![Step::WaitForClose]);
    assert_eq!(ends_with(&node, false).await, (504, "first_token_timeout".to_owned()));
    worker.script(vec![Step::WaitForClose]);
    assert_eq!(ends_with(&node, true).await, (504, "first_token_timeout".to_owned()));
    worker.script(vec![Step::stream_head(), Step::preamble(), Step::WaitForClose]);
    assert_eq!(ends_with(&node, true).await, (504, "first_token_timeout".to_owned()));
    eventually("the worker is told", async || worker.aborts() == 3).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_workers_own_pings_are_no_token() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.first_token_timeout = SHORT;
    let node = node(config).await;
    let ping = Step::chunk(b": ping\n\n");
    let Step::Send(ping) = ping else { unreachable!("a chunk is bytes") };
    let mut steps = vec![Step::stream_head(), Step::preamble()];
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..1000 {
        steps.extend([Step::Send(ping.clone()), Step::Await(std::sync::Arc::clone(&gate))]);
    }
    worker.script(steps);
    let pinging = async {
        loop {
            gate.add_permits(1);
            cluster_tests::lasting(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = ends_with(&node, true) => assert_eq!(ended, (504, "first_token_timeout".to_owned())),
        () = pinging => {}
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_pause_in_the_middle_is_an_idle_timeout() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.idle_timeout = SHORT;
    let node = node(config).await;
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half".to_vec();
    worker.script(vec![Step::Send(half), Step::WaitForClose]);
    assert_eq!(ends_with(&node, false).await, (504, "idle_timeout".to_owned()));
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    assert_eq!(ends_with(&node, true).await, (200, "idle_timeout".to_owned()));
    eventually("the worker is told", async || worker.aborts() == 2).await;
    node.shutdown().await;
}

#[tokio::test]
async fn the_whole_request_has_a_total_timeout_in_every_phase() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.request_timeout = SHORT;
    config.server.stream_keep_alive = Duration::from_millis(100);
    let node = node(config).await;
    worker.script(vec![Step::WaitForClose]);
    assert_eq!(ends_with(&node, false).await, (504, "total_timeout".to_owned()));
    worker.script(vec![Step::WaitForClose]);
    assert_eq!(ends_with(&node, true).await, (200, "total_timeout".to_owned()), "its head was out with a comment");
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    assert_eq!(ends_with(&node, true).await, (200, "total_timeout".to_owned()));
    eventually("the worker is told", async || worker.aborts() == 3).await;
    node.shutdown().await;
}

/// Its head comes before that of the request that takes the only slot, its body after: so its time is over first, and a
/// slot that is free then comes too late for it.
#[tokio::test]
async fn time_in_the_queue_counts_too_and_gives_the_place_back() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.request_timeout = Duration::from_secs(1);
    config.tenancy.max_concurrent_requests = smg::base::setting::AtMost(1);
    config.tenancy.queue_timeout = LONG;
    let node = node(config).await;
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    let (mut queued, mut holder) = (Client::connect(node.address).await, Client::connect(node.address).await);
    let body = chat("hi", false);
    let head =
        format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    queued.send(head.as_bytes()).await;
    assert_eq!(queued.answer().await.status, 100, "its time runs");
    holder.start_post(CHAT, "", &chat("hi", true)).await;
    assert!(holder.read_until("seen").await);
    queued.send(body.as_bytes()).await;
    let (queued, holder) = tokio::join!(queued.answer(), holder.answer());
    assert!(queued.status == 504 && queued.text().contains("total_timeout"), "{}", queued.text());
    assert!(holder.text().contains("total_timeout"), "{}", holder.text());
    assert_eq!(Client::connect(node.address).await.post(CHAT, &body).await.status, 200);
    assert_eq!(worker.requests().len(), 2, "the queued one was never sent");
    cluster_tests::idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn p6_a_worker_that_was_tried_is_never_tried_again() {
    let faults = [
        vec![Step::Close],
        Step::answer("500 Internal Server Error", "", "{}"),
        Step::answer("503 Service Unavailable", "", "{}"),
        vec![Step::stream_head(), Step::preamble(), Step::Close],
        vec![Step::Send(b"NONSENSE\r\n\r\n".to_vec()), Step::Close],
    ];
    for fault in faults {
        let all = [Upstream::start("one").await, Upstream::start("two").await, Upstream::start("three").await];
        let mut config = in_turn(&[&all[0], &all[1], &all[2]]);
        config.routing.retry_max_attempts = 10;
        config.routing.retry_initial_backoff = Duration::from_millis(1);
        let node = node(config).await;
        all.iter().for_each(|it| it.always(fault.clone()));
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", true)).await;
        assert!(answer.status >= 500, "the real status, as no content was sent: {}", answer.head);
        let asked: Vec<_> = all.iter().map(|it| it.requests().len()).collect();
        assert_eq!(asked, [1, 1, 1], "{fault:?}");
        node.shutdown().await;
    }
}

#[tokio::test]
async fn field_d2_retry_after_is_a_pause_and_no_death_and_ends() {
    let (busy, other) = (Upstream::start("busy").await, Upstream::start("other").await);
    let node = node(in_turn(&[&busy, &other])).await;
    busy.script(Step::answer("429 Too Many Requests", "retry-after: 1\r\n", "{}"));
    let mut client = Client::connect(node.address).await;
    let begun = tokio::time::Instant::now();
    while busy.requests().is_empty() {
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200);
    }
    for _ in 0..10 {
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200);
    }
    if begun.elapsed() < Duration::from_millis(900) {
        assert_eq!(busy.requests().len(), 1, "it is left alone for as long as it asked");
    }
    let asked_again = async {
        while busy.requests().len() == 1 {
            assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200);
        }
    };
    tokio::time::timeout(DEADLINE, asked_again).await.expect("it is used again");
    assert!(begun.elapsed() >= Duration::from_millis(900), "not before its time");
    node.shutdown().await;
}

#[tokio::test]
async fn the_breaker_opens_on_failures_and_closes_on_a_success() {
    let (bad, other) = (Upstream::start("bad").await, Upstream::start("other").await);
    let mut config = in_turn(&[&bad, &other]);
    config.workers.breaker_failures = 3;
    config.workers.breaker_open = Duration::from_millis(500);
    let node = node(config).await;
    bad.always(Step::answer("500 Internal Server Error", "", "{}"));
    let state = async |state: &str| workers(&node).await.iter().any(|it| it["state"] == state);
    let mut client = Client::connect(node.address).await;
    while !state("tripped").await {
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200, "nobody notices");
        assert!(bad.requests().len() < 20, "it opens after a few");
    }
    assert!(bad.requests().len() >= 3);
    bad.always(Step::completion("well again"));
    eventually("half-open lets one through, and it closes", async || {
        client.post(CHAT, &chat("hi", false)).await.text().contains("well again")
    })
    .await;
    assert!(!state("tripped").await);
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_falls_silent_is_kept_open_with_comments() {
    let worker = Upstream::start("one").await;
    let mut config = patient(config(&[&worker]));
    config.server.stream_keep_alive = Duration::from_millis(100);
    let node = node(config).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let wait = Step::Await(std::sync::Arc::clone(&gate));
    worker.script(vec![Step::stream_head(), Step::content("seen"), wait, Step::content("rest"), Step::end()]);
    let mut client = Client::connect(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    assert!(client.read_until("seen").await && client.read_until(": keep-alive\n\n").await);
    gate.add_permits(1);
    let text = client.answer().await.text();
    assert!(text.ends_with("data: [DONE]\n\n") && text.matches("keep-alive").count() >= 1, "{text}");
    node.shutdown().await;
}

#[tokio::test]
async fn every_token_is_passed_on_at_once() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let mut steps = vec![Step::stream_head()];
    for index in 0..12 {
        steps.extend([Step::Await(std::sync::Arc::clone(&gate)), Step::content(&format!("token-{index};"))]);
    }
    steps.push(Step::end());
    worker.script(steps);
    let mut client = Client::connect(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    let mut took = Vec::new();
    for index in 0..12 {
        let begun = tokio::time::Instant::now();
        gate.add_permits(1);
        assert!(client.read_until(&format!("token-{index};")).await);
        took.push(begun.elapsed());
    }
    // A busy machine may hold up one; a delayed small packet (44 ms) would hold up every one.
    took.sort();
    assert!(took[6] < Duration::from_millis(20), "{took:?}");
    assert!(took[11] < Duration::from_secs(2), "{took:?}");
    node.shutdown().await;
}
