//! The driver over real sockets: the same, once, with QUIC and certificates below.

use std::time::Duration;

use crate::base::tasks::Stage;
use crate::base::tasks::Tasks;
use crate::membership;
use crate::membership::Config;
use crate::membership::Status;
use crate::transport;
use crate::transport::tests::eventually;
use crate::transport::trust::MeshSecret;

struct Node {
    handle: membership::Handle,
    addr: std::net::SocketAddr,
    tasks: Tasks,
}

fn node(n: u16, secret: &MeshSecret, seeds: &[String]) -> Node {
    let transport = transport::tests::Node::new(n, secret);
    let (addr, tasks) = (transport.addr(), transport.tasks.clone());
    let metrics = membership::metrics::Metrics::default();
    let handle =
        membership::start(seeds.to_vec(), Config::default(), transport.handle, transport.inboxes.swim, metrics, &tasks);
    Node { handle, addr, tasks }
}

fn sees(node: &Node, status: Status, count: usize) -> bool {
    node.handle.view().count(status) == count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_meet_over_quic_and_one_says_goodbye() {
    let secret = MeshSecret::generate();
    let first = node(1, &secret, &["localhost:1".to_owned()]);
    let seeds = [first.addr.to_string()];
    let nodes = [first, node(2, &secret, &seeds), node(3, &secret, &seeds)];
    let stranger = node(4, &MeshSecret::generate(), &seeds);
    for node in &nodes {
        eventually("all are alive", || sees(node, Status::Alive, 3)).await;
    }
    let [a, b, c] = nodes;
    c.tasks.stop_stage(Stage::Belong, Duration::from_secs(2)).await;
    for node in [&a, &b] {
        eventually("it has left", || sees(node, Status::Left, 1)).await;
    }
    c.tasks.stop_stage(Stage::Carry, Duration::from_secs(2)).await;
    assert!(sees(&a, Status::Alive, 2) && sees(&b, Status::Alive, 2) && sees(&stranger, Status::Alive, 1));
}
