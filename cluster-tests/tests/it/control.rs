//! The control group of real nodes over real sockets and disks: one comes to be, loses its leader, takes it back, and forgets who does not come back.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::within;
use serde_json::Value;
use smg::base::tasks::Tasks;
use smg::transport::lanes::Lane;

use super::mesh::Member;
use super::mesh::free_ports;
use super::mesh::meshed;
use super::meters::Watch;
use super::meters_mesh::certified;

/// Registered with the mesh alone.
pub(crate) const CONTROL: &[&str] = &[
    "smg_control_applied",
    "smg_control_has_leader",
    "smg_control_is_leader",
    "smg_control_refused_by_others_total",
    "smg_control_refused_total",
    "smg_control_term",
    "smg_control_voters",
];

/// Joining takes three changes of members and a snapshot of nothing; machines that run tests are crowded.
const FORMED: Duration = Duration::from_secs(60);
/// Twice the longest election.
const FAILOVER: Duration = Duration::from_secs(4);

async fn group(node: SocketAddr) -> Value {
    Client::connect(node).await.get("/cluster/node").await.json()["control"].clone()
}

/// All of these are in one group of `voters`, and know who leads.
pub(crate) async fn is_whole(nodes: &[SocketAddr], voters: usize) -> bool {
    let mut seen = BTreeSet::new();
    for node in nodes {
        let group = group(*node).await;
        let is_in = group["voters"].as_array().is_some_and(|it| it.len() == voters)
            && group["changing_voters"] == false
            && group["cluster_id"].is_string()
            && group["leader"].is_string();
        if !is_in {
            return false;
        }
        seen.insert((group["cluster_id"].to_string(), group["leader"].to_string()));
    }
    seen.len() == 1
}

async fn storage_of(node: SocketAddr) -> String {
    Client::connect(node).await.get("/cluster/node").await.json()["storage_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn three_nodes_agree_lose_their_leader_and_forget_it() {
    let addresses: [SocketAddr; 3] = free_ports();
    let mut nodes = Vec::new();
    for at in [2, 0, 1] {
        nodes.push((at, Member::fresh(addresses[at].port(), &addresses).await));
    }
    let clients = |nodes: &[(usize, Member)]| nodes.iter().map(|it| it.1.address()).collect::<Vec<_>>();
    let all = clients(&nodes);
    let took = within("one group of three", FORMED, async || is_whole(&all, 3).await).await;
    println!("formed {took:?} after the last node started");
    // One is started anew: the same voter, in another life.
    let (place, node) = nodes.remove(0);
    let again = storage_of(node.address()).await;
    let data = node.stop().await;
    nodes.push((place, Member::start(data, addresses[place].port(), &addresses, &[]).await));
    let all = clients(&nodes);
    within("three again", FORMED, async || is_whole(&all, 3).await).await;
    let first = group(all[0]).await;
    assert!(first["voters"].as_array().is_some_and(|it| it.iter().any(|it| *it == again.as_str())), "{first}");
    assert!(first["standing"].as_str().is_some_and(|it| it.starts_with("member of c-")), "{first}");
    // The leader is lost.
    let leader = first["leader"].as_str().expect("a leader").to_owned();
    let mut at = 0;
    while storage_of(nodes[at].1.address()).await != leader {
        at += 1;
    }
    let (place, lost) = nodes.remove(at);
    drop(lost.crash());
    let left = clients(&nodes);
    let has_another = async || {
        let now = group(left[0]).await["leader"].clone();
        now.is_string() && now != leader.as_str()
    };
    let took = within("another leads", FAILOVER * 5, has_another).await;
    println!("another led {took:?} after the crash; longest election 2 s, mark {FAILOVER:?}");
    let answer = Client::connect(left[0]).await.call("POST", "/cluster/upgrade/finalize", "").await.json();
    let level = smg::control::machine::LEVEL.into();
    assert_eq!((answer["feature_level"].clone(), answer["agreed"].clone()), (level, true.into()), "{answer}");
    // It does not come back, and somebody says so.
    nodes[0].1.sees(addresses[place], "down").await;
    let mut client = Client::connect(left[0]).await;
    let answer = client.call("DELETE", &format!("/cluster/members/{leader}"), "").await;
    assert_eq!((answer.status, answer.json()["agreed"].clone()), (200, true.into()));
    within("two vote", FORMED, async || is_whole(&left, 2).await).await;
    for (_, node) in nodes {
        node.stop().await;
    }
}

#[tokio::test]
async fn what_the_control_group_does_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    let mut watch = Watch::start(meshed(data.path(), 0, &[], &[])).await;
    let address = watch.node.mesh_address.expect("the mesh is on");
    within("it founds a group", FORMED, async || group(watch.node.address).await["cluster_id"].is_string()).await;
    watch.until("it leads", |it| it.value("smg_control_is_leader") == 1.0).await;
    let port = free_ports::<1>()[0].port();
    let mut other = Member::fresh(port, &[address]).await;
    within("two vote", FORMED, async || is_whole(&[watch.node.address, other.address()], 2).await).await;
    // One that starts anew is not in the group before its start is known: until then it hears nobody.
    while watch.scrape().await.sum("smg_control_refused_by_others_total") == 0.0 {
        other = Member::start(other.stop().await, port, &[address], &[]).await;
        within("two again", FORMED, async || is_whole(&[watch.node.address, other.address()], 2).await).await;
    }
    let tasks = Tasks::new();
    let (handle, peer) = certified(address, &tasks).await;
    let answer = handle.request(&peer, Lane::Raft, b"rubbish", Duration::from_secs(10)).await;
    assert!(answer.is_ok(), "it is told that it was not understood: {answer:?}");
    watch.until("rubbish is refused", |it| it.value(r#"smg_control_refused_total{reason="unreadable"}"#) == 1.0).await;
    watch.until("all is applied", |it| it.value("smg_control_applied") >= 3.0).await;
    watch.end(CONTROL).await;
    other.stop().await;
}
