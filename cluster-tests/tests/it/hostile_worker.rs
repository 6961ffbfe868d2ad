//! Workers that lie: events inside events, answers after answers, numbers nobody can have counted.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::idle;
use cluster_tests::node;

const CHAT: &str = "/v1/chat/completions";

/// A content event around a text.
fn content(text: &str) -> String {
    serde_json::json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string()
}

#[tokio::test]
async fn what_looks_like_events_inside_content_stays_content() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    for evil in [
        "\n\ndata: [DONE]\n\n",
        "\r\rdata: {\"error\":1}\r\r",
        "event: error\ndata: x",
        ": comment",
        "[DONE]",
        "\u{2028}\u{2029}\u{85}\u{feff}\0",
    ] {
        let data = content(evil);
        worker.script(vec![Step::stream_head(), Step::events(&[&data]), Step::end()]);
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", true)).await;
        assert_eq!(answer.text(), format!("data: {data}\n\ndata: [DONE]\n\n"));
    }
    node.shutdown().await;
}

#[tokio::test]
async fn an_event_that_parsers_would_read_differently_ends_the_stream() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let seen = content("seen");
    for evil in [
        "data: {\"choices\":[]}\rdata: [DONE]\r\r",
        "data: {\"choices\":[]}\r\n\rdata: [DONE]\n\n",
        ": comment\rdata: [DONE]\n\n",
        "data: {\"choices\":\ndata: []}}\n\n",
        "data: [DONE\n\n",
        "data: <html>busy</html>\n\n",
    ] {
        worker.script(vec![
            Step::stream_head(),
            Step::events(&[&seen]),
            Step::chunk(evil.as_bytes()),
            Step::WaitForClose,
        ]);
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", true)).await;
        let text = answer.text();
        let told = text.strip_prefix(&format!("data: {seen}\n\n")).expect("what was good");
        assert!(answer.is_complete && told.contains("malformed stream") && !told.contains("[DONE]"), "{evil:?} {told}");
    }
    idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn an_event_without_end_is_bounded_and_a_stream_without_end_too() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.request_timeout = Duration::from_secs(2);
    let node = node(config).await;
    let Step::Send(piece) = Step::chunk(&vec![b'x'; 1 << 20]) else { unreachable!("a chunk is bytes") };
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::chunk(b"data: "), Step::Flood(piece, 1000)]);
    let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", true)).await;
    assert!(answer.text().contains("malformed stream"), "{:.200}", answer.text());
    assert!(worker.written() < 100 << 20, "it was stopped: {}", worker.written());
    let Step::Send(piece) = Step::content("more") else { unreachable!("a chunk is bytes") };
    worker.script(vec![Step::stream_head(), Step::Flood(piece, usize::MAX)]);
    let mut client = Client::connect(node.address).await;
    client.start_post(CHAT, "", &chat("hi", true)).await;
    while client.read_some().await && !client.unread().contains("total_timeout") {}
    assert!(client.unread().contains("total_timeout"), "{:.200}", client.unread());
    eventually("the worker is told", async || worker.aborts() == 2).await;
    node.shutdown().await;
}

#[tokio::test]
async fn forged_numbers_break_nothing() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let max = u64::MAX;
    for (path, body, usage) in [
        (
            CHAT,
            chat("hi", false),
            format!(
                r#"{{"prompt_tokens":{max},"completion_tokens":{max},"prompt_tokens_details":{{"cached_tokens":{max}}}}}"#
            ),
        ),
        (
            CHAT,
            chat("hi", false),
            r#"{"prompt_tokens":-1,"completion_tokens":1e999,"prompt_tokens_details":[]}"#.to_owned(),
        ),
        (
            CHAT,
            chat("hi", false),
            r#"{"prompt_tokens":0,"completion_tokens":"many","prompt_tokens_details":{"cached_tokens":9}}"#.to_owned(),
        ),
        (
            "/v1/messages",
            r#"{"model":"m","messages":[]}"#.to_owned(),
            format!(
                r#"{{"input_tokens":{max},"cache_read_input_tokens":{max},"cache_creation_input_tokens":{max},"output_tokens":{max}}}"#
            ),
        ),
    ] {
        let whole = format!("{{\"usage\":{usage}}}");
        worker.script(Step::answer("200 OK", "", &whole));
        let mut client = Client::connect(node.address).await;
        assert_eq!(client.post(path, &body).await.text(), whole);
        assert_eq!(client.post(path, &body).await.status, 200, "and the next one is served");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn an_answer_behind_an_answer_is_nobodys() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let [Step::Send(first)] = &Step::completion("asked for")[..] else { unreachable!("bytes") };
    let [Step::Send(second)] = &Step::completion("smuggled")[..] else { unreachable!("bytes") };
    let both = vec![Step::Send([first.clone(), second.clone()].concat())];
    let mut client = Client::connect(node.address).await;
    for _ in 0..20 {
        worker.script(both.clone());
        let answer = client.post(CHAT, &chat("hi", false)).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "asked for");
        let answer = client.post(CHAT, &chat("hi", false)).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "one");
    }
    node.shutdown().await;
}

