//! Limits of three real nodes over real sockets and disks: all of one can be had at one of them and no more, one node is lost, and a lower limit takes force.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::Client;
use cluster_tests::within;
use serde_json::Value;
use serde_json::json;
use smg::base::clock::Clock;
use smg::base::tasks::Tasks;
use smg::limits::Definition;
use smg::limits::Handle;
use smg::limits::Kind;
use smg::limits::LimitId;
use smg::limits::Permit;
use smg::limits::core::Answer;
use smg::limits::core::Refused;
use smg::node::Node;
use smg::transport::RequestError;
use smg::transport::lanes::Lane;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::timeout;

use super::control::is_whole;
use super::mesh::Member;
use super::mesh::free_ports;
use super::mesh::meshed;
use super::meters::Watch;
use super::meters_mesh::certified;

/// Registered with the mesh alone.
pub(crate) const LIMITS: &[&str] = &[
    "smg_limits_ignored_total",
    "smg_limits_known",
    "smg_limits_messages_total",
    "smg_limits_proposals_total",
    "smg_limits_renewals_total",
    "smg_limits_streams",
    "smg_limits_taken_units_total",
    "smg_limits_takes_total",
    "smg_limits_unusable",
    "smg_limits_wait_seconds",
];

const LIMIT: LimitId = LimitId(7);
/// A group of three takes three changes of members.
const FORMED: Duration = Duration::from_secs(60);
/// A limit is divided a second after it is defined, and known with the next renewal. Ten times that.
const DIVIDED: Duration = Duration::from_secs(20);
/// A lower limit is agreed on in less than a second, known with the next renewal, and in force with the window after it. Ten times that.
const LOWERED: Duration = Duration::from_secs(30);
/// A hundred requests a second: five times the limit.
const EVERY: Duration = Duration::from_millis(10);

/// Three nodes that are one group.
async fn three() -> Vec<Member> {
    let addresses: [SocketAddr; 3] = free_ports();
    let mut nodes = Vec::new();
    for at in [2, 0, 1] {
        nodes.push(Member::fresh(addresses[at].port(), &addresses).await);
    }
    let all: Vec<SocketAddr> = nodes.iter().map(Member::address).collect();
    within("one group of three", FORMED, async || is_whole(&all, 3).await).await;
    nodes
}

fn definition(limit: LimitId, revision: u64, units: u64) -> Definition {
    Definition { limit, revision, kind: Kind::Requests, window_ms: 1_000, units }
}

fn define(nodes: &[Member], revision: u64, units: u64) {
    let definition = definition(LIMIT, revision, units);
    nodes.iter().for_each(|it| drop(it.node().definitions.send_replace(Arc::new([definition]))));
}

/// What was admitted in each window.
type Windows = BTreeMap<u64, u64>;

