//! Turns a second kept by a server, by a node alone and by three nodes, in turns on the same disk, so that they can be compared.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::free_ports;
use cluster_tests::meshed;
use cluster_tests::servers::Server;
use cluster_tests::turns;
use cluster_tests::turns::Turns;
use cluster_tests::within;
use smg::base::clock::Clock;
use smg::base::entropy::Entropy;
use smg::base::ids::StorageId;
use smg::base::tasks::Tasks;
use smg::history::External;
use smg::history::Handle;
use smg::history::config::Config;
use smg::history::config::Kind;
use smg::history::machine::read;
use smg::node::Node;
use smg::observability::metrics::Registry;
use tokio::runtime::Runtime;

/// How long each number of writers writes.
const LASTS: Duration = Duration::from_secs(10);
/// Fsyncs of the disk itself, and reads, that are measured.
const SAMPLES: usize = 500;
/// Forming a cluster, and its history's first command.
const FORMING: Duration = Duration::from_secs(60);

/// A node, in a runtime of its own with one thread.
struct Running {
    node: Node,
    runtime: Option<Runtime>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.runtime.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

pub(crate) async fn take() {
    let here = tempfile::tempdir().expect("a directory");
    println!("raw: {}", raw(here.path()));
    let (postgres, redis) = (Server::start(Kind::Postgres).await, Server::start(Kind::Redis).await);
    let alone = nodes(here.path().join("alone").as_path(), false).await;
    let three = nodes(here.path().join("three").as_path(), true).await;
    let handle = |it: &Running| it.node.history().expect("it is kept").clone();
    let leader = three.iter().position(|it| handle(it).backend().is_watcher()).expect("one leads");
    let contenders = [
        ("postgres", over(Kind::Postgres, &postgres)),
        ("redis, appendfsync always", over(Kind::Redis, &redis)),
        ("raft, one node", handle(&alone[0])),
        ("raft, three nodes, at the leader", handle(&three[leader])),
        ("raft, three nodes, at a follower", handle(&three[(leader + 1) % 3])),
    ];
    println!("| kept by | writers | turns/s | commit p50 | commit p99 | CPU-s per 1,000 turns, this process |");
    println!("|---|---|---|---|---|---|");
    for writers in [1, 16, 256] {
        for (name, history) in &contenders {
            turns::turns(history, writers.min(16), Duration::from_secs(1)).await;
            let cpu = cpu_seconds();
            let Turns { rate, p50, p99, .. } = turns::turns(history, writers, LASTS).await;
            let cpu = (cpu_seconds() - cpu) / (rate * LASTS.as_secs_f64()) * 1000.0;
            println!("| {name} | {writers} | {rate:.0} | {p50:.1?} | {p99:.1?} | {cpu:.2} |");
        }
    }
    println!("| read | p50 | p99 |");
    println!("|---|---|---|");
    for (name, history) in &contenders {
        let (p50, p99) = reads(history).await;
        println!("| {name} | {p50:.2?} | {p99:.2?} |");
    }
    drop((alone, three, here));
}

fn over(kind: Kind, server: &Server) -> Handle {
    let (entropy, tasks) = (Entropy::from_os(), Tasks::new());
    let backend = External::start(kind, &server.url(), &entropy, &mut Registry::default(), &tasks).expect("a URL");
    Handle::new(Arc::new(backend), &Config::default(), (StorageId(1), 1), entropy)
}

/// One node, or three that are a group and have begun their history.
async fn nodes(directory: &Path, is_mesh: bool) -> Vec<Running> {
    let addresses: [std::net::SocketAddr; 3] = free_ports();
    let addresses = if is_mesh { &addresses[..] } else { &addresses[..1] };
    let mut nodes = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let mut config = meshed(&directory.join(at.to_string()), address.port(), addresses, &[]);
        config.mesh.ha_mesh = is_mesh;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let node = runtime.spawn(Node::start(config)).await.expect("no panic").expect("the node starts");
        nodes.push(Running { node, runtime: Some(runtime) });
    }
    within("history is there", FORMING, async || {
        let history = nodes[0].node.history().expect("it is kept");
        history.read(read::commands).await.is_ok() && history.lease().await.is_ok()
    })
    .await;
    within("all vote", FORMING, async || {
        nodes.iter().all(|it| {
            let group = it.node.history().and_then(|it| it.backend().group());
            group.is_some_and(|it| it.group.voters.len() == addresses.len())
        })
    })
    .await;
    nodes
}

/// Reads of what anybody was told before.
async fn reads(history: &Handle) -> (Duration, Duration) {
    let mut took = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let asked = Clock.now();
        let read = history.read(read::commands).await.expect("it is reached");
        read.expect("it can be read");
        took.push(Clock.now() - asked);
    }
    took.sort_unstable();
    (took[SAMPLES / 2], took[SAMPLES * 99 / 100])
}

/// What the disk itself takes.
fn raw(directory: &Path) -> String {
    let mut file = File::create(directory.join("raw")).expect("a file");
    let mut took = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        file.write_all(&[b'x'; 8192]).expect("it is written");
        let begun = Clock.now();
        file.sync_data().expect("it is synced");
        took.push(Clock.now() - begun);
    }
    took.sort_unstable();
    let [p50, p99] = [SAMPLES / 2, SAMPLES * 99 / 100].map(|it| took[it]);
    format!("fsync of 8 KiB p50 {p50:.2?}, p99 {p99:.2?}")
}

/// Of this process, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}
