//! Several nodes on virtual time: the real cores over the transport's twin, with loss, delay and reorder, nodes that are killed, started anew and stopped, a way
//! that is cut, and requests all the while.
//!
//! Whenever a node reads a ledger, what is said is compared with the truth of the last [`WINDOW`]: a report may be a second old and a quarter under way.
//! What is known must not be less than all others had at every moment of that window, so what was in flight all the time is never said to be nothing, and not
//! more than they had at its beginning and began since. In calm weather nearly everything is known, and errors are small.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::ledger::InFlight;
use crate::ledger::core::Core;
use crate::ledger::core::Effect;
use crate::ledger::core::Event;
use crate::ledger::core::Life;
use crate::ledger::core::Plan;
use crate::ledger::messages::Commit;
use crate::ledger::messages::Message;
use crate::ledger::messages::Probe;
use crate::ledger::messages::Said;
use crate::transport::Peer;
use crate::transport::tests::peer;
use crate::transport::twin::Carrier;
use crate::transport::twin::Twin;
use crate::transport::twin::Weather;

const NODES: u16 = 5;
const WORKERS: u64 = 6;
const TICK: Duration = Duration::from_millis(1);
const WINDOW: Duration = Duration::from_millis(1_300);
const PROBE_LIMIT: Duration = Duration::from_millis(5);
/// How long a run is, and when all that goes wrong in it has long been mended.
const LASTS: Duration = Duration::from_secs(13);
const MENDED: Duration = Duration::from_secs(11);

/// What members 1, 2, … have in common as members.
pub(super) fn view_hash(members: &[u16]) -> u64 {
    let names: Vec<u8> = members.iter().flat_map(|it| u128::from(*it).to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64(&names)
}

#[derive(Clone, Debug)]
enum Packet {
    Tell { from: Life, message: Message },
    Ask { id: u64, from: Life, probe: Probe },
    Answer { id: u64 },
}

struct Request {
    worker: u64,
    tokens: u64,
    read_at: Instant,
    ends_at: Instant,
}

struct Node {
    me: Arc<Peer>,
    core: Core,
    numbers: u64,
    requests: Vec<Request>,
    /// Load by worker at each tick of the window, and what was begun in that tick.
    past: VecDeque<[(InFlight, InFlight); WORKERS as usize]>,
    begun: [InFlight; WORKERS as usize],
    stopped_until: Option<Instant>,
    is_dead: bool,
    /// Who it sees, and since when it has heard of them.
    sees: BTreeMap<u16, (Arc<Peer>, bool)>,
    /// Questions that are not answered yet.
    waits: BTreeMap<u64, (StorageId, Instant)>,
}

/// What was seen of ledgers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) read: u64,
    pub(super) unknown: u64,
    pub(super) missed: u64,
    pub(super) error: f64,
    pub(super) load: f64,
    pub(super) messages: u64,
}

struct World {
    now: Instant,
    entropy: Entropy,
    twin: Twin<Packet>,
    nodes: Vec<Node>,
    /// Who will see what, and when.
    news: Vec<(Instant, u16, Arc<Peer>, bool)>,
    tally: Tally,
    ids: u64,
    broken: Option<String>,
}

fn addr(n: u16) -> SocketAddr {
    peer(n).addr
}

impl Node {
    fn new(now: Instant, n: u16, boot: u64) -> Self {
        let me = Arc::new(Peer { boot, ..peer(n) });
        Self {
            core: Core::new(now, (me.storage, boot)),
            me,
            numbers: if boot == 1 { 1_000_000 } else { 0 }, // a life begins with small numbers
            requests: Vec::new(),
            past: VecDeque::new(),
            begun: Default::default(),
            stopped_until: None,
            is_dead: false,
            sees: BTreeMap::new(),
            waits: BTreeMap::new(),
        }
    }

    fn loads(&self, now: Instant) -> [InFlight; WORKERS as usize] {
        let mut sums = [InFlight::default(); WORKERS as usize];
        for it in &self.requests {
            sums[it.worker as usize].add(InFlight::one(if it.read_at > now { it.tokens } else { 0 }));
        }
        sums
    }

    fn runs(&self) -> bool {
        !self.is_dead && self.stopped_until.is_none()
    }

