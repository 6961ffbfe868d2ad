//! h2 in the clear: streams, resets, goodbyes, and frames that no library would send.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::h2::END_HEADERS;
use cluster_tests::h2::END_STREAM;
use cluster_tests::h2::Frames;
use cluster_tests::h2::H2;
use cluster_tests::h2::fields;
use cluster_tests::h2::kind;
use cluster_tests::node;

const CHAT: &str = "/v1/chat/completions";

/// A well-formed request's fields, and more.
fn request_with(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "GET"), (":scheme", "http"), (":path", "/health"), (":authority", "t")];
    all.extend_from_slice(more);
    fields(&all)
}

fn endless() -> Vec<Step> {
    vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]
}

#[tokio::test]
async fn requests_share_a_connection_and_errors_follow_the_schema() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = H2::connect(node.address).await;
    let answer = client.post(CHAT, &chat("hi", false)).await.expect("answered");
    assert_eq!(answer.status, 200);
    assert!(answer.text().await.expect("whole").contains("\"one\""));
    let answer = client.post(CHAT, "{").await.expect("answered");
    assert_eq!(answer.status, 400);
    assert!(answer.text().await.expect("whole").contains("invalid_json"));
    worker.script(vec![Step::stream_head(), Step::content("a"), Step::end()]);
    let answer = client.post(CHAT, &chat("hi", true)).await.expect("answered");
    assert!(answer.text().await.expect("whole").ends_with("data: [DONE]\n\n"));
    node.shutdown().await;
}

#[tokio::test]
async fn a_preface_in_pieces_is_a_preface_all_the_same() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = Client::connect(node.address).await;
    for piece in ["P", "RI * HTTP/2.0\r\n", "\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        client.send(piece.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    assert!(client.read_some().await);
    assert_eq!(client.unread().as_bytes().get(3), Some(&kind::SETTINGS), "h2 answers with its settings");
    let mut plain = Client::connect(node.address).await;
    for piece in ["P", "OST /health HTTP/1.1\r\nhost: t\r\n\r\n"] {
        plain.send(piece.as_bytes()).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(plain.answer().await.status, 405, "and what only begins like one is HTTP/1.1");
    drop(client);
    node.shutdown().await;
}

#[tokio::test]
async fn p7_a_reset_stream_aborts_its_worker_within_100_ms_and_spares_its_siblings() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut client = H2::connect(node.address).await;
    worker.always(endless());
    let mut left = client.post(CHAT, &chat("left", true)).await.expect("answered");
    let mut kept = client.post(CHAT, &chat("kept", true)).await.expect("answered");
    for stream in [&mut left, &mut kept] {
        assert!(stream.next().await.expect("a piece").expect("good").starts_with(b"data: "));
    }
    let begun = tokio::time::Instant::now();
    drop(left);
    eventually("one worker is told", async || worker.aborts() == 1).await;
    assert!(begun.elapsed() < Duration::from_millis(1000), "ten times the promise: {:?}", begun.elapsed());
    worker.always(Step::completion("fine"));
    assert_eq!(client.post(CHAT, &chat("hi", false)).await.expect("answered").status, 200, "the connection goes on");
    assert_eq!(worker.aborts(), 1, "and so does the sibling");
    drop(kept);
    eventually("the other is told too", async || worker.aborts() == 2).await;
    cluster_tests::idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn p7_a_stream_reset_before_its_head_aborts_too() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.script(vec![Step::WaitForClose]);
    let mut client = H2::connect(node.address).await;
    let body = chat("hi", false);
    let mut asking = Box::pin(client.post(CHAT, &body));
    tokio::select! {
        _ = &mut asking => panic!("nothing answers"),
        () = eventually("the worker has it", async || worker.requests().len() == 1) => {}
    }
    drop(asking);
    eventually("the worker is told", async || worker.aborts() == 1).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_takes_nothing_loses_its_worker_and_its_siblings_nothing() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.client_write_timeout = Duration::from_millis(300);
    let node = node(config).await;
    let mut client = H2::connect(node.address).await;
    let data = serde_json::json!({"choices": [{"index": 0, "delta": {"content": "x".repeat(60_000)}}]}).to_string();
    let Step::Send(chunk) = Step::events(&[&data]) else { unreachable!("a chunk is bytes") };
    worker.script(vec![Step::stream_head(), Step::Flood(chunk, 2_000), Step::end()]);
    let mut stuck = client.post(CHAT, &chat("stuck", true)).await.expect("answered");
    worker.always(endless());
    let mut sibling = client.post(CHAT, &chat("sibling", true)).await.expect("answered");
    assert!(sibling.next().await.expect("a piece").is_ok());
    eventually("the stuck stream's worker is freed", async || worker.aborts() == 1).await;
    worker.always(Step::completion("fine"));
    assert_eq!(client.post(CHAT, &chat("hi", false)).await.expect("answered").status, 200);
    assert_eq!(worker.aborts(), 1, "the sibling is quiet, not stuck");
    let ended = loop {
        match stuck.next().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break "reset",
            None => break "whole",
        }
    };
    assert_eq!(ended, "reset", "what is not whole does not look so");
    drop(sibling);
    node.shutdown().await;
}

