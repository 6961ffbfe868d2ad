//! Turns a second kept by a server, by a node alone and by three nodes, in turns on the same disk, so that they can be compared; and what it costs a response to be kept before it is told.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::Client;
use cluster_tests::Step;
use cluster_tests::Upstream;
use cluster_tests::free_ports;
use cluster_tests::meshed;
use cluster_tests::scrape::Scrape;
use cluster_tests::scrape::measured;
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

/// What keeps turns.
struct Contender<'a> {
    name: &'static str,
    history: Handle,
    /// That do so; none: a server does.
    nodes: &'a [Running],
}

impl Contender<'_> {
    /// Of all its nodes since they started.
    async fn fsyncs(&self) -> f64 {
        let mut fsyncs = 0.0;
        for it in self.nodes {
            fsyncs +=
                Scrape::of(it.node.metrics_address.expect("is measured")).await.sum("smg_storage_fsync_seconds_count");
        }
        fsyncs
    }
}

pub(crate) async fn take() {
    let here = tempfile::tempdir().expect("a directory");
    println!("raw: {}", raw(here.path()));
    let (postgres, redis) = (Server::start(Kind::Postgres).await, Server::start(Kind::Redis).await);
    let worker = Upstream::start("one").await;
    worker.always(vec![Step::stream_head(), Step::content("hello"), Step::end()]);
    let alone = nodes(here.path().join("alone").as_path(), false, &worker).await;
    let three = nodes(here.path().join("three").as_path(), true, &worker).await;
    let handle = |it: &Running| it.node.history().expect("it is kept").clone();
    let leader = three.iter().position(|it| handle(it).backend().is_watcher()).expect("one leads");
    let follower = (leader + 1) % 3;
    let (postgres, redis) = (over(Kind::Postgres, &postgres), over(Kind::Redis, &redis));
    let contenders = [
        Contender { name: "postgres", history: postgres, nodes: &[] },
        Contender { name: "redis, appendfsync always", history: redis, nodes: &[] },
        Contender { name: "raft, one node", history: handle(&alone[0]), nodes: &alone },
        Contender { name: "raft, three nodes, at the leader", history: handle(&three[leader]), nodes: &three },
        Contender { name: "raft, three nodes, at a follower", history: handle(&three[follower]), nodes: &three },
    ];
    println!(
        "| kept by | writers | turns/s | commit p50 | commit p99 | fsyncs per 1,000 turns | CPU-s per 1,000 turns, this process |"
    );
    println!("|---|---|---|---|---|---|---|");
    for writers in [1, 16, 256] {
        for it in &contenders {
            turns::turns(&it.history, writers.min(16), Duration::from_secs(1)).await;
            let (cpu, fsyncs) = (cpu_seconds(), it.fsyncs().await);
            let Turns { rate, p50, p99, .. } = turns::turns(&it.history, writers, LASTS).await;
            let thousands = rate * LASTS.as_secs_f64() / 1000.0;
            let (cpu, fsyncs) = ((cpu_seconds() - cpu) / thousands, (it.fsyncs().await - fsyncs) / thousands);
            let fsyncs = if it.nodes.is_empty() { "not told".to_owned() } else { format!("{fsyncs:.0}") };
            println!("| {} | {writers} | {rate:.0} | {p50:.1?} | {p99:.1?} | {fsyncs} | {cpu:.2} |", it.name);
        }
    }
    println!("| read | p50 | p99 |");
    println!("|---|---|---|");
    for it in &contenders {
        let (p50, p99) = reads(&it.history).await;
        println!("| {} | {p50:.2?} | {p99:.2?} |", it.name);
    }
    println!("| from the last word to the end of a stream | stored p50, p99 | `store: false` p50, p99 |");
    println!("|---|---|---|");
    for (name, node) in [
        ("raft, one node", &alone[0]),
        ("raft, three nodes, at the leader", &three[leader]),
        ("raft, three nodes, at a follower", &three[follower]),
    ] {
        let [kept, not] = ends(node.node.address).await;
        println!("| {name} | {:.2?}, {:.2?} | {:.2?}, {:.2?} |", kept.0, kept.1, not.0, not.1);
    }
    drop((alone, three, here));
}

fn over(kind: Kind, server: &Server) -> Handle {
    let (entropy, tasks) = (Entropy::from_os(), Tasks::new());
    let backend = External::start(kind, &server.url(), &entropy, &mut Registry::default(), &tasks).expect("a URL");
    Handle::new(Arc::new(backend), &Config::default(), None, (StorageId(1), 1), entropy)
}

/// One node, or three that are a group and have begun their history.
async fn nodes(directory: &Path, is_mesh: bool, worker: &Upstream) -> Vec<Running> {
    let addresses: [SocketAddr; 3] = free_ports();
    let addresses = if is_mesh { &addresses[..] } else { &addresses[..1] };
    let mut nodes = Vec::new();
    for (at, address) in addresses.iter().enumerate() {
        let mut config = measured(meshed(&directory.join(at.to_string()), address.port(), addresses, &[]));
        config.mesh.ha_mesh = is_mesh;
        config.workers.urls = vec![worker.url()];
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
    middle_and_tail(took)
}

/// From the last word of a stream to its end: of responses that are kept, and of others in between.
async fn ends(node: SocketAddr) -> [(Duration, Duration); 2] {
    let serves =
        async || Client::connect(node).await.post("/v1/responses", r#"{"model":"m","input":"hi","stream":true}"#).await;
    within("the worker is known", FORMING, async || serves().await.status == 200).await;
    let mut took = [const { Vec::new() }; 2];
    for _ in 0..SAMPLES {
        for (times, is_kept) in took.iter_mut().zip([true, false]) {
            let mut client = Client::connect(node).await;
            let body = format!(r#"{{"model":"m","input":"hi","stream":true,"store":{is_kept}}}"#);
            client.start_post("/v1/responses", "", &body).await;
            assert!(client.read_until("response.output_text.delta").await, "{}", client.unread());
            let said = Clock.now();
            assert!(client.read_until("response.completed").await, "{}", client.unread());
            times.push(Clock.now() - said);
        }
    }
    took.map(middle_and_tail)
}

fn middle_and_tail(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    (took[took.len() / 2], took[took.len() * 99 / 100])
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
    let (p50, p99) = middle_and_tail(took);
    format!("fsync of 8 KiB p50 {p50:.2?}, p99 {p99:.2?}")
}

/// Of this process, all threads.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|it| it.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}
