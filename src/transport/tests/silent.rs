//! A connection that nothing passes any more, while the peer can be reached: by a relay that forgets it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::*;

/// As long as somebody waits for an answer that does not come.
const SHORT: Duration = Duration::from_millis(100);
/// Bytes of a connection id, which follow the first byte of a packet whose header is short.
const ID_BYTES: usize = 8;

/// Passes packets on. Those of connections that it has forgotten are lost.
#[derive(Default)]
struct Relay {
    known: Mutex<BTreeSet<Vec<u8>>>,
    has_forgotten: AtomicBool,
}

impl Relay {
    fn passes(&self, packet: &[u8]) -> bool {
        let Some(id) = packet.get(1..=ID_BYTES).filter(|_| packet[0] & 0x80 == 0) else { return true };
        if !self.has_forgotten.load(Ordering::SeqCst) {
            self.known.lock().insert(id.to_vec());
            return true;
        }
        !self.known.lock().contains(id)
    }

    /// Between whoever sends to the address and `server`, as long as the tasks are there.
    async fn start(self: Arc<Self>, server: SocketAddr) -> (SocketAddr, JoinSet<()>) {
        let bind = async || Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (front, back, client) = (bind().await, bind().await, Arc::new(Mutex::new(None)));
        let addr = front.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (relay, from, to, known) = (Arc::clone(&self), Arc::clone(&front), Arc::clone(&back), Arc::clone(&client));
        tasks.spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((len, sender)) = from.recv_from(&mut packet).await {
                *known.lock() = Some(sender);
                if relay.passes(&packet[..len]) {
                    to.send_to(&packet[..len], server).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            let mut packet = [0; 2048];
            while let Ok((len, _)) = back.recv_from(&mut packet).await {
                let to = *client.lock();
                if let Some(to) = to.filter(|_| self.passes(&packet[..len])) {
                    front.send_to(&packet[..len], to).await.unwrap();
                }
            }
        });
        (addr, tasks)
    }
}

#[tokio::test]
async fn a_connection_that_is_silent_is_replaced_and_whoever_asks_is_answered() {
    let secret = MeshSecret::generate();
    let (a, mut b) = (Node::new(1, &secret), Node::new(2, &secret));
    let relay = Arc::new(Relay::default());
    let (addr, _tasks) = Arc::clone(&relay).start(b.addr()).await;
    b.handle.renew(Peer { addr, ..b.me() });
    let to = soon(a.handle.greet(addr)).await.unwrap();
    assert_eq!(to.addr, addr, "it is found where it says to be");
    eventually("the connection is used", || !a.handle.links().is_empty()).await;
    let first = Arc::clone(a.handle.used.load().values().next().expect("there is one"));
    let answers = async {
        while let Some(request) = b.inboxes.sync.recv().await {
            request.answer.send(Bytes::from_static(b"!"));
        }
        unreachable!("the inbox is held")
    };
    let asks = async {
        assert_eq!(a.handle.request(&to, Lane::Sync, b"?", LIMIT).await.unwrap(), "!");
        relay.has_forgotten.store(true, Ordering::SeqCst);
        assert_eq!(a.handle.request(&to, Lane::Sync, b"?", SHORT).await, Err(RequestError::Timeout));
        while a.handle.request(&to, Lane::Sync, b"?", SHORT).await.is_err() {}
    };
    soon(async {
        tokio::select! { () = asks => {}, () = answers => unreachable!() }
    })
    .await;
    // By this node, and not because it was idle for too long.
    assert!(matches!(first.conn.close_reason(), Some(quinn::ConnectionError::LocallyClosed)));
}