#[tokio::test]
async fn p10_a_draining_node_says_goaway_and_finishes_what_is_in_flight() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    let wait = Step::Await(std::sync::Arc::clone(&gate));
    worker.script(vec![Step::stream_head(), Step::content("seen"), wait, Step::content("rest"), Step::end()]);
    let mut client = Frames::connect(node.address).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "t")];
    client.send(kind::HEADERS, END_HEADERS, 1, &fields(&head)).await;
    client.send(kind::DATA, END_STREAM, 1, chat("hi", true).as_bytes()).await;
    assert!(client.next_of(kind::DATA).await.is_some());
    let mut idle = H2::connect(node.address).await;
    assert_eq!(idle.post("/v1/nothing", "").await.expect("answered").status, 404);
    let finished = async {
        assert!(client.next_of(kind::GOAWAY).await.is_some());
        gate.add_permits(1);
        let mut text = Vec::new();
        while let Some(frame) = client.next_of(kind::DATA).await {
            text.extend_from_slice(&frame.payload);
            if frame.flags & END_STREAM > 0 {
                break;
            }
        }
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains("rest") && text.ends_with("data: [DONE]\n\n"), "{text}");
        assert!(idle.ended().await, "the idle connection ends well");
    };
    let begun = tokio::time::Instant::now();
    tokio::join!(node.shutdown(), finished);
    assert!(begun.elapsed() < Duration::from_secs(10), "nothing waited for the drain timeout");
}

#[tokio::test]
async fn an_idle_h2_connection_is_ended_with_goaway() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.keep_alive_timeout = Duration::from_millis(300);
    let node = node(config).await;
    let mut frames = Frames::connect(node.address).await;
    assert!(frames.next_of(kind::GOAWAY).await.is_some());
    drop(frames);
    node.shutdown().await;
}

#[tokio::test]
async fn fields_that_could_become_lines_of_http_1_are_never_answered() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let evil: [&[(&str, &str)]; 7] = [
        &[("x-a", "b\r\nx-smuggled: 1")],
        &[("x-a", "b\nc")],
        &[("x-a", "b\0c")],
        &[("x-a\r\nx-smuggled", "1")],
        &[("X-Upper", "1")],
        &[("transfer-encoding", "chunked")],
        &[("connection", "close")],
    ];
    let path = [(":method", "GET"), (":scheme", "http"), (":path", "/health\r\nx: y"), (":authority", "t")];
    let blocks = evil.iter().map(|more| request_with(more)).chain([fields(&path)]);
    for block in blocks {
        let mut frames = Frames::connect(node.address).await;
        assert!(frames.send(kind::HEADERS, END_STREAM | END_HEADERS, 1, &block).await);
        let refused = loop {
            match frames.next().await.map(|it| it.kind) {
                None | Some(kind::GOAWAY | kind::RST_STREAM) => break true,
                Some(kind::HEADERS) => break false,
                Some(_) => {}
            }
        };
        assert!(refused, "{}", String::from_utf8_lossy(&block));
    }
    let mut frames = Frames::connect(node.address).await;
    frames.send(kind::HEADERS, END_STREAM | END_HEADERS, 1, &request_with(&[])).await;
    assert!(frames.next_of(kind::HEADERS).await.is_some(), "the same without them is answered");
    drop(frames);
    node.shutdown().await;
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_told_never_reaches_a_worker() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let body = chat("hi", false);
    for told in [body.len() - 1, body.len() + 1] {
        let mut frames = Frames::connect(node.address).await;
        let told = told.to_string();
        let head =
            [(":method", "POST"), (":scheme", "http"), (":path", CHAT), (":authority", "t"), ("content-length", &told)];
        frames.send(kind::HEADERS, END_HEADERS, 1, &fields(&head)).await;
        frames.send(kind::DATA, END_STREAM, 1, body.as_bytes()).await;
        assert!(frames.next_of(kind::RST_STREAM).await.is_some());
    }
    assert!(worker.requests().is_empty());
    node.shutdown().await;
}

#[tokio::test]
async fn floods_of_frames_end_their_connection_and_nobody_elses() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    // CONTINUATION without an end (CVE-2024-24549 and its kind).
    let mut frames = Frames::connect(node.address).await;
    frames.send(kind::HEADERS, END_STREAM, 1, &request_with(&[])).await;
    let more = fields(&[("x-a", &"b".repeat(4000))]);
    let mut sent = 0;
    while sent < 10_000 && frames.send(kind::CONTINUATION, 0, 1, &more).await {
        sent += 1;
    }
    assert!(sent < 10_000, "40 MB of one head were taken");
    // Many streams opened and reset at once (rapid reset).
    let mut frames = Frames::connect(node.address).await;
    let mut stream = 1;
    while stream < 200_000 {
        let opened = frames.send(kind::HEADERS, END_STREAM | END_HEADERS, stream, &request_with(&[])).await;
        if !opened || !frames.send(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8]).await {
            break;
        }
        stream += 2;
    }
    assert!(stream < 200_000, "100,000 resets were taken");
    // A field that a table keeps, named again and again (HPACK bomb): the list is bounded as it is unpacked.
    let mut frames = Frames::connect(node.address).await;
    let mut bomb = request_with(&[]);
    bomb.extend_from_slice(&[0x40, 3, b'x', b'-', b'a', 127, 0xa1, 0x1e]);
    bomb.extend_from_slice(&vec![b'b'; 127 + 0x21 + 0x1e * 128]);
    bomb.extend_from_slice(&vec![0x80 | 62; 8000]);
    frames.send(kind::HEADERS, END_STREAM | END_HEADERS, 1, &bomb).await;
    let refused = loop {
        match frames.next().await {
            None => break true,
            Some(frame) if [kind::GOAWAY, kind::RST_STREAM].contains(&frame.kind) => break true,
            Some(frame) if frame.kind == kind::HEADERS => break !frame.payload.contains(&0x88),
            Some(_) => {}
        }
    };
    assert!(refused, "32 MB of fields out of 12 KB");
    assert_eq!(Client::connect(node.address).await.get("/health").await.status, 200, "others are served");
    node.shutdown().await;
}
