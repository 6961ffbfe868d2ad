//! What the gateway learns of its workers while they work: their pace, their restarts, the pauses they ask for.

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::config;
use cluster_tests::eventually;
use cluster_tests::node;
use serde_json::Value;
use smg::node::Node;

async fn first_worker(node: &Node) -> Value {
    Client::connect(node.address).await.get("/workers").await.json()["workers"][0].clone()
}

/// Tokens of this prompt that the only worker is believed to hold.
async fn believed_cached(node: &Node, prompt: &str) -> u64 {
    let answer = Client::connect(node.address).await.post("/v1/route/explain", &chat(prompt, false)).await;
    answer.json()["considered"][0]["expected_cached_tokens"].as_u64().expect("a number")
}

#[tokio::test]
async fn a_restarted_worker_is_believed_to_hold_nothing() {
    let worker = Upstream::start("one").await;
    worker.metrics("process_start_time_seconds 1000\n");
    let node = node(config(&[&worker])).await;
    let prompt = "a long prompt that is sent again ".repeat(100);
    Client::connect(node.address).await.post("/v1/chat/completions", &chat(&prompt, false)).await;
    assert!(believed_cached(&node, &prompt).await > 500);
    worker.metrics("process_start_time_seconds 2000\n");
    eventually("its cache is forgotten", async || believed_cached(&node, &prompt).await == 0).await;
    Client::connect(node.address).await.post("/v1/chat/completions", &chat(&prompt, false)).await;
    assert!(believed_cached(&node, &prompt).await > 500, "what the new process was sent counts again");
    node.shutdown().await;
}

#[tokio::test]
async fn a_worker_s_pace_is_learned_from_its_streams() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    assert!(first_worker(&node).await["prefill_tokens_per_second"].is_null());
    let usage =
        b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4000,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
    let end = Step::Send(b"0\r\n\r\n".to_vec());
    worker.script(vec![Step::stream_head(), Step::content("a"), Step::chunk(usage), end]);
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", true)).await;
    assert_eq!(answer.status, 200);
    eventually("it is shown", async || first_worker(&node).await["prefill_tokens_per_second"].is_number()).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_pause_asked_for_as_a_date_is_kept() {
    let worker = Upstream::start("one").await;
    let node = node(config(&[&worker])).await;
    let headers = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:50:07 GMT\r\n";
    worker.script(Step::answer("503 Service Unavailable", headers, "{}"));
    let answer = Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    assert_eq!(answer.status, 503);
    assert_eq!(first_worker(&node).await["state"], "paused");
    let answer = Client::connect(node.address).await.get("/readiness").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    node.shutdown().await;
}
