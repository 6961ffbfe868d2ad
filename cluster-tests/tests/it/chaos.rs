//! Faults on purpose in whole nodes: each does what it says, ends by itself, and what is promised is kept meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Scrape;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::chat;
use cluster_tests::eventually;
use cluster_tests::in_turn;
use cluster_tests::scrape::measured;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::config::Config;

use super::control::is_whole;
use super::history::FORMED;
use super::lab::Lab;
use super::mesh::Member;
use super::mesh::free_ports;
use super::mesh::meshed;

/// Set by a fault that is in force.
pub(crate) const CHAOS: &[&str] = &["smg_chaos_faults_active"];

const CONVERSATIONS: &str = "/v1/conversations";
/// From the first silence until a member is down, on a crowded machine.
const NOTICED: Duration = Duration::from_secs(40);

/// Three nodes of one cluster that may be made to fail.
async fn three(worker: Option<&Upstream>) -> Vec<Member> {
    let addresses: [SocketAddr; 3] = free_ports();
    let mut nodes = Vec::new();
    for address in addresses {
        let data = tempfile::tempdir().expect("a directory");
        let mut config = meshed(data.path(), address.port(), &addresses, &[]);
        config.workers.urls = worker.iter().map(|it| it.url()).collect();
        nodes.push(Member::with(data, in_a_lab(measured(config))).await);
    }
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    within("one group of three", FORMED, async || is_whole(&all, 3).await).await;
    for node in &nodes {
        node.has_joined().await;
    }
    nodes
}

fn in_a_lab(mut config: Config) -> Config {
    config.node.chaos = true;
    config
}

async fn begin(node: SocketAddr, fault: Value) -> Value {
    let answer = Client::connect(node).await.post("/admin/chaos", &fault.to_string()).await;
    assert_eq!(answer.status, 200, "{fault}: {}", answer.text());
    answer.json()
}

async fn this(node: SocketAddr) -> Value {
    Client::connect(node).await.get("/cluster/node").await.json()
}

/// How many faults are in force.
async fn in_force(node: SocketAddr) -> u64 {
    Client::connect(node).await.get("/admin/chaos").await.json()["total"].as_u64().expect("a number")
}

async fn scrape(member: &Member) -> Scrape {
    Scrape::of(member.node().metrics_address.expect("is measured")).await
}

/// States of the other members, as one sees them.
async fn others(node: SocketAddr) -> Vec<String> {
    let members = Client::connect(node).await.get("/cluster/members").await.json();
    let others = members["members"].as_array().expect("a list").iter().filter(|it| it["is_self"] != true);
    others.map(|it| it["state"].as_str().expect("a state").to_owned()).collect()
}

