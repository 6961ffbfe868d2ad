//! The one task that owns the UDP port and the table of connections. It dials, accepts and closes what [`core`](super::core) decides; each
//! dial, handshake and link runs in a task of its own that ends with it.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::rustls::QuicServerConfig;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::core::Effect;
use super::core::Event;
use super::core::LinkId;
use super::core::Links;
use super::core::Side;
use super::ends::Clients;
use super::ends::Ends;
use super::ends::Made;
use super::handle::Command;
use super::handle::GreetError;
use super::handle::Handle;
use super::handle::Inboxes;
use super::handle::Used;
use super::handle::inboxes;
use super::lanes::BULK_BYTES_PER_SECOND;
use super::lanes::Class;
use super::lanes::Lane;
use super::lanes::Pacer;
use super::link::Link;
use super::link::Queue;
use super::link::Shared;
use super::metrics::Drop as Dropped;
use super::metrics::Metrics;
use super::metrics::Refusal;
use super::peer::Peer;
use super::trust::Trust;
use super::trust::TrustError;
use crate::base::clock::Clock;
use crate::base::ids::NodeId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::chaos;

const TASK: Task = Task { name: "transport", stage: Stage::Carry, on_end: OnEnd::StopNode };
/// A connection without a packet for this long is over. Membership evicts a dead peer sooner; an idle bulk connection ends by it.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that carries what must be quick is kept while nothing is said on it: a forwarded request may be silent for minutes. Longer than a third
/// of [`IDLE_TIMEOUT`] would lose it with two lost packets, shorter costs packets. One for bulk data is not, so that it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Handshakes at one time that others began. Beyond it they are refused: each costs signatures.
const HANDSHAKES_MAX: usize = 64;
/// From here on a peer must first show that it receives what is sent to its address, so that a forged one costs nothing.
const HANDSHAKES_UNVALIDATED_MAX: usize = 16;
/// Messages kept for one peer while it is dialled, and those who wait for the connection. Beyond it the oldest message goes.
const WAITING_MAX: usize = 64;
const COMMANDS_MAX: usize = 1024;
/// Streams a peer may have open towards us: of messages, and of questions and forwarded requests.
const MESSAGES_MAX: u32 = 64;
/// See [`MESSAGES_MAX`].
const QUESTIONS_MAX: u32 = 512;

/// Why the transport does not start. The operator's to mend; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket cannot be used.
    #[error("the mesh port cannot be used: {0}")]
    Socket(#[from] io::Error),
    /// The certificate cannot.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A bug: QUIC does not take the cipher suites.
    #[error("TLS does not suit QUIC")]
    Unsuitable,
}

/// Starts it on a bound socket. `chaos` may hurt what passes. `me` must name the node that `trust` names.
pub fn start(
    socket: UdpSocket,
    me: Peer,
    trust: Trust,
    metrics: Metrics,
    chaos: chaos::Handle,
    tasks: &Tasks,
) -> Result<(Handle, Inboxes), StartError> {
    let (server, clients) = quic(&trust, &metrics)?;
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &trust.reset_key());
    let config = quinn::EndpointConfig::new(Arc::new(reset_key));
    let endpoint = quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))?;
    let (outlets, inboxes) = inboxes();
    let (commands, asked) = mpsc::channel(COMMANDS_MAX);
    let handle = Handle {
        commands,
        used: Arc::new(ArcSwap::default()),
        me: Arc::new(ArcSwap::from_pointee(me)),
        local: endpoint.local_addr()?,
        metrics: metrics.clone(),
    };
    let pacer = Arc::new(Mutex::new(Pacer::new(Clock.now(), BULK_BYTES_PER_SECOND)));
    let ends =
        Ends { endpoint, clients, trust, me: Arc::clone(&handle.me), metrics: metrics.clone(), chaos: chaos.clone() };
    let driver = Driver {
        ends,
        shared: Shared { outlets, metrics, pacer, chaos },
        asked,
        used: Arc::clone(&handle.used),
        links: Links::default(),
        live: BTreeMap::new(),
        waiting: BTreeMap::new(),
        work: JoinSet::new(),
        handshakes: 0,
        next: 0,
    };
    tasks.spawn(TASK, |stop| driver.run(stop));
    Ok((handle, inboxes))
}

