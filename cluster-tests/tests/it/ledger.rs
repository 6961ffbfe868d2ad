//! Load of the whole cluster: what one node has in flight decides at the others, asked at the moment of choice.

use std::collections::BTreeSet;
use std::sync::Arc;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::eventually;
use serde_json::Value;
use smg::node::Node;
use tokio::sync::Semaphore;

use super::mesh::meshed;

/// What a node would weigh for a prompt now.
async fn weighed(node: &Node, prompt: &str) -> Vec<Value> {
    let answer = Client::connect(node.address).await.post("/v1/route/explain", &chat(prompt, true)).await;
    answer.json()["considered"].as_array().cloned().unwrap_or_default()
}

/// Waits until a node knows that so many requests are in flight at each worker, and knows it from ledgers.
async fn knows(node: &Node, what: &str, inflight: &[u64]) {
    eventually(what, async || {
        let told = weighed(node, "how busy are they?").await;
        let sources: BTreeSet<&str> = told.iter().filter_map(|it| it["load_source"].as_str()).collect();
        let mut counts: Vec<u64> = told.iter().filter_map(|it| it["inflight"].as_u64()).collect();
        counts.sort_unstable();
        counts == inflight && sources.is_subset(&BTreeSet::from(["local", "probed"]))
    })
    .await;
}

#[tokio::test]
async fn requests_of_one_node_count_in_the_choices_of_every_other_and_no_longer_than_they_last() {
    let (first, second) = (Upstream::start("one").await, Upstream::start("two").await);
    let go_on = Arc::new(Semaphore::new(0));
    for worker in [&first, &second] {
        worker.always(vec![
            Step::stream_head(),
            Step::preamble(),
            Step::Await(Arc::clone(&go_on)),
            Step::content("a"),
            Step::end(),
        ]);
    }
    let data: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let mut nodes: Vec<Node> = Vec::new();
    for (data, workers) in data.iter().zip([vec![&first], vec![&second], Vec::new()]) {
        let seeds: Vec<_> = nodes.iter().filter_map(|it| it.mesh_address).collect();
        let mut config = meshed(data.path(), 0, &seeds, &[]);
        config.workers = cluster_tests::config(&workers).workers;
        nodes.push(Node::start(config).await.expect("the node starts"));
    }
    // Each worker is named at one node; all use both, and know that they have nothing to do.
    for node in &nodes {
        knows(node, "two idle workers", &[0, 0]).await;
    }
    // Five at one node: spread over both workers, since it counts its own.
    let mut clients = Vec::new();
    for n in 0..5 {
        let mut client = Client::connect(nodes[0].address).await;
        client.start_post("/v1/chat/completions", "", &chat(&format!("question {n}"), true)).await;
        clients.push(client);
        eventually("it is at a worker", async || first.requests().len() + second.requests().len() > n).await;
    }
    for node in &nodes {
        knows(node, "five requests, spread", &[2, 3]).await;
    }
    // A sixth through a node that has sent nothing goes to the worker with fewer.
    let mut client = Client::connect(nodes[2].address).await;
    client.start_post("/v1/chat/completions", "", &chat("another question", true)).await;
    clients.push(client);
    for node in &nodes {
        knows(node, "six requests, even", &[3, 3]).await;
    }
    go_on.add_permits(clients.len());
    for client in &mut clients {
        assert_eq!(client.answer().await.status, 200);
    }
    for node in &nodes {
        knows(node, "nothing is left", &[0, 0]).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}
