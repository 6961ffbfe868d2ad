//! A cluster on virtual time: nodes made of the cores that ship, one queue of what is due, and the transport's twin between them.
//!
//! What a driver does with a core's effects is done here, in the same order, without tasks: packets that wait are heard before time is, members are told
//! to replication as they change, a batch is durable later than it is written. Everything is drawn from one seed and kept in ordered maps, so a seed is a
//! run; the hash of all that was sent, and when, is its name. *Absent on purpose:* QUIC and RocksDB, which are tested for real.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::node::Node;
use super::node::addr;
use super::node::index;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::membership;
use crate::membership::Status;
use crate::replication;
use crate::replication::Now;
use crate::replication::core::Edit;
use crate::replication::core::EditError;
use crate::replication::core::Settled;
use crate::replication::sim::model::Model;
use crate::replication::store::memory::Memory;
use crate::replication::tables::Spec;
use crate::replication::tables::TABLES;
use crate::replication::tables::TableId;
use crate::transport::Peer;
use crate::transport::twin::Carrier;
use crate::transport::twin::Twin;
use crate::transport::twin::Weather;

/// Wall time at the start of every run.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// Between two ticks of replication, as its driver has it.
const TICK: Duration = Duration::from_millis(100);
/// A greeting that nobody answers fails after this, as a dial does.
const GREET_TIMEOUT: Duration = Duration::from_secs(2);
/// Packets that a stopped node's socket keeps.
const SOCKET_MAX: usize = 2048;
/// How long a write to disk takes, and at most when the disk is slow.
const DISK: Duration = Duration::from_millis(3);
const DISK_SLOW_MS: usize = 300;

/// What nodes say to each other. The transport vouches for who says it.
#[derive(Clone, Debug)]
pub(super) enum Packet {
    Greet,
    Greeting(Box<Peer>),
    Swim(Arc<Peer>, Vec<u8>),
    Table(NodeId, Vec<u8>),
}

/// What will happen to a node in one of its lives.
pub(super) enum Due {
    Wake,
    Tick,
    Missed(SocketAddr),
    Stored(u64),
    Rouse,
    Restart { disk: Memory, clock_ms: i64, is_new: bool },
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) swim_packets: u64,
    pub(super) swim_bytes: u64,
    pub(super) table_frames: u64,
    pub(super) table_bytes: u64,
}

/// See the file's header.
pub(super) struct Cluster {
    pub(super) now: Instant,
    pub(super) begun: Instant,
    pub(super) entropy: Entropy,
    pub(super) twin: Twin<Packet>,
    pub(super) nodes: Vec<Node>,
    pub(super) model: Model,
    pub(super) tally: Tally,
    /// Members that were held for down although they ran: (when, by whom, whom).
    pub(super) false_downs: Vec<(Duration, usize, usize)>,
    /// All that was sent, where somebody wants to see it.
    pub(super) tap: Option<Vec<(usize, Packet)>>,
    specs: Vec<Spec>,
    due: BTreeMap<(Instant, u64), (usize, u32, Due)>,
    queued: u64,
    storages: u128,
    trace: Xxh3,
}

impl Cluster {
    /// So many nodes with empty disks, started at once, with the tables that ship.
    pub(super) fn new(seed: u64, count: usize, weather: Weather) -> Self {
        Self::with_tables(seed, count, weather, TABLES.to_vec())
    }

    pub(super) fn with_tables(seed: u64, count: usize, weather: Weather, specs: Vec<Spec>) -> Self {
        let begun = Clock.now();
        let mut cluster = Self {
            now: begun,
            begun,
            entropy: Entropy::seeded(seed),
            twin: Twin::new(seed ^ 0x5151, weather),
            nodes: (0..count).map(|n| Node::new(n, begun)).collect(),
            model: Model::default(),
            tally: Tally::default(),
            false_downs: Vec::new(),
            tap: None,
            specs,
            due: BTreeMap::new(),
            queued: 0,
            storages: 0,
            trace: Xxh3::new(),
        };
        for node in 0..count {
            cluster.restart_after(Duration::ZERO, node, Memory::default(), 0, true);
        }
        cluster
    }

    pub(super) fn below(&self, bound: usize) -> usize {
        self.entropy.below(bound)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now - self.begun
    }

    /// What happened so far, as a number.
    pub(super) fn trace(&self) -> u128 {
        self.trace.digest128()
    }

