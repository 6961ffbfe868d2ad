//! The meters of the mesh, beside [`super::meters`]: nodes that meet, stall and come back, and one that speaks rubbish.

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::Client;
use cluster_tests::Scrape;
use cluster_tests::Upstream;
use cluster_tests::chat;
use smg::base::ids::ClusterName;
use smg::base::ids::NodeId;
use smg::base::ids::StorageId;
use smg::base::tasks::Stage;
use smg::base::tasks::Tasks;
use smg::membership;
use smg::transport;
use smg::transport::Peer;
use smg::transport::RequestError;
use smg::transport::lanes::Lane;
use smg::transport::trust::MeshSecret;
use smg::transport::trust::Trust;
use smg::transport::wire;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::mesh::Member;
use super::mesh::meshed;
use super::meters::Watch;

/// Set by requests for workers that one node reaches.
pub(crate) const FORWARDED: &[&str] =
    &["smg_worker_forwards_active", "smg_worker_forwards_refused_total", "smg_worker_forwards_total"];

/// Set by nodes that watch workers together.
pub(crate) const WATCHED: &[&str] = &["smg_worker_doubted", "smg_worker_observations"];

/// Registered with the mesh alone.
pub(crate) const MESH: &[&str] = &[
    "smg_membership_changes_total",
    "smg_membership_ignored_total",
    "smg_membership_members",
    "smg_membership_refuted_total",
    "smg_membership_renewed_total",
    "smg_membership_slept_total",
    "smg_mesh_dials_total",
    "smg_mesh_dropped_total",
    "smg_mesh_links",
    "smg_mesh_received_bytes_total",
    "smg_mesh_refused_total",
    "smg_mesh_rtt_seconds",
    "smg_mesh_sent_bytes_total",
    "smg_replication_entries",
    "smg_replication_everywhere_seconds",
    "smg_replication_lives",
    "smg_replication_red",
    "smg_replication_refused_total",
    "smg_replication_sent_bytes_total",
];

/// Set by requests of a node that is not alone.
pub(crate) const LEDGER: &[&str] = &[
    "smg_ledger_ignored_total",
    "smg_ledger_messages_total",
    "smg_ledger_owners_skipped_total",
    "smg_ledger_probe_seconds",
    "smg_ledger_probes_total",
];

fn bound() -> (UdpSocket, Peer) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let addr = socket.local_addr().expect("is bound");
    let node = NodeId::parse("n-rubbish").expect("a name");
    (socket, Peer { node, storage: StorageId(7), boot: 1, generation: 1, renewals: 0, addr, zone: None })
}

pub(crate) async fn certified(to: std::net::SocketAddr, tasks: &Tasks) -> (transport::Handle, Peer) {
    let (socket, me) = bound();
    let cluster = ClusterName::parse("smg").expect("a name");
    let trust = Trust::from_secrets(cluster, me.node.clone(), &[MeshSecret::development()]).expect("a certificate");
    let (handle, _inboxes) =
        transport::start(socket, me, trust, Default::default(), Default::default(), tasks).expect("it starts");
    let peer = handle.greet(to).await.expect("it is a member");
    (handle, peer)
}

/// A member by its certificate, which says what no member says.
async fn speak_rubbish(to: std::net::SocketAddr, tasks: &Tasks) {
    let (handle, peer) = certified(to, tasks).await;
    for lane in [Lane::Swim, Lane::Deltas, Lane::Ledger] {
        handle.send(&peer, lane, Bytes::from_static(b"rubbish")).expect("there is room");
    }
    let answer = handle.request(&peer, Lane::Sync, b"rubbish", Duration::from_secs(10)).await;
    assert_eq!(answer, Err(RequestError::Unanswered));
    // There, nobody reads what is no question.
    handle.send(&peer, Lane::Sync, Bytes::from_static(b"rubbish")).expect("there is room");
}

