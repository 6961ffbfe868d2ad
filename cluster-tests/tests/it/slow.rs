//! Clients that send slowly, read slowly, or do neither: what is waited for, and for how long.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::DEADLINE;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use smg::base::setting::ByteSize;

const CHAT: &str = "/v1/chat/completions";
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

/// A stream that is far longer than what all buffers between worker and client hold together.
fn flood() -> Vec<Step> {
    let data = serde_json::json!({"choices": [{"index": 0, "delta": {"content": "x".repeat(60_000)}}]});
    let Step::Send(chunk) = Step::events(&[&data.to_string()]) else { unreachable!("a chunk is bytes") };
    vec![Step::stream_head(), Step::Flood(chunk, 1_000), Step::end()]
}

#[tokio::test]
async fn a_slow_head_is_told_and_closed_and_a_silent_connection_just_closed() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.head_timeout = SHORT;
    let node = node(config).await;
    let mut nothing = Client::connect(node.address).await;
    assert!(nothing.is_closed().await && nothing.unread().is_empty());
    let mut slow = Client::connect(node.address).await;
    slow.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nx-a: ").await;
    let answer = slow.answer().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (408, "request_timeout".into()));
    assert!(answer.head.contains("connection: close") && slow.is_closed().await);
    node.shutdown().await;
}

#[tokio::test]
async fn a_head_that_drips_byte_by_byte_gains_no_time_by_it() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.head_timeout = SHORT;
    let node = node(config).await;
    let mut slow = Client::connect(node.address).await;
    slow.send(b"GET /health HTTP/1.1\r\nhost: t\r\nx-a: ").await;
    let begun = std::time::Duration::from_millis(20);
    let dripped = async {
        loop {
            slow.send(b"b").await;
            if let Ok(ended) = tokio::time::timeout(begun, slow.read_until("408")).await {
                return ended;
            }
        }
    };
    assert!(tokio::time::timeout(DEADLINE, dripped).await.expect("ended in time"));
    node.shutdown().await;
}

#[tokio::test]
async fn a_connection_between_requests_outlives_the_head_timeout_and_ends_by_its_own() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.head_timeout = Duration::from_millis(50);
    config.server.keep_alive_timeout = Duration::from_secs(1);
    let node = node(config).await;
    let mut client = Client::connect(node.address).await;
    assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200);
    let begun = tokio::time::Instant::now();
    assert!(client.is_closed().await);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(900), "only idle: {waited:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn half_a_body_and_a_body_that_drips_are_ended_with_408() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.body_idle_timeout = SHORT;
    config.server.body_timeout = Duration::from_millis(700);
    let node = node(config).await;
    let mut stalled = Client::connect(node.address).await;
    stalled.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{").await;
    let answer = stalled.answer().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (408, "request_timeout".into()));
    assert!(answer.head.contains("connection: close") && stalled.is_closed().await);

    let mut dripping = Client::connect(node.address).await;
    dripping.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let dripped = async {
        loop {
            dripping.send(b"1\r\n{\r\n").await;
            let soon = Duration::from_millis(50);
            if let Ok(ended) = tokio::time::timeout(soon, dripping.read_until("not complete within")).await {
                return ended;
            }
        }
    };
    assert!(tokio::time::timeout(DEADLINE, dripped).await.expect("ended in time"));
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn a_slow_reader_slows_the_worker_and_is_served_whole() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.script(flood());
    let mut client = Client::narrow(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    assert!(client.read_until("data: ").await);
    // The worker writes until the kernel's buffers on both ways are full, and then not a byte more.
    cluster_tests::settled("the worker is held up", || worker.written()).await;
    assert!(worker.written() < 40 << 20, "{} bytes lie between worker and client", worker.written());
    let answer = client.answer().await;
    assert!(answer.is_complete && answer.text().ends_with("data: [DONE]\n\n"));
    assert!(worker.written() > 55 << 20 && worker.aborts() == 0);
    node.shutdown().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off_and_its_worker_freed() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.client_write_timeout = SHORT;
    config.server.idle_timeout = LONG;
    let node = node(config).await;
    worker.script(flood());
    let mut client = Client::narrow(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    eventually("the worker is told", async || worker.aborts() == 1).await;
    assert!(worker.written() < 40 << 20, "{}", worker.written());
    cluster_tests::idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn over_the_byte_budget_a_request_waits_and_then_gets_503() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.max_payload_size = ByteSize(1 << 20);
    config.server.body_budget = ByteSize(1 << 20);
    config.server.body_budget_wait = SHORT;
    let node = node(config).await;
    let whole = 1 << 20;
    let mut holder = Client::connect(node.address).await;
    holder.send(format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\ncontent-length: {whole}\r\n\r\n{{").as_bytes()).await;
    let mut refused = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
    // The holder's head may be read after the first request's.
    while refused.status == 200 {
        refused = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
    }
    assert_eq!((refused.status, refused.json()["error"]["code"].clone()), (503, "body_budget".into()));
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    // Who waits is served as soon as there is room.
    let mut waiting = Client::connect(node.address).await;
    waiting.start_post(CHAT, "", &chat("hi", false)).await;
    drop(holder);
    assert_eq!(waiting.answer().await.status, 200);
    node.shutdown().await;
}

#[tokio::test]
async fn field_c8_a_body_of_64_mib_arrives_whole_within_a_budget_of_its_size() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    let limit = config.server.max_payload_size;
    assert_eq!(limit, ByteSize(64 << 20), "the default");
    config.server.body_budget = limit;
    let node = node(config).await;
    let long = |len: usize| {
        let (begin, end) = (r#"{"model":"m","messages":[{"role":"user","content":""#, r#""}]}"#);
        format!("{begin}{}{end}", "x".repeat(len - begin.len() - end.len()))
    };
    let body = long(limit.0);
    let answer = Client::connect(node.address).await.post(CHAT, &body).await;
    assert_eq!((answer.status, body.len()), (200, limit.0));
    assert!(worker.body(0) == body, "what arrives is what was sent");
    // One byte more, sent in full by a client that does not look before it is done: the answer reaches it all the same.
    let body = long(limit.0 + 1);
    let answer = Client::connect(node.address).await.post(CHAT, &body).await;
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (413, "request_too_large".into()));
    assert!(answer.json()["error"]["message"].as_str().expect("a message").contains("67108864"));
    assert_eq!(worker.requests().len(), 1);
    node.shutdown().await;
}

#[tokio::test]
async fn expect_100_is_answered_before_the_body_and_not_for_one_too_long() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = Client::connect(node.address).await;
    let body = chat("hi", false);
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: ");
    client.send(format!("{head}{}\r\n\r\n", body.len()).as_bytes()).await;
    assert!(client.read_until("100 Continue\r\n\r\n").await);
    let _interim = client.answer().await;
    client.send(body.as_bytes()).await;
    assert_eq!(client.answer().await.status, 200);
    assert!(!worker.requests()[0].contains("expect:"), "what concerns one connection ends with it");
    let mut client = Client::connect(node.address).await;
    client.send(format!("{head}99999999999\r\n\r\n").as_bytes()).await;
    assert_eq!(client.answer().await.status, 413);
    node.shutdown().await;
}
