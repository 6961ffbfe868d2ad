//! TLS on both sides, with a private authority, and h2 to workers.

use cluster_tests::Client;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::h2::H2;
use cluster_tests::tls::Authority;
use cluster_tests::tls::TlsWorker;
use smg::config::Config;
use smg::node::Node;

const CHAT: &str = "/v1/chat/completions";

/// A configuration that serves TLS with a certificate of `authority`.
fn with_tls(mut config: Config, authority: &Authority) -> Config {
    config.server.tls_cert_path = Some(authority.certificate_path().to_string_lossy().into_owned());
    config.server.tls_key_path = Some(authority.key_path().to_string_lossy().into_owned());
    config
}

/// A node before TLS workers that trusts `authority`, once it knows their model.
async fn before(workers: &[&TlsWorker], authority: Option<&Authority>) -> Node {
    let mut config = config(&[]);
    config.workers.urls = workers.iter().map(|it| it.url()).collect();
    config.workers.ca_path = authority.map(|it| it.root_path().to_string_lossy().into_owned());
    cluster_tests::node(config).await
}

#[tokio::test]
async fn clients_speak_tls_with_http_1_and_with_h2() {
    let (authority, worker) = (Authority::new(), Upstream::start("one").await);
    let node = Node::start(with_tls(config(&[&worker]), &authority)).await.expect("starts");
    eventually("it is ready", async || {
        let stream = authority.connect(node.address, &["http/1.1"]).await.expect("a handshake");
        Client::over(stream).get("/readiness").await.status == 200
    })
    .await;
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = authority.connect(node.address, alpn).await.expect("a handshake");
        let mut client = Client::over(stream);
        for _ in 0..3 {
            assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200);
        }
    }
    let stream = authority.connect(node.address, &["h2", "http/1.1"]).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "h2 is preferred");
    let mut client = H2::over(stream).await;
    assert_eq!(client.post(CHAT, &chat("hi", false)).await.expect("answered").status, 200);
    node.shutdown().await;
    assert!(client.ended().await, "the connection ends well");
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_or_speaks_in_the_clear_costs_nothing() {
    let (authority, stranger, worker) = (Authority::new(), Authority::new(), Upstream::start("one").await);
    let mut config = with_tls(config(&[&worker]), &authority);
    config.server.head_timeout = std::time::Duration::from_millis(300);
    let node = Node::start(config).await.expect("starts");
    assert!(stranger.connect(node.address, &[]).await.is_err());
    let mut clear = Client::connect(node.address).await;
    clear.send(b"GET /health HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(clear.is_closed().await && !clear.unread().contains("200"));
    let mut silent = Client::connect(node.address).await;
    assert!(silent.is_closed().await, "a handshake has a deadline");
    node.shutdown().await;
}

#[tokio::test]
async fn a_bad_head_inside_tls_is_told_so() {
    let (authority, worker) = (Authority::new(), Upstream::start("one").await);
    let node = Node::start(with_tls(config(&[&worker]), &authority)).await.expect("starts");
    let mut client = Client::over(authority.connect(node.address, &["http/1.1"]).await.expect("a handshake"));
    client.send(b"GET /health HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.answer().await.json()["error"]["code"], "invalid_http");
    let mut client = Client::over(authority.connect(node.address, &["http/1.1"]).await.expect("a handshake"));
    client.send(format!("GET /health HTTP/1.1\r\nx-a: {}\r\n\r\n", "b".repeat(1 << 20)).as_bytes()).await;
    assert_eq!(client.answer().await.json()["error"]["code"], "head_too_large");
    node.shutdown().await;
}

#[tokio::test]
async fn a_worker_of_a_private_authority_is_spoken_to_over_h2_where_it_can() {
    let authority = Authority::new();
    for (alpn, version) in [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")] {
        let worker = TlsWorker::start(&authority, alpn).await;
        let node = before(&[&worker], Some(&authority)).await;
        let mut client = Client::connect(node.address).await;
        for _ in 0..3 {
            let answer = client.post(CHAT, &chat("hi", false)).await;
            assert_eq!(answer.json()["choices"][0]["message"]["content"], version, "{}", answer.text());
        }
        assert_eq!((worker.requests(), worker.connections()), (3, 1), "one connection for all");
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_worker_of_a_stranger_is_not_spoken_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let worker = TlsWorker::start(&stranger, &["h2"]).await;
    let mut config = config(&[]);
    config.workers.urls = vec![worker.url()];
    config.workers.ca_path = Some(authority.root_path().to_string_lossy().into_owned());
    let node = Node::start(config).await.expect("starts");
    eventually("the worker is seen to be away", async || {
        cluster_tests::workers(&node).await[0]["state"] == "not_ready"
    })
    .await;
    let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
    assert_eq!((answer.status, worker.requests()), (503, 0), "{}", answer.text());
    node.shutdown().await;
}

#[tokio::test]
async fn p7_over_h2_to_a_worker_one_abort_resets_one_stream() {
    let authority = Authority::new();
    let worker = TlsWorker::start(&authority, &["h2"]).await;
    let node = before(&[&worker], Some(&authority)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", true)).await;
        assert!(client.read_until("seen").await);
        clients.push(client);
    }
    assert_eq!((worker.open(), worker.connections()), (3, 1), "three streams on one connection");
    let begun = tokio::time::Instant::now();
    drop(clients.pop());
    eventually("its stream is reset", async || worker.open() == 2).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "ten times the promise: {:?}", begun.elapsed());
    let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
    assert_eq!((answer.status, worker.open(), worker.connections()), (200, 2, 1), "the siblings go on");
    drop(clients);
    eventually("all are reset", async || worker.open() == 0).await;
    cluster_tests::idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_hundred_and_fifty_streams_to_an_h2_worker_wait_for_nobody() {
    let authority = Authority::new();
    let worker = TlsWorker::start(&authority, &["h2"]).await;
    let node = before(&[&worker], Some(&authority)).await;
    let mut clients = Vec::new();
    for turn in 0..150 {
        let mut client = Client::connect(node.address).await;
        client.start_post(CHAT, "", &chat("hi", true)).await;
        if turn == 0 {
            assert!(client.read_until("seen").await);
        }
        clients.push(client);
    }
    for client in &mut clients {
        assert!(client.read_until("seen").await);
    }
    assert!(worker.open() == 150 && worker.connections() < 150, "{} connections", worker.connections());
    drop(clients);
    node.shutdown().await;
}
