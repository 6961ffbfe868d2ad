//! System tests of `smg`: whole nodes in this process, workers that do exactly what a test says, real sockets.
//!
//! [`Upstream`] is a worker whose answers are bytes: what a test must be able to break, it writes itself. [`Client`] is a
//! socket with just enough HTTP to read an answer. Nothing here sleeps: tests wait for conditions with a deadline.

pub mod capture;
pub mod client;
pub mod scrape;
pub mod upstream;

use std::time::Duration;

use smg::config::Config;
use smg::node::Node;

pub use capture::Capture;
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