    /// The least it had at a worker in the window, and the most that may be believed of it.
    fn bounds(&self, worker: u64) -> (InFlight, InFlight) {
        let at = worker as usize;
        let least = |a: InFlight, b: InFlight| InFlight {
            requests: a.requests.min(b.requests),
            queued_tokens: a.queued_tokens.min(b.queued_tokens),
        };
        let low = self.past.iter().map(|it| it[at].0).reduce(least).unwrap_or_default();
        let mut high = self.past.front().map(|it| it[at].0).unwrap_or_default();
        self.past.iter().for_each(|it| high.add(it[at].1));
        (low, high)
    }
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let now = Clock.now();
        let nodes = (1..=NODES).map(|n| Node::new(now, n, 1)).collect();
        let (entropy, twin) = (Entropy::seeded(seed ^ 0xABCD), Twin::new(seed, weather));
        let mut world =
            Self { now, entropy, twin, nodes, news: Vec::new(), tally: Tally::default(), ids: 0, broken: None };
        (1..=NODES).for_each(|n| world.announce(n, true));
        world
    }

    fn node(&mut self, n: u16) -> &mut Node {
        &mut self.nodes[usize::from(n) - 1]
    }

    /// Everybody learns of a node, or of its end, at a moment of its own.
    fn announce(&mut self, n: u16, is_here: bool) {
        let me = Arc::clone(&self.node(n).me);
        for to in 1..=NODES {
            let (from, spread) = if is_here { (1, 200) } else { (1_500, 700) };
            let after = from + self.entropy.next_u64() % spread;
            let after = if to == n { 0 } else { after };
            self.news.push((self.now + Duration::from_millis(after), to, Arc::clone(&me), is_here));
            if is_here && to != n && !self.node(to).is_dead {
                let other = Arc::clone(&self.node(to).me);
                self.news.push((self.now + Duration::from_millis(after), n, other, true));
            }
        }
    }

    fn learn(&mut self) {
        let (due, later) = std::mem::take(&mut self.news).into_iter().partition(|it| it.0 <= self.now);
        self.news = later;
        let mut due: Vec<_> = due;
        due.sort_by_key(|it| it.0);
        for (at, to, whom, is_here) in due {
            if !self.node(to).runs() {
                self.news.push((at, to, whom, is_here)); // it learns when it runs
                continue;
            }
            let n = whom.storage.0 as u16;
            let node = self.node(to);
            let known = node.sees.get(&n).map(|it| it.0.boot);
            if is_here && known < Some(whom.boot) {
                node.sees.insert(n, (whom, false));
            } else if !is_here && known == Some(whom.boot) {
                node.sees.remove(&n);
            }
            let members = node.sees.values().map(|it| Arc::clone(&it.0)).collect();
            self.step(to, Event::Members(members));
        }
    }

    fn step(&mut self, n: u16, event: Event) {
        let (now, mut effects) = (self.now, Vec::new());
        self.node(n).core.step(now, event, &mut effects);
        let life = (self.node(n).me.storage, self.node(n).me.boot);
        for effect in effects {
            let Effect::Send(to, message) = effect else { continue };
            self.tally.messages += 1;
            self.twin.send(now, addr(n), to.addr, Carrier::Datagram, Packet::Tell { from: life, message });
        }
    }

    fn receive(&mut self) {
        while let Some(it) = self.twin.deliver(self.now) {
            let (n, from) = (it.to.port(), it.from.port());
            if self.node(n).is_dead {
                continue;
            }
            if !self.node(n).runs() {
                // It waits in the socket until the node runs.
                let until = self.node(n).stopped_until.unwrap_or(self.now);
                self.twin.send(until, it.from, it.to, Carrier::Stream, it.message);
                continue;
            }
            match it.message {
                Packet::Tell { from: life, message } => {
                    if let Some(seen) = self.node(n).sees.get_mut(&from).filter(|it| it.0.boot == life.1) {
                        seen.1 = true;
                    }
                    match message {
                        Message::Report(report) => self.step(n, Event::Reported(life, report)),
                        Message::Commits(commits) => self.step(n, Event::Committed(life, commits)),
                        Message::Probe(_) => {}
                    }
                }
                Packet::Ask { id, from: life, probe } => {
                    self.step(n, Event::Committed(life, probe.begun));
                    let worker = probe.workers[0];
                    let (now, node) = (self.now, &self.nodes[usize::from(n) - 1]);
                    let said = node.core.said(now, StorageId(u128::from(from)), WorkerId(worker));
                    self.check(n, from, worker, said);
                    self.twin.send(self.now, it.to, it.from, Carrier::Datagram, Packet::Answer { id });
                }
                Packet::Answer { id } => {
                    if let Some((owner, _)) = self.node(n).waits.remove(&id) {
                        self.node(n).core.answered(owner);
                    }
                }
            }
        }
    }

    /// Requests begin and end; the window moves.
    fn work(&mut self, n: u16, per_second: f64) {
        let (now, entropy) = (self.now, self.entropy.clone());
        let node = self.node(n);
        node.requests.retain(|it| it.ends_at > now);
        if node.runs() && entropy.unit() < per_second / 1000.0 {
            // Some workers have nearly all of the load.
            let worker = (entropy.next_u64() % WORKERS).min(entropy.next_u64() % WORKERS);
            let tokens = entropy.next_u64() % 6_000;
            let read_at = now + Duration::from_millis(50 + entropy.next_u64() % 600);
            let ends_at = read_at + Duration::from_millis(entropy.next_u64() % 2_500);
            node.requests.push(Request { worker, tokens, read_at, ends_at });
            node.begun[worker as usize].add(InFlight::one(tokens));
            node.numbers += 1;
            let commit = Commit { number: node.numbers, worker, tokens };
            self.step(n, Event::Started(commit));
        }
        let node = self.node(n);
        let loads = node.loads(now);
        node.past.push_back(std::array::from_fn(|it| (loads[it], std::mem::take(&mut node.begun[it]))));
        if node.past.len() > WINDOW.as_millis() as usize {
            node.past.pop_front();
        }
    }

    fn wake(&mut self, n: u16) {
        let now = self.now;
        if self.node(n).stopped_until.is_some_and(|it| it <= now) {
            self.node(n).stopped_until = None;
        }
        if !self.node(n).runs() || self.node(n).core.next_wake().is_none_or(|it| it > now) {
            return;
        }
        self.step(n, Event::Wake);
        if self.node(n).core.wants_look(now) {
            let node = self.node(n);
            node.numbers += 1;
            let number = node.numbers;
            let loads = (0..).map(WorkerId).zip(node.loads(now)).collect();
            self.step(n, Event::Looked { number, loads });
        }
    }

    /// A decision at this node wants to know about one worker.
    fn probe(&mut self, n: u16) {
        let (now, worker) = (self.now, self.entropy.next_u64() % WORKERS);
        let late: Vec<u64> =
            self.node(n).waits.iter().filter(|it| now > it.1.1 + PROBE_LIMIT).map(|it| *it.0).collect();
        for id in late {
            let (owner, since) = self.node(n).waits.remove(&id).expect("was there");
            self.node(n).core.missed(now, owner, since, PROBE_LIMIT);
            self.tally.missed += 1;
        }
        match self.node(n).core.plan(now, WorkerId(worker)) {
            Plan::Here(said) => self.check(n, n, worker, said),
            Plan::Ask(owner) => {
                self.ids += 1;
                let id = self.ids;
                self.node(n).waits.insert(id, (owner.storage, now));
                let from = (self.node(n).me.storage, self.node(n).me.boot);
                let message = self.node(n).core.question(owner.storage, vec![worker]);
                let Message::Probe(probe) = message else { unreachable!("a question is a probe") };
                self.twin.send(now, addr(n), owner.addr, Carrier::Datagram, Packet::Ask { id, from, probe });
            }
            Plan::Nobody => self.tally.missed += 1,
        }
    }

    /// Compares what an owner says with the truth.
    fn check(&mut self, owner: u16, asker: u16, worker: u64, said: Said) {
        self.tally.read += 1;
        let (mut low, mut high, mut truth) = (InFlight::default(), InFlight::default(), InFlight::default());
        let sees: Vec<(u16, bool)> = self.node(owner).sees.iter().map(|it| (*it.0, it.1.1)).collect();
        let now = self.now;
        for other in (1..=NODES).filter(|it| *it != asker) {
            let (least, most) = self.node(other).bounds(worker);
            high.add(most);
            truth.add(self.node(other).loads(now)[worker as usize]);
            // Somebody who has not spoken since it came may be one that cannot, and is waited for only so long.
            if other == owner || sees.contains(&(other, true)) {
                low.add(least);
            }
        }
        if !said.is_known {
            self.tally.unknown += 1;
            return;
        }
        self.tally.error += f64::from(said.others.requests.abs_diff(truth.requests));
        self.tally.load += f64::from(truth.requests);
        let is_less = said.others.requests < low.requests || said.others.queued_tokens < low.queued_tokens;
        let is_more = said.others.requests > high.requests || said.others.queued_tokens > high.queued_tokens;
        if is_less || is_more {
            let what = format!("{owner} says {said:?} of {worker} to {asker}; from {low:?} to {high:?} is true");
            self.broken.get_or_insert(what);
        }
    }

    fn run(&mut self, lasts: Duration, mut faults: impl FnMut(&mut Self)) -> Result<(), String> {
        let until = self.now + lasts;
        while self.now < until {
            self.now += TICK;
            self.learn();
            self.receive();
            for n in 1..=NODES {
                self.work(n, 20.0);
                self.wake(n);
                if self.node(n).runs() && self.entropy.below(50) == 0 {
                    self.probe(n);
                }
            }
            faults(self);
            if let Some(what) = self.broken.take() {
                return Err(what);
            }
        }
        Ok(())
    }

    fn stop(&mut self, n: u16, lasts: Duration) {
        self.node(n).stopped_until = Some(self.now + lasts);
    }

    fn kill(&mut self, n: u16) {
        let node = self.node(n);
        node.is_dead = true;
        node.requests.clear();
        self.announce(n, false);
    }

    fn restart(&mut self, n: u16) {
        let (now, boot) = (self.now, self.node(n).me.boot + 1);
        let past = std::mem::take(&mut self.node(n).past);
        *self.node(n) = Node { past, ..Node::new(now, n, boot) };
        self.announce(n, true);
    }
}