fn quic(trust: &Trust, metrics: &Metrics) -> Result<(quinn::ServerConfig, Clients), StartError> {
    let (server, client) = trust.tls(metrics)?;
    let unsuitable = |_| StartError::Unsuitable;
    let mut server =
        quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server).map_err(unsuitable)?));
    server.transport_config(Arc::new(carry(None))).migration(false);
    let mut bulk = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(client).map_err(unsuitable)?));
    let mut main = bulk.clone();
    bulk.transport_config(Arc::new(carry(None)));
    main.transport_config(Arc::new(carry(Some(KEEP_ALIVE))));
    Ok((server, Clients { main, bulk }))
}

fn carry(keep_alive: Option<Duration>) -> quinn::TransportConfig {
    let mut carry = quinn::TransportConfig::default();
    carry.max_idle_timeout(quinn::IdleTimeout::try_from(IDLE_TIMEOUT).ok()).keep_alive_interval(keep_alive);
    carry.initial_rtt(Duration::from_millis(100)); // the default of 333 ms waits a second before it repeats a lost first packet
    carry.max_concurrent_uni_streams(MESSAGES_MAX.into()).max_concurrent_bidi_streams(QUESTIONS_MAX.into());
    carry
}

/// How a task of the driver ended.
enum Done {
    Dialled(NodeId, Class, Option<Made>),
    Greeted(Result<Made, GreetError>, oneshot::Sender<Result<Peer, GreetError>>),
    Accepted(Option<Made>),
    Ended(LinkId),
}

/// What waits for a connection to one peer.
#[derive(Default)]
struct Waiting {
    addr: Option<SocketAddr>,
    messages: VecDeque<(Lane, Bytes)>,
    askers: Vec<oneshot::Sender<Arc<Link>>>,
}

