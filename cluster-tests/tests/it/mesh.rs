//! Nodes find each other over real sockets on loopback, each in a runtime of its own, so that one can be dropped as a crash would.

use std::net::SocketAddr;
use std::path::Path;

use cluster_tests::Client;
use cluster_tests::config;
use cluster_tests::eventually;
pub(crate) use cluster_tests::free_ports;
pub(crate) use cluster_tests::meshed;
use serde_json::Value;
use smg::config::Config;
use smg::node::Node;
use smg::transport::trust::MeshSecret;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A node, and what it leaves when it ends.
pub(crate) struct Member {
    pub(crate) runtime: Runtime,
    node: Option<Node>,
    data: TempDir,
}

impl Member {
    pub(crate) async fn start(data: TempDir, port: u16, seeds: &[SocketAddr], secret: &[MeshSecret]) -> Self {
        let config = meshed(data.path(), port, seeds, secret);
        Self::with(data, config).await
    }

    pub(crate) async fn with(data: TempDir, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let node = runtime.spawn(Node::start(config));
        let node = node.await.expect("no panic").expect("the node starts");
        Self { runtime, node: Some(node), data }
    }

    pub(crate) async fn fresh(port: u16, seeds: &[SocketAddr]) -> Self {
        Self::start(tempfile::tempdir().expect("a directory"), port, seeds, &[]).await
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("it runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node().address
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    fn mesh(&self) -> SocketAddr {
        self.node().mesh_address.expect("the mesh is on")
    }

    async fn members(&self) -> Vec<Value> {
        let answer = Client::connect(self.node().address).await.get("/cluster/members").await.json();
        assert_eq!(answer["mesh"], true, "{answer}");
        answer["members"].as_array().cloned().expect("a list")
    }

    /// What it thinks of the node at an address.
    async fn state_of(&self, addr: SocketAddr) -> Option<String> {
        let found = self.members().await.into_iter().find(|it| it["addr"] == addr.to_string());
        found.and_then(|it| it["state"].as_str().map(str::to_owned))
    }

    pub(crate) async fn sees(&self, addr: SocketAddr, state: &str) {
        eventually(&format!("{addr} is {state}"), async || self.state_of(addr).await.as_deref() == Some(state)).await;
    }

    /// It has the cluster's tables.
    pub(crate) async fn has_joined(&self) {
        let readiness = async || Client::connect(self.address()).await.get("/readiness").await.status;
        eventually("it has joined", async || readiness().await != 503).await;
    }

    /// Says goodbye.
    pub(crate) async fn stop(mut self) -> TempDir {
        let node = self.node.take().expect("it runs");
        self.runtime.spawn(node.shutdown()).await.expect("no panic");
        self.runtime.shutdown_background();
        self.data
    }

    /// Ends as a crash does: nothing is said.
    pub(crate) fn crash(self) -> TempDir {
        drop(self.node);
        self.runtime.shutdown_background();
        self.data
    }
}

#[tokio::test]
async fn nodes_find_each_other_in_any_order_and_their_ends_are_told_apart() {
    let addresses: [SocketAddr; 3] = free_ports();
    let mut nodes = Vec::new();
    // The first two start before the seed that is named first is there; each names all, itself too.
    for at in [2, 0, 1] {
        nodes.push(Member::fresh(addresses[at].port(), &addresses).await);
    }
    for node in &nodes {
        for addr in addresses {
            node.sees(addr, "alive").await;
        }
        let members = node.members().await;
        assert_eq!(members.len(), 3, "{members:?}");
        for field in ["node_id", "storage_id", "incarnation", "zone"] {
            assert!(members.iter().all(|it| !it[field].is_null()), "{field} of {members:?}");
        }
        assert_eq!(members.iter().filter(|it| it["is_self"] == true).count(), 1);
    }
    let (leaves, first) = (nodes.remove(0), addresses[2]);
    let id = |members: &[Value]| {
        let found = members.iter().find(|it| it["addr"] == first.to_string()).expect("is listed");
        (found["node_id"].clone(), found["storage_id"].clone())
    };
    let before = id(&leaves.members().await);
    let data = leaves.stop().await;
    for node in &nodes {
        node.sees(first, "left").await;
    }
    let back = Member::start(data, first.port(), &addresses, &[]).await;
    for node in &nodes {
        node.sees(first, "alive").await;
        let members = node.members().await;
        assert_eq!((members.len(), id(&members)), (3, before.clone()), "the same node again: {members:?}");
    }
    let crashed = nodes.remove(0).crash();
    for node in nodes.iter().chain([&back]) {
        node.sees(addresses[0], "down").await;
        node.sees(addresses[if addresses[1] == node.mesh() { 2 } else { 1 }], "alive").await;
    }
    drop(crashed);
    for node in nodes.into_iter().chain([back]) {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_node_with_another_secret_never_appears() {
    let addresses: [SocketAddr; 3] = free_ports();
    let (ours, theirs) = ([MeshSecret::generate()], [MeshSecret::generate()]);
    let start = async |at: usize, secret: &[MeshSecret]| {
        Member::start(tempfile::tempdir().expect("a directory"), addresses[at].port(), &addresses, secret).await
    };
    let stranger = start(2, &theirs).await;
    let (one, two) = (start(0, &ours).await, start(1, &ours).await);
    one.sees(addresses[1], "alive").await;
    two.sees(addresses[0], "alive").await;
    for round in 0..20 {
        for node in [&one, &two] {
            assert_eq!(node.state_of(addresses[2]).await, None, "round {round}");
        }
        assert_eq!(stranger.members().await.len(), 1);
        cluster_tests::lasting(std::time::Duration::from_millis(50)).await;
    }
    for node in [one, two, stranger] {
        node.stop().await;
    }
}

#[tokio::test]
async fn a_data_directory_serves_one_node_and_without_the_mesh_there_are_no_members() {
    let one = Member::fresh(0, &[]).await;
    let Err(error) = Node::start(meshed(one.data.path(), 0, &[], &[])).await else { panic!("it is in use") };
    assert!(error.to_string().contains("in use by another process") && !error.is_usage(), "{error}");
    one.stop().await;
    let mut open = meshed(tempfile::tempdir().expect("a directory").path(), 0, &[], &[]);
    "0.0.0.0".clone_into(&mut open.mesh.mesh_host);
    let Err(error) = Node::start(open).await else { panic!("anybody could join") };
    assert!(error.is_usage() && error.to_string().contains("smg mesh secret"), "{error}");
    let alone = Node::start(config(&[])).await.expect("the node starts");
    let answer = Client::connect(alone.address).await.get("/cluster/members").await.json();
    assert_eq!(answer, serde_json::json!({"members": [], "total": 0, "mesh": false}));
    alone.shutdown().await;
}

#[tokio::test]
async fn p9_a_node_that_has_not_got_the_cluster_s_keys_lets_nobody_in_without_one() {
    let data = tempfile::tempdir().expect("a directory");
    let [nobody]: [SocketAddr; 1] = free_ports();
    let mut config = meshed(data.path(), 0, &[nobody], &[]);
    config.mesh.join_timeout = std::time::Duration::from_secs(3600);
    let node = Node::start(config).await.expect("the node starts");
    for (method, path, body) in [
        ("POST", "/v1/chat/completions", cluster_tests::chat("hi", false)),
        ("POST", "/workers", r#"{"url":"http://a"}"#.to_owned()),
    ] {
        let answer = Client::connect(node.address).await.call(method, path, &body).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &"joining".into()), "{path}");
    }
    let members = Client::connect(node.address).await.get("/cluster/members").await;
    assert_eq!(members.status, 200, "who looks why it does not join sees it");
    node.shutdown().await;
}
