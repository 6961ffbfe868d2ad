//! System tests of `smg`: whole nodes in this process, workers that do exactly what a test says, real sockets.
//!
//! [`Upstream`] is a worker whose answers are bytes: what a test must be able to break, it writes itself. [`Client`] is a
//! socket with just enough HTTP to read an answer; [`h2`] and [`tls`] are clients and workers of those. [`net`] is for whole clusters:
//! machines, a network that can be hurt, processes; a [`disk`] can lose its power. Nothing here sleeps: tests wait for conditions with a deadline.

pub mod capture;
pub mod client;
pub mod disk;
pub mod h2;
pub mod net;
pub mod scrape;
pub mod servers;
pub mod tls;
pub mod turns;
pub mod upstream;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use smg::base::clock::Clock;
use smg::base::setting::Setting;
use smg::config::Config;
use smg::node::Node;
use smg::transport::trust::MeshSecret;

pub use capture::Capture;
pub use client::Answer;
pub use client::Client;
pub use scrape::Scrape;
pub use upstream::Step;
pub use upstream::Upstream;

/// Ten times and more what anything here should take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`DEADLINE`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "did not happen: {what}");
}

/// Waits until `condition` holds, and says how long that took.
///
/// # Panics
/// When it does not within `deadline`.
pub async fn within(what: &str, deadline: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Clock.now();
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(deadline, waiting).await.is_ok(), "did not happen within {deadline:?}: {what}");
    Clock.now() - start
}

/// All files below a folder, whatever they are called.
fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// How many files below a folder have a word, and how many there are.
#[must_use]
pub fn found(folder: &Path, word: &str) -> (usize, usize) {
    let mut all = Vec::new();
    files(folder, &mut all);
    let has = |path: &&PathBuf| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(word.len()).any(|it| it == word.as_bytes())
    };
    (all.iter().filter(has).count(), all.len())
}

/// Lets time pass, where how long something lasts is what is tested. Never to wait for something: see [`eventually`].
pub async fn lasting(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits until a number has stayed as it is for a tenth of a second.
///
/// # Panics
/// When it does not within [`DEADLINE`].
pub async fn settled(what: &str, mut number: impl FnMut() -> usize) {
    let mut before = number();
    eventually(what, async || {
        lasting(Duration::from_millis(100)).await;
        let now = number();
        std::mem::replace(&mut before, now) == now
    })
    .await;
}

/// A configuration on loopback with free ports and quick probes.
#[must_use]
pub fn config(workers: &[&Upstream]) -> Config {
    let mut config = Config::default();
    "127.0.0.1".clone_into(&mut config.server.host);
    config.server.port = 0;
    config.server.threads = 1;
    config.node.prometheus_port = 0;
    config.workers.urls = workers.iter().map(|it| it.url()).collect();
    config.workers.probe_interval = Duration::from_millis(200);
    config
}

/// The same for a node of a mesh on loopback.
///
/// # Panics
/// Never: the zone has a name.
#[must_use]
pub fn meshed(data: &Path, port: u16, seeds: &[SocketAddr], secret: &[MeshSecret]) -> Config {
    let mut config = config(&[]);
    config.node.data_dir = Some(data.display().to_string());
    config.mesh.ha_mesh = true;
    "127.0.0.1".clone_into(&mut config.mesh.mesh_host);
    config.mesh.mesh_port = port;
    config.mesh.seeds = seeds.iter().map(ToString::to_string).collect();
    config.mesh.mesh_secret = secret.to_vec();
    config.mesh.zone = Setting::parse("rack-1").expect("a zone");
    config
}

/// Addresses for nodes that must be named before they run.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn free_ports<const N: usize>() -> [SocketAddr; N] {
    let sockets: [_; N] = std::array::from_fn(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    sockets.map(|it| it.local_addr().expect("is bound"))
}

/// The same with `round_robin`, so that every worker gets its turn.
///
/// # Panics
/// Never: the policy exists.
#[must_use]
pub fn in_turn(workers: &[&Upstream]) -> Config {
    let mut config = config(workers);
    config.routing.policy = Setting::parse("round_robin").expect("a policy");
    config
}

/// The list of workers, as the node shows it.
pub async fn workers(node: &Node) -> Vec<serde_json::Value> {
    let listed = Client::connect(node.address).await.get("/workers").await.json();
    listed["workers"].as_array().cloned().unwrap_or_default()
}

/// Waits until no worker has load.
///
/// # Panics
/// When one keeps it.
pub async fn idle(node: &Node) {
    eventually("nothing is in flight", async || workers(node).await.iter().all(|it| it["load"] == 0)).await;
}

/// Starts a node and waits until it serves every worker's model.
///
/// # Panics
/// When it does not start.
pub async fn node(config: Config) -> Node {
    let expected = config.workers.urls.len();
    let node = Node::start(config).await.expect("the node starts");
    eventually("all workers are ready", async || {
        let answer = Client::connect(node.address).await.get("/workers").await;
        let listed: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let ready = |it: &&serde_json::Value| {
            it["state"] == "ready" && it["models"].as_array().is_some_and(|it| !it.is_empty())
        };
        listed["workers"].as_array().map_or(0, |it| it.iter().filter(ready).count()) == expected
    })
    .await;
    node
}

/// A chat request.
#[must_use]
pub fn chat(text: &str, is_stream: bool) -> String {
    serde_json::json!({"model": "m", "stream": is_stream, "messages": [{"role": "user", "content": text}]}).to_string()
}
