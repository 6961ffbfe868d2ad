//! What nodes of a mesh tell each other of placements and bindings, over real sockets, and how it is measured.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::eventually;
use cluster_tests::lasting;
use cluster_tests::node;
use cluster_tests::scrape::measured;
use smg::config::Config;
use smg::node::Node;
use smg::transport::trust::MeshSecret;

use super::mesh::meshed;
use super::meters::Watch;

/// Registered with the rest of routing; moved by nodes that share.
pub(crate) const SHARING: &[&str] = &[
    "smg_manual_policy_shared_bindings",
    "smg_routing_prefix_batch_bytes_total",
    "smg_routing_prefix_hints_received_total",
    "smg_routing_prefix_hints_sent_total",
    "smg_routing_prefix_retractions_received_total",
    "smg_routing_prefix_retractions_sent_total",
    "smg_routing_sharing_lost_total",
];

fn member(data: &Path, seeds: &[SocketAddr], secrets: &[MeshSecret], workers: &[Upstream]) -> Config {
    let mut config = meshed(data, 0, seeds, secrets);
    config.workers.urls = workers.iter().map(Upstream::url).collect();
    // Ticks of 200 ms, so that a belief is soon old enough to be wrong.
    config.routing.cache_ttl = Duration::from_millis(12_800);
    config
}

/// Who answered, and why it was asked.
async fn ask(node: &Node, key: &str, text: &str) -> (String, String) {
    let mut client = Client::connect(node.address).await;
    let header = if key.is_empty() { String::new() } else { format!("x-smg-routing-key: {key}\r\n") };
    client.start_post("/v1/chat/completions", &header, &chat(text, false)).await;
    let answer = client.answer().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let header = |name: &str| answer.head.lines().find_map(|it| it.strip_prefix(name).map(str::to_owned));
    (header("x-smg-worker: ").expect("a worker"), header("x-smg-route: ").expect("a route"))
}

/// Who would be asked, and why; nothing is placed or bound by that.
async fn would(node: &Node, key: &str, text: &str) -> (String, String) {
    let mut client = Client::connect(node.address).await;
    let header = if key.is_empty() { String::new() } else { format!("x-smg-routing-key: {key}\r\n") };
    client.start_post("/v1/route/explain", &header, &chat(text, false)).await;
    let answer = client.answer().await.json();
    let word = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    (word("worker"), word("reason"))
}

async fn workers_of(nodes: &[&Node], count: usize) {
    for node in nodes {
        eventually("all workers are ready", async || {
            let workers = cluster_tests::workers(node).await;
            workers.len() == count && workers.iter().all(|it| it["state"] == "ready")
        })
        .await;
        eventually("it has joined", async || Client::connect(node.address).await.get("/readiness").await.status == 200)
            .await;
    }
}

fn text(n: u32) -> String {
    format!("prompt {n}: ").repeat(1200)
}

async fn fleet() -> Vec<Upstream> {
    let mut workers = Vec::new();
    for name in ["one", "two", "three", "four", "five", "six"] {
        let worker = Upstream::start(name).await;
        worker.always(Step::completion("fine"));
        workers.push(worker);
    }
    workers
}

#[tokio::test]
async fn what_nodes_tell_each_other_is_measured() {
    let workers = fleet().await;
    let data: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let [first, second]: [_; 2] = std::array::from_fn(|_| MeshSecret::generate());
    let secrets = [first.clone(), second.clone()];
    let mut watch = Watch::start(member(data[0].path(), &[], &secrets, &workers)).await;
    let seed = [watch.node.mesh_address.expect("the mesh is on")];
    let other = node(member(data[1].path(), &seed, &secrets, &workers)).await;
    workers_of(&[&watch.node, &other], 6).await;

    // Prompts placed at one node are found at the other, in both directions.
    let mut homes = Vec::new();
    for n in 0..12 {
        homes.push(ask(&watch.node, "", &text(n)).await.0);
    }
    let told = |it: &cluster_tests::Scrape| it.value("smg_routing_prefix_hints_sent_total") >= 24.0;
    watch.until("placements are told", told).await;
    let route = "cache_aware; prefix".to_owned();
    for (n, home) in (0..).zip(&homes) {
        let wanted = (home.clone(), "prefix".to_owned());
        eventually("the other node knows it", async || would(&other, "", &text(n)).await == wanted).await;
        assert_eq!(ask(&other, "", &text(n)).await, (home.clone(), route.clone()), "prompt {n}");
    }
    let home = ask(&other, "", &text(100)).await.0;
    let heard = |it: &cluster_tests::Scrape| it.value("smg_routing_prefix_hints_received_total") >= 2.0;
    watch.until("placements are heard", heard).await;
    let wanted = (home, "prefix".to_owned());
    eventually("they count", async || would(&watch.node, "", &text(100)).await == wanted).await;

    // A cache that forgot is told of, in both directions.
    let forgot = r#"{"choices":[],"usage":{"prompt_tokens":3600,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":0}}}"#;
    workers.iter().for_each(|it| it.always(Step::answer("200 OK", "", forgot)));
    lasting(Duration::from_millis(900)).await;
    ask(&watch.node, "", &text(100)).await;
    ask(&other, "", &text(1)).await;
    let retracted = |it: &cluster_tests::Scrape| {
        it.value("smg_routing_prefix_retractions_sent_total") >= 1.0
            && it.value("smg_routing_prefix_retractions_received_total") >= 1.0
    };
    watch.until("what was wrong is told and heard", retracted).await;

    // A member whose first secret is another hashes under another key: it is a member all the same.
    let third = node(member(data[2].path(), &seed, &[second, first], &workers)).await;
    workers_of(&[&third], 6).await;
    ask(&third, "", &text(200)).await;
    let foreign = r#"smg_routing_sharing_lost_total{reason="foreign_key"}"#;
    watch.until("foreign hashes are left", |it| it.value(foreign) >= 1.0).await;

    let manual = r#"{"default": "manual", "models": []}"#;
    assert_eq!(Client::connect(other.address).await.call("PUT", "/policies", manual).await.status, 200);
    eventually("it is in force here", async || ask(&watch.node, "s", "hi").await.1.starts_with("manual")).await;
    let bound = |it: &cluster_tests::Scrape| it.value("smg_manual_policy_shared_bindings") >= 1.0;
    watch.until("a key is bound everywhere", bound).await;
    watch.end(SHARING).await;
    other.shutdown().await;
    third.shutdown().await;
}

#[tokio::test]
async fn field_a7_a_session_that_changes_nodes_at_every_turn_stays_with_its_worker() {
    let workers = fleet().await;
    let data: [_; 2] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let start = |at: usize, seeds: &[SocketAddr]| {
        let mut config = measured(member(data[at].path(), seeds, &[], &workers));
        config.routing.policy = smg::base::setting::Setting::parse("manual").expect("a policy");
        node(config)
    };
    let one = start(0, &[]).await;
    let other = start(1, &[one.mesh_address.expect("the mesh is on")]).await;
    workers_of(&[&one, &other], 6).await;
    for session in 0..20 {
        let key = format!("session-{session}");
        let (home, why) = ask(&one, &key, "hi").await;
        assert_eq!(why, "manual; assigned");
        eventually("the other node honours it", async || {
            would(&other, &key, "hi").await == (home.clone(), "bound".to_owned())
        })
        .await;
        for at in [&other, &one, &other] {
            assert_eq!(ask(at, &key, "hi").await, (home.clone(), "manual; bound".to_owned()));
        }
    }
    one.shutdown().await;
    other.shutdown().await;
}