struct Driver {
    ends: Ends,
    shared: Shared,
    asked: mpsc::Receiver<Command>,
    used: Arc<ArcSwap<Used>>,
    links: Links,
    live: BTreeMap<LinkId, Arc<Link>>,
    waiting: BTreeMap<(NodeId, Class), Waiting>,
    work: JoinSet<Done>,
    handshakes: usize,
    next: u64,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(Ok(done)) = self.work.join_next(), if !self.work.is_empty() => self.done(done),
                Some(command) = self.asked.recv() => self.command(command),
                incoming = self.ends.endpoint.accept() => match incoming {
                    Some(incoming) => self.accept(incoming),
                    None => break,
                },
            }
        }
        self.ends.endpoint.close(0u32.into(), b"leaving");
        let _ = timeout(Duration::from_millis(500), self.ends.endpoint.wait_idle()).await; // peers notice anyway, later
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Send { to, lane, bytes } => {
                let waiting = self.waiting.entry((to.node.clone(), lane.class())).or_default();
                waiting.addr = Some(to.addr);
                if waiting.messages.len() >= WAITING_MAX {
                    waiting.messages.pop_front();
                    self.shared.metrics.dropped(Dropped::QueueFull);
                }
                waiting.messages.push_back((lane, bytes));
                self.step(Event::Wanted(to.node, lane.class()));
            }
            Command::Link { to, class, reply } => {
                let waiting = self.waiting.entry((to.node.clone(), class)).or_default();
                waiting.addr = Some(to.addr);
                waiting.askers.retain(|it| !it.is_closed());
                if waiting.askers.len() < WAITING_MAX {
                    waiting.askers.push(reply);
                }
                self.step(Event::Wanted(to.node, class));
            }
            Command::Greet { addr, reply } => {
                let ends = self.ends.clone();
                self.work.spawn(async move { Done::Greeted(ends.dial(addr, None, Class::Main, None).await, reply) });
            }
            Command::Evict(node, life) => self.step(Event::Evict(node, life)),
            Command::Silent(node, class) => self.step(Event::Silent(node, class)),
        }
    }

    fn accept(&mut self, incoming: quinn::Incoming) {
        if self.handshakes >= HANDSHAKES_MAX {
            self.shared.metrics.refused(Refusal::Overload);
            return incoming.refuse();
        }
        if self.handshakes >= HANDSHAKES_UNVALIDATED_MAX && incoming.may_retry() && !incoming.remote_address_validated()
        {
            let _ = incoming.retry(); // may_retry was asked
            return;
        }
        self.handshakes += 1;
        let ends = self.ends.clone();
        self.work.spawn(async move { Done::Accepted(ends.accept(incoming).await) });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Dialled(_, _, Some(made)) => self.made(made, Side::Dialled),
            Done::Dialled(node, class, None) => self.step(Event::Failed(node, class)),
            Done::Greeted(Ok(made), reply) => {
                let peer = made.peer.clone();
                self.made(made, Side::Dialled);
                let _ = reply.send(Ok(peer)); // gone: nobody asks any more
            }
            Done::Greeted(Err(error), reply) => {
                let _ = reply.send(Err(error)); // likewise
            }
            Done::Accepted(made) => {
                self.handshakes -= 1;
                if let Some(made) = made {
                    self.made(made, Side::Accepted);
                }
            }
            Done::Ended(link) => {
                self.live.remove(&link);
                self.step(Event::Ended(link));
            }
        }
    }

    fn made(&mut self, made: Made, side: Side) {
        let id = LinkId(self.next);
        self.next += 1;
        let (node, life) = (made.peer.node.clone(), (made.peer.storage, made.peer.boot));
        let (link, queue): (Link, Queue) = Link::new(made.peer, made.class, made.conn, self.shared.clone());
        let link = Arc::new(link);
        self.live.insert(id, Arc::clone(&link));
        self.work.spawn(async move {
            link.run(queue).await;
            Done::Ended(id)
        });
        self.step(Event::Made { link: id, node, life, class: made.class, side });
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.links.step(Clock.now(), event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
        self.shared.metrics.links(self.live.len());
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Dial(node, class) => {
                let key = (node.clone(), class);
                let used = || self.used.load().get(&key).map(|it| it.peer.addr);
                let Some(addr) = self.waiting.get(&key).and_then(|it| it.addr).or_else(used) else { return };
                let silent = self.links.replaced(&node, class).and_then(|it| self.live.get(&it).cloned());
                let ends = self.ends.clone();
                self.work.spawn(async move {
                    let made = ends.dial(addr, Some(node.clone()), class, silent).await;
                    Done::Dialled(node, class, made.ok())
                });
            }
            Effect::GiveUp(node, class) => {
                let waited = self.waiting.remove(&(node, class)).unwrap_or_default();
                for _ in waited.messages {
                    self.shared.metrics.dropped(Dropped::NoLink);
                }
            }
            Effect::Use(node, class, link) => {
                let Some(link) = self.live.get(&link).cloned() else { return };
                let waited = self.waiting.remove(&(node.clone(), class)).unwrap_or_default();
                for (lane, bytes) in waited.messages {
                    link.send(lane, bytes);
                }
                for asker in waited.askers {
                    let _ = asker.send(Arc::clone(&link)); // gone: its deadline has passed
                }
                self.publish(|used| drop(used.insert((node, class), link)));
            }
            Effect::Unuse(node, class) => self.publish(|used| drop(used.remove(&(node, class)))),
            Effect::Close(link) => {
                if let Some(link) = self.live.get(&link) {
                    link.close("replaced");
                }
            }
        }
    }

    fn publish(&self, change: impl FnOnce(&mut Used)) {
        let mut used = Used::clone(&self.used.load());
        change(&mut used);
        self.used.store(Arc::new(used));
    }
}
