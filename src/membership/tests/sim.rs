//! Real cores on virtual time: one queue of events, one seed, the same run each time.

use std::collections::BTreeMap;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::addr;
use super::peer;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::membership::Config;
use crate::membership::Status;
use crate::membership::core::Core;
use crate::membership::core::Effect;
use crate::membership::core::Event;
use crate::transport::Peer;
use crate::transport::twin::Carrier;
use crate::transport::twin::Twin;
use crate::transport::twin::Weather;

/// A greeting that nobody answers fails after this, as a dial does.
const GREET_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Greet,
    Greeting(Box<Peer>),
    Swim(Arc<Peer>, Vec<u8>),
}

struct Node {
    core: Option<Core>,
    boot: u64,
    /// Stopped until then; what comes waits in its socket.
    asleep_until: Option<Instant>,
    socket: Vec<(SocketAddr, Packet)>,
    /// Whether its socket keeps nothing: a full buffer, a connection that timed out.
    is_deaf: bool,
    greeting: BTreeMap<SocketAddr, Instant>,
    seeds: Vec<SocketAddr>,
}

pub(super) struct Sim {
    pub(super) twin: Twin<Packet>,
    nodes: Vec<Node>,
    places: BTreeMap<SocketAddr, usize>,
    start: Instant,
    pub(super) now: Instant,
    seed: u64,
    config: Config,
    /// Every effect and when, so that two runs can be compared byte for byte.
    trace: DefaultHasher,
    /// Members declared down that ran at that time: (when, by whom, whom).
    pub(super) false_downs: Vec<(Duration, usize, usize)>,
    /// Suspects that turned out to be alive, and nodes that had to begin a new life: as often.
    pub(super) refuted: u64,
    pub(super) renewed: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl Sim {
    /// `count` nodes, none started, each with all as its seeds.
    pub(super) fn new(seed: u64, count: usize, weather: Weather) -> Self {
        let start = Clock.now();
        let seeds: Vec<_> = (0..count.min(5)).map(addr).collect();
        let node = || Node {
            core: None,
            boot: 0,
            asleep_until: None,
            socket: Vec::new(),
            is_deaf: false,
            greeting: BTreeMap::new(),
            seeds: seeds.clone(),
        };
        Self {
            twin: Twin::new(seed, weather),
            nodes: (0..count).map(|_| node()).collect(),
            places: (0..count).map(|n| (addr(n), n)).collect(),
            start,
            now: start,
            seed,
            config: Config::default(),
            trace: DefaultHasher::new(),
            false_downs: Vec::new(),
            refuted: 0,
            renewed: 0,
            packets: 0,
            bytes: 0,
        }
    }

    pub(super) fn seeds(&mut self, node: usize, seeds: Vec<SocketAddr>) {
        self.nodes[node].seeds = seeds;
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    /// Starts a node, in its next life.
    pub(super) fn start(&mut self, node: usize) {
        let boot = self.nodes[node].boot + 1;
        self.start_as(node, Peer { boot, ..peer(node, boot) });
        self.nodes[node].boot = boot;
    }

    /// Starts a node as whom it says to be.
    pub(super) fn start_as(&mut self, node: usize, me: Peer) {
        let entropy = Entropy::seeded(self.seed ^ ((node as u64 + 1) << 32) ^ me.boot);
        let it = &mut self.nodes[node];
        (it.asleep_until, it.socket, it.greeting) = (None, Vec::new(), BTreeMap::new());
        it.core = Some(Core::new(self.now, me, self.config, entropy));
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].core = None;
    }

    pub(super) fn leave(&mut self, node: usize) {
        self.step(node, Event::Leave);
        self.kill(node);
    }

    /// Stops a node for a while. What comes waits in its socket.
    pub(super) fn sleep(&mut self, node: usize, time: Duration) {
        self.nodes[node].asleep_until = Some(self.now + time);
        self.nodes[node].is_deaf = false;
    }

    /// The same, but what comes is lost.
    pub(super) fn sleep_deaf(&mut self, node: usize, time: Duration) {
        self.sleep(node, time);
        self.nodes[node].is_deaf = true;
    }

    /// Ends its sleep now.
    pub(super) fn rouse(&mut self, node: usize) {
        self.nodes[node].asleep_until = Some(self.now);
    }

    pub(super) fn hand(&mut self, node: usize, event: Event) {
        self.step(node, event);
    }

    /// Cuts every way between two groups, in one direction.
    pub(super) fn cut(&mut self, from: &[usize], to: &[usize]) {
        for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))) {
            self.twin.cut(addr(a), addr(b));
        }
    }

    pub(super) fn core(&self, node: usize) -> &Core {
        self.nodes[node].core.as_ref().expect("it runs")
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].core.is_some()
    }

    pub(super) fn sees(&self, who: usize, whom: usize) -> Option<Status> {
        self.core(who).view().get(&peer(whom, 1).node).map(|it| it.status)
    }

    /// Whether every running node sees every running node, and nobody else, as active.
    pub(super) fn is_formed(&self) -> bool {
        let running: Vec<_> = (0..self.nodes.len()).filter(|n| self.runs(*n)).collect();
        running.iter().all(|who| {
            let view = self.core(*who).view();
            let active = view.members.iter().filter(|it| it.status.is_active()).count();
            active == running.len()
                && running.iter().all(|whom| {
                    view.get(&peer(*whom, 1).node).is_some_and(|it| it.peer.boot == self.nodes[*whom].boot.max(1))
                })
        })
    }

    /// Runs until it is so. None: not within `limit`.
    pub(super) fn until(&mut self, limit: Duration, is_so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let (begun, deadline) = (self.now, self.now + limit);
        loop {
            if is_so(self) {
                return Some(self.now - begun);
            }
            if !self.tick(deadline) {
                return None;
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let deadline = self.now + time;
        while self.tick(deadline) {}
    }

    /// The next thing that happens, if it does by `deadline`.
    fn tick(&mut self, deadline: Instant) -> bool {
        let wakes = (0..self.nodes.len()).filter_map(|n| self.wake_of(n).map(|at| (at, n)));
        let wake = wakes.min();
        let next = self.twin.next_at().into_iter().chain(wake.map(|it| it.0)).min();
        let Some(next) = next.filter(|at| *at <= deadline) else {
            self.now = deadline;
            return false;
        };
        self.now = self.now.max(next);
        if let Some(delivery) = self.twin.deliver(self.now) {
            let to = self.places.get(&delivery.to).copied();
            if let Some(to) = to.filter(|n| self.runs(*n)) {
                self.arrive(to, delivery.from, delivery.message);
            }
            return true;
        }
        if let Some((_, node)) = wake {
            self.wake(node);
        }
        true
    }

    fn wake_of(&self, node: usize) -> Option<Instant> {
        let it = &self.nodes[node];
        let core = it.core.as_ref()?;
        it.asleep_until.or_else(|| it.greeting.values().copied().chain([core.next_wake()]).min())
    }

    fn wake(&mut self, node: usize) {
        if self.nodes[node].asleep_until.take().is_some() {
            // As the driver does it: what waits in the socket is heard first.
            for (from, packet) in std::mem::take(&mut self.nodes[node].socket) {
                self.arrive(node, from, packet);
            }
            return;
        }
        let overdue: Vec<_> = self.nodes[node].greeting.iter().filter(|it| *it.1 <= self.now).map(|it| *it.0).collect();
        for addr in overdue {
            self.nodes[node].greeting.remove(&addr);
            self.step(node, Event::Missed(addr));
        }
        self.step(node, Event::Wake);
    }

    fn arrive(&mut self, node: usize, from: SocketAddr, packet: Packet) {
        if self.nodes[node].asleep_until.is_some() {
            if !self.nodes[node].is_deaf {
                self.nodes[node].socket.push((from, packet));
            }
            return;
        }
        match packet {
            Packet::Greet => {
                let me = Box::new(self.core(node).me().clone());
                self.twin.send(self.now, addr(node), from, Carrier::Stream, Packet::Greeting(me));
            }
            Packet::Greeting(peer) => {
                if self.nodes[node].greeting.remove(&from).is_some() {
                    self.step(node, Event::Met(from, peer));
                }
            }
            Packet::Swim(peer, bytes) => self.step(node, Event::Received(peer, bytes)),
        }
    }

    fn step(&mut self, node: usize, event: Event) {
        let mut effects = Vec::new();
        let Some(core) = &mut self.nodes[node].core else { return };
        core.step(self.now, event, &mut effects);
        let me = Arc::new(core.me().clone());
        for effect in effects {
            self.note(node, &effect);
            self.perform(node, &me, effect);
        }
    }

    fn note(&mut self, node: usize, effect: &Effect) {
        (node, self.elapsed()).hash(&mut self.trace);
        match effect {
            Effect::Send(to, bytes) => (to.addr, bytes).hash(&mut self.trace),
            other => format!("{other:?}").hash(&mut self.trace),
        }
    }

    fn perform(&mut self, node: usize, me: &Arc<Peer>, effect: Effect) {
        match effect {
            Effect::Greet(to) => {
                self.nodes[node].greeting.insert(to, self.now + GREET_TIMEOUT);
                self.twin.send(self.now, addr(node), to, Carrier::Stream, Packet::Greet);
            }
            Effect::LookUp => {
                let seeds = self.nodes[node].seeds.clone();
                self.step(node, Event::LookedUp(seeds));
            }
            Effect::Send(to, bytes) => {
                (self.packets, self.bytes) = (self.packets + 1, self.bytes + bytes.len() as u64);
                let packet = Packet::Swim(Arc::clone(me), bytes);
                self.twin.send(self.now, addr(node), to.addr, Carrier::Datagram, packet);
            }
            Effect::Changed(change) if change.to == Status::Down => {
                let whom = self.places[&change.peer.addr];
                let is_that_life = self.nodes[whom].core.as_ref().is_some_and(|it| it.me() == &*change.peer);
                if is_that_life && self.nodes[whom].asleep_until.is_none() {
                    self.false_downs.push((self.elapsed(), node, whom));
                }
            }
            Effect::Changed(change) => {
                self.refuted += u64::from((change.from, change.to) == (Some(Status::Suspect), Status::Alive));
            }
            Effect::Renewed(_) => self.renewed += 1,
            Effect::Evict(_) | Effect::Forgotten | Effect::Slept(_) | Effect::Ignored => {}
        }
    }
}

/// How many seeds somebody asked for, to measure rather than to test.
pub(super) fn asked() -> Option<u64> {
    std::env::var("SIM_SEEDS").ok().and_then(|it| it.parse().ok())
}

/// The seeds of a test: as many as fit `make test`, or as were asked for.
pub(super) fn seeds(usually: u64) -> std::ops::Range<u64> {
    0..asked().unwrap_or(usually)
}

/// A percentile of what was measured.
pub(super) fn percentile(times: &mut [Duration], share: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share).round() as usize]
}
