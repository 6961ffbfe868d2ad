//! A few nodes on virtual time: their cores, their disks, and a network that loses, delays, repeats, reorders and cuts.
//!
//! Everything is drawn from one seed and kept in ordered maps, so a seed is a run. The hash of all that happened is its name.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::ADMIN;
use super::model::Model;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::replication::Now;
use crate::replication::core::Core;
use crate::replication::core::Edit;
use crate::replication::core::EditError;
use crate::replication::core::Effect;
use crate::replication::core::Event;
use crate::replication::core::Member;
use crate::replication::core::Settled;
use crate::replication::dots::Actor;
use crate::replication::store::Store as _;
use crate::replication::store::memory::Memory;
use crate::replication::tables::Spec;

/// Wall time at the start of every run.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// Between two ticks of a node.
const TICK_MS: u64 = 250;
/// A crashed node is taken for down after this.
const DETECT_MS: u64 = 2000;

pub(super) enum Action {
    Deliver { from: usize, to: usize, frame: Vec<u8> },
    Tick { node: usize, life: u32 },
    Synced { node: usize, life: u32, token: u64 },
    Restart { node: usize, disk: Memory, clock_ms: i64, is_new: bool },
}

pub(super) struct Node {
    pub core: Option<Core>,
    pub disk: Memory,
    pub old_disk: Memory,
    pub storage: u128,
    pub boot: u64,
    pub life: u32,
    clock_ms: i64,
    started_ms: u64,
    crashed_ms: u64,
    disk_free_ms: u64,
    members: Vec<Member>,
}

