//! Workers that fail in every way, clients that leave in every phase.

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use smg::base::setting::Setting;

/// One worker of two fails once in this way; the client must see a whole answer all the same.
async fn is_unseen(fault: Vec<Step>, is_stream: bool) {
    let (faulty, good) = (Upstream::start("one").await, Upstream::start("two").await);
    let mut config = config(&[&faulty, &good]);
    config.routing.policy = <smg::routing::policies::PolicyName as Setting>::parse("round_robin").expect("a policy");
    let node = node(config).await;
    for worker in [&faulty, &good] {
        worker.always(match is_stream {
            true => vec![Step::stream_head(), Step::content("fine"), Step::end()],
            false => Step::completion("fine"),
        });
    }
    faulty.script(fault);
    let mut client = Client::connect(node.address).await;
    for _ in 0..2 {
        let before = good.requests().len();
        let answer = client.post("/v1/chat/completions", &chat("hi", is_stream)).await;
        assert!(answer.status == 200 && answer.is_complete, "{}\n{}", answer.head, answer.text());
        let by = if good.requests().len() > before { &good } else { &faulty };
        let all = cluster_tests::workers(&node).await;
        let id = all.iter().find(|it| it["url"] == by.url()).expect("registered")["id"].as_str().expect("an id");
        assert!(answer.head.contains(&format!("x-smg-worker: {id}")), "who answered: {}", answer.head);
        assert!(answer.text().contains("fine") && !answer.text().contains("error"), "{}", answer.text());
    }
    assert!(!faulty.requests().is_empty(), "the fault was met");
    assert_eq!(faulty.requests().len() + good.requests().len(), 3, "and made good by one more attempt");
    node.shutdown().await;
}

#[tokio::test]
async fn p6_a_reset_before_the_head_is_not_seen() {
    is_unseen(vec![Step::Close], false).await;
}

#[tokio::test]
async fn p6_a_500_is_not_seen() {
    is_unseen(Step::answer("500 Internal Server Error", "", "{}"), false).await;
}

#[tokio::test]
async fn p6_busy_is_not_seen_while_another_has_room() {
    is_unseen(Step::answer("503 Service Unavailable", "retry-after: 1\r\n", "{}"), false).await;
    is_unseen(Step::answer("429 Too Many Requests", "", "{}"), true).await;
}

#[tokio::test]
async fn p6_half_a_body_is_not_seen() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half".to_vec();
    is_unseen(vec![Step::Send(half), Step::Close], false).await;
}

#[tokio::test]
async fn field_d7_a_stream_that_ends_before_content_is_not_seen() {
    is_unseen(vec![Step::stream_head(), Step::preamble(), Step::Close], true).await;
    is_unseen(
        vec![
            Step::stream_head(),
            Step::preamble(),
            Step::chunk(b"data: {\"error\":{\"message\":\"x\"}}\n\n"),
            Step::Close,
        ],
        true,
    )
    .await;
    is_unseen(vec![Step::stream_head(), Step::chunk(b"data: {\"choi\n\n"), Step::Close], true).await;
}

/// After content, any end but the right one becomes an error event, and no `[DONE]`.
async fn is_told(fault: Vec<Step>) {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let mut steps = vec![Step::stream_head(), Step::content("seen")];
    steps.extend(fault);
    worker.script(steps);
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
    let text = answer.text();
    assert!(answer.is_complete && text.contains("seen"), "{text}");
    let last = text.trim_end().rsplit("data: ").next().expect("an event");
    let event: serde_json::Value = serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(event["error"]["message"].is_string() && !text.contains("[DONE]"), "{text}");
    node.shutdown().await;
}

#[tokio::test]
async fn field_11_after_content_a_failure_is_an_error_event_without_done() {
    is_told(vec![Step::Close]).await;
    is_told(vec![Step::Send(b"0\r\n\r\n".to_vec())]).await;
    is_told(vec![Step::chunk(b"data: {\"broken\n\n")]).await;
    is_told(vec![Step::chunk(b"data: {\"a\":1}\rdata: [DONE]\n\n")]).await;
    is_told(vec![Step::chunk(b"data: {\"error\":{\"message\":\"engine died\"}}\n\n"), Step::Close]).await;
}

#[tokio::test]
async fn field_13_events_split_anywhere_arrive_whole() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let stream = "data: {\"choices\":[{\"delta\":{\"content\":\"Gr\u{fc}\u{df}e \u{4e16}\u{754c} \u{1F680}\"}}]}\n\ndata: [DONE]\n\n";
    let mut steps = vec![Step::stream_head()];
    steps.extend(stream.as_bytes().iter().map(|byte| Step::chunk(&[*byte])));
    steps.push(Step::Send(b"0\r\n\r\n".to_vec()));
    worker.script(steps);
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
    assert_eq!(answer.text(), stream);
    node.shutdown().await;
}

