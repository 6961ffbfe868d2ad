//! Real sockets on loopback: two nodes that should find each other, and others that should not.

mod hurt;
pub(crate) mod pki;
mod silent;
mod strangers;

use std::future::Future;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;

use super::lanes::Lane;
use super::metrics::Metrics;
use super::metrics::Refusal;
use super::trust::MeshSecret;
use super::trust::Trust;
use super::*;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::ClusterName;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::base::tasks::Tasks;
use crate::chaos;
use crate::observability::metrics::Registry;

/// Ten times what any of these takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A peer for tests that need any.
pub(crate) fn peer(n: u16) -> Peer {
    Peer {
        node: NodeId::parse(&format!("n-{n}")).unwrap(),
        storage: StorageId(u128::from(n)),
        boot: 1,
        generation: 1,
        renewals: 0,
        addr: SocketAddr::from(([127, 0, 0, 1], n)),
        zone: None,
    }
}

pub(crate) fn cluster() -> ClusterName {
    ClusterName::parse("test").unwrap()
}

pub(crate) fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

/// A running transport; its tasks end with it.
pub(crate) struct Node {
    pub(crate) handle: Handle,
    pub(crate) inboxes: Inboxes,
    pub(crate) metrics: Metrics,
    pub(crate) tasks: Tasks,
}

impl Node {
    pub(crate) fn new(n: u16, secret: &MeshSecret) -> Self {
        Self::with(peer(n), bind(), Trust::from_secrets(cluster(), peer(n).node, std::slice::from_ref(secret)).unwrap())
    }

    /// One that says to be `me`, whatever its certificate names.
    pub(crate) fn with(me: Peer, socket: UdpSocket, trust: Trust) -> Self {
        Self::of(me, socket, trust, chaos::Handle::default(), Tasks::new())
    }

    /// One that can be made to fail.
    fn in_a_lab(n: u16, secret: &MeshSecret) -> (Self, chaos::Handle) {
        let tasks = Tasks::new();
        let chaos = chaos::start(Entropy::seeded(1), &mut Registry::default(), &tasks);
        let trust = Trust::from_secrets(cluster(), peer(n).node, std::slice::from_ref(secret)).unwrap();
        (Self::of(peer(n), bind(), trust, chaos.clone(), tasks), chaos)
    }

    fn of(me: Peer, socket: UdpSocket, trust: Trust, chaos: chaos::Handle, tasks: Tasks) -> Self {
        let metrics = Metrics::default();
        let me = Peer { addr: socket.local_addr().unwrap(), ..me };
        let (handle, inboxes) = start(socket, me, trust, metrics.clone(), chaos, &tasks).unwrap();
        Self { handle, inboxes, metrics, tasks }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    pub(crate) fn me(&self) -> Peer {
        Peer::clone(&self.handle.me())
    }
}

/// Waits for something that needs no waker of ours: a counter.
pub(crate) async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Clock.now() + LIMIT;
    while !is_so() {
        assert!(Clock.now() < deadline, "not in time: {what}");
        tokio::task::yield_now().await;
    }
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("in time")
}

#[tokio::test]
async fn two_nodes_with_the_same_secret_talk_on_every_lane() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    let found = soon(a.handle.greet(b.addr())).await.unwrap();
    assert_eq!(found, b.me());

    // A datagram, a packet too large for one, and a delta.
    a.handle.send(&found, Lane::Swim, Bytes::from_static(b"ping")).unwrap();
    let small = soon(b.inboxes.swim.recv()).await.unwrap();
    assert_eq!((&*small.bytes, &*small.from), (&b"ping"[..], &a.me()));
    a.handle.send(&found, Lane::Swim, vec![7; 30_000].into()).unwrap();
    assert_eq!(soon(b.inboxes.swim.recv()).await.unwrap().bytes.len(), 30_000);
    a.handle.send(&found, Lane::Deltas, vec![8; 1 << 20].into()).unwrap();
    assert_eq!(soon(b.inboxes.deltas.recv()).await.unwrap().bytes.len(), 1 << 20);
    assert!(a.handle.send(&found, Lane::Deltas, vec![8; (1 << 20) + 1].into()).is_err());

    // Questions, one of them over the second connection.
    for (lane, from_b) in
        [(Lane::Sync, &mut b.inboxes.sync), (Lane::Ledger, &mut b.inboxes.ledger), (Lane::Bulk, &mut b.inboxes.bulk)]
    {
        let ask = a.handle.request(&found, lane, b"how much?", LIMIT);
        let answer = async {
            let request = from_b.recv().await.unwrap();
            request.answer.send([&request.bytes[..], b" much"].concat().into());
        };
        let (answer, ()) = soon(async { tokio::join!(ask, answer) }).await;
        assert_eq!(&*answer.unwrap(), b"how much? much", "{lane:?}");
    }

    // Forwarding: bytes both ways until both ends are closed.
    let (mut near, far) = soon(async { tokio::join!(a.handle.open(&found, LIMIT), b.inboxes.forward.recv()) }).await;
    let (near, mut far) = (near.as_mut().unwrap(), far.unwrap());
    near.write_all(b"GET").await.unwrap();
    near.shutdown().await.unwrap();
    let mut got = Vec::new();
    soon(far.read_to_end(&mut got)).await.unwrap();
    assert_eq!((&got[..], &*far.peer), (&b"GET"[..], &a.me()));
    far.write_all(b"200").await.unwrap();
    far.shutdown().await.unwrap();
    got.clear();
    soon(near.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"200");
    assert_eq!(a.handle.links().len(), 2, "one for what is quick and one for bulk");
}

