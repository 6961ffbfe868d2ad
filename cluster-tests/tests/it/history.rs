//! Responses that three nodes keep, whose nodes are lost one by one: taken over, not stuck, and never told to be kept where nobody knows; and what is measured of that.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::config;
use cluster_tests::found;
use cluster_tests::free_ports;
use cluster_tests::lasting;
use cluster_tests::meshed;
use cluster_tests::scrape::Scrape;
use cluster_tests::scrape::measured;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use tempfile::TempDir;
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

/// Moved by what is deleted.
pub(crate) const PURGES: &[&str] = &["smg_history_purges_total"];

/// Moved while a node gets all of history from another.
pub(crate) const SNAPSHOT: &[&str] = &["smg_history_snapshot_sent_bytes"];

const CONVERSATIONS: &str = "/v1/conversations";
const RESPONSES: &str = "/v1/responses";
/// Joining takes changes of members; machines that run tests are crowded.
pub(crate) const FORMED: Duration = Duration::from_secs(60);
/// Twice what a response may be stuck for.
const TAKEN_OVER: Duration = Duration::from_secs(20);

/// Three nodes that keep history together, and their addresses. `None`: what is deleted is taken off their disks in its usual time.
async fn three(addresses: &[SocketAddr; 3], worker: &Upstream, purge_within: Option<Duration>) -> Vec<Member> {
    let mut nodes = Vec::new();
    for at in 0..3 {
        let data = tempfile::tempdir().expect("a directory");
        nodes.push(start_in(data, addresses, at, worker, purge_within).await);
    }
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    within("one group of three", FORMED, async || is_whole(&all, 3).await).await;
    for node in &all {
        within("conversations are kept", FORMED, async || makes(*node).await).await;
    }
    // The first one begins history's own group, which takes its members one after another. Until none of them is only about to vote, the loss of one may stop it.
    let keeps = |it: &Member| {
        let group = it.node().history().and_then(|it| it.backend().group());
        group.is_some_and(|it| it.group.voters.len() == 3 && !it.group.is_joint)
    };
    within("three keep history", FORMED, async || nodes.iter().all(keeps)).await;
    nodes
}

async fn start_in(
    data: TempDir,
    addresses: &[SocketAddr; 3],
    at: usize,
    worker: &Upstream,
    purge_within: Option<Duration>,
) -> Member {
    let mut config = measured(meshed(data.path(), addresses[at].port(), addresses, &[]));
    config.workers.urls = vec![worker.url()];
    config.history.purge_within = purge_within.unwrap_or(config.history.purge_within);
    Member::with(data, config).await
}