pub(super) struct World {
    pub now_ms: u64,
    pub nodes: Vec<Node>,
    pub rng: Entropy,
    pub model: Model,
    /// Directions that carry nothing.
    pub cuts: BTreeSet<(usize, usize)>,
    pub is_lossy: bool,
    specs: Vec<Spec>,
    queue: BTreeMap<(u64, u64), Action>,
    queued: u64,
    storages: u128,
    trace: Xxh3,
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, specs: Vec<Spec>) -> Self {
        let rng = Entropy::seeded(seed);
        let mut world = Self {
            now_ms: 0,
            nodes: Vec::new(),
            rng,
            model: Model::default(),
            cuts: BTreeSet::new(),
            is_lossy: true,
            specs,
            queue: BTreeMap::new(),
            queued: 0,
            storages: 0,
            trace: Xxh3::new(),
        };
        for node in 0..nodes {
            let (disk, old_disk) = (Memory::default(), Memory::default());
            let it = Node {
                core: None,
                disk,
                old_disk,
                storage: 0,
                boot: 0,
                life: 0,
                clock_ms: 0,
                started_ms: 0,
                crashed_ms: 0,
                disk_free_ms: 0,
                members: Vec::new(),
            };
            world.nodes.push(it);
            world.at(0, Action::Restart { node, disk: Memory::default(), clock_ms: 0, is_new: true });
        }
        world
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.rng.below(bound as usize) as u64
    }

    pub(super) fn at(&mut self, ms: u64, action: Action) {
        self.queued += 1;
        self.queue.insert((ms, self.queued), action);
    }

    /// What happened so far, as a number.
    pub(super) fn trace(&self) -> u128 {
        self.trace.digest128()
    }

    /// Lets everything happen up to then.
    pub(super) fn run_to(&mut self, ms: u64) {
        while let Some(((at, _), action)) = self
            .queue
            .first_key_value()
            .filter(|((at, _), _)| *at <= ms)
            .map(|_| ())
            .and_then(|()| self.queue.pop_first())
        {
            self.now_ms = at;
            self.happen(action);
        }
        self.now_ms = ms;
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Deliver { from, to, frame } if !self.cuts.contains(&(from, to)) => {
                self.step(to, Event::Received(name(from), frame));
            }
            Action::Deliver { .. } => {}
            Action::Tick { node, life } if self.nodes[node].life == life => {
                self.watch(node);
                self.step(node, Event::Tick);
                self.at(self.now_ms + TICK_MS, Action::Tick { node, life });
            }
            Action::Tick { .. } => {}
            Action::Synced { node, life, token } if self.nodes[node].life == life => {
                self.nodes[node].disk.sync_one();
                self.model.synced(node, token);
                self.step(node, Event::Stored(token));
            }
            Action::Synced { .. } => {}
            Action::Restart { node, disk, clock_ms, is_new } => self.start(node, disk, clock_ms, is_new),
        }
    }

    fn start(&mut self, node: usize, disk: Memory, clock_ms: i64, is_new: bool) {
        if is_new {
            self.storages += 1;
        }
        let (storages, now_ms) = (self.storages, self.now_ms);
        let it = &mut self.nodes[node];
        if is_new {
            (it.storage, it.boot) = (storages, 0);
        }
        it.boot += 1;
        it.life += 1;
        (it.clock_ms, it.started_ms, it.members) = (clock_ms, now_ms, Vec::new());
        it.disk = disk;
        let me = Member { node: name(node), actor: Actor { storage: StorageId(it.storage), boot: it.boot } };
        let (rows, life) = (it.disk.load().expect("memory loads"), it.life);
        let entropy = Entropy::seeded(self.rng.next_u64());
        self.nodes[node].core = Some(Core::new(me, &self.specs, entropy, rows).expect("what was written is read"));
        self.at(self.now_ms + 1 + self.below(TICK_MS), Action::Tick { node, life });
    }

    /// The power goes. It comes back when told, with this disk, the one of earlier, or none.
    pub(super) fn crash(&mut self, node: usize) {
        let kept = self.rng.below(3);
        let it = &mut self.nodes[node];
        it.disk.crash(kept);
        (it.core, it.crashed_ms) = (None, self.now_ms);
        it.life += 1;
        self.model.crashed(node);
    }

    /// The wall clock steps.
    pub(super) fn step_clock(&mut self, node: usize, to_ms: i64) {
        self.nodes[node].clock_ms = to_ms;
    }

    pub(super) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].core.is_some()
    }

    pub(super) fn edit(&mut self, node: usize, edit: Edit) {
        let request = self.model.asked(&edit);
        self.step(node, Event::Edit(request, vec![edit]));
    }

    pub(super) fn step(&mut self, node: usize, event: Event) {
        let now = self.now_of(node);
        let Some(core) = self.nodes[node].core.as_mut() else { return };
        let mut effects = Vec::new();
        core.step(now, event, &mut effects);
        for effect in effects {
            self.trace.update(&self.now_ms.to_le_bytes());
            match effect {
                Effect::Send(to, _, frame) => self.carry(node, &to, frame),
                Effect::Store(token, batch) => self.write(node, token, batch),
                Effect::Answer(request, answer) => self.answered(node, request, &answer),
                Effect::Changed(table, change) => {
                    let core = self.nodes[node].core.as_ref().expect("it just acted");
                    self.model.changed(node, table, &change, core);
                }
                Effect::RowsChanged(table) => {
                    let core = self.nodes[node].core.as_ref().expect("it just acted");
                    self.model.rows_changed(table, now.mono, core);
                }
                Effect::Everywhere(_) => {} // for people
            }
        }
    }

    fn answered(&mut self, node: usize, request: u64, answer: &Result<Settled, EditError>) {
        let is_alone = self.nodes[node].members.is_empty();
        if let Some(id) = self.model.adds(request).filter(|_| answer.as_ref().is_ok_and(|it| it.is_safe)) {
            let holds = |it: &&Node| it.disk.holds(ADMIN, &id.0.to_be_bytes());
            let disks = self.nodes.iter().filter(holds).count();
            if disks < if is_alone { 1 } else { 2 } {
                self.model.blame(format!("an add was called safe on {disks} disks"));
            }
        }
        self.model.answered(node, request, answer, is_alone);
    }

    fn carry(&mut self, from: usize, to: &NodeId, frame: Vec<u8>) {
        self.trace.update(&frame);
        let to = index(to);
        let copies = match self.below(20) {
            0 | 1 if self.is_lossy => 0,
            2 if self.is_lossy => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = if self.is_lossy && self.below(8) == 0 { self.below(900) } else { self.below(15) };
            self.at(self.now_ms + 1 + delay, Action::Deliver { from, to, frame: frame.clone() });
        }
    }

    fn write(&mut self, node: usize, token: u64, batch: Vec<crate::replication::store::Row>) {
        let it = &mut self.nodes[node];
        it.disk.write(batch);
        let (life, free_ms) = (it.life, it.disk_free_ms);
        self.model.wrote(node, token);
        // In order, as a log is synced; at times a disk takes long.
        let takes = if self.below(8) == 0 { self.below(300) } else { 3 };
        let at = self.now_ms.max(free_ms) + takes;
        self.nodes[node].disk_free_ms = at;
        self.at(at, Action::Synced { node, life, token });
    }

    /// Membership, as a node would see it a little later.
    fn watch(&mut self, node: usize) {
        let is_seen = |other: &usize| {
            let it = &self.nodes[*other];
            let is_cut = self.cuts.contains(&(*other, node)) && self.cuts.contains(&(node, *other));
            *other != node && it.boot > 0 && !is_cut && (it.core.is_some() || self.now_ms < it.crashed_ms + DETECT_MS)
        };
        let member = |other: usize| {
            let it = &self.nodes[other];
            Member { node: name(other), actor: Actor { storage: StorageId(it.storage), boot: it.boot } }
        };
        let members: Vec<Member> = (0..self.nodes.len()).filter(is_seen).map(member).collect();
        if members != self.nodes[node].members {
            self.nodes[node].members.clone_from(&members);
            self.step(node, Event::Members(members));
        }
    }

    fn now_of(&self, node: usize) -> Now {
        let it = &self.nodes[node];
        let wall = EPOCH_MS + self.now_ms as i64 + it.clock_ms;
        Now {
            mono: Duration::from_millis(self.now_ms - it.started_ms),
            wall: Duration::from_millis(wall.max(0) as u64),
        }
    }
}

pub(super) fn name(node: usize) -> NodeId {
    NodeId::parse(&format!("n{node}")).expect("a plain name")
}

fn index(node: &NodeId) -> usize {
    node.as_str()[1..].parse().expect("a name of ours")
}
