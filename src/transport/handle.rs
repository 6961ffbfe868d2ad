//! What areas above hold: sending to a peer, asking it, and the queues of what peers send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::core::Life;
use super::lanes::Class;
use super::lanes::Lane;
use super::link::Link;
use super::link::Outlets;
use super::messages::Received;
use super::messages::Request;
use super::metrics::Drop as Dropped;
use super::metrics::Metrics;
use super::peer::Peer;
use super::stream::Stream;
use crate::base::ids::NodeId;

/// Messages of one lane that wait for their reader here. Beyond it they are dropped and counted: SWIM and deltas are repeated by design, a
/// question that is not answered is asked elsewhere.
const INBOX_LEN_MAX: usize = 1024;

/// What peers send, one queue a lane. A reader that does not exist yet is simply dropped: its lane then refuses.
#[derive(Debug)]
pub struct Inboxes {
    /// Membership.
    pub swim: mpsc::Receiver<Received>,
    /// What changed in tables.
    pub deltas: mpsc::Receiver<Received>,
    /// Digests and what is missing.
    pub sync: mpsc::Receiver<Request>,
    /// Load of workers.
    pub ledger: mpsc::Receiver<Request>,
    /// Snapshots.
    pub bulk: mpsc::Receiver<Request>,
    /// What must be agreed.
    pub raft: mpsc::Receiver<Request>,
    /// Units of limits that move between nodes.
    pub limits: mpsc::Receiver<Received>,
    /// Nodes that renew their shares of limits.
    pub renewals: mpsc::Receiver<Request>,
    /// Requests for workers that only this node reaches.
    pub forward: mpsc::Receiver<Stream>,
}

pub(super) fn inboxes() -> (Outlets, Inboxes) {
    let (swim, from_swim) = mpsc::channel(INBOX_LEN_MAX);
    let (deltas, from_deltas) = mpsc::channel(INBOX_LEN_MAX);
    let (sync, from_sync) = mpsc::channel(INBOX_LEN_MAX);
    let (ledger, from_ledger) = mpsc::channel(INBOX_LEN_MAX);
    let (bulk, from_bulk) = mpsc::channel(INBOX_LEN_MAX);
    let (raft, from_raft) = mpsc::channel(INBOX_LEN_MAX);
    let (limits, from_limits) = mpsc::channel(INBOX_LEN_MAX);
    let (renewals, from_renewals) = mpsc::channel(INBOX_LEN_MAX);
    let (forward, from_forward) = mpsc::channel(INBOX_LEN_MAX);
    let inboxes = Inboxes {
        swim: from_swim,
        deltas: from_deltas,
        sync: from_sync,
        ledger: from_ledger,
        bulk: from_bulk,
        raft: from_raft,
        limits: from_limits,
        renewals: from_renewals,
        forward: from_forward,
    };
    (Outlets { swim, deltas, sync, ledger, bulk, raft, limits, renewals, forward }, inboxes)
}

/// A message that was not taken. It was counted; the caller may say it again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message was not taken: the queue to the peer is full, or it is larger than its lane allows")]
pub struct NotSent;

/// Why an address did not turn out to be a peer. Nothing was changed; it may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GreetError {
    /// Nobody answered, or not in time.
    #[error("nobody answered")]
    Unreachable,
    /// Somebody answered who is no member, or for whom we are none. The counters say why.
    #[error("it is no node of this cluster")]
    Refused,
    /// It is this node.
    #[error("it is this node itself")]
    Itself,
}

/// Why there is no answer. Whether the question was heard is unknown, except where said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no connection, and none could be made: the question was not heard.
    #[error("the peer cannot be reached")]
    NoLink,
    /// The connection broke.
    #[error("the connection to the peer broke")]
    Lost,
    /// The deadline passed.
    #[error("the peer did not answer in time")]
    Timeout,
    /// The peer has nobody to answer on this lane, or is overloaded.
    #[error("the peer does not answer such questions now")]
    Unanswered,
    /// Question or answer is longer than its lane allows.
    #[error("longer than the lane allows")]
    TooLarge,
}

/// A connection, as people see it.
#[derive(Clone, Debug)]
pub struct LinkView {
    /// To whom.
    pub peer: Arc<Peer>,
    /// What for.
    pub class: Class,
    /// Its round-trip time now.
    pub rtt: Duration,
}

pub(super) type Used = BTreeMap<(NodeId, Class), Arc<Link>>;

/// What is asked of the driver.
pub(super) enum Command {
    Send { to: Box<Peer>, lane: Lane, bytes: Bytes },
    Link { to: Box<Peer>, class: Class, reply: oneshot::Sender<Arc<Link>> },
    Greet { addr: SocketAddr, reply: oneshot::Sender<Result<Peer, GreetError>> },
    Evict(NodeId, Life),
    Silent(NodeId, Class),
}

