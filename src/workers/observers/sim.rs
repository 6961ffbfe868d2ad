//! Several nodes and one worker on virtual time: the real cores of health and observers, rows that come late, and trouble of every kind.
//!
//! At most one node at a time is in trouble of its own (it sleeps, or it is cut off from the worker); the worker may die and come back at any time.
//! *Invariants:* a worker that is well is not out at a node that is, one that came back is in within a bound; one that is dead is out within another where the
//! node itself, or two of those who watch it, have been well for so long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::core::Core;
use super::core::Sight;
use super::core::memory;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::workers::health::Health;
use crate::workers::health::Probe;
use crate::workers::health::Rules;
use crate::workers::health::State;
use crate::workers::registry::Facts;

const WORKER: WorkerId = WorkerId(7);
const INTERVAL: Duration = Duration::from_secs(4);
/// A quarter of the interval, as the prober has it.
const TICK: Duration = Duration::from_secs(1);
const RULES: Rules = Rules {
    failure_threshold: 3,
    success_threshold: 1,
    breaker_failures: 10,
    breaker_window: Duration::from_secs(60),
    breaker_open: Duration::from_secs(10),
    pause_max: Duration::from_secs(60),
    memory: Duration::from_secs(12),
};
/// Longest way of a row: lost, and repaired by the next exchange.
const DELAY_TICKS_MAX: usize = 3;
/// The last success is forgotten, the probes have failed, the rows have come.
const OUT_AFTER: Duration = Duration::from_secs(12 + 4 * 3 + 3 + 2);
/// A turn, the row, and a look of one's own.
const BACK_AFTER: Duration = Duration::from_secs(4 + 3 + 2);

struct Node {
    core: Core,
    health: Health,
    is_cut: bool,
    sleeps_until: Instant,
    /// Since when nothing ailed it.
    well_since: Instant,
}

struct World {
    now: Instant,
    entropy: Entropy,
    nodes: Vec<Node>,
    /// Rows under way: when they come, in which order; to whom, from whom, of when, what.
    rows: BTreeMap<(Instant, u64), (usize, usize, Instant, Sight)>,
    is_dead: bool,
    since: Instant,
    round: usize,
    trace: String,
}

impl World {
    fn new(seed: u64) -> Self {
        let (now, entropy) = (Clock.now() + Duration::from_secs(1000), Entropy::seeded(seed));
        let count = 1 + (entropy.next_u64() % 6) as usize;
        let all: Vec<StorageId> = (0..count as u128).map(StorageId).collect();
        let node = |me: &StorageId| {
            let mut core = Core::new(*me, Duration::from_secs(600));
            core.members(all.iter().copied());
            Node { core, health: Health::new(RULES), is_cut: false, sleeps_until: now, well_since: now }
        };
        let nodes = all.iter().map(node).collect();
        Self { now, entropy, nodes, rows: BTreeMap::new(), is_dead: false, since: now, round: 0, trace: String::new() }
    }

    fn below(&self, limit: usize) -> usize {
        (self.entropy.next_u64() % limit.max(1) as u64) as usize
    }

    /// Now and then something happens to a node or to the worker.
    fn weather(&mut self) {
        if self.below(40) == 0 {
            (self.is_dead, self.since) = (!self.is_dead, self.now);
        }
        let ailing = self.nodes.iter().position(|it| it.is_cut || self.now < it.sleeps_until);
        match (ailing, self.below(15)) {
            (Some(at), 0) => self.nodes[at].is_cut = false,
            (None, 0) => {
                let at = self.below(self.nodes.len());
                self.nodes[at].is_cut = true;
            }
            (None, 1) => {
                let (at, sleep) = (self.below(self.nodes.len()), self.below(60) as u32);
                self.nodes[at].sleeps_until = self.now + TICK * sleep;
            }
            _ => {}
        }
        for node in &mut self.nodes {
            if node.is_cut || self.now < node.sleeps_until {
                node.well_since = self.now;
            }
        }
    }

    fn step(&mut self) {
        self.now += TICK;
        self.round += 1;
        self.weather();
        let arrived = self.rows.split_off(&(self.now, 0));
        for (_, (to, from, at, sight)) in std::mem::replace(&mut self.rows, arrived) {
            let age = self.now.saturating_duration_since(at);
            self.nodes[to].core.observe(self.now, StorageId(from as u128), WORKER, age, sight);
        }
        for at in 0..self.nodes.len() {
            if self.now >= self.nodes[at].sleeps_until {
                self.run(at);
            }
        }
    }

    /// What prober and driver do in a tick.
    fn run(&mut self, at: usize) {
        let (now, node) = (self.now, &mut self.nodes[at]);
        let (is_mine, is_turn) = (node.core.is_mine(WORKER, None), (self.round + at).is_multiple_of(4));
        node.health.heard(node.core.word(now, WORKER));
        if node.health.wants_look(now, is_mine, is_turn) {
            let is_reached = !self.is_dead && !node.is_cut;
            node.health.probed(now, if is_reached { Probe::Ok } else { Probe::TimedOut });
            if is_mine {
                let sight = Sight::of(now, node.health.own(), None, INTERVAL, Facts::default()).expect("it has probed");
                self.send(at, &sight);
            }
        }
        let node = &mut self.nodes[at];
        node.health.heard(node.core.word(now, WORKER));
        self.trace.push_str(node.health.state(now).as_str());
    }

    fn send(&mut self, from: usize, sight: &Sight) {
        for to in 0..self.nodes.len() {
            let way = if to == from { 0 } else { self.below(DELAY_TICKS_MAX + 1) as u32 };
            let order = self.entropy.next_u64();
            self.rows.insert((self.now + TICK * way, order), (to, from, self.now, sight.clone()));
        }
    }

    fn watchers(&self, node: &Node) -> impl Iterator<Item = &Node> {
        node.core.observers(WORKER, None).into_iter().map(|it| &self.nodes[it.0 as usize])
    }

    fn check(&self, seed: u64) {
        for (at, node) in self.nodes.iter().enumerate() {
            let is_out = node.health.state(self.now) == State::NotReady;
            let mut others: Vec<Instant> = self.watchers(node).map(|it| it.well_since).collect();
            others.sort_unstable();
            // Own evidence does for one that watches; the others take the word of two.
            let (own, told) = (self.since.max(node.well_since), others.get(1).copied().unwrap_or(self.now));
            let heard = if node.core.is_mine(WORKER, None) { own } else { own.max(told) };
            let (calm, calm_for_two) =
                (self.now.saturating_duration_since(own), self.now.saturating_duration_since(heard));
            let when = format!("seed {seed}, node {at} of {}, round {}", self.nodes.len(), self.round);
            assert!(self.is_dead || !is_out || calm <= BACK_AFTER, "a worker that is well is out: {when}");
            assert!(!self.is_dead || is_out || calm_for_two <= OUT_AFTER, "a dead worker is not out: {when}");
        }
    }
}

fn run(seed: u64) -> String {
    let mut world = World::new(seed);
    for _ in 0..600 {
        world.step();
        world.check(seed);
    }
    world.trace
}

#[test]
fn what_is_well_stays_in_and_what_is_dead_goes_out_whoever_sleeps_or_is_cut_off() {
    assert_eq!(memory(INTERVAL), RULES.memory);
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let first = number("SMG_SIM_SEED").unwrap_or(0);
    let traces: Vec<String> = (first..first + number("SMG_SIM_SEEDS").unwrap_or(200)).map(run).collect();
    assert!(traces.iter().all(|it| it.contains("not_ready")), "the trouble bit");
    assert_eq!(run(first), traces[0], "the same seed gives the same run");
}
