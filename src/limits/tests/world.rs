//! Nodes on virtual time: the real cores and purses over the transport's twin, a group whose leader mints as the real one will, and clients that want more than there is.
//!
//! The group is one log that only the leader writes, and a leader is one only while it reaches a majority. What was admitted is summed up by limit and window over all
//! nodes that ever lived, by what the clients got and not by what any node believes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use super::group::Group;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::limits::Kind;
use crate::limits::LimitId;
use crate::limits::Mint;
use crate::limits::Settings;
use crate::limits::Taken;
use crate::limits::core::Answer;
use crate::limits::core::Core;
use crate::limits::core::Effect;
use crate::limits::core::Event;
use crate::limits::core::Life;
use crate::limits::core::Refused;
use crate::limits::core::Ticket;
use crate::limits::messages::Message;
use crate::limits::messages::Renewal;
use crate::limits::messages::Renewed;
use crate::transport::twin::Carrier;
use crate::transport::twin::Twin;
use crate::transport::twin::Weather;

/// When the simulated world begins: wall time in milliseconds, at the beginning of a minute.
const EPOCH_MS: u64 = 1_800_000_000_000 / 60_000 * 60_000;
/// How often the leader looks what is to be minted.
pub(super) const LEAD_EVERY: Duration = Duration::from_millis(200);

/// One limit and who wants it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) window_ms: u32,
    pub(super) units: u64,
    /// Units that clients want in a window, by node.
    pub(super) demand: Vec<f64>,
    /// Units of one request, at most.
    pub(super) size_max: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Packet {
    Say(Life, Message),
    Renew(Life, Renewal),
    Renewed(u64, Renewed),
}

/// What is to happen at a moment.
pub(super) enum Due {
    Wake(usize),
    Arrive(usize, usize),
    Members(usize),
    Lead,
    /// A request ends, having used so many units more or less than it reserved.
    Ends(usize, u64, Taken, i64, bool),
    /// A copy of something that was said long ago.
    Echo(SocketAddr, SocketAddr, Packet),
}

struct Request {
    node: usize,
    limit: usize,
    units: u64,
    asked: Instant,
    held: Vec<Taken>,
}

pub(super) struct Node {
    pub(super) life: Life,
    pub(super) core: Core,
    pub(super) is_alive: bool,
    pub(super) stopped_until: Option<Instant>,
    /// Of the wall, in milliseconds; it counts when the node starts.
    pub(super) clock_off: i64,
    pub(super) side: u8,
    pub(super) started_off: i64,
    wakes: Option<Instant>,
    /// When it last asked for a renewal.
    pub(super) renews: Option<Instant>,
    /// What came while it did not run.
    socket: Vec<Packet>,
}

/// What happened in one window of one limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) wanted: u64,
    pub(super) used: i64,
    /// Charged beyond what was reserved.
    pub(super) over: i64,
    pub(super) bound: u64,
}

pub(super) struct World {
    pub(super) now: Instant,
    began: Instant,
    pub(super) entropy: Entropy,
    pub(super) settings: Settings,
    twin: Twin<Packet>,
    pub(super) nodes: Vec<Node>,
    pub(super) plans: Vec<Plan>,
    pub(super) group: Group,
    due: BTreeMap<(Instant, u64), Due>,
    requests: BTreeMap<Ticket, Request>,
    numbers: u64,
    pub(super) sums: BTreeMap<(usize, u64), Sum>,
    /// Debts of nodes that died, by limit.
    pub(super) forgiven: BTreeMap<usize, u64>,
    /// Where the second limit of a request is asked for, too. See [`World::also`].
    pub(super) also: Option<usize>,
    /// Share of messages of which a copy comes much later.
    pub(super) echoes: f64,
    /// How far prompts are estimated wrong, likewise.
    pub(super) error_input: f64,
    /// Whether all estimates are too low (1), too high (-1), or either (0).
    pub(super) bias: i8,
    /// How many units more or less than reserved a request uses, as a share of it, at most.
    pub(super) error: f64,
    pub(super) waits: Vec<Duration>,
    pub(super) messages: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
}