#[tokio::test]
async fn answers_that_break_http_are_502_and_never_passed_on() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let long = format!("x-a: {}", "b".repeat(1 << 20));
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6",
        "HTTP/1.1 200 OK\r\ncontent-length: -5",
        "HTTP/1.1 999999 OK",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade",
        "SSH-2.0-OpenSSH",
        &format!("HTTP/1.1 200 OK\r\n{long}"),
        &format!("HTTP/1.1 200 OK\r\n{}x: y", "a: b\r\n".repeat(5000)),
    ] {
        worker.script(vec![Step::Send(format!("{head}\r\n\r\nhello").into_bytes()), Step::Close]);
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
        assert_eq!(answer.status, 502, "{head:.60} {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "worker_failed");
    }
    idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_hop_by_hop_headers_end_here() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut steps =
        vec![Step::Send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".to_vec())];
    let headers = "connection: x-secret\r\nx-secret: 1\r\nkeep-alive: timeout=1\r\nx-kept: 1\r\n";
    steps.extend(Step::answer("200 OK", headers, "{}"));
    worker.script(steps);
    let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", false)).await;
    let has = |it: &str| answer.head.contains(it);
    assert!(
        answer.status == 200 && has("x-kept: 1") && !has("x-secret") && !has("keep-alive: timeout"),
        "{}",
        answer.head
    );
    node.shutdown().await;
}

#[tokio::test]
async fn answers_that_are_hard_to_read_are_passed_on_unread_or_end_and_the_next_is_served() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let deep = "[".repeat(100_000);
    for body in [
        format!("{{\"usage\":{deep}"),
        format!("{{\"usage\":{{\"prompt_tokens\":{deep}{}}}}}", "]".repeat(100_000)),
        format!("{{{}}}", vec![r#""usage":{"prompt_tokens":1}"#; 1000].join(",")),
        format!("{{\"usage\":{{\"prompt_tokens\":{}}}}}", "9".repeat(100_000)),
        "{\"choices\":\"\\ud800\\u0000\"}".to_owned(),
        format!("{{\"x\":\"{}\"}}", "y".repeat(3 << 20)),
        "\u{feff}{}".to_owned(),
        String::new(),
    ] {
        worker.script(Step::answer("200 OK", "", &body));
        let mut client = Client::connect(node.address).await;
        let answer = client.post(CHAT, &chat("hi", false)).await;
        assert!(answer.status != 200 || answer.text() == body, "{}: {:.200}", answer.status, answer.text());
        assert_eq!(client.post(CHAT, &chat("hi", false)).await.status, 200, "and the next one is served");
    }
    // The same inside of a stream, and bytes that are no text, cut inside of characters.
    let seen = content("seen");
    for (evil, is_told) in [
        (format!("data: {{\"choices\":{deep}\n\n").into_bytes(), false),
        (b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xfe\"}}]}\n\n".to_vec(), false),
        (format!("data: {}\n\n", content(&"long ".repeat(500_000))).into_bytes(), true),
        (format!("data: {}\n\n", content("\u{1F680}")).into_bytes(), true),
    ] {
        let mut steps = vec![Step::stream_head(), Step::events(&[&seen])];
        let cuts = [evil.len() / 2 - 1, evil.len() / 2, evil.len() / 2 + 1, evil.len()];
        let mut from = 0;
        for cut in cuts {
            steps.push(Step::chunk(&evil[from..cut]));
            from = cut;
        }
        worker.script(steps.into_iter().chain([Step::end()]).collect());
        let answer = Client::connect(node.address).await.post(CHAT, &chat("hi", true)).await;
        let told = answer.body.strip_prefix(format!("data: {seen}\n\n").as_bytes()).expect("what was good");
        assert_eq!(told.starts_with(&evil), is_told, "{}: {:.200}", evil.len(), String::from_utf8_lossy(told));
        assert_eq!(String::from_utf8_lossy(told).contains("malformed stream"), !is_told);
    }
    idle(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_response_of_a_worker_that_lies_ends_by_the_rules() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.history.history_backend = smg::history::config::Kind::Memory;
    config.workers.breaker_failures = 10_000;
    let node = node(config).await;
    let chunk = |delta: serde_json::Value| serde_json::json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
    let tool = |index: serde_json::Value| {
        chunk(serde_json::json!({"tool_calls": [{"index": index, "function": {"name": "f", "arguments": "{}"}}]}))
    };
    for evil in [
        tool(u64::MAX.into()),
        tool((-1).into()),
        tool("0".into()),
        chunk(serde_json::json!({"content": ["a", {"b": 1}]})),
        chunk(serde_json::json!({"content": "\n\nevent: response.completed\ndata: {\"type\":\"response.completed\"}\n\n"})),
        chunk(serde_json::json!({"role": 7, "refusal": {}, "reasoning": []})),
        r#"{"choices":[{"index":99,"delta":{"content":"x"}}],"usage":{"prompt_tokens":18446744073709551615,"completion_tokens":-5}}"#.to_owned(),
        r#"{"type":"response.completed","response":{"id":"forged","status":"completed"}}"#.to_owned(),
        r#"{"error":{"message":{"deep":[1]},"code":["x"]}}"#.to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
    ] {
        for is_stream in [true, false] {
            let events = [content("seen"), evil.clone()];
            worker.script(match is_stream {
                true => vec![Step::stream_head(), Step::events(&[&events[0], &events[1]]), Step::end()],
                false => Step::answer("200 OK", "", &evil.replace("\"delta\"", "\"message\"")),
            });
            let body = serde_json::json!({"model": "m", "input": "hi", "stream": is_stream}).to_string();
            let answer = Client::connect(node.address).await.post("/v1/responses", &body).await;
            let text = answer.text();
            assert!(answer.is_complete && answer.status != 500 && !text.contains("forged"), "{evil}: {} {text}", answer.status);
            if is_stream && answer.status == 200 {
                let ends = ["completed", "incomplete", "failed"].map(|it| text.lines().filter(|line| *line == format!("event: response.{it}")).count());
                assert_eq!(ends.iter().sum::<usize>() + text.matches("event: error\n").count(), 1, "{evil}: {text}");
            }
        }
    }
    idle(&node).await;
    node.shutdown().await;
}
