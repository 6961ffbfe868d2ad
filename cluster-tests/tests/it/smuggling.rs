//! Framing that two servers could read differently (CHAOS: request smuggling and desync, header and URI bombs).
//!
//! The table sends each attempt with a second request hidden behind it. Whatever the answer, nothing may reach a worker
//! that was not a request by the book, and a connection whose framing is in doubt is closed.

use cluster_tests::Client;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::node;
use smg::node::Node;

const CHAT: &str = "/v1/chat/completions";
const HIDDEN: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: smuggled\r\ncontent-length: 0\r\n\r\n";

/// Sends bytes and gives the answers until the connection is closed.
async fn answers(node: &Node, bytes: &[u8]) -> Vec<cluster_tests::Answer> {
    let mut client = Client::connect(node.address).await;
    client.send(bytes).await;
    let mut answers = Vec::new();
    while client.read_until("\r\n\r\n").await {
        answers.push(client.answer().await);
    }
    answers
}

#[tokio::test]
async fn doubtful_framing_is_refused_in_our_schema_and_the_connection_closed() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for head in [
        "host: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        "host: t\r\ncontent-length: 5, 6\r\n",
        "host: t\r\ncontent-length: +5\r\n",
        "host: t\r\ncontent-length: -1\r\n",
        "host: t\r\ncontent-length: 0x5\r\n",
        "host: t\r\ncontent-length: 99999999999999999999999\r\n",
        "host: t\r\ncontent-length : 5\r\n",
        "host: t\r\ncontent-length: 5\r\n x: folded\r\n",
        "host: t\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "host: t\r\ntransfer-encoding: xchunked\r\n",
        "host: t\r\ntransfer-encoding: chunked, identity\r\n",
        "host: t\r\ntransfer-encoding:\r\n",
        "host: t\r\nx-a: b\rx-c: d\r\n",
        "host: t\r\nx-a: b\0c\r\n",
        "host: t\r\nx a: b\r\n",
        "host: t\r\n: b\r\n",
        "host: t\r\nhost: u\r\n",
        "x-no-host: t\r\n",
    ] {
        let request = format!("POST {CHAT} HTTP/1.1\r\n{head}\r\n{HIDDEN}");
        let got = answers(&node, request.as_bytes()).await;
        let [answer] = &got[..] else { panic!("{head:?}: {} answers", got.len()) };
        assert!(answer.status == 400 && answer.head.contains("connection: close"), "{head:?}: {}", answer.head);
        let error = answer.json()["error"].clone();
        assert!(error["code"] == "invalid_http" && error["type"] == "invalid_request_error", "{head:?} {error}");
    }
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn request_lines_that_are_none_are_refused_too() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for line in [
        "GET /health HTTP/2.0",
        "GET /health HTTP/1.9",
        "GET /health HTTQ/1.1",
        "GET  /health HTTP/1.1",
        "G\x00T /health HTTP/1.1",
        "GET /he\x01alth HTTP/1.1",
        "GET /health",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c",
    ] {
        let got = answers(&node, format!("{line}\r\nhost: t\r\n\r\n{HIDDEN}").as_bytes()).await;
        assert!(got.len() <= 1, "{line:?}: {} answers", got.len());
        assert!(got.iter().all(|it| it.status == 400 && it.json()["error"]["code"] == "invalid_http"), "{line:?}");
    }
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn length_and_chunks_together_are_read_as_chunks_and_nothing_after_them() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let body = chat("hi", false);
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for head in
        ["transfer-encoding: chunked\r\ncontent-length: 4\r\n", "content-length: 4\r\ntransfer-encoding: chunked\r\n"]
    {
        let request = format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\n{head}\r\n{chunked}{HIDDEN}");
        let got = answers(&node, request.as_bytes()).await;
        assert_eq!(got.iter().map(|it| it.status).collect::<Vec<_>>(), [200], "RFC 9112 6.1: one answer, then closed");
    }
    let seen = worker.requests();
    assert_eq!(seen.len(), 2);
    for request in seen {
        let expected = format!("content-length: {}\r\n", body.len());
        assert!(
            request.contains(&expected) && !request.to_ascii_lowercase().contains("transfer-encoding"),
            "{request}"
        );
        assert!(request.ends_with(&body), "{request}");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn chunks_that_are_not_by_the_book_never_make_a_body() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for chunks in [
        "5\n{\"a\":\n0\n\n",
        "5\r\n{\"a\":1}\r\n0\r\n\r\n",
        "0x5\r\n{\"a\":\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
        "g\r\nabcde\r\n0\r\n\r\n",
        "2;a=\"\n\"\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
    ] {
        let request = format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{chunks}{HIDDEN}");
        let got = answers(&node, request.as_bytes()).await;
        assert!(got.len() <= 1 && got.iter().all(|it| it.status == 400), "{chunks:?}: {}", got.len());
    }
    let long = format!("2;{}\r\n{{}}\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let request = format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n{long}{HIDDEN}");
    assert!(
        answers(&node, request.as_bytes()).await.iter().all(|it| it.status == 400),
        "a chunk extension has a bound"
    );
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn a_line_feed_alone_ends_a_line_of_a_head_and_means_the_same_to_the_worker() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let body = chat("hi", false);
    let request = format!("POST {CHAT} HTTP/1.1\nhost: t\nconnection: close\ncontent-length: {}\n\n{body}", body.len());
    let got = answers(&node, request.as_bytes()).await;
    assert_eq!(got.iter().map(|it| it.status).collect::<Vec<_>>(), [200], "RFC 9112 2.2 allows it");
    let seen = &worker.requests()[0];
    assert!(seen.lines().count() == seen.matches("\r\n").count() + 1 && seen.ends_with(&body), "{seen:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let (first, second) = (chat("first", false), chat("second", false));
    let post = |body: &str, more: &str| {
        format!("POST {CHAT} HTTP/1.1\r\nhost: t\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
    };
    let both = format!("{}{}", post(&first, ""), post(&second, "connection: close\r\n"));
    assert_eq!(answers(&node, both.as_bytes()).await.len(), 2);
    assert_eq!((worker.body(0), worker.body(1)), (first, second));
    node.shutdown().await;
}

#[tokio::test]
async fn header_and_url_bombs_are_refused_in_our_schema_and_others_are_served() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let lines = |count: usize| "x-a: b\r\n".repeat(count);
    for (bomb, status, code) in [
        (format!("GET /health HTTP/1.1\r\nhost: t\r\n{}\r\n", lines(5000)), 431, "head_too_large"),
        (format!("GET /health HTTP/1.1\r\nhost: t\r\n{}\r\n", lines(150)), 431, "head_too_large"),
        (format!("GET /health HTTP/1.1\r\nhost: t\r\nx-a: {}\r\n\r\n", "b".repeat(1 << 20)), 431, "head_too_large"),
        (format!("GET /health HTTP/1.1\r\nhost: t\r\n{}: b\r\n\r\n", "b".repeat(70_000)), 431, "head_too_large"),
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(65_535)), 414, "url_too_long"),
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(1 << 20)), 431, "head_too_large"),
        (format!("GET /{} HTTP/1.1\r\nhost: t\r\n\r\n", "a".repeat(60_000)), 404, "unknown_url"),
    ] {
        let mut client = Client::connect(node.address).await;
        client.send(bomb.as_bytes()).await;
        let answer = client.answer().await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, error["code"].clone()), (status, code.into()), "{bomb:.40}");
        assert!(answer.body.len() < 1024, "an answer does not repeat a bomb");
        assert!(status == 404 || client.is_closed().await);
    }
    assert_eq!(Client::connect(node.address).await.get("/health").await.status, 200, "others are served");
    node.shutdown().await;
}
