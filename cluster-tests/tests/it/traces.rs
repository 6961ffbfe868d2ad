//! What a worker and a collector are told of a client's trace.

use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The `traceparent` that the worker got, in a node with this collector.
async fn traceparent(collector: Option<&Upstream>) -> String {
    let worker = Upstream::start("one").await;
    let mut config = config(&[&worker]);
    config.node.otlp_traces_endpoint = collector.map(Upstream::url);
    let node = node(config).await;
    let headers = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=1\r\n");
    let mut client = Client::connect(node.address).await;
    client.start_post("/v1/chat/completions", &headers, &chat("hi", false)).await;
    assert_eq!(client.answer().await.status, 200);
    let request = worker.requests().remove(0);
    assert!(request.contains("tracestate: vendor=1"), "{request}");
    if let Some(collector) = collector {
        eventually("the collector got spans", async || collector.requests().iter().any(|it| it.contains("chat m")))
            .await;
    }
    node.shutdown().await;
    let line = request.lines().find_map(|it| it.strip_prefix("traceparent: ")).expect("is sent on");
    line.to_owned()
}

#[tokio::test]
async fn a_clients_trace_reaches_the_worker_untouched_when_nothing_is_recorded() {
    assert_eq!(traceparent(None).await, format!("00-{TRACE}-{PARENT}-01"));
}

#[tokio::test]
async fn a_recorded_attempt_is_what_the_worker_sees_as_its_parent() {
    let collector = Upstream::start("collector").await;
    let seen = traceparent(Some(&collector)).await;
    assert!(seen.starts_with(&format!("00-{TRACE}-")) && seen.ends_with("-01") && !seen.contains(PARENT), "{seen}");
}

/// What the collector got of one streamed request, as text; `timeout` bounds the whole request.
async fn exported(steps: Vec<Step>, timeout: Duration, until: &str) -> String {
    let (worker, collector) = (Upstream::start("one").await, Upstream::start("collector").await);
    let mut config = config(&[&worker]);
    config.node.otlp_traces_endpoint = Some(collector.url());
    config.server.request_timeout = timeout;
    let node = node(config).await;
    worker.script(steps);
    Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
    let all = || collector.requests().concat();
    eventually("the collector got it", async || all().contains(until)).await;
    node.shutdown().await;
    all()
}

#[tokio::test]
async fn the_wait_for_a_slot_and_the_candidates_with_their_costs_are_spans() {
    let steps = vec![Step::stream_head(), Step::content("a"), Step::end()];
    let seen = exported(steps, Duration::from_secs(60), "chat m").await;
    for expected in ["admission", "route", "smg.route.candidates", " cost=", " inflight=0", "smg.request.id", "req-"] {
        assert!(seen.contains(expected), "{expected}: {seen}");
    }
}

#[tokio::test]
async fn a_request_that_took_too_long_says_so_in_its_span_before_and_after_content() {
    let late = Duration::from_millis(300);
    let silent = vec![Step::WaitForClose];
    assert!(exported(silent, late, "chat m").await.contains("total_timeout"));
    let stalled = vec![Step::stream_head(), Step::content("a"), Step::WaitForClose];
    assert!(exported(stalled, late, "chat m").await.contains("total_timeout"));
}

#[tokio::test]
async fn a_client_that_left_before_any_content_is_an_error_of_its_span() {
    let (worker, collector) = (Upstream::start("one").await, Upstream::start("collector").await);
    let mut config = config(&[&worker]);
    config.node.otlp_traces_endpoint = Some(collector.url());
    let node = node(config).await;
    worker.script(vec![Step::WaitForClose]);
    let mut client = Client::connect(node.address).await;
    client.start_post("/v1/chat/completions", "", &chat("hi", false)).await;
    eventually("the worker has it", async || !worker.requests().is_empty()).await;
    drop(client);
    for code in ["client_gone", "abandoned"] {
        eventually(code, async || collector.requests().concat().contains(code)).await;
    }
    node.shutdown().await;
}
