//! Each fault does what it is named after, seen as bytes.

use std::io::ErrorKind;

use super::wire::unchunk;
use super::*;

/// Sends a stream request with `fault` and returns the bytes and how the connection ended.
async fn play(fault: &str) -> (String, std::io::Result<()>) {
    let (bytes, end) = play_bytes(fault).await;
    (String::from_utf8_lossy(&bytes).into_owned(), end)
}

async fn play_bytes(fault: &str) -> (Vec<u8>, std::io::Result<()>) {
    let (worker, _tasks) = start(Options::default());
    let mut client = Client::connect(&worker).await;
    client.send(PATH, STREAM, &format!("x-sim-fault: {fault}\r\n")).await;
    let (bytes, end) = client.drain().await;
    assert_eq!(worker.snapshot().faults, 1);
    (bytes, end)
}

fn events(text: &str) -> usize {
    text.matches("data: ").count()
}

#[tokio::test]
async fn a_cut_stream_ends_without_its_last_chunk_by_fin_or_reset() {
    let (text, end) = play("cut after=3").await;
    assert!(end.is_ok() && events(&text) == 3 && !text.ends_with("0\r\n\r\n"), "{end:?} {text}");
    let (_, end) = play("cut after=3 how=reset").await;
    assert_eq!(end.expect_err("reset").kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_strikes_before_the_head_or_after_so_many_bytes() {
    let (text, end) = play("reset-before-head").await;
    assert!(text.is_empty() && end.is_err());
    let (text, end) = play("reset-after-bytes bytes=40").await;
    assert!(text.len() <= 40 && end.is_err(), "{text}");
}

#[tokio::test]
async fn what_is_injected_stands_raw_between_the_events() {
    let (text, _) = play("malformed-event after=2").await;
    assert!(text.contains("\"broken\"") && text.ends_with("0\r\n\r\n"));
    let (text, _) = play("bad-chunk after=2").await;
    assert!(text.contains("\r\nzz\r\n") && events(&text) == 2);
    let (text, _) = play("inject after=1 how=cr").await;
    assert!(text.contains("\r\rdata: "));
    let (text, _) = play("inject after=1 how=done").await;
    assert_eq!(text.matches("[DONE]").count(), 2);
    let (text, _) = play("huge-line after=1 bytes=2000000").await;
    assert!(text.len() > 2_000_000 && text.contains("[DONE]"));
}

#[tokio::test]
async fn a_character_split_over_writes_is_whole_in_the_end() {
    let (bytes, _) = play_bytes("inject after=1 how=split-utf8").await;
    let head = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head") + 4;
    let text = String::from_utf8(unchunk(&bytes[head..])).expect("valid once put together");
    assert!(text.contains("\"😀\"") && text.ends_with("[DONE]\n\n"), "{text}");
    let (bytes, _) = play_bytes("inject after=1 how=invalid-utf8").await;
    assert!(String::from_utf8(bytes).is_err());
}

#[tokio::test]
async fn an_error_event_ends_the_stream_as_the_engine_does() {
    let (text, end) = play("error-event after=2").await;
    assert!(end.is_ok() && text.contains("InternalServerError") && text.ends_with("[DONE]\n\n\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn answers_that_break_http_break_it() {
    let (text, _) = play("garbage bytes=64").await;
    assert!(!text.starts_with("HTTP/1.1"));
    let (text, _) = play("continue after=2").await;
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"));
    let (worker, _tasks) = start(Options::default());
    for (fault, off) in [("wrong-length bytes=5", 5), ("wrong-length bytes=5 how=short", -5)] {
        let mut client = Client::connect(&worker).await;
        client.send(PATH, CHAT, &format!("x-sim-fault: {fault}\r\n")).await;
        let text = String::from_utf8(client.drain().await.0).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("head");
        assert!(head.contains(&format!("content-length: {}", body.len() as i64 + off)), "{head}");
    }
}

#[tokio::test]
async fn a_dripped_answer_is_the_same_answer() {
    let (text, end) = play("drip ms=0").await;
    assert!(end.is_ok() && text.ends_with("[DONE]\n\n\r\n0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn trailing_garbage_follows_a_good_answer_on_an_open_connection() {
    let (worker, _tasks) = start(Options::default());
    let mut client = Client::connect(&worker).await;
    client.send(PATH, CHAT, "x-sim-fault: trailing-garbage\r\n").await;
    assert!(client.until("UNASKED").await.starts_with("HTTP/1.1 200"));
    assert_eq!(worker.snapshot().connections_open, 1);
}

#[tokio::test]
async fn a_client_that_leaves_a_stalled_answer_is_an_abort() {
    let (worker, _tasks) = start(Options::default());
    for (count, fault) in ["stall-before-head", "stall after=2", "never-ending after=2"].iter().enumerate() {
        worker.fault(&format!("{fault} next=1")).expect("a rule");
        let mut client = Client::connect(&worker).await;
        client.send(PATH, STREAM, "").await;
        eventually(|| worker.snapshot().faults == count as u64 + 1).await;
        drop(client);
        eventually(|| worker.snapshot().running == 0 && worker.snapshot().connections_open == 0).await;
        assert!(worker.snapshot().aborted > count as u64, "{fault}");
    }
}

#[tokio::test]
async fn faults_that_http_carries_leave_the_connection_usable() {
    let (worker, _tasks) = start(Options::default());
    let mut client = Client::connect(&worker).await;
    let rules = r#"[{"kind":"status","status":429,"retry_after":7,"next":1,"path":"/v1/chat/completions"}]"#;
    assert_eq!(client.post("/sim/faults", rules).await.status, 200);
    let answer = client.post(PATH, CHAT).await;
    assert!(answer.status == 429 && answer.head.contains("retry-after: 7"), "{}", answer.head);
    assert_eq!(client.post(PATH, CHAT).await.status, 200);
    worker.fault("redirect next=1").expect("a rule");
    let answer = client.post(PATH, CHAT).await;
    assert!(answer.status == 307 && answer.head.contains("location: http://169.254.169.254/"), "{}", answer.head);
    worker.fault("slow-start ms=1 next=1").expect("a rule");
    assert_eq!(client.post(PATH, CHAT).await.status, 200);
    assert_eq!(client.post("/sim/faults", r#"{"kind":"melt"}"#).await.status, 400);
}

#[tokio::test]
async fn a_refusing_worker_closes_its_port_and_comes_back() {
    let (worker, _tasks) = start(Options::default());
    worker.refuse_for(Duration::from_millis(300));
    wire::eventually_refused(worker.address()).await;
    let back = async { while tokio::net::TcpStream::connect(worker.address()).await.is_err() {} };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("it listens again");
    assert_eq!(post(&worker, PATH, CHAT).await.0, 200);
}
