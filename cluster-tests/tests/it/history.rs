//! Responses that three nodes keep, whose nodes are lost one by one: taken over, not stuck, and never told to be kept where nobody knows; and what is measured of that.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::free_ports;
use cluster_tests::meshed;
use cluster_tests::scrape::Scrape;
use cluster_tests::scrape::measured;
use cluster_tests::within;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::control::is_whole;
use super::mesh::Member;

/// Moved by this scenario, at one of its nodes.
pub(crate) const HISTORY: &[&str] = &[
    "smg_history_applied",
    "smg_history_background_active",
    "smg_history_batches_total",
    "smg_history_commands_total",
    "smg_history_commit_seconds",
    "smg_history_has_leader",
    "smg_history_is_leader",
    "smg_history_lag_entries",
    "smg_history_read_index_seconds",
    "smg_history_reads_total",
    "smg_history_responses_begun_total",
    "smg_history_responses_ended_total",
    "smg_history_retries_total",
    "smg_history_storage_unconfirmed_total",
    "smg_history_takeovers_total",
    "smg_history_term",
    "smg_history_unavailable_total",
    "smg_history_voters",
    "smg_storage_fsync_seconds",
];

const RESPONSES: &str = "/v1/responses";
/// Joining takes changes of members; machines that run tests are crowded.
const FORMED: Duration = Duration::from_secs(60);
/// Twice what a response may be stuck for.
const TAKEN_OVER: Duration = Duration::from_secs(20);

async fn start(addresses: &[SocketAddr; 3], at: usize, worker: &Upstream) -> Member {
    let data = tempfile::tempdir().expect("a directory");
    let mut config = measured(meshed(data.path(), addresses[at].port(), addresses, &[]));
    config.workers.urls = vec![worker.url()];
    Member::with(data, config).await
}

async fn get(node: SocketAddr, id: &str) -> (u16, Value) {
    let answer = Client::connect(node).await.get(&format!("{RESPONSES}/{id}")).await;
    (answer.status, answer.json())
}

async fn created(node: SocketAddr, body: &str) -> Value {
    let answer = Client::connect(node).await.post(RESPONSES, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn id(response: &Value) -> String {
    response["id"].as_str().expect("an id").to_owned()
}

/// Whether all of these know three voters of history.
fn keep_history(nodes: &[Member]) -> bool {
    nodes.iter().all(|it| {
        let group = it.node().history().and_then(|it| it.backend().group());
        group.is_some_and(|it| it.group.voters.len() == 3)
    })
}

async fn scrape(member: &Member) -> Scrape {
    Scrape::of(member.node().metrics_address.expect("is measured")).await
}

#[tokio::test]
async fn responses_outlive_their_nodes_and_are_not_said_to_be_kept_where_nobody_knows() {
    let (addresses, worker): ([SocketAddr; 3], _) = (free_ports(), Upstream::start("one").await);
    worker.always(Step::completion("hello"));
    let mut nodes = Vec::new();
    for at in 0..3 {
        nodes.push(start(&addresses, at, &worker).await);
    }
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    within("one group of three", FORMED, async || is_whole(&all, 3).await).await;
    let asks = |node| async move { Client::connect(node).await.post(RESPONSES, r#"{"model":"m","input":"hi"}"#).await };
    for node in &all {
        within("responses are kept", FORMED, async || asks(*node).await.status == 200).await;
    }
    // The first one begins history's own group, which takes its members one after another.
    let took = within("three keep history", FORMED, async || keep_history(&nodes)).await;
    println!("three keep history {took:?} after the first response");
    let mut moved = BTreeSet::new();
    let made = created(all[0], r#"{"model":"m","input":"hi"}"#).await;
    for node in &all {
        assert_eq!(get(*node, &id(&made)).await, (200, made.clone()));
    }
    // One in the background, and its node is gone.
    worker.script(vec![Step::stream_head(), Step::content("half"), Step::WaitForClose]);
    let stuck = id(&created(all[0], r#"{"model":"m","input":"hi","background":true}"#).await);
    within("it has begun", FORMED, async || get(all[1], &stuck).await.1["status"] == "in_progress").await;
    for node in &nodes {
        moved.extend(scrape(node).await.moved());
    }
    drop(nodes.remove(0).crash());
    let took = within("it has failed", TAKEN_OVER, async || get(all[1], &stuck).await.1["status"] == "failed").await;
    println!("taken over {took:?} after its node was gone");
    assert_eq!(get(all[2], &stuck).await.1["error"]["code"], "node_lost");
    for node in &nodes {
        moved.extend(scrape(node).await.moved());
    }
    assert!(moved.contains("smg_history_takeovers_total"), "one of them took it over");
    // One whose end has no majority.
    let gate = Arc::new(Semaphore::new(0));
    worker.script(vec![Step::stream_head(), Step::content("all"), Step::Await(Arc::clone(&gate)), Step::end()]);
    let survivor = &nodes[0];
    let mut client = Client::connect(survivor.address()).await;
    client.start_post(RESPONSES, "", r#"{"model":"m","input":"hi","stream":true}"#).await;
    assert!(client.read_until("response.output_text.delta").await);
    let other = nodes.remove(1);
    drop(other.crash());
    gate.add_permits(1);
    assert!(client.read_until("storage_unconfirmed").await);
    let survivor = &nodes[0];
    assert_eq!(get(survivor.address(), &id(&made)).await.0, 503, "not known is not absent");
    moved.extend(scrape(survivor).await.moved());
    let still: Vec<_> = HISTORY.iter().filter(|it| !moved.contains(**it)).collect();
    assert!(still.is_empty(), "stood still: {still:?}");
    nodes.into_iter().for_each(|it| drop(it.crash()));
}