#[tokio::test]
async fn a_message_to_a_peer_without_a_connection_makes_one() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    a.handle.send(&b.me(), Lane::Deltas, Bytes::from_static(b"first")).unwrap();
    a.handle.send(&b.me(), Lane::Deltas, Bytes::from_static(b"second")).unwrap();
    let mut got =
        [soon(b.inboxes.deltas.recv()).await.unwrap().bytes, soon(b.inboxes.deltas.recv()).await.unwrap().bytes];
    got.sort(); // lanes keep no order
    assert_eq!(got, [&b"first"[..], b"second"]);
}

#[tokio::test]
async fn a_question_that_nobody_reads_or_answers_says_so() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    b.inboxes.bulk.close();
    b.inboxes.forward.close();
    let mut stream = soon(a.handle.open(&b.me(), LIMIT)).await.unwrap();
    let read = soon(stream.read_u8()).await.unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
    let asked = soon(a.handle.request(&b.me(), Lane::Bulk, b"?", LIMIT)).await;
    assert_eq!(asked, Err(RequestError::Unanswered));
    for lane in [Lane::Sync, Lane::Ledger] {
        let asked = soon(a.handle.request(&b.me(), lane, b"?", Duration::from_millis(50))).await;
        assert_eq!(asked, Err(RequestError::Timeout));
    }
    let nobody = Peer { addr: bind().local_addr().unwrap(), ..peer(9) };
    let asked = a.handle.request(&nobody, Lane::Sync, b"?", Duration::from_millis(200));
    assert!(matches!(soon(asked).await, Err(RequestError::Timeout | RequestError::NoLink)));
}

#[tokio::test]
async fn a_restarted_peer_is_reached_at_once_over_a_new_connection() {
    let secret = MeshSecret::generate();
    let mut a = Node::new(1, &secret);
    // A runtime of its own, so that the process can die: nothing is said, nothing is closed.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let b = {
        let _inside = process.enter();
        Node::new(2, &secret)
    };
    soon(a.handle.greet(b.addr())).await.unwrap();
    let (addr, first) = (b.addr(), b.me());
    process.shutdown_background();
    drop(b);
    eventually("the port is free", || UdpSocket::bind(addr).is_ok()).await;
    let socket = UdpSocket::bind(addr).unwrap();
    assert_eq!(a.handle.links().len(), 1, "the survivor has noticed nothing");
    let again = Peer { boot: 2, generation: 2, ..first.clone() };
    let trust = Trust::from_secrets(cluster(), again.node.clone(), std::slice::from_ref(&secret)).unwrap();
    let b = Node::with(again.clone(), socket, trust);
    soon(b.handle.greet(a.addr())).await.unwrap();
    b.handle.send(&a.me(), Lane::Swim, Bytes::from_static(b"again")).unwrap();
    let heard = soon(a.inboxes.swim.recv()).await.unwrap();
    assert_eq!(heard.from.boot, 2);
    let links = a.handle.links();
    assert!(links.iter().all(|it| it.peer.boot == 2), "the old connection is gone: {links:?}");

    a.handle.evict(&first);
    soon(a.handle.request(&again, Lane::Sync, b"?", Duration::from_millis(50))).await.unwrap_err();
    assert_eq!(a.handle.links().len(), 1, "the end of an earlier life does not touch the later one");
    a.handle.evict(&again);
    eventually("the link is closed", || a.handle.links().is_empty()).await;
}

#[tokio::test]
async fn a_node_that_meets_itself_knows_it() {
    let node = Node::new(1, &MeshSecret::generate());
    assert_eq!(soon(node.handle.greet(node.addr())).await, Err(GreetError::Itself));
    assert!(node.handle.links().is_empty());
}