#[tokio::test]
async fn a_node_that_is_cut_off_is_down_for_the_others_and_comes_back_when_the_fault_ends() {
    let nodes = three(None).await;
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    let begun = begin(all[0], json!({"kind": "partition", "nodes": ["*"], "for": "25s"})).await;
    assert_eq!(scrape(&nodes[0]).await.value(r#"smg_chaos_faults_active{kind="partition"}"#), 1.0);
    let is_lost = async || {
        let (here, there) = (others(all[0]).await, others(all[1]).await);
        here.iter().all(|it| it == "down") && there.iter().filter(|it| *it == "down").count() == 1
    };
    let took = within("both sides see it", NOTICED, is_lost).await;
    assert_eq!(in_force(all[0]).await, 1, "{begun} while it was in force, {took:?} after it began");
    let dropped = scrape(&nodes[0]).await.value(r#"smg_mesh_dropped_total{reason="on_purpose"}"#);
    assert!(dropped > 0.0, "what was cut is counted");
    within("it has ended", NOTICED, async || in_force(all[0]).await == 0).await;
    let is_back = async || {
        let mut states = Vec::new();
        for node in &all {
            states.extend(others(*node).await);
        }
        states.iter().all(|it| it == "alive")
    };
    let took = within("all are back", NOTICED, is_back).await;
    println!("whole again {took:?} after it ended");
    assert_eq!(scrape(&nodes[0]).await.sum("smg_chaos_faults_active"), 0.0);
    nodes.into_iter().for_each(|it| drop(it.crash()));
}

#[tokio::test]
async fn two_nodes_that_do_not_hear_each_other_go_on_with_the_third_between_them() {
    let nodes = three(None).await;
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    let other = this(all[1]).await["node_id"].as_str().expect("an id").to_owned();
    begin(all[0], json!({"kind": "partition", "nodes": [other], "for": "60s"})).await;
    // What one of them decides gets to the other by the third.
    let added = Client::connect(all[0]).await.post("/workers", r#"{"url":"http://127.0.0.1:9"}"#).await;
    assert_eq!(added.status, 201, "{}", added.text());
    assert_eq!(added.json()["pending"], json!([other]), "it does not get it from the first");
    let has_it = async || Client::connect(all[1]).await.get("/workers").await.json()["total"] == 1;
    within("the edit is everywhere", NOTICED, has_it).await;
    assert_eq!(in_force(all[0]).await, 1, "although they do not hear each other");
    assert!(scrape(&nodes[0]).await.value(r#"smg_mesh_dropped_total{reason="on_purpose"}"#) > 0.0);
    assert_eq!(others(all[2]).await, ["alive", "alive"], "the third hears both");
    nodes.into_iter().for_each(|it| drop(it.crash()));
}

#[tokio::test]
async fn a_worker_that_is_refused_loses_no_request() {
    let (one, two) = (Upstream::start("one").await, Upstream::start("two").await);
    [&one, &two].iter().for_each(|it| it.always(Step::completion("hello")));
    let node = cluster_tests::node(in_a_lab(in_turn(&[&one, &two]))).await;
    let ask = async || Client::connect(node.address).await.post("/v1/chat/completions", &chat("hi", false)).await;
    begin(node.address, json!({"kind": "worker_refuse", "worker": one.url(), "for": "60s"})).await;
    let before = one.requests().len();
    for _ in 0..8 {
        let answer = ask().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(one.requests().len(), before, "nothing reached it");
    assert_eq!(Client::connect(node.address).await.call("DELETE", "/admin/chaos", "").await.status, 200);
    eventually("it is used again", async || {
        ask().await;
        one.requests().len() > before
    })
    .await;
    // An answer that breaks off before the client has any of it is made by the other.
    begin(node.address, json!({"kind": "worker_reset", "worker": one.url(), "after_bytes": 3, "for": "60s"})).await;
    for _ in 0..4 {
        assert_eq!(ask().await.status, 200);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_disk_that_fails_confirms_nothing_more_and_the_node_stops() {
    let data = tempfile::tempdir().expect("a directory");
    let mut config = in_a_lab(cluster_tests::config(&[]));
    config.node.data_dir = Some(data.path().display().to_string());
    let alone = Member::with(data, config).await;
    let node = alone.address();
    let makes = async || Client::connect(node).await.post(CONVERSATIONS, "{}").await.status;
    within("conversations are kept", FORMED, async || makes().await == 200).await;
    begin(node, json!({"kind": "disk_full", "for": "60s"})).await;
    assert_ne!(makes().await, 200, "nothing new begins on a full disk");
    assert_eq!(Client::connect(node).await.call("DELETE", "/admin/chaos", "").await.status, 200);
    within("there is room again", FORMED, async || makes().await == 200).await;
    begin(node, json!({"kind": "disk_slow", "ms": 300, "for": "60s"})).await;
    let begun = Clock.now();
    assert_eq!(makes().await, 200);
    assert!(Clock.now() - begun >= Duration::from_millis(300), "it waited for its fsync");
    assert_eq!(Client::connect(node).await.call("DELETE", "/admin/chaos", "").await.status, 200);
    begin(node, json!({"kind": "disk_fail", "for": "1s"})).await;
    assert_ne!(makes().await, 200, "not confirmed");
    let stops = tokio::time::timeout(FORMED, alone.node().fatal().cancelled_owned()).await;
    assert!(stops.is_ok(), "it goes on with a disk that failed");
    assert_ne!(makes().await, 200, "nor when the disk is well again");
    drop(alone.crash());
}

/// What a node says of history.
async fn group(node: SocketAddr) -> Value {
    Client::connect(node).await.get("/cluster/history").await.json()["group"].clone()
}

#[tokio::test]
async fn a_leader_that_is_paused_is_replaced_and_does_not_answer_from_what_it_had() {
    let worker = Upstream::start("one").await;
    let nodes = three(Some(&worker)).await;
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    let keeps = async || {
        let mut all_know = true;
        for node in &all {
            let group = group(*node).await;
            all_know &= group["voters"].as_array().is_some_and(|it| it.len() == 3) && group["leader"].is_string();
        }
        all_know
    };
    let makes = async |node: SocketAddr| Client::connect(node).await.post(CONVERSATIONS, "{}").await;
    for node in &all {
        within("conversations are kept", FORMED, async || makes(*node).await.status == 200).await;
    }
    within("three keep history", FORMED, keeps).await;
    let leader = group(all[0]).await["leader"].as_str().expect("one leads").to_owned();
    let mut at = None;
    for (n, node) in all.iter().enumerate() {
        if this(*node).await["storage_id"] == *leader {
            at = Some(n);
        }
    }
    let paused = at.expect("it is one of them");
    let other = all[(paused + 1) % 3];
    begin(all[paused], json!({"kind": "raft", "group": "history", "for": "2m"})).await;
    let is_replaced = async || group(other).await["leader"].as_str().is_some_and(|it| it != leader);
    let took = within("another leads", Duration::from_secs(15), is_replaced).await;
    println!("another led {took:?} after the pause began");
    let made = makes(other).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let path = format!("{CONVERSATIONS}/{}", made.json()["id"].as_str().expect("an id"));
    let read = Client::connect(all[paused]).await.get(&path).await;
    assert_eq!(in_force(all[paused]).await, 1, "it was paused all the time");
    assert!(read.status == 200 || read.status == 503, "known, or not known to be absent: {}", read.text());
    assert_eq!(Client::connect(all[paused]).await.call("DELETE", "/admin/chaos", "").await.status, 200);
    let reads = async || Client::connect(all[paused]).await.get(&path).await.status == 200;
    within("it has what it missed", FORMED, reads).await;
    nodes.into_iter().for_each(|it| drop(it.crash()));
}

#[tokio::test]
async fn the_commands_break_a_lab_and_mend_it_and_a_clock_that_is_wrong_is_not_followed() {
    let lab = Lab::with(&["--chaos"]).await;
    lab.uses_both_workers(0).await;
    let both =
        async || lab.smg(1, "members").await.contains("node-1") && lab.smg(0, "members").await.contains("node-2");
    eventually("both names are known at both", both).await;
    assert_eq!(lab.smg(0, "chaos").await, "nothing fails on purpose\n");
    let begun = lab.smg(0, "chaos delay node-2 node-1 --ms 40 --jitter 10 --for 1m").await;
    assert!(begun.starts_with("f-1 at node-2: delay "), "{begun}");
    let begun = lab.json(1, "chaos worker * --ms 20 --for 1m").await;
    assert_eq!(begun["faults"].as_array().map(Vec::len), Some(2), "at every node: {begun}");
    let listed = lab.smg(0, "chaos").await;
    for part in ["node-1", "node-2", "worker_delay", "ms=40 jitter_ms=10", "LEFT S"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(lab.smg(1, "status").await.contains("in force: delay, worker_delay"));
    lab.uses_both_workers(0).await;
    assert_eq!(lab.smg(0, "chaos lift f-1 --at node-2").await, "1 fault lifted\n");
    assert_eq!(lab.smg(1, "chaos lift").await, "2 faults lifted\n");
    // A clock that is five minutes ahead is wrong in what it dates, and nobody follows it: the members tell the time together.
    lab.smg(0, "chaos clock node-1 --offset 300 --for 1m").await;
    let ahead = async |node: u16| {
        let made = Client::connect(lab.address(node)).await.post(CONVERSATIONS, "{}").await.json();
        made["created_at"].as_u64().unwrap_or(0).saturating_sub(Clock.wall().as_secs())
    };
    within("history is kept", FORMED, async || ahead(0).await > 200).await;
    assert_eq!(ahead(1).await, 0, "the other's clock is right");
    lab.smg(0, "workers add http://127.0.0.1:9").await;
    let has_it = async || lab.smg(1, "workers").await.contains("http://127.0.0.1:9");
    eventually("what it decides is taken", has_it).await;
    let refused = lab.json(1, "status").await["tables"]["refused"]["stamps_ahead"].clone();
    assert_eq!(refused, 0, "and has the time of all");
    assert_eq!(lab.smg(0, "chaos lift").await, "1 fault lifted\n");
    within("its clock is right again", FORMED, async || ahead(0).await == 0).await;
    let scenario = tempfile::NamedTempFile::new().expect("a file");
    let text = "[[steps]]\nat = \"0s\"\nnode = \"*\"\nfor = \"300ms\"\nkind = \"worker_delay\"\nworker = \"*\"\nms = 5\n\
        [[steps]]\nat = \"200ms\"\nnode = \"node-2\"\nfor = \"10m\"\nkind = \"loss\"\nnodes = [\"node-1\"]\nratio = 0.1\n\
        [[steps]]\nat = \"500ms\"\nnode = \"node-1\"\nfor = \"1m\"\nkind = \"partition\"\nnodes = [\"nobody\"]\n";
    std::fs::write(scenario.path(), text).expect("is written");
    let failed = lab.fails(0, &format!("chaos run {}", scenario.path().display())).await;
    assert!(failed.contains("partition") && failed.contains("nobody"), "{failed}");
    assert_eq!(lab.smg(0, "chaos").await, "nothing fails on purpose\n", "what it had begun was lifted");
}
