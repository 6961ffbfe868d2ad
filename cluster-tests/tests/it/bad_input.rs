//! Clients that send what nobody should.

use cluster_tests::Client;
use cluster_tests::Step;
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
        ("/v1/chat/completions", "\u{feff}{}", 400),
        ("/v1/chat/completions", "{}{}", 400),
        ("/v1/chat/completions", "{'model':'m'}", 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"temperature":NaN}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"x":"\ud8"}"#, 400),
        ("/v1/chat/completions", "{\"model\":\"m\",\"messages\":[],\"x\":\"\0\"}", 400),
        ("/v1/chat/completions", r#"{"model":null,"messages":null}"#, 400),
        ("/v1/chat/completions", r#"{"model":["m"],"messages":[]}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":[null]}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m","messages":[],"stream":true,"stream_options":[]}"#, 400),
        ("/v1/chat/completions", r#"{"model":"m\u0000\r\nx: y","messages":[]}"#, 404),
        ("/v1/completions", r#"{"model":"m"}"#, 400),
        ("/v1/completions", r#"{"model":"m","prompt":{"a":1}}"#, 400),
        ("/v1/completions", r#"{"model":"m","prompt":[99999999999]}"#, 400),
        ("/v1/responses", r#"{"model":"m","input":7}"#, 400),
        ("/v1/rerank", "[]", 400),
        ("/v1/tokenize", "{", 400),
        ("/generate", "{}", 400),
        ("/v1/chat/completions/", "{}", 404),
        ("/v1/../v1/chat/completions", "{}", 404),
        ("/V1/CHAT/COMPLETIONS", "{}", 404),
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
async fn odd_methods_and_targets_are_refused_and_nothing_falls_over() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for (line, status) in [
        ("DELETE /v1/chat/completions", 405),
        ("GET /v1/chat/completions", 405),
        ("OPTIONS /v1/chat/completions", 405),
        ("TRACE /v1/chat/completions", 405),
        ("BREW /v1/chat/completions", 405),
        ("PATCH /v1/models", 405),
        ("PUT /workers/w-1", 405),
        ("OPTIONS *", 404),
        ("CONNECT example.com:443", 404),
        ("GET http://other/nothing", 404),
        ("GET //v1/models", 404),
        ("GET /workers/..%2f..%2fetc%2fpasswd", 404),
        ("GET /workers/%00%ff%0d%0ax:y", 404),
        ("GET /v1/models/%e2%80%ae", 404),
    ] {
        let mut client = Client::connect(node.address).await;
        client.send(format!("{line} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{line} {}", answer.text());
        assert!(answer.json()["error"]["message"].is_string(), "{line} {}", answer.text());
        assert!(status != 405 || answer.head.contains("allow: "), "RFC 9110 15.5.6: {}", answer.head);
        assert!(
            !line.starts_with("PUT") || answer.text().contains("takes GET, PATCH, DELETE, not"),
            "{}",
            answer.text()
        );
    }
    let mut head = Client::connect(node.address).await;
    head.send(b"HEAD /health HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
    assert!(head.read_until("\r\n\r\n").await && head.is_closed().await);
    assert!(head.unread().starts_with("HTTP/1.1 200") && head.unread().ends_with("\r\n\r\n"), "{}", head.unread());
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn http_1_0_gets_whole_answers_and_streams_that_end_with_the_connection() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.script(vec![Step::stream_head(), Step::content("a"), Step::end()]);
    for (is_stream, end) in [(true, "data: [DONE]\n\n"), (false, "}}")] {
        let mut client = Client::connect(node.address).await;
        let body = chat("hi", is_stream);
        let len = body.len();
        client
            .send(format!("POST /v1/chat/completions HTTP/1.0\r\ncontent-length: {len}\r\n\r\n{body}").as_bytes())
            .await;
        assert!(client.is_closed().await);
        let text = client.unread();
        assert!(text.starts_with("HTTP/1.0 200") && text.ends_with(end) && !text.contains("chunked"), "{text}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_packed_body_is_refused_before_it_is_unpacked() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for (encoding, status) in [("gzip", 415), ("br, gzip", 415), ("identity", 200)] {
        let mut client = Client::connect(node.address).await;
        let header = format!("content-encoding: {encoding}\r\n");
        client.start_post("/v1/chat/completions", &header, &chat("hi", false)).await;
        let answer = client.answer().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(status == 200 || answer.json()["error"]["code"] == "unsupported_encoding", "{}", answer.text());
    }
    assert_eq!(worker.requests().len(), 1);
    node.shutdown().await;
}

#[tokio::test]
async fn many_messages_and_wide_objects_are_only_long() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let message = r#"{"role":"user","content":"x"}"#;
    let many = format!(r#"{{"model":"m","messages":[{}{message}]}}"#, format!("{message},").repeat(20_000));
    let wide: String = (0..20_000).map(|it| format!("\"k{it}\":{it},")).collect();
    let wide = format!(r#"{{{wide}"model":"m","messages":[],"big":1e999,"surrogate":"\ud800"}}"#);
    for body in [many, wide] {
        let answer = Client::connect(node.address).await.post("/v1/chat/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(worker.requests().pop().expect("passed on").ends_with(&body));
    }
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