/// Sends to peers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) used: Arc<ArcSwap<Used>>,
    pub(super) me: Arc<ArcSwap<Peer>>,
    pub(super) local: SocketAddr,
    pub(super) metrics: Metrics,
}

impl Handle {
    /// Who this node says it is.
    #[must_use]
    pub fn me(&self) -> Arc<Peer> {
        self.me.load_full()
    }

    /// Where this node listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// From now on this node says to be this life of itself.
    pub fn renew(&self, me: Peer) {
        self.me.store(Arc::new(me));
    }

    /// Sends a message, by the connection there is or one that is made for it. Returns at once; `Ok` does not mean that it arrives.
    pub fn send(&self, to: &Peer, lane: Lane, bytes: Bytes) -> Result<(), NotSent> {
        if bytes.len() > lane.bytes_max() {
            self.metrics.dropped(Dropped::TooLarge);
            return Err(NotSent);
        }
        if let Some(link) = self.used(to, lane.class()) {
            return if link.send(lane, bytes) { Ok(()) } else { Err(NotSent) };
        }
        let command = Command::Send { to: Box::new(to.clone()), lane, bytes };
        self.commands.try_send(command).map_err(|_full| {
            self.metrics.dropped(Dropped::QueueFull);
            NotSent
        })
    }

    /// Asks on the lanes `Sync`, `Ledger`, `Raft`, `Renewals` or `Bulk`, and waits for the answer.
    pub async fn request(&self, to: &Peer, lane: Lane, bytes: &[u8], limit: Duration) -> Result<Bytes, RequestError> {
        if bytes.len() > lane.bytes_max() {
            return Err(RequestError::TooLarge);
        }
        let ask = async { self.link(to, lane.class()).await?.request(lane, bytes).await };
        let answer = timeout(limit, ask).await.map_err(|_elapsed| self.unanswered(to, lane.class()))?;
        self.metrics.sent(lane, bytes.len());
        answer
    }

    /// Opens a stream on the forwarding lane.
    pub async fn open(&self, to: &Peer, limit: Duration) -> Result<Stream, RequestError> {
        let open = async { self.link(to, Class::Main).await?.open().await };
        timeout(limit, open).await.map_err(|_elapsed| self.unanswered(to, Class::Main))?
    }

    /// Finds out who is at an address. The connection stays, if it is a peer.
    pub async fn greet(&self, addr: SocketAddr) -> Result<Peer, GreetError> {
        let (reply, replied) = oneshot::channel();
        let is_asked = self.commands.try_send(Command::Greet { addr, reply }).is_ok();
        if !is_asked {
            return Err(GreetError::Unreachable);
        }
        replied.await.unwrap_or(Err(GreetError::Unreachable))
    }

    /// That life of the peer is over: connections to it are closed. A later life is not touched.
    pub fn evict(&self, peer: &Peer) {
        let command = Command::Evict(peer.node.clone(), (peer.storage, peer.boot));
        if self.commands.try_send(command).is_err() {
            self.metrics.dropped(Dropped::QueueFull); // the idle timeout does it later
        }
    }

    /// The connections of this node.
    #[must_use]
    pub fn links(&self) -> Vec<LinkView> {
        let used = self.used.load();
        let view = |(key, link): (&(NodeId, Class), &Arc<Link>)| LinkView {
            peer: Arc::clone(&link.peer),
            class: key.1,
            rtt: link.conn.rtt(),
        };
        used.iter().map(view).collect()
    }

    /// The peer may be slow, or nothing passes: then a new connection is there sooner than an old one, which repeats what was lost ever more rarely.
    fn unanswered(&self, to: &Peer, class: Class) -> RequestError {
        if self.used(to, class).is_some_and(|it| it.is_silent()) {
            let _ = self.commands.try_send(Command::Silent(to.node.clone(), class)); // full: whoever asks next finds it silent, too
        }
        RequestError::Timeout
    }

    fn used(&self, to: &Peer, class: Class) -> Option<Arc<Link>> {
        self.used.load().get(&(to.node.clone(), class)).filter(|it| it.conn.close_reason().is_none()).cloned()
    }

    async fn link(&self, to: &Peer, class: Class) -> Result<Arc<Link>, RequestError> {
        if let Some(link) = self.used(to, class) {
            return Ok(link);
        }
        let (reply, replied) = oneshot::channel();
        let command = Command::Link { to: Box::new(to.clone()), class, reply };
        self.commands.try_send(command).map_err(|_full| RequestError::NoLink)?;
        replied.await.map_err(|_given_up| RequestError::NoLink)
    }
}