/// One run with everything that can happen. An error says what was wrong.
pub(super) fn run(seed: u64) -> Result<Tally, String> {
    let loss = [0.0, 0.01, 0.05][(seed % 3) as usize];
    let weather = Weather { loss, delay_max: Duration::from_millis(2 + seed % 3 * 8), ..Weather::default() };
    let mut world = World::new(seed, weather);
    let begun = world.now;
    let entropy = Entropy::seeded(seed);
    let at = |second: u64| Duration::from_millis(second * 1000 + entropy.next_u64() % 800);
    let (stops, kills, starts, cuts, heals) = (at(1), at(3), at(4), at(6), at(8));
    let [sleeper, victim, mute] = [0, 1, 2].map(|it| 1 + ((seed + it) % u64::from(NODES)) as u16);
    let sleeps = Duration::from_millis(800 + entropy.next_u64() % 700);
    world.run(LASTS, move |world| {
        let since = |it: Duration| world.now - begun == Duration::from_millis(it.as_millis() as u64);
        if since(stops) {
            world.stop(sleeper, sleeps);
        } else if since(kills) {
            world.kill(victim);
        } else if since(starts) && seed.is_multiple_of(2) {
            world.restart(victim);
        } else if since(cuts) {
            let others = (1..=NODES).filter(|it| *it != mute).take(2);
            others.for_each(|it| world.twin.cut(addr(mute), addr(it)));
        } else if since(heals) {
            world.twin.heal();
        } else if since(MENDED) {
            (world.tally.unknown, world.tally.missed) = (0, 0);
        }
    })?;
    // Nothing stays unknown for ever: who is down is not waited for, and whoever came back was heard.
    if world.tally.unknown == 0 { Ok(world.tally) } else { Err(format!("still unknown: {:?}", world.tally)) }
}