/// A member that answers probes and has no tables.
fn mute(seed: std::net::SocketAddr, tasks: &Tasks) {
    let (socket, me) = bound();
    let cluster = ClusterName::parse("smg").expect("a name");
    let trust = Trust::from_secrets(cluster, me.node.clone(), &[MeshSecret::development()]).expect("a certificate");
    let (handle, inboxes) =
        transport::start(socket, me, trust, Default::default(), Default::default(), tasks).expect("it starts");
    let (seeds, timing) = (vec![seed.to_string()], membership::Config::default());
    membership::start(seeds, timing, handle, inboxes.swim, Default::default(), tasks);
}

#[tokio::test]
async fn what_the_mesh_does_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    let mut watch = Watch::start(meshed(data.path(), 0, &[], &[])).await;
    let address = watch.node.mesh_address.expect("the mesh is on");
    let alone = Tasks::new();
    mute(address, &alone);
    watch
        .until("nobody exchanges tables with it", |it| it.value(r#"smg_replication_red{table="workers"}"#) == 1.0)
        .await;
    for stage in [Stage::Belong, Stage::Carry] {
        alone.stop_stage(stage, Duration::from_secs(5)).await;
    }
    let other = Member::fresh(0, &[address]).await;
    let alive = |count: f64| move |it: &Scrape| it.value(r#"smg_membership_members{status="alive"}"#) == count;
    watch.until("they see each other", alive(2.0)).await;
    watch.until("their tables are compared", |it| it.value(r#"smg_replication_red{table="workers"}"#) == 0.0).await;
    let body = r#"{"url":"http://127.0.0.1:1"}"#;
    assert_eq!(Client::connect(watch.node.address).await.post("/workers", body).await.status, 201);
    watch.until("it is everywhere", |it| it.value("smg_replication_everywhere_seconds_count") >= 1.0).await;
    let dropped = |it: &Scrape| it.value(r#"smg_mesh_dropped_total{reason="no_reader"}"#) >= 1.0;
    let tasks = Tasks::new();
    speak_rubbish(address, &tasks).await;
    watch.until("rubbish is ignored", |it| it.value("smg_membership_ignored_total") >= 1.0).await;
    watch.until("what nobody reads is dropped", dropped).await;
    let refused = r#"smg_replication_refused_total{reason="strangers"}"#;
    watch.until("tables take nothing of strangers", |it| it.value(refused) >= 1.0).await;
    let stranger = tempfile::tempdir().expect("a directory");
    let stranger = Member::start(stranger, 0, &[address], &[MeshSecret::generate()]).await;
    // By whom depends on which of the two dials, and so on who reads the other's certificate first.
    let refused = |it: &Scrape| it.sum("smg_mesh_refused_total") >= 1.0;
    watch.until("a stranger is refused", refused).await;
    stranger.stop().await;

    // The other stalls until it is suspected, and contradicts when it runs again.
    let refuted = "smg_membership_refuted_total";
    while watch.scrape().await.value(refuted) == 0.0 {
        watch.until("the other is alive", alive(2.0)).await;
        let (resume, stalled) = mpsc::channel::<()>();
        other.runtime.spawn(async move { stalled.recv() });
        let suspect = |it: &Scrape| it.value(r#"smg_membership_members{status="alive"}"#) == 1.0;
        watch.until("it is suspected", suspect).await;
        resume.send(()).expect("it waits for this");
        watch.until("it is back", alive(2.0)).await;
    }
    // This one stalls until the other holds it for dead.
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(other.sees(address, "down"));
        other
    });
    let other = other.join().expect("no panic");
    watch.until("it slept", |it| it.value("smg_membership_slept_total") >= 1.0).await;
    watch.until("it came back", |it| it.value("smg_membership_renewed_total") >= 1.0).await;
    watch.until("round trips are measured", |it| it.sum("smg_mesh_rtt_seconds_count") >= 1.0).await;
    watch.end(MESH).await;
    other.stop().await;
}

#[tokio::test]
async fn what_is_forwarded_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    let mut watch = Watch::start(meshed(data.path(), 0, &[], &[])).await;
    let tasks = Tasks::new();
    let (handle, peer) = certified(watch.node.mesh_address.expect("the mesh is on"), &tasks).await;
    let mut stream = handle.open(&peer, Duration::from_secs(20)).await.expect("a stream");
    let opening = wire::encode(&(7_u64, 1000_u64)).expect("numbers");
    let len = u8::try_from(opening.len()).expect("short");
    stream.write_all(&[&[len], &opening[..]].concat()).await.expect("written");
    watch.until("it is under way", |it| it.value(r#"smg_worker_forwards_active{direction="in"}"#) == 1.0).await;
    stream.write_all(b"GET /v1/models HTTP/1.1\r\ncontent-length: 0\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.contains("x-smg-forwarded: no_way"), "a worker that nobody has: {answer}");
    watch.until("it is over", |it| it.value(r#"smg_worker_forwards_active{direction="in"}"#) == 0.0).await;
    watch.end(FORWARDED).await;
}

#[tokio::test]
async fn what_is_asked_of_ledgers_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    let workers = [Upstream::start("one").await, Upstream::start("one").await];
    let mut config = meshed(data.path(), 0, &[], &[]);
    config.workers = cluster_tests::config(&[&workers[0], &workers[1]]).workers;
    let mut watch = Watch::start(config).await;
    let address = watch.node.mesh_address.expect("the mesh is on");
    let alive = r#"smg_membership_members{status="alive"}"#;
    let asked = |result: &str| format!(r#"smg_ledger_probes_total{{result="{result}"}}"#);
    let mut said = 0;
    // One of two nodes keeps all ledgers; it has to be the other one.
    let other = loop {
        let other = Member::fresh(0, &[address]).await;
        watch.until("they see each other", |it| it.value(alive) == 2.0).await;
        let before = watch.scrape().await.value(&asked("local"));
        let is_asked = loop {
            said += 1;
            assert_eq!(watch.post("", &chat(&format!("question {said}"), false)).await, 200);
            let after = watch.scrape().await;
            if after.value(&asked("remote")) > 0.0 || after.value(&asked("local")) > before {
                break after.value(&asked("remote")) > 0.0;
            }
        };
        if is_asked {
            break other;
        }
        other.stop().await;
        watch.until("it has left", |it| it.value(alive) == 1.0).await;
    };
    watch.until("what it began is told", |it| it.value(r#"smg_ledger_messages_total{kind="commits"}"#) >= 1.0).await;
    let tasks = Tasks::new();
    speak_rubbish(address, &tasks).await;
    // The other stalls: it is asked twice, and then left alone. No request fails for it.
    let (resume, stalled) = mpsc::channel::<()>();
    other.runtime.spawn(async move { stalled.recv() });
    while watch.scrape().await.sum("smg_ledger_owners_skipped_total") == 0.0 {
        said += 1;
        assert_eq!(watch.post("", &chat(&format!("question {said}"), false)).await, 200);
    }
    resume.send(()).expect("it waits for this");
    assert!(watch.scrape().await.value(&asked("missed")) >= 2.0);
    watch.end(LEDGER).await;
    other.stop().await;
}

#[tokio::test]
async fn what_nodes_see_of_workers_is_measured() {
    let data = tempfile::tempdir().expect("a directory");
    // In a runtime of its own, so that it can be ended with all its connections.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let worker = runtime.spawn(Upstream::start("one")).await.expect("no panic");
    let mut config = meshed(data.path(), 0, &[], &[]);
    config.workers = cluster_tests::config(&[&worker]).workers;
    let mut watch = Watch::start(config).await;
    let other = Member::fresh(0, &[watch.node.mesh_address.expect("the mesh is on")]).await;
    let sees = |sight: &str, count: f64| {
        let series = format!(r#"smg_worker_observations{{sight="{sight}"}}"#);
        move |it: &Scrape| it.value(&series) == count
    };
    watch.until("both nodes see it", sees("up", 2.0)).await;
    let listed = Client::connect(watch.node.address).await.get("/workers").await.json();
    assert_eq!(listed["workers"][0]["observed_by"].as_array().map(Vec::len), Some(2), "{listed}");
    runtime.shutdown_background();
    watch.until("both nodes miss it", sees("down", 2.0)).await;
    watch.until("it is in doubt", |it| it.value("smg_worker_doubted") == 1.0).await;
    watch.end(WATCHED).await;
    other.stop().await;
}