    pub(super) fn restart_after(&mut self, after: Duration, node: usize, disk: Memory, clock_ms: i64, is_new: bool) {
        self.at(self.now + after, node, Due::Restart { disk, clock_ms, is_new });
    }

    fn at(&mut self, at: Instant, node: usize, due: Due) {
        self.queued += 1;
        let life = self.nodes[node].life;
        self.due.insert((at, self.queued), (node, life, due));
    }

    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.happen(until) {}
    }

    /// Runs until it is so, looking ten times a second. None: not within `limit`.
    pub(super) fn until(&mut self, limit: Duration, is_so: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while !is_so(self) {
            if self.now - begun >= limit {
                return None;
            }
            self.run(TICK);
        }
        Some(self.now - begun)
    }

    /// The next thing that happens, if it does by then.
    fn happen(&mut self, until: Instant) -> bool {
        let due = self.due.first_key_value().map(|it| it.0.0);
        let next = due.into_iter().chain(self.twin.next_at()).min().filter(|it| *it <= until);
        let Some(next) = next else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if due.is_some_and(|it| it <= next) {
            let Some((_, (node, life, due))) = self.due.pop_first() else { return true };
            self.is_due(node, life, due);
        } else if let Some(it) = self.twin.deliver(self.now) {
            let (to, from) = (place(it.to), it.from);
            if to < self.nodes.len() {
                self.arrive(to, from, it.message);
            }
        }
        true
    }

    fn is_due(&mut self, node: usize, life: u32, due: Due) {
        if let Due::Restart { disk, clock_ms, is_new } = due {
            return self.start(node, disk, clock_ms, is_new);
        }
        if self.nodes[node].life != life {
            return;
        }
        if let (Some(until), false) = (self.nodes[node].stopped_until, matches!(due, Due::Rouse)) {
            return self.at(until, node, due); // behind the end of its stop
        }
        match due {
            Due::Wake if self.nodes[node].wake_at == Some(self.now) || self.nodes[node].wake_at < Some(self.now) => {
                self.nodes[node].wake_at = None;
                self.swim(node, membership::core::Event::Wake);
            }
            Due::Wake => {} // an earlier step asked for another time
            Due::Tick => {
                self.tables(node, replication::core::Event::Tick);
                self.at(self.now + TICK, node, Due::Tick);
            }
            Due::Missed(addr) => {
                if self.nodes[node].greeting.remove(&addr) {
                    self.swim(node, membership::core::Event::Missed(addr));
                }
            }
            Due::Stored(token) => {
                self.nodes[node].disk.sync_one();
                self.model.synced(node, token);
                self.tables(node, replication::core::Event::Stored(token));
            }
            Due::Rouse => {
                self.nodes[node].stopped_until = None;
                // ORDER: as the drivers do it, what waits in the socket is heard before time is.
                for (from, packet) in std::mem::take(&mut self.nodes[node].socket) {
                    self.arrive(node, from, packet);
                }
            }
            Due::Restart { .. } => {}
        }
    }

    fn start(&mut self, node: usize, disk: Memory, clock_ms: i64, is_new: bool) {
        self.storages += u128::from(is_new);
        let (storage, now) = (is_new.then_some(self.storages), self.now);
        let wall_ms = EPOCH_MS + self.elapsed().as_millis() as i64 + clock_ms;
        let entropy = Entropy::seeded(self.entropy.next_u64());
        self.nodes[node].start(now, disk, storage, clock_ms, wall_ms, &self.specs, entropy);
        let first = Duration::from_millis(1 + self.below(TICK.as_millis() as usize) as u64);
        self.at(now + first, node, Due::Tick);
        self.members(node);
        self.wake_later(node);
    }

    /// The power goes. What was not synced may be on the disk or not.
    pub(super) fn crash(&mut self, node: usize) {
        let kept = self.below(3);
        self.nodes[node].crash(kept);
        self.model.crashed(node);
    }

    /// Stops a node for a while, as SIGSTOP does. What comes waits in its socket.
    pub(super) fn stop(&mut self, node: usize, time: Duration) {
        if self.nodes[node].is_up() && self.nodes[node].stopped_until.is_none() {
            self.nodes[node].stopped_until = Some(self.now + time);
            self.at(self.now + time, node, Due::Rouse);
        }
    }

    /// Lets time pass in which nobody runs.
    pub(super) fn skip(&mut self, time: Duration) {
        self.now += time;
        self.due = std::mem::take(&mut self.due).into_iter().map(|((at, n), it)| ((at + time, n), it)).collect();
        for node in &mut self.nodes {
            node.wake_at = node.wake_at.map(|it| it + time);
            node.stopped_until = node.stopped_until.map(|it| it + time);
        }
    }

    /// Cuts every way between two groups, in one direction.
    pub(super) fn cut(&mut self, from: &[usize], to: &[usize]) {
        for (a, b) in from.iter().flat_map(|a| to.iter().map(move |b| (*a, *b))) {
            self.twin.cut(addr(a), addr(b));
        }
    }

    pub(super) fn split(&mut self, one: &[usize], other: &[usize]) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(super) fn edit(&mut self, node: usize, edits: Vec<Edit>) -> u64 {
        // The model follows edits one by one.
        let requests: Vec<u64> = edits.iter().map(|it| self.model.asked(it)).collect();
        for (request, edit) in requests.iter().zip(edits) {
            self.tables(node, replication::core::Event::Edit(*request, vec![edit]));
        }
        requests.last().copied().unwrap_or_default()
    }

    pub(super) fn publish(&mut self, node: usize, table: TableId, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) {
        self.tables(node, replication::core::Event::Publish(table, rows));
        let it = &self.nodes[node];
        if let Some(core) = it.tables.as_ref() {
            self.model.published(table, it.storage(), core);
        }
    }

    pub(super) fn arrive(&mut self, node: usize, from: SocketAddr, packet: Packet) {
        if !self.nodes[node].is_up() {
            return;
        }
        if self.nodes[node].stopped_until.is_some() {
            if self.nodes[node].socket.len() < SOCKET_MAX {
                self.nodes[node].socket.push((from, packet));
            }
            return;
        }
        match packet {
            Packet::Greet => {
                let me = Box::new(self.nodes[node].swim().me().clone());
                self.carry(node, from, Carrier::Stream, Packet::Greeting(me));
            }
            Packet::Greeting(peer) => {
                if self.nodes[node].greeting.remove(&from) {
                    self.swim(node, membership::core::Event::Met(from, peer));
                }
            }
            Packet::Swim(peer, bytes) => self.swim(node, membership::core::Event::Received(peer, bytes)),
            Packet::Table(from, frame) => self.tables(node, replication::core::Event::Received(from, frame)),
        }
    }

    fn carry(&mut self, from: usize, to: SocketAddr, carrier: Carrier, packet: Packet) {
        if let Some(tap) = &mut self.tap {
            tap.push((from, packet.clone()));
        }
        self.twin.send(self.now, addr(from), to, carrier, packet);
    }

    pub(super) fn swim(&mut self, node: usize, event: membership::core::Event) {
        let mut effects = Vec::new();
        let Some(core) = &mut self.nodes[node].membership else { return };
        core.step(self.now, event, &mut effects);
        let me = Arc::new(core.me().clone());
        let mut is_other = false;
        for effect in effects {
            use membership::core::Effect;
            is_other |= matches!(effect, Effect::Changed(_) | Effect::Forgotten | Effect::Renewed(_));
            match effect {
                Effect::Greet(to) => {
                    self.nodes[node].greeting.insert(to);
                    self.at(self.now + GREET_TIMEOUT, node, Due::Missed(to));
                    self.carry(node, to, Carrier::Stream, Packet::Greet);
                }
                Effect::LookUp => {
                    let seeds = (0..self.nodes.len().min(5)).map(addr).collect();
                    self.swim(node, membership::core::Event::LookedUp(seeds));
                }
                Effect::Send(to, bytes) => {
                    self.note(node, &bytes);
                    self.tally.swim_packets += 1;
                    self.tally.swim_bytes += bytes.len() as u64;
                    self.carry(node, to.addr, Carrier::Datagram, Packet::Swim(Arc::clone(&me), bytes));
                }
                Effect::Changed(change) => self.changed(node, &change),
                Effect::Evict(_) | Effect::Renewed(_) | Effect::Forgotten | Effect::Slept(_) | Effect::Ignored => {}
            }
        }
        if is_other {
            self.members(node);
        }
        self.wake_later(node);
    }

    fn changed(&mut self, node: usize, change: &membership::core::Change) {
        let whom = place(change.peer.addr);
        let Some(it) = self.nodes.get(whom).filter(|_| change.to == Status::Down) else { return };
        let is_that_life = it.membership.as_ref().is_some_and(|it| it.me() == &*change.peer);
        if is_that_life && it.stopped_until.is_none() {
            self.false_downs.push((self.elapsed(), node, whom));
        }
    }

    fn wake_later(&mut self, node: usize) {
        let Some(next) = self.nodes[node].membership.as_ref().map(membership::core::Core::next_wake) else { return };
        if self.nodes[node].wake_at.is_none_or(|it| next < it) {
            self.nodes[node].wake_at = Some(next);
            self.at(next, node, Due::Wake);
        }
    }

    /// As replication's driver does whenever the view is another.
    fn members(&mut self, node: usize) {
        let (members, forgotten) = self.nodes[node].look();
        for gone in forgotten {
            self.swim(node, membership::core::Event::Forget(gone));
        }
        self.tables(node, replication::core::Event::Members(members));
    }

    pub(super) fn tables(&mut self, node: usize, event: replication::core::Event) {
        let now = self.clock_of(node);
        let Some(core) = self.nodes[node].tables.as_mut() else { return };
        let mut effects = Vec::new();
        core.step(now, event, &mut effects);
        self.nodes[node].note_ready();
        for effect in effects {
            use replication::core::Effect;
            match effect {
                Effect::Send(to, _, frame) => {
                    self.note(node, &frame);
                    self.tally.table_frames += 1;
                    self.tally.table_bytes += frame.len() as u64;
                    if !self.nodes[node].knows(&to) {
                        continue;
                    }
                    // Streams bring everything once unless a way is cut or a node dies; replication relies on neither.
                    let carrier = if self.below(16) == 0 { Carrier::Datagram } else { Carrier::Stream };
                    let packet = Packet::Table(self.nodes[node].name.clone(), frame);
                    self.carry(node, addr(index(&to)), carrier, packet);
                }
                Effect::Store(token, batch) => self.write(node, token, batch),
                Effect::Answer(request, answer) => {
                    self.answered(node, request, &answer);
                    self.nodes[node].answers.insert(request, answer);
                }
                Effect::Changed(table, change) => {
                    let core = self.nodes[node].tables.as_ref().expect("it just acted");
                    self.model.changed(node, table, &change, core);
                }
                Effect::RowsChanged(table) => {
                    let core = self.nodes[node].tables.as_ref().expect("it just acted");
                    self.model.rows_changed(table, now.mono, core);
                }
                Effect::Everywhere(_) => {} // for people
            }
        }
    }

    /// What is called safe must be on this disk and on another.
    fn answered(&mut self, node: usize, request: u64, answer: &Result<Settled, EditError>) {
        let is_alone = self.nodes[node].is_alone();
        if let Some(id) = self.model.adds(request).filter(|_| answer.as_ref().is_ok_and(|it| it.is_safe)) {
            let holds = |it: &&Node| self.specs.iter().any(|spec| it.disk.holds(spec.id, &id.0.to_be_bytes()));
            let disks = self.nodes.iter().filter(holds).count();
            if disks < if is_alone { 1 } else { 2 } {
                self.model.blame(format!("an add was called safe on {disks} disks"));
            }
        }
        self.model.answered(node, request, answer, is_alone);
    }

    fn write(&mut self, node: usize, token: u64, batch: replication::store::Batch) {
        self.nodes[node].disk.write(batch);
        self.model.wrote(node, token);
        // In order, as a log is synced; at times a disk takes long.
        let slow = self.below(8) == 0;
        let takes = if slow { Duration::from_millis(self.below(DISK_SLOW_MS) as u64) } else { DISK };
        let at = self.now.max(self.nodes[node].disk_free) + takes;
        self.nodes[node].disk_free = at;
        self.at(at, node, Due::Stored(token));
    }

    fn note(&mut self, node: usize, bytes: &[u8]) {
        self.trace.update(&(self.elapsed().as_nanos() as u64).to_le_bytes());
        self.trace.update(&(node as u64).to_le_bytes());
        self.trace.update(bytes);
    }

    fn clock_of(&self, node: usize) -> Now {
        let it = &self.nodes[node];
        let wall = EPOCH_MS + self.elapsed().as_millis() as i64 + it.clock_ms;
        Now { mono: self.now.saturating_duration_since(it.started), wall: Duration::from_millis(wall.max(0) as u64) }
    }
}

/// Whose address it is; one of nobody is past all nodes.
pub(super) fn place(addr: SocketAddr) -> usize {
    match addr.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[2]) * 250 + usize::from(ip.octets()[3]) - 1,
        std::net::IpAddr::V6(_) => usize::MAX,
    }
}