async fn makes(node: SocketAddr) -> bool {
    Client::connect(node).await.post(CONVERSATIONS, "{}").await.status == 200
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

/// What a node says of history.
async fn told(node: SocketAddr) -> Value {
    Client::connect(node).await.get("/cluster/history").await.json()["group"].clone()
}

async fn scrape(member: &Member) -> Scrape {
    Scrape::of(member.node().metrics_address.expect("is measured")).await
}

#[tokio::test]
async fn responses_outlive_their_nodes_and_are_not_said_to_be_kept_where_nobody_knows() {
    let (addresses, worker): ([SocketAddr; 3], _) = (free_ports(), Upstream::start("one").await);
    worker.always(Step::completion("hello"));
    let mut nodes = three(&addresses, &worker, None).await;
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    let asks = |node| async move { Client::connect(node).await.post(RESPONSES, r#"{"model":"m","input":"hi"}"#).await };
    for node in &all {
        within("responses are kept", FORMED, async || asks(*node).await.status == 200).await;
    }
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

/// So many of them take more than half a second at the pace of bulk data.
const LARGE: usize = 4 << 20;
const LARGE_ONES: usize = 4;

#[tokio::test]
async fn a_node_that_was_away_gets_all_as_a_snapshot_on_the_bulk_lane_and_how_far_it_is_is_told() {
    let (addresses, worker): ([SocketAddr; 3], _) = (free_ports(), Upstream::start("one").await);
    let mut nodes = three(&addresses, &worker, None).await;
    let mut follower = None;
    for (at, node) in nodes.iter().enumerate() {
        if scrape(node).await.value("smg_history_is_leader") == 0.0 {
            follower = Some(at);
        }
    }
    let away = follower.expect("two of three follow");
    let (data, survivors) = (nodes.remove(away).stop().await, &nodes);
    let first = survivors[0].address();
    let before = told(first).await["last"].as_u64();
    let text = "x".repeat(LARGE);
    let large = format!(r#"{{"items":[{{"type":"message","role":"user","content":"{text}"}}]}}"#);
    for _ in 0..LARGE_ONES {
        assert_eq!(Client::connect(first).await.post(CONVERSATIONS, &large).await.status, 200);
    }
    // More entries than are kept for who is a little late.
    let is_far = async || told(first).await["last"].as_u64() > before.map(|it| it + 400);
    within("it is far behind", FORMED, async || makes(first).await && is_far().await).await;
    for node in survivors {
        assert_eq!(Client::connect(node.address()).await.post("/cluster/history/snapshot", "").await.status, 200);
    }
    let back = start_in(data, &addresses, away, &worker, None).await;
    let mut sent = 0.0;
    let sending = async || {
        for node in survivors {
            let so_far = told(node.address()).await["sending"].clone();
            sent = scrape(node).await.value(SNAPSHOT[0]);
            if sent > 0.0 {
                let so_far = so_far.as_object().and_then(|it| it.values().next()?.as_f64());
                return so_far.is_some();
            }
        }
        false
    };
    within("how far it is is told", FORMED, sending).await;
    assert!(sent < (LARGE_ONES + 1) as f64 * LARGE as f64, "{sent}");
    within("it has all", FORMED, async || {
        let (one, other) = (told(first).await, told(back.address()).await);
        one["applied"] == other["applied"] && other["applied"].as_u64() > before
    })
    .await;
    for node in survivors {
        let over =
            async || told(node.address()).await["sending"] == json!({}) && scrape(node).await.value(SNAPSHOT[0]) == 0.0;
        within("nothing is told when it is over", FORMED, over).await;
    }
    let received = scrape(&back).await.value(r#"smg_mesh_received_bytes_total{lane="bulk"}"#);
    assert!(received > LARGE_ONES as f64 * LARGE as f64, "on the lane for it: {received}");
    [back].into_iter().chain(nodes).for_each(|it| drop(it.crash()));
}

/// They share nothing that a compression could put one for the other.
const DELETED: [&str; 4] = ["qzvkwjxhgpbtnmrd", "ylfcsuoaeiwvqkzj", "hxgbpmtdnrkcwyfs", "plmoknijbuhvygct"];
const KEPT: &str = "wsxedcrfvtgbyhnu";
const PURGE_WITHIN: Duration = Duration::from_secs(4);

/// A response whose parts are these, made in each way that there is.
async fn make(node: SocketAddr, worker: &Upstream, words: [&str; 3]) -> Vec<String> {
    let [input, instructions, output] = words;
    let mut ids = Vec::new();
    for kind in ["background", "stream", "store"] {
        worker.script(match kind {
            "store" => Step::completion(output),
            _ => vec![Step::stream_head(), Step::preamble(), Step::content(output), Step::end()],
        });
        let body = json!({"model": "m", "input": input, "instructions": instructions, kind: true});
        let answer = Client::connect(node).await.post(RESPONSES, &body.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text = answer.text();
        let begin = text.find("resp_").expect("an id");
        let id: String = text[begin..].chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
        within("it is whole", FORMED, async || get(node, &id).await.1["status"] == "completed").await;
        ids.push(id);
    }
    ids
}

async fn delete(node: SocketAddr, path: &str) {
    let answer = Client::connect(node).await.call("DELETE", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
}

/// How many of the words that were deleted are in files.
fn left(node: &Path) -> usize {
    DELETED.iter().filter(|it| found(node, it).0 > 0).count()
}

/// Whether none is in the files of any of these. Not asked again at once: all files are read for it.
async fn are_gone(nodes: &[Member]) -> bool {
    lasting(Duration::from_millis(100)).await;
    nodes.iter().all(|it| left(it.data()) == 0)
}

#[tokio::test]
async fn what_is_deleted_is_in_no_file_of_any_node_within_the_time_that_is_promised() {
    let (addresses, worker): ([SocketAddr; 3], _) = (free_ports(), Upstream::start("one").await);
    let mut nodes = three(&addresses, &worker, Some(PURGE_WITHIN)).await;
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    let kept = make(all[0], &worker, [KEPT; 3]).await;
    let deleted = make(all[1], &worker, [DELETED[0], DELETED[1], DELETED[2]]).await;
    let item = json!({"type": "message", "role": "user", "content": DELETED[3]});
    let answer = Client::connect(all[0]).await.post(CONVERSATIONS, &json!({"items": [item]}).to_string()).await.json();
    let conversation = format!("{CONVERSATIONS}/{}", id(&answer));
    for node in &nodes {
        within("all have it", FORMED, async || left(node.data()) == DELETED.len()).await;
    }
    // One is away while it is deleted, and has all of it in its log.
    let data = nodes.remove(2).stop().await;
    for id in &deleted {
        delete(all[0], &format!("{RESPONSES}/{id}")).await;
        assert_eq!(get(all[1], id).await.0, 404, "unreadable at once, at any node");
    }
    let items = Client::connect(all[0]).await.get(&format!("{conversation}/items")).await.json();
    delete(all[0], &format!("{conversation}/items/{}", id(&items["data"][0]))).await;
    let took = within("it is in no file of those that run", 3 * PURGE_WITHIN, async || are_gone(&nodes).await).await;
    println!("gone from two nodes {took:?} after it was deleted, {PURGE_WITHIN:?} are promised");
    for node in &nodes {
        within("the node knows", FORMED, async || told(node.address()).await["to_be_purged"] == false).await;
        assert!(scrape(node).await.moved().contains(PURGES[0]));
    }
    assert_eq!(left(data.path()), DELETED.len(), "who is away has all of it");
    let back = [start_in(data, &addresses, 2, &worker, Some(PURGE_WITHIN)).await];
    let took = within("it is in no file of the one that was away", FORMED, async || are_gone(&back).await).await;
    println!("gone from the third {took:?} after its start");
    for node in nodes.iter().chain(&back) {
        assert!(found(node.data(), KEPT).0 > 0, "what was not deleted is there");
        for id in &kept {
            within("it can be read", FORMED, async || get(node.address(), id).await.0 == 200).await;
        }
    }
    back.into_iter().chain(nodes).for_each(|it| drop(it.crash()));
}

#[tokio::test]
async fn what_has_expired_is_in_no_file_of_a_node_alone_that_nobody_asks_anything() {
    let worker = Upstream::start("one").await;
    let data = tempfile::tempdir().expect("a directory");
    let mut config = config(&[&worker]);
    config.node.data_dir = Some(data.path().display().to_string());
    (config.history.purge_within, config.history.history_retention) = (PURGE_WITHIN, Duration::from_secs(5));
    let node = [Member::with(data, config).await];
    worker.always(Step::completion("hello"));
    let body = r#"{"model":"m","input":"hi"}"#;
    let asks = async || Client::connect(node[0].address()).await.post(RESPONSES, body).await.status == 200;
    within("responses are kept", FORMED, asks).await;
    make(node[0].address(), &worker, [DELETED[0], DELETED[1], DELETED[2]]).await;
    assert!(left(node[0].data()) > 0, "the search finds it");
    let took = within("it is in no file", FORMED, async || are_gone(&node).await).await;
    println!("gone {took:?} after it was made");
    node.into_iter().for_each(|it| drop(it.crash()));
}