/// Seeds of the long run.
fn seeds(default: u64) -> u64 {
    std::env::var("SMG_SIM_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

#[test]
fn what_a_ledger_says_is_true_of_the_last_second_whatever_happens() {
    let (mut read, seeds) = (0, seeds(12));
    for seed in 0..seeds {
        match run(seed) {
            Ok(tally) => read += tally.read,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    println!("{read} readings in {seeds} runs");
}

#[test]
fn in_calm_weather_nearly_everything_is_known_and_errors_are_small() {
    let mut all = Tally::default();
    for seed in 0..seeds(3) {
        let mut world = World::new(seed, Weather::default());
        world.run(Duration::from_secs(2), |_| {}).unwrap();
        world.tally = Tally::default();
        world.run(Duration::from_secs(10), |_| {}).unwrap();
        let it = world.tally;
        all.read += it.read;
        all.unknown += it.unknown;
        all.missed += it.missed;
        all.error += it.error;
        all.load += it.load;
        all.messages += it.messages;
    }
    println!("{all:?}, error {:.3} of the load", all.error / all.load);
    assert!(all.read > 1000 && all.unknown == 0 && all.missed == 0, "{all:?}");
    assert!(all.error < 0.05 * all.load, "{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [first, second] = [run(7), run(7)].map(|it| format!("{it:?}"));
    assert_eq!(first, second);
}
