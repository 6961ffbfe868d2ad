//! Nodes on virtual time whose clients open streams of one limit: the real cores and permits over the transport's twin, and the office that ships.
//!
//! Clients are a closed loop: so many at each node want one stream at a time, always. One that is refused comes again in a second. What runs is counted by what clients have, and not by what any node believes;
//! a node that dies takes its streams with it, one that does not run goes on having them.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Wake;
use std::time::Duration;

use super::world::addr;
use super::world::cut_apart;
use super::world::limit;
use super::world::storage;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::limits::Definition;
use crate::limits::Kind;
use crate::limits::Mint;
use crate::limits::Permit;
use crate::limits::Settings;
use crate::limits::calendar::Calendar;
use crate::limits::core::Answer;
use crate::limits::core::Core;
use crate::limits::core::Effect;
use crate::limits::core::Event;
use crate::limits::core::Life;
use crate::limits::core::MayOpen;
use crate::limits::core::Office;
use crate::limits::core::Ticket;
use crate::limits::group::Change;
use crate::limits::group::Changes;
use crate::limits::group::Proposal;
use crate::limits::messages::Message;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;
use crate::transport::twin::Carrier;
use crate::transport::twin::Twin;
use crate::transport::twin::Weather;

const WALL: Duration = Duration::from_secs(1_800_000_000);
const TICK: Duration = Duration::from_millis(100);
/// How long the nodes of a majority are without a leader.
const ELECTION: Duration = Duration::from_millis(700);

#[derive(Clone, Debug)]
enum Packet {
    Say(Life, Message),
    Renew(Life, Renewal),
    Renewed(u64, Renewed),
}

enum Due {
    Wake(usize),
    Members(usize),
    Lead,
    /// A client of a node wants a stream.
    Ask(usize),
    Freed(usize),
    Ends(u64),
    Echo(SocketAddr, SocketAddr, Box<Packet>),
}

/// Whether a permit came back for which somebody waits.
#[derive(Default)]
struct Rung(AtomicBool);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

pub(super) struct Node {
    pub(super) life: Life,
    core: Core,
    rung: Arc<Rung>,
    pub(super) is_alive: bool,
    stopped_until: Option<Instant>,
    side: u8,
    wakes: Option<Instant>,
    socket: Vec<Packet>,
    /// Clients that there are, and that there should be.
    clients: usize,
    pub(super) wanted: usize,
}

struct Stream {
    node: usize,
    began: Instant,
    permit: Permit,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) entropy: Entropy,
    settings: Settings,
    twin: Twin<Packet>,
    pub(super) nodes: Vec<Node>,
    due: BTreeMap<(Instant, u64), Due>,
    numbers: u64,
    tickets: BTreeMap<Ticket, (usize, Instant)>,
    streams: BTreeMap<u64, Stream>,
    /// How long streams last, at least and at most.
    pub(super) lasts: (Duration, Duration),
    /// Streams that are older than half the hold may outlive that of a node that is cut off or does not run.
    excused_after: Duration,
    /// Share of messages of which a copy comes much later.
    pub(super) echoes: f64,
    leader: Option<usize>,
    elect_at: Option<Instant>,
    office: Option<Office>,
    pub(super) log: Vec<Mint>,
    /// As an operator has it.
    definition: (u64, u64),
    area: f64,
    area_at: Instant,
    pub(super) most: (u64, u64),
    broken: Option<String>,
    pub(super) waits: Vec<Duration>,
    pub(super) refused: u64,
    pub(super) messages: u64,
}

impl World {
    pub(super) fn new(seed: u64, (units, clients): (u64, &[usize]), settings: Settings, weather: Weather) -> Self {
        let now = Clock.now();
        let over: BTreeSet<StorageId> = (0..clients.len()).map(storage).collect();
        let mint = Mint::first(limit(0), 1, 1, (Kind::Streams, 0), units, &over).expect("it is sound");
        let mut world = Self {
            now,
            entropy: Entropy::seeded(seed ^ 0x57_2ea),
            settings,
            twin: Twin::new(seed, weather),
            nodes: Vec::new(),
            due: BTreeMap::new(),
            numbers: 0,
            tickets: BTreeMap::new(),
            streams: BTreeMap::new(),
            lasts: (Duration::from_millis(100), Duration::from_secs(3)),
            excused_after: settings.hold / 2,
            echoes: 0.0,
            leader: Some(0),
            elect_at: None,
            office: None,
            log: vec![mint],
            definition: (1, units),
            area: 0.0,
            area_at: now,
            most: (0, 0),
            broken: None,
            waits: Vec::new(),
            refused: 0,
            messages: 0,
        };
        clients.iter().for_each(|wanted| world.join(*wanted));
        world.put(TICK, Due::Lead);
        world
    }