#[tokio::test]
async fn field_d4_one_dead_worker_of_two_costs_no_client_an_error() {
    let (dead, alive) = (Upstream::start("dead").await, Upstream::start("alive").await);
    let node = node(config(&[&dead, &alive])).await;
    dead.kill().await;
    let mut client = Client::connect(node.address).await;
    for turn in 0..50 {
        let answer = client.post("/v1/chat/completions", &chat(&format!("turn {turn}"), false)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    node.shutdown().await;
}

#[tokio::test]
async fn field_d1_a_4xx_is_passed_on_as_it_is_and_counts_against_nobody() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.always(Step::answer("400 Bad Request", "", r#"{"error":{"message":"no","type":"BadRequestError"}}"#));
    let mut client = Client::connect(node.address).await;
    for _ in 0..30 {
        let answer = client.post("/v1/chat/completions", &chat("hi", false)).await;
        assert_eq!((answer.status, answer.json()["error"]["type"].clone()), (400, "BadRequestError".into()));
    }
    assert_eq!(Client::connect(node.address).await.get("/workers").await.json()["workers"][0]["state"], "ready");
    node.shutdown().await;
}

#[tokio::test]
async fn when_every_worker_is_busy_its_own_words_and_retry_after_come_back() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.always(Step::answer("429 Too Many Requests", "retry-after: 7\r\n", r#"{"error":{"message":"busy"}}"#));
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    assert!(answer.status == 429 && answer.head.contains("retry-after: 7"), "{}", answer.head);
    node.shutdown().await;
}

/// P7: the client leaves; the worker sees it, and the load goes back to zero.
async fn leaving_aborts(steps: Vec<Step>, is_stream: bool, wait_for: Option<&str>) {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    worker.script(steps);
    let mut client = Client::connect(node.address).await;
    client.start_post("/v1/chat/completions", "", &chat("hi", is_stream)).await;
    eventually("the worker has the request", async || worker.requests().len() == 1).await;
    if let Some(text) = wait_for {
        assert!(client.read_until(text).await);
    }
    drop(client);
    eventually("the worker is told", async || worker.aborts() == 1).await;
    eventually("nothing is in flight", async || {
        Client::connect(node.address).await.get("/workers").await.json()["workers"][0]["load"] == 0
    })
    .await;
    node.shutdown().await;
}

#[tokio::test]
async fn p7_leaving_before_the_head_aborts() {
    leaving_aborts(vec![Step::WaitForClose], false, None).await;
    leaving_aborts(vec![Step::WaitForClose], true, None).await;
}

#[tokio::test]
async fn p7_leaving_before_the_first_token_aborts() {
    leaving_aborts(vec![Step::stream_head(), Step::preamble(), Step::WaitForClose], true, None).await;
}

#[tokio::test]
async fn p7_leaving_in_the_middle_of_a_stream_aborts() {
    leaving_aborts(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose], true, Some("seen")).await;
}

#[tokio::test]
async fn p7_leaving_in_the_middle_of_a_body_aborts() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"half".to_vec();
    leaving_aborts(vec![Step::Send(half), Step::WaitForClose], false, None).await;
}

#[tokio::test]
async fn a_silent_stream_is_kept_open_with_comments_and_still_served() {
    let (stalled, good) = (Upstream::start("one").await, Upstream::start("two").await);
    let mut config = config(&[&stalled, &good]);
    config.routing.policy = <smg::routing::policies::PolicyName as Setting>::parse("round_robin").expect("a policy");
    config.server.stream_keep_alive = std::time::Duration::from_millis(100);
    config.server.first_token_timeout = std::time::Duration::from_secs(2);
    let node = node(config).await;
    for worker in [&stalled, &good] {
        worker.always(vec![Step::stream_head(), Step::content("fine"), Step::end()]);
    }
    stalled.script(vec![Step::WaitForClose]);
    let mut seen = false;
    for _ in 0..8 {
        let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
        assert!(answer.text().contains("fine"), "{}", answer.text());
        seen |= answer.text().starts_with(": keep-alive\n\n");
    }
    assert!(seen, "a comment came while the first worker was silent");
    node.shutdown().await;
}

#[tokio::test]
async fn c7_a_stall_in_mid_stream_ends_with_an_error_event() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.idle_timeout = std::time::Duration::from_millis(300);
    let node = node(config).await;
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
    assert!(answer.text().contains("idle_timeout") && !answer.text().contains("[DONE]"), "{}", answer.text());
    eventually("the worker is told", async || worker.aborts() == 1).await;
    node.shutdown().await;
}

#[tokio::test]
async fn p10_draining_lets_streams_finish_and_tells_those_that_do_not() {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.server.drain_timeout = std::time::Duration::from_millis(500);
    let node = node(config).await;
    worker.script(vec![Step::stream_head(), Step::content("seen"), Step::WaitForClose]);
    let mut client = Client::connect(node.address).await;
    client.start_post("/v1/chat/completions", "", &chat("hi", true)).await;
    assert!(client.read_until("seen").await);
    let (answer, ()) = tokio::join!(client.answer(), node.shutdown());
    assert!(answer.is_complete && answer.text().contains("shut down"), "{}", answer.text());
}