pub(super) fn limit(n: usize) -> LimitId {
    LimitId(100 + n as u64)
}

pub(super) fn addr(n: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], n as u16 + 1))
}

/// Closes every way between nodes on different sides.
pub(super) fn cut_apart<P: Clone>(twin: &mut Twin<P>, sides: &[u8]) {
    for (a, of_a) in sides.iter().enumerate() {
        let others = sides.iter().enumerate().filter(|it| it.1 != of_a);
        others.for_each(|(b, _)| twin.cut(addr(a), addr(b)));
    }
}

pub(super) fn storage(n: usize) -> StorageId {
    StorageId(n as u128 + 1)
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, settings: Settings, weather: Weather, plans: Vec<Plan>) -> Self {
        let now = Clock.now();
        let entropy = Entropy::seeded(seed ^ 0x11_417);
        let over: BTreeSet<StorageId> = (0..nodes).map(storage).collect();
        let mint = |(n, it): (usize, &Plan)| {
            let mint = Mint::first(limit(n), 1, 1, (it.kind, it.window_ms), it.units, &over);
            (limit(n), mint.expect("plans are sound"))
        };
        let mints: BTreeMap<LimitId, Mint> = plans.iter().enumerate().map(mint).collect();
        let units = (0..).zip(&plans).map(|(n, it)| (limit(n), (1, it.units))).collect();
        let group = Group::new(mints, units);
        let mut world = Self {
            now,
            began: now,
            entropy,
            settings,
            twin: Twin::new(seed, weather),
            nodes: Vec::new(),
            plans,
            group,
            due: BTreeMap::new(),
            requests: BTreeMap::new(),
            numbers: 0,
            sums: BTreeMap::new(),
            forgiven: BTreeMap::new(),
            also: None,
            echoes: 0.0,
            error_input: 0.0,
            bias: 0,
            error: 0.0,
            waits: Vec::new(),
            messages: 0,
            refused: BTreeMap::new(),
        };
        (0..nodes).for_each(|n| world.join(n));
        world.put(LEAD_EVERY, Due::Lead);
        world
    }

    /// A node that was never here.
    pub(super) fn join(&mut self, n: usize) {
        let skew = self.entropy.below(11) as i64 - 5;
        self.nodes.push(Node {
            life: (storage(n), 1),
            core: Core::new(self.now, self.wall(skew), (storage(n), 1), self.settings),
            is_alive: true,
            stopped_until: None,
            clock_off: skew,
            side: 0,
            started_off: skew,
            wakes: None,
            renews: None,
            socket: Vec::new(),
        });
        self.put(Duration::ZERO, Due::Wake(n));
        for limit in 0..self.plans.len() {
            self.next_arrival(n, limit);
        }
        self.announce();
    }

    pub(super) fn wall(&self, off: i64) -> Duration {
        let ms = EPOCH_MS + (self.now - self.began).as_millis() as u64;
        Duration::from_millis(ms.saturating_add_signed(off))
    }

    /// The window that it truly is.
    pub(super) fn window(&self, limit: usize) -> u64 {
        let length = self.plans[limit].window_ms;
        self.wall(0).as_millis() as u64 / u64::from(length)
    }

    pub(super) fn put(&mut self, after: Duration, due: Due) {
        self.numbers += 1;
        self.due.insert((self.now + after, self.numbers), due);
    }

    pub(super) fn runs(&self, n: usize) -> bool {
        self.nodes[n].is_alive && self.nodes[n].stopped_until.is_none_or(|it| it <= self.now)
    }

    // === Faults ===

    /// Everybody learns who is here, each at a moment of its own.
    fn announce(&mut self) {
        for n in 0..self.nodes.len() {
            let quick = Duration::from_millis(50 + self.entropy.next_u64() % 150);
            let slow = Duration::from_millis(1_500 + self.entropy.next_u64() % 700);
            self.put(quick, Due::Members(n));
            self.put(slow, Due::Members(n));
        }
    }

    pub(super) fn kill(&mut self, n: usize) {
        self.nodes[n].is_alive = false;
        for limit_no in 0..self.plans.len() {
            let debt = self.nodes[n].core.purses().find(|it| it.0 == limit(limit_no)).map_or(0, |it| it.1.debt());
            *self.forgiven.entry(limit_no).or_default() += debt;
        }
        self.requests.retain(|_, it| it.node != n);
        self.announce();
    }

    pub(super) fn restart(&mut self, n: usize) {
        let wall = self.wall(self.nodes[n].clock_off);
        let (now, settings) = (self.now, self.settings);
        let node = &mut self.nodes[n];
        node.life.1 += 1;
        node.core = Core::new(now, wall, node.life, settings);
        (node.is_alive, node.stopped_until, node.started_off, node.wakes) = (true, None, node.clock_off, None);
        node.socket.clear();
        self.put(Duration::ZERO, Due::Wake(n));
        self.announce();
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

    pub(super) fn set_limit(&mut self, n: usize, units: u64) {
        let entry = self.group.units.get_mut(&limit(n)).expect("a plan's");
        *entry = (entry.0 + 1, units);
    }

    pub(super) fn depose(&mut self) {
        self.group.depose();
    }

    // === Requests ===

    fn next_arrival(&mut self, n: usize, limit: usize) {
        let plan = &self.plans[limit];
        let mean = plan.demand.get(n).copied().unwrap_or_default() / (1 + plan.size_max) as f64 * 2.0;
        if mean > 0.0 {
            let length = f64::from(plan.window_ms) / 1000.0;
            let after = -(1.0 - self.entropy.unit()).ln() / mean * length;
            self.put(Duration::from_secs_f64(after), Due::Arrive(n, limit));
        }
    }

    fn arrive(&mut self, n: usize, limit_no: usize) {
        self.next_arrival(n, limit_no);
        if !self.runs(n) {
            return;
        }
        let units = 1 + self.entropy.next_u64() % self.plans[limit_no].size_max;
        let window = self.window_at(n, limit_no);
        self.sums.entry((limit_no, window)).or_default().wanted += units;
        let request = Request { node: n, limit: limit_no, units, asked: self.now, held: Vec::new() };
        self.take(request);
    }

    /// The window as this node counts them.
    pub(super) fn window_at(&self, n: usize, limit: usize) -> u64 {
        let length = u64::from(self.plans[limit].window_ms);
        let ms = self.wall(self.nodes[n].started_off).as_millis() as u64;
        ms.checked_div(length).unwrap_or_default()
    }

    fn take(&mut self, request: Request) {
        let limit_no = if request.held.is_empty() { request.limit } else { self.also.unwrap_or_default() };
        let purse = self.nodes[request.node].core.purses().find(|it| it.0 == limit(limit_no));
        if let Some(taken) = purse.and_then(|it| it.1.take(self.now, request.units)) {
            return self.granted(request, taken);
        }
        self.numbers += 1;
        let (ticket, node, units) = (self.numbers, request.node, request.units);
        self.requests.insert(ticket, request);
        self.step(node, Event::Ask(ticket, limit(limit_no), units));
    }

    fn granted(&mut self, mut request: Request, taken: Taken) {
        request.held.push(taken);
        if self.also.is_some() && request.limit == 0 && request.held.len() == 1 && request.units.is_multiple_of(2) {
            return self.take(request);
        }
        self.waits.push(self.now - request.asked);
        for mut taken in std::mem::take(&mut request.held) {
            let limit_no = (taken.limit().0 - 100) as usize;
            let units = taken.units() as i64;
            self.sums.entry((limit_no, taken.window())).or_default().used += units;
            let (kind, length) = (self.plans[limit_no].kind, u64::from(self.plans[limit_no].window_ms));
            let lasts = Duration::from_millis(1 + self.entropy.next_u64() % (length / 2));
            let (node, boot) = (request.node, self.nodes[request.node].life.1);
            if kind == Kind::Tokens {
                // A prompt is estimated well, an answer is not.
                let output = taken.split(taken.units() / 2);
                let more = self.estimated_wrong(&output, self.error);
                self.put(lasts * 2, Due::Ends(node, boot, output, more, true));
                let more = self.estimated_wrong(&taken, self.error_input);
                self.put(lasts, Due::Ends(node, boot, taken, more, false));
            }
        }
    }

    fn estimated_wrong(&self, taken: &Taken, error: f64) -> i64 {
        let draw = self.entropy.unit();
        let off = if self.bias == 0 { draw * 2.0 - 1.0 } else { draw * f64::from(self.bias) };
        (off * error * taken.units() as f64).round() as i64
    }

    fn ends(&mut self, n: usize, boot: u64, taken: Taken, off: i64, is_output: bool) {
        let limit_no = (taken.limit().0 - 100) as usize;
        if !self.nodes[n].is_alive || self.nodes[n].life.1 != boot {
            return; // it died with its node
        }
        let window = if off > 0 || is_output { self.window_at(n, limit_no) } else { taken.window() };
        let sum = self.sums.entry((limit_no, window)).or_default();
        if off > 0 {
            sum.over += off
        } else {
            sum.used += off
        }
        let used = taken.units().saturating_add_signed(off);
        if is_output { taken.settle_output(self.now, used) } else { taken.settle(self.now, used) }
    }

    // === Time ===

    pub(super) fn send(&mut self, n: usize, to: Life, packet: Packet) {
        self.messages += 1;
        let (from, to) = (addr(n), addr(to.0.0 as usize - 1));
        if self.echoes > 0.0 && self.entropy.unit() < self.echoes {
            let after = Duration::from_millis(100 + self.entropy.next_u64() % 3_000);
            self.put(after, Due::Echo(from, to, packet.clone()));
        }
        self.twin.send(self.now, from, to, Carrier::Datagram, packet);
    }

    pub(super) fn step(&mut self, n: usize, event: Event) {
        let (mut effects, life) = (Vec::new(), self.nodes[n].life);
        self.nodes[n].core.step(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send(to, message) => self.send(n, to, Packet::Say(life, message)),
                Effect::Tell(told) => {
                    for to in (0..self.nodes.len()).filter(|it| *it != n) {
                        let to = self.nodes[to].life;
                        self.send(n, to, Packet::Say(life, Message::Told(told.clone())));
                    }
                }
                Effect::Renew(renewal) => {
                    self.nodes[n].renews = Some(self.now);
                    if let Some(leader) = self.group.leader {
                        let to = self.nodes[leader].life;
                        self.send(n, to, Packet::Renew(life, renewal));
                    }
                }
                Effect::Answer(ticket, answer) => self.answered(ticket, answer),
                Effect::Permit(..) | Effect::Ignored(_) => {}
            }
        }
        self.arm(n);
    }

    fn arm(&mut self, n: usize) {
        let next = self.nodes[n].core.next_wake();
        if self.nodes[n].wakes.is_none_or(|it| next < it) {
            self.nodes[n].wakes = Some(next);
            self.put(next.saturating_duration_since(self.now), Due::Wake(n));
        }
    }

    fn answered(&mut self, ticket: Ticket, answer: Answer) {
        let Some(request) = self.requests.remove(&ticket) else {
            if let Answer::Admitted(taken) = answer {
                taken.give_back();
            }
            return;
        };
        match answer {
            Answer::Admitted(taken) => self.granted(request, taken),
            Answer::Open => *self.refused.entry("open").or_default() += 1,
            Answer::Refused(why) => {
                let name = match why {
                    Refused::Exhausted { .. } => "exhausted",
                    Refused::TooLarge(_) => "too large",
                    Refused::NoShare(_) => "no share",
                    Refused::Busy(_) => "busy",
                };
                *self.refused.entry(name).or_default() += 1;
                self.waits.push(self.now - request.asked);
                request.held.into_iter().for_each(Taken::give_back);
            }
        }
    }

    fn receive(&mut self) {
        while let Some(it) = self.twin.deliver(self.now) {
            let n = usize::from(it.to.port()) - 1;
            if !self.nodes[n].is_alive {
                continue;
            }
            if self.runs(n) {
                self.take_in(n, it.message);
            } else {
                self.nodes[n].socket.push(it.message);
            }
        }
    }

    fn take_in(&mut self, n: usize, packet: Packet) {
        match packet {
            Packet::Say(from, message) => {
                // Now and then by way of bytes: that is most of what a message costs here.
                let message = if self.messages.is_multiple_of(64) {
                    let bytes = message.encode().expect("encodes");
                    Message::decode(&bytes).expect("what was written is read")
                } else {
                    message
                };
                self.step(n, Event::Received(from, message));
            }
            Packet::Renew(from, renewal) => self.renew(n, from, &renewal),
            Packet::Renewed(boot, renewed) if boot == self.nodes[n].life.1 => self.step(n, Event::Renewed(renewed)),
            Packet::Renewed(..) => {}
        }
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
                Due::Wake(n) => {
                    if self.nodes[n].wakes.is_some_and(|it| it <= self.now) {
                        self.nodes[n].wakes = None;
                    }
                    if self.runs(n) {
                        for packet in std::mem::take(&mut self.nodes[n].socket) {
                            self.take_in(n, packet);
                        }
                        if self.nodes[n].core.next_wake() <= self.now {
                            self.step(n, Event::Wake);
                        }
                        self.arm(n);
                    }
                }
                Due::Arrive(n, limit) => self.arrive(n, limit),
                Due::Members(n) => {
                    let side = self.nodes[n].side;
                    let here =
                        self.nodes.iter().filter(|it| it.is_alive && it.side == side).map(|it| it.life).collect();
                    if self.runs(n) {
                        self.step(n, Event::Members(here));
                    }
                }
                Due::Lead => self.lead(),
                Due::Ends(n, boot, taken, off, is_output) => self.ends(n, boot, taken, off, is_output),
                Due::Echo(from, to, packet) => self.twin.send(self.now, from, to, Carrier::Datagram, packet),
            }
        }
        self.now = until;
    }

    // === What must hold ===

    /// The windows of one limit, from the second on, without those that were never whole.
    pub(super) fn windows(&self, limit: usize) -> impl Iterator<Item = (u64, Sum)> {
        let (first, now) = (EPOCH_MS / u64::from(self.plans[limit].window_ms), self.window(limit));
        self.sums.range((limit, first + 1)..(limit, now)).map(|(key, it)| (key.1, *it))
    }

    /// P4: what all nodes admitted in a window is no more than was minted for it, whatever happened.
    pub(super) fn check(&self) -> Result<(), String> {
        for (n, plan) in self.plans.iter().enumerate() {
            let sums: Vec<(u64, Sum)> = self.sums.range((n, 0)..=(n, u64::MAX)).map(|(key, it)| (key.1, *it)).collect();
            for (window, sum) in &sums {
                let near = sums.iter().filter(|it| it.0.abs_diff(*window) <= 1).map(|it| it.1.bound).max();
                // Clocks that are hours off number windows that nobody else has.
                let bound = near.filter(|it| *it > 0).unwrap_or(plan.units);
                if sum.used > bound as i64 {
                    return Err(format!("limit {n}, window {window}: {} of {bound} were admitted", sum.used));
                }
            }
            let debts: u64 = (0..self.nodes.len())
                .filter(|it| self.nodes[*it].is_alive)
                .filter_map(|it| self.nodes[it].core.purses().find(|it| it.0 == limit(n)))
                .map(|it| it.1.debt())
                .sum();
            let debts = debts + self.forgiven.get(&n).copied().unwrap_or_default();
            let bound: u64 = sums.iter().map(|it| it.1.bound.max(plan.units)).sum();
            let used: i64 = sums.iter().map(|it| it.1.used + it.1.over).sum();
            if used > (bound + debts) as i64 {
                return Err(format!("limit {n}: {used} of {bound} in all, and {debts} owed"));
            }
        }
        Ok(())
    }
}