    fn core(now: Instant, life: Life, settings: Settings) -> (Core, Arc<Rung>) {
        let (mut core, rung) = (Core::new(now, WALL, life, settings), Arc::new(Rung::default()));
        core.set_bell(Arc::clone(&rung).into());
        (core, rung)
    }

    pub(super) fn join(&mut self, wanted: usize) {
        let n = self.nodes.len();
        let life = (storage(n), 1);
        let (core, rung) = Self::core(self.now, life, self.settings);
        let (is_alive, stopped_until, side, wakes, socket, clients) = (true, None, 0, None, Vec::new(), 0);
        self.nodes.push(Node { life, core, rung, is_alive, stopped_until, side, wakes, socket, clients, wanted });
        self.put(Duration::ZERO, Due::Wake(n));
        self.announce();
        self.want(n, wanted);
    }

    /// So many clients of a node want a stream from now on.
    pub(super) fn want(&mut self, n: usize, wanted: usize) {
        self.nodes[n].wanted = wanted;
        while self.nodes[n].clients < wanted {
            self.nodes[n].clients += 1;
            let after = Duration::from_micros(self.entropy.next_u64() % 300_000);
            self.put(after, Due::Ask(n));
        }
    }

    fn put(&mut self, after: Duration, due: Due) {
        self.numbers += 1;
        self.due.insert((self.now + after, self.numbers), due);
    }

    fn runs(&self, n: usize) -> bool {
        self.nodes[n].is_alive && self.nodes[n].stopped_until.is_none_or(|it| it <= self.now)
    }

    pub(super) fn mint(&self) -> &Mint {
        self.log.last().expect("one at least")
    }

    // === Faults ===

