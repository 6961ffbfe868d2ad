//! Real nodes in this process.

use std::net::SocketAddr;

use cluster_tests::free_ports;
use cluster_tests::meshed;
use cluster_tests::scrape::measured;
use smg::node::Node;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// One node, in a runtime of its own with one thread.
pub(crate) struct Running {
    pub(crate) node: Node,
    runtime: Option<Runtime>,
    _data: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Starts as many nodes as there are addresses, each named as a seed to all.
pub(crate) async fn start<const N: usize>() -> Vec<Running> {
    let addresses: [SocketAddr; N] = free_ports();
    let mut nodes = Vec::new();
    for address in addresses {
        let data = tempfile::tempdir().expect("a directory");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let node = runtime.spawn(Node::start(measured(meshed(data.path(), address.port(), &addresses, &[]))));
        let node = node.await.expect("no panic").expect("the node starts");
        nodes.push(Running { node, runtime: Some(runtime), _data: data });
    }
    nodes
}
