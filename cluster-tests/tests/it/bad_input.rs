//! Clients that send what nobody should.

use cluster_tests::Client;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::node;

#[tokio::test]
async fn field_e9_every_refusal_follows_the_schema_and_says_what_to_do() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let deep = format!("{{\"messages\":{}", "[".repeat(100_000));
    for (path, body, status) in [
        ("/v1/chat/completions", "{", 400),
        ("/v1/chat/completions", "[]", 400),
        ("/v1/chat/completions", "", 400),
        ("/v1/chat/completions", deep.as_str(), 400),
        ("/v1/chat/completions", r#"{"model":7,"messages":[]}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":"hi"}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"stream":"yes"}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","model":"n","messages":[]}"#, 400),
        ("/v1/embeddings", r#"{"model":"m"}"#, 400),
        ("/v1/nothing", "{}", 404),
        ("/v1/models", "{}", 405),
        ("/workers", r#"{"url":"file:///etc/passwd"}"#, 400),
        ("/workers", r#"{"uri":"http://a"}"#, 400),
    ] {
        let answer = Client::connect(node.address).await.post(path, body).await;
        let error = &answer.json()["error"];
        assert_eq!(answer.status, status, "{path} {body:.60} {}", answer.text());
        assert!(
            error["message"].is_string() && error["type"].is_string() && error["code"].is_string(),
            "{}",
            answer.text()
        );
    }
    let answer = Client::connect(node.address).await.post("/v1/messages", "{").await;
    assert_eq!(answer.json()["type"], "error", "Anthropic's schema on its endpoints");
    assert!(worker.requests().is_empty(), "none of it reached a worker");
    node.shutdown().await;
}

#[tokio::test]
async fn invalid_utf8_is_refused() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = Client::connect(node.address).await;
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\n{\"a\":\"\xff\"}").await;
    assert_eq!(client.answer().await.status, 400);
    node.shutdown().await;
}

#[tokio::test]
async fn field_c8_long_bodies_pass_and_too_long_ones_get_a_clear_413() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.max_payload_size = smg::base::setting::ByteSize(20 << 20);
    let node = node(config).await;
    for len in [33 << 10, 130 << 10, 10 << 20] {
        let answer =
            Client::connect(node.address).await.post("/v1/chat/completions", &chat(&"x".repeat(len), false)).await;
        assert_eq!(answer.status, 200, "{len}");
    }
    let mut client = Client::connect(node.address).await;
    client.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-length: 30000000\r\n\r\n{").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.json()["error"]["code"].clone()), (413, "request_too_large".into()));
    node.shutdown().await;
}