    fn announce(&mut self) {
        for n in 0..self.nodes.len() {
            let after = Duration::from_millis(50 + self.entropy.next_u64() % 150);
            self.put(after, Due::Members(n));
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.count();
        self.nodes[n].is_alive = false;
        self.streams.retain(|_, it| it.node != n);
        self.tickets.retain(|_, it| it.0 != n);
        self.nodes[n].clients = 0;
        self.announce();
    }

    pub(super) fn restart(&mut self, n: usize) {
        let life = (self.nodes[n].life.0, self.nodes[n].life.1 + 1);
        let (core, rung) = Self::core(self.now, life, self.settings);
        let node = &mut self.nodes[n];
        (node.life, node.core, node.rung) = (life, core, rung);
        (node.is_alive, node.stopped_until, node.wakes) = (true, None, None);
        node.socket.clear();
        let wanted = node.wanted;
        self.put(Duration::ZERO, Due::Wake(n));
        self.announce();
        self.want(n, wanted);
    }

    pub(super) fn stop(&mut self, n: usize, lasts: Duration) {
        self.nodes[n].stopped_until = Some(self.now + lasts);
        self.put(lasts, Due::Wake(n));
    }

    pub(super) fn split(&mut self, is_away: impl Fn(usize) -> bool) {
        for n in 0..self.nodes.len() {
            self.nodes[n].side = u8::from(is_away(n));
        }
        let sides: Vec<u8> = self.nodes.iter().map(|it| it.side).collect();
        cut_apart(&mut self.twin, &sides);
        self.announce();
    }

    pub(super) fn heal(&mut self) {
        self.nodes.iter_mut().for_each(|it| it.side = 0);
        self.twin.heal();
        self.announce();
    }

    pub(super) fn leave(&mut self, n: usize) {
        self.step(n, Event::Leave);
    }

    pub(super) fn depose(&mut self) {
        (self.leader, self.office) = (None, None);
    }

    pub(super) fn set_limit(&mut self, units: u64) {
        self.definition = (self.definition.0 + 1, units);
    }

    // === Streams ===

    fn ask(&mut self, n: usize) {
        if !self.nodes[n].is_alive {
            return; // its clients died with it, or are counted anew
        }
        if self.nodes[n].clients > self.nodes[n].wanted {
            self.nodes[n].clients -= 1;
            return;
        }
        if !self.runs(n) {
            return self.put(Duration::from_millis(300), Due::Ask(n));
        }
        let permit = self.nodes[n].core.permits().next().and_then(|it| it.1.take(self.now));
        if let Some(permit) = permit {
            return self.opened(n, permit, self.now);
        }
        self.numbers += 1;
        self.tickets.insert(self.numbers, (n, self.now));
        self.step(n, Event::Open(self.numbers, limit(0)));
    }

    fn opened(&mut self, n: usize, permit: Permit, asked: Instant) {
        self.count();
        self.waits.push(self.now - asked);
        self.numbers += 1;
        let (least, most) = (self.lasts.0.as_micros() as u64, self.lasts.1.as_micros() as u64);
        let lasts = Duration::from_micros(least + self.entropy.next_u64() % (most - least).max(1));
        let (id, began) = (self.numbers, self.now);
        self.streams.insert(id, Stream { node: n, began, permit });
        self.put(lasts, Due::Ends(id));
        self.see();
    }

    /// P4: what runs is no more than was minted, but for streams that were long when their node's hold ended.
    fn see(&mut self) {
        let runs = self.streams.values().filter(|it| self.now - it.began <= self.excused_after).count() as u64;
        let bound = self.mint().bound();
        if runs * self.most.1.max(1) >= self.most.0 * bound {
            self.most = (runs, bound);
        }
        if runs > bound && self.broken.is_none() {
            self.broken = Some(format!("{runs} of {bound} run"));
        }
    }

    fn ends(&mut self, id: u64) {
        let Some(n) = self.streams.get(&id).map(|it| it.node) else { return };
        if !self.runs(n) {
            return self.put(Duration::from_millis(20), Due::Ends(id));
        }
        self.count();
        drop(self.streams.remove(&id).map(|it| it.permit));
        self.hear_bell(n);
        let think = Duration::from_micros(500 + self.entropy.next_u64() % 5_000);
        self.put(think, Due::Ask(n));
    }

    fn hear_bell(&mut self, n: usize) {
        if self.nodes[n].rung.0.swap(false, Ordering::Relaxed) {
            let after = Duration::from_micros(self.entropy.next_u64() % 200);
            self.put(after, Due::Freed(n));
        }
    }

    fn count(&mut self) {
        self.area += self.streams.len() as f64 * (self.now - self.area_at).as_secs_f64();
        self.area_at = self.now;
    }

    /// How many ran in that time, on average.
    pub(super) fn measure(&mut self, lasts: Duration) -> f64 {
        self.count();
        let before = self.area;
        self.run(lasts);
        self.count();
        (self.area - before) / lasts.as_secs_f64()
    }

    fn answered(&mut self, ticket: Ticket, answer: MayOpen) {
        let Some((n, asked)) = self.tickets.remove(&ticket) else { return };
        match answer {
            Answer::Admitted(permit) => return self.opened(n, permit, asked),
            Answer::Open => {}
            Answer::Refused(_) => self.refused += 1,
        }
        let after = Duration::from_millis(700 + self.entropy.next_u64() % 600);
        self.put(after, Due::Ask(n));
    }

    // === The group ===

    fn leads(&self, n: usize) -> bool {
        let side = self.nodes[n].side;
        let near = (0..self.nodes.len()).filter(|it| self.runs(*it) && self.nodes[*it].side == side).count();
        self.runs(n) && near * 2 > self.nodes.len()
    }

    fn changes(&self, after: u64) -> Changes {
        let last = (self.log.len() as u64, Change::Minted(self.mint().clone()));
        Changes { changes: Some(last).into_iter().filter(|it| it.0 > after).collect(), epoch_dropped: 0 }
    }

    fn lead(&mut self) {
        if self.leader.is_some_and(|it| !self.leads(it)) {
            self.depose();
        }
        let Some(leader) = self.leader else {
            let able: Vec<usize> = (0..self.nodes.len()).filter(|it| self.leads(*it)).collect();
            let at = *self.elect_at.get_or_insert(self.now + ELECTION);
            if self.now >= at && !able.is_empty() {
                self.leader = Some(able[self.entropy.below(able.len())]);
                self.elect_at = None;
            }
            return;
        };
        let (now, settings) = (self.now, self.settings);
        let calendar = Calendar::new(now, WALL);
        let mut office = self.office.take().unwrap_or_else(|| Office::new(now, 1, settings, calendar));
        office.learn(self.changes(office.seen()));
        office.confirmed();
        let (revision, units) = self.definition;
        let definition = Definition { limit: limit(0), revision, kind: Kind::Streams, window_ms: 0, units };
        let wanted = office.look(now, &[definition]);
        assert_ne!(wanted.unusable, Some(1), "the limit is sound");
        let is_news = !wanted.proposals.is_empty();
        for proposal in wanted.proposals {
            let Proposal::Mint { mint: next, .. } = proposal else { panic!("it does not go: {proposal:?}") };
            next.check(Some(self.mint())).expect("each mint follows the one before");
            let is_nobodys = next.shares.values().all(|it| !it.is_in);
            assert!(is_nobodys || [units, self.mint().units()].contains(&next.units()), "all of it is divided");
            self.log.push(next);
            self.see();
        }
        office.learn(self.changes(office.seen()));
        self.office = Some(office);
        if is_news {
            let entry = self.log.len() as u64;
            let life = self.nodes[leader].life;
            for to in 0..self.nodes.len() {
                let to = self.nodes[to].life;
                self.send(leader, to, Packet::Say(life, Message::News(entry)));
            }
            self.step(leader, Event::News(entry));
        }
    }

    fn renew(&mut self, n: usize, from: Life, renewal: &Renewal) {
        if self.leader != Some(n) || !self.leads(n) {
            return;
        }
        let Some(office) = &mut self.office else { return };
        let is_urgent = !renewal.adopted.is_empty() || renewal.uses.iter().any(|it| it.wanted > 0);
        if office.renewed(self.now, from, renewal.clone()).is_ok() {
            let renewed = office.answer(renewal.number, renewal.seen);
            self.send(n, from, Packet::Renewed(from.1, renewed));
        }
        if is_urgent {
            self.lead();
        }
    }

    // === Time ===

    fn send(&mut self, n: usize, to: Life, packet: Packet) {
        self.messages += 1;
        let (from, to) = (addr(n), addr(to.0.0 as usize - 1));
        if self.echoes > 0.0 && self.entropy.unit() < self.echoes {
            let after = Duration::from_millis(100 + self.entropy.next_u64() % 3_000);
            self.put(after, Due::Echo(from, to, Box::new(packet.clone())));
        }
        self.twin.send(self.now, from, to, Carrier::Datagram, packet);
    }

    fn step(&mut self, n: usize, event: Event) {
        let (mut effects, life) = (Vec::new(), self.nodes[n].life);
        self.nodes[n].core.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Renew(renewal) => {
                    if let Some(leader) = self.leader {
                        let to = self.nodes[leader].life;
                        self.send(n, to, Packet::Renew(life, renewal));
                    }
                }
                Effect::Permit(ticket, answer) => self.answered(ticket, answer),
                Effect::Send(..) | Effect::Tell(_) | Effect::Answer(..) => panic!("streams are not lent: {effect:?}"),
                Effect::Ignored(_) => {}
            }
        }
        self.hear_bell(n);
        let next = self.nodes[n].core.next_wake();
        if self.nodes[n].wakes.is_none_or(|it| next < it) {
            self.nodes[n].wakes = Some(next);
            self.put(next.saturating_duration_since(self.now), Due::Wake(n));
        }
    }

    fn receive(&mut self) {
        while let Some(it) = self.twin.deliver(self.now) {
            let n = usize::from(it.to.port()) - 1;
            if self.runs(n) {
                self.take_in(n, it.message);
            } else if self.nodes[n].is_alive {
                self.nodes[n].socket.push(it.message);
            }
        }
    }

    fn take_in(&mut self, n: usize, packet: Packet) {
        match packet {
            Packet::Say(from, message) => self.step(n, Event::Received(from, message)),
            Packet::Renew(from, renewal) => self.renew(n, from, &renewal),
            Packet::Renewed(boot, renewed) if boot == self.nodes[n].life.1 => self.step(n, Event::Renewed(renewed)),
            Packet::Renewed(..) => {}
        }
    }

    fn wake(&mut self, n: usize) {
        if self.nodes[n].wakes.is_some_and(|it| it <= self.now) {
            self.nodes[n].wakes = None;
        }
        if !self.runs(n) {
            return;
        }
        for packet in std::mem::take(&mut self.nodes[n].socket) {
            self.take_in(n, packet);
        }
        let is_due = self.nodes[n].core.next_wake() <= self.now;
        self.step(n, if is_due { Event::Wake } else { Event::Freed });
    }

    pub(super) fn run(&mut self, lasts: Duration) {
        let until = self.now + lasts;
        loop {
            let due = self.due.first_key_value().map(|it| it.0.0);
            let Some(next) = due.into_iter().chain(self.twin.next_at()).min().filter(|it| *it <= until) else { break };
            self.now = self.now.max(next);
            self.receive();
            let Some(first) = self.due.first_entry().filter(|it| it.key().0 <= self.now) else { continue };
            match first.remove() {
                Due::Wake(n) => self.wake(n),
                Due::Members(n) => {
                    let side = self.nodes[n].side;
                    let here =
                        self.nodes.iter().filter(|it| it.is_alive && it.side == side).map(|it| it.life).collect();
                    if self.runs(n) {
                        self.step(n, Event::Members(here));
                    }
                }
                Due::Lead => {
                    self.put(TICK, Due::Lead);
                    self.lead();
                }
                Due::Ask(n) => self.ask(n),
                Due::Freed(n) if self.runs(n) => self.step(n, Event::Freed),
                Due::Freed(_) => {}
                Due::Ends(id) => self.ends(id),
                Due::Echo(from, to, packet) => self.twin.send(self.now, from, to, Carrier::Datagram, *packet),
            }
        }
        self.now = until;
    }

    pub(super) fn check(&self) -> Result<(), String> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}