/// Wants more than the limit at one node for so many whole windows.
async fn load(handle: &Handle, limit: LimitId, windows: usize) -> Vec<u64> {
    let (mut admitted, mut ticks) = (Windows::new(), interval(EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let run = async {
        // The first and the last one are not whole.
        while admitted.len() < windows + 2 {
            ticks.tick().await;
            if let Answer::Admitted(taken) = handle.take(limit, 1).await {
                *admitted.entry(taken.window()).or_default() += taken.units();
            }
        }
    };
    timeout(Duration::from_secs(10) * windows as u32, run)
        .await
        .expect("windows go by, and something is admitted in each");
    let admitted: Vec<u64> = admitted.into_values().collect();
    admitted[1..=windows].to_vec()
}

/// On streams that are open at a time.
const STREAMS: LimitId = LimitId(9);

fn streams(revision: u64, units: u64) -> Definition {
    Definition { kind: Kind::Streams, window_ms: 0, ..definition(STREAMS, revision, units) }
}

fn define_streams(nodes: &[Member], revision: u64, units: u64) {
    let definition = streams(revision, units);
    nodes.iter().for_each(|it| drop(it.node().definitions.send_replace(Arc::new([definition]))));
}

/// Opens streams at one node until one is refused.
async fn open(handle: &Handle) -> Vec<Permit> {
    let mut held = Vec::new();
    loop {
        match handle.permit(STREAMS).await {
            Answer::Admitted(permit) => held.push(permit),
            Answer::Refused(Refused::Exhausted { .. }) => return held,
            other => panic!("it has a share: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_limit_on_streams_is_the_same_wherever_they_are_open_and_whoever_is_lost() {
    let mut nodes = three().await;
    define_streams(&nodes, 1, 20);
    let standing = |it: &Member| it.node().limits.standing(STREAMS);
    within("20 divided over three", DIVIDED, async || {
        nodes.iter().all(|it| standing(it).is_some_and(|it| it.units == 20 && it.share >= 6))
    })
    .await;
    // All of them at one node: what the others do not use comes over.
    let first = nodes[0].node().limits.clone();
    let began = Clock.now();
    let mut held = open(&first).await;
    println!("{} of 20 at one node, after {:?}, the last of which waited in vain", held.len(), Clock.now() - began);
    assert_eq!(held.len(), 20);
    // As some end there, others may begin elsewhere.
    held.truncate(8);
    let began = Clock.now();
    let second = nodes[1].node().limits.clone();
    let held_elsewhere = open(&second).await;
    println!("{} elsewhere, 8 at the first, after {:?}", held_elsewhere.len(), Clock.now() - began);
    assert_eq!(held_elsewhere.len(), 12);
    // One is lost with what it has. What its hold ends first is not waited for here: it is 10 minutes.
    let lost = nodes.remove(1);
    let its_share = standing(&lost).map_or(0, |it| it.share);
    drop((lost.crash(), second));
    held_elsewhere.into_iter().for_each(std::mem::forget);
    let more = open(&first).await;
    println!("{} more at the first without the {its_share} of the one that was lost", more.len());
    assert!(held.len() + more.len() <= 20 - 12, "they may run on there for all that is known");
    // A lower limit takes force as streams end.
    define_streams(&nodes, 2, 15);
    held.extend(more);
    held.truncate(2);
    within("15 known", LOWERED, async || standing(&nodes[0]).is_some_and(|it| it.units == 15)).await;
    let more = open(&first).await;
    println!("{} of 15 at the first, {its_share} were lost", held.len() + more.len());
    assert!(held.len() + more.len() <= 15);
    for node in nodes {
        node.stop().await;
    }
}

fn share(node: &Member) -> u64 {
    node.node().limits.standing(LIMIT).map_or(0, |it| it.share)
}

#[tokio::test]
async fn a_limit_is_the_same_wherever_it_is_asked_for_and_whoever_is_lost() {
    let mut nodes = three().await;
    define(&nodes, 1, 20);
    let took = within("20 divided over three", DIVIDED, async || {
        nodes.iter().map(share).sum::<u64>() == 20 && nodes.iter().all(|it| share(it) >= 6)
    })
    .await;
    println!("divided {took:?} after it was defined");
    let handle = nodes[0].node().limits.clone();
    let admitted = load(&handle, LIMIT, 10).await;
    println!("admitted at one node, of 20: {admitted:?}");
    assert!(admitted.iter().all(|it| (19..=20).contains(it)), "0.95 to 1.02 of 20: {admitted:?}");
    // One is lost. Its share is nobody's until its hold has ended.
    let dead = nodes.pop().expect("three");
    let its_share = share(&dead);
    drop(dead.crash());
    let admitted = load(&handle, LIMIT, 5).await;
    println!("admitted without the {its_share} of the one that was lost: {admitted:?}");
    assert!(admitted.iter().all(|it| *it <= 20), "{admitted:?}");
    let (sum, least) = (admitted.iter().sum::<u64>() as f64, (20 - its_share) as f64 * admitted.len() as f64);
    assert!(sum >= 0.95 * least, "{sum} of {least}");
    // A lower limit does not wait for it.
    define(&nodes, 2, 9);
    let units = |it: &Member| it.node().limits.standing(LIMIT).map_or(0, |it| it.units);
    let took = within("9 known to both", LOWERED, async || nodes.iter().all(|it| units(it) == 9)).await;
    println!("lowered {took:?} after it was defined");
    let admitted = load(&handle, LIMIT, 5).await;
    println!("admitted of 9, without the share of the one that was lost: {admitted:?}");
    // The window in which a node hears of it, and the one of which it has given units ahead.
    assert!(admitted[2..].iter().all(|it| (5..=9).contains(it)), "{admitted:?}");
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn what_limits_do_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    let mut watch = Watch::start(meshed(data.path(), 0, &[], &[])).await;
    let address = watch.node.mesh_address.expect("the mesh is on");
    watch.until("it leads", |it| it.value("smg_control_is_leader") == 1.0).await;
    let other = Member::fresh(free_ports::<1>()[0].port(), &[address]).await;
    within("two vote", FORMED, async || is_whole(&[watch.node.address, other.address()], 2).await).await;
    let idle = watch.scrape().await;
    assert_eq!(idle.sum("smg_limits_renewals_total"), 0.0, "a node with nothing to limit renews nothing");
    let too_large = definition(LimitId(8), 1, u64::MAX);
    let defined: Arc<[Definition]> = Arc::new([definition(LIMIT, 1, 20), too_large, streams(1, 2)]);
    drop(watch.node.definitions.send_replace(Arc::clone(&defined)));
    drop(other.node().definitions.send_replace(defined));
    let handle = watch.node.limits.clone();
    within("both have a share", DIVIDED, async || share(&other) == 10 && handle.standing(LIMIT).is_some()).await;
    load(&handle, LIMIT, 1).await;
    let Answer::Admitted(permit) = handle.permit(STREAMS).await else { panic!("there are two") };
    watch.until("a stream is open", |it| it.value(r#"smg_limits_streams{state="open"}"#) == 1.0).await;
    drop(permit);
    let tasks = Tasks::new();
    let (stranger, peer) = certified(address, &tasks).await;
    stranger.send(&peer, Lane::Limits, Bytes::from_static(b"rubbish")).expect("there is room");
    let answer = stranger.request(&peer, Lane::Renewals, b"rubbish", Duration::from_secs(10)).await;
    assert_eq!(answer, Err(RequestError::Unanswered));
    watch.until("rubbish is ignored", |it| it.value(r#"smg_limits_ignored_total{reason="unreadable"}"#) >= 2.0).await;
    let scrape = watch.scrape().await;
    assert_eq!((scrape.value("smg_limits_known"), scrape.value("smg_limits_unusable")), (2.0, 1.0));
    assert!(scrape.value(r#"smg_limits_takes_total{result="asked"}"#) > 0.0);
    assert!(scrape.value(r#"smg_limits_takes_total{result="exhausted"}"#) > 0.0);
    watch.end(LIMITS).await;
    other.stop().await;
}

/// Waits until the one limit that there is belongs to this node alone.
async fn has_all(node: &Node, units: u64) -> LimitId {
    let limit = async || node.definitions.borrow().first().map(|it| it.limit);
    within("the limit is known", DIVIDED, async || limit().await.is_some()).await;
    let limit = limit().await.expect("it is known");
    let is_its = async || node.limits.standing(limit).is_some_and(|it| it.share == units);
    within("all of it is this node's", DIVIDED, is_its).await;
    limit
}

async fn ask(node: &Node, method: &str, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = Client::connect(node.address).await.call(method, path, &body).await;
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    answer.json()
}

async fn set(node: &Node, limit: u64) -> Value {
    ask(node, "POST", "/tenants", &json!({"name": "team"})).await;
    let limit = json!({"limits": [{"what": "requests", "per": "second", "limit": limit}]});
    ask(node, "PATCH", "/tenants/team", &limit).await
}

/// Without a mesh a limit holds, also over a restart, and then this node is the first of a mesh.
#[tokio::test]
async fn a_node_alone_holds_its_limits_over_a_restart_and_brings_them_into_a_mesh() {
    let data = tempfile::tempdir().expect("a directory");
    let alone = || {
        let mut config = cluster_tests::config(&[]);
        config.node.data_dir = Some(data.path().display().to_string());
        config
    };
    let node = Node::start(alone()).await.expect("it starts");
    let group = async |node: &Node| ask(node, "GET", "/cluster/node", &Value::Null).await["control"].clone();
    assert_eq!(group(&node).await["cluster_id"], Value::Null, "nothing needs a group yet");
    assert_eq!(set(&node, 20).await["durable"], true);
    let limit = has_all(&node, 20).await;
    assert_eq!(load(&node.limits, limit, 3).await, [20; 3]);
    let cluster = group(&node).await["cluster_id"].clone();
    assert!(cluster.is_string(), "{cluster}");
    node.shutdown().await;
    let node = Node::start(alone()).await.expect("it starts");
    assert_eq!(has_all(&node, 20).await, limit);
    assert_eq!(load(&node.limits, limit, 3).await, [20; 3]);
    node.shutdown().await;
    let node = Node::start(meshed(data.path(), 0, &[], &[])).await.expect("it starts");
    assert_eq!(has_all(&node, 20).await, limit);
    assert_eq!(load(&node.limits, limit, 3).await, [20; 3]);
    assert_eq!(group(&node).await["cluster_id"], cluster, "the same one");
    node.shutdown().await;
}

#[tokio::test]
async fn where_nothing_is_kept_a_limit_holds_until_the_restart() {
    let node = Node::start(cluster_tests::config(&[])).await.expect("it starts");
    assert_eq!(set(&node, 20).await["durable"], false);
    let limit = has_all(&node, 20).await;
    assert_eq!(load(&node.limits, limit, 3).await, [20; 3]);
    node.shutdown().await;
}
