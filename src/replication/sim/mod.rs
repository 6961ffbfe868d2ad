//! Replication on virtual time: a seed is a run, and every run must keep every promise.
//!
//! Ten virtual seconds of edits while nodes crash and come back with their disk, an old one or none, clocks step, and the network is cut
//! in one direction or both; then everything heals, and the tables must become equal. The planted bugs of `faults.rs` are the
//! proof that these runs can fail. `SMG_SIM_SEEDS` runs more of them.

pub(crate) mod model;
mod world;

use self::world::Action;
use self::world::World;
use super::admin::Bounds;
use super::admin::InstanceId;
use super::core::Edit;
use super::core::Event;
use super::faults;
use super::faults::Fault;
use super::owned::Rule;
use super::owned::Share;
use super::store::memory::Memory;
use super::tables::Kind;
use super::tables::Spec;
use super::tables::TableId;
use crate::base::ids::StorageId;

const SEEDS: u64 = 200;
const EDITS_END_MS: u64 = 10_000;
const HEALED_WITHIN_MS: u64 = 120_000;
const TEN_YEARS_MS: i64 = 315_360_000_000;
const ADMIN: TableId = TableId(1);
const KEPT: TableId = TableId(2);
const DROPPED: TableId = TableId(3);

fn specs() -> Vec<Spec> {
    let share = Share { rows_max: 64, bytes_max: 16 << 10 };
    let spec = |id, name, kind, bytes_per_s| Spec { id, name, kind, bytes_per_s };
    vec![
        // So few bytes that a pull takes several slices.
        spec(ADMIN, "admin", Kind::Admin(Bounds { entries_max: 1000, bytes_max: 1 << 20, runs_max: 1000 }), 3000),
        spec(KEPT, "kept", Kind::Owned(Rule::Keep, share), 700),
        spec(DROPPED, "dropped", Kind::Owned(Rule::Drop, share), 700),
    ]
}

/// One run: what it broke, and its trace.
fn run(seed: u64) -> (Vec<String>, u128) {
    let nodes = 3 + (seed % 2) as usize;
    let mut world = World::new(seed, nodes, specs());
    world.model.victim = (seed / 2) as usize % nodes;
    while world.now_ms < EDITS_END_MS && world.model.violations.is_empty() {
        world.run_to(world.now_ms + 20 + world.below(120));
        match world.below(12) {
            0 => trouble(&mut world),
            _ => work(&mut world),
        }
    }
    heal(&mut world);
    let deadline = world.now_ms + HEALED_WITHIN_MS;
    while world.model.violations.is_empty() && !is_converged(&world) {
        if world.now_ms > deadline {
            world.model.blame("the tables did not become equal".to_owned());
        }
        world.run_to(world.now_ms + 500);
    }
    let World { model, nodes, .. } = &mut world;
    if let Some(core) = nodes[0].core.as_ref().filter(|_| model.violations.is_empty()) {
        model.verify(ADMIN, core);
    }
    (std::mem::take(&mut world.model.violations), world.trace())
}

fn work(world: &mut World) {
    let node = world.below(world.nodes.len() as u64) as usize;
    let Some(core) = &world.nodes[node].core else { return };
    let known: Vec<InstanceId> =
        core.admin(ADMIN).into_iter().flat_map(|it| it.entries()).map(|(key, _)| key.id).collect();
    let some = known.get(world.below(known.len() as u64) as usize).copied();
    let value =
        |world: &World| (world.below(2) as u16, 1, world.now_ms.to_be_bytes().repeat(1 + world.below(20) as usize));
    match (world.below(10), some) {
        (0..3, _) | (3..8, None) => {
            let id = InstanceId(u128::from(world.rng.next_u64()));
            let fields = vec![(0, 1, b"first".to_vec()), (1, 1, b"first".to_vec())];
            world.edit(node, Edit::Add(ADMIN, id, 7, fields));
        }
        (3..6, Some(id)) => {
            let field = value(world);
            world.edit(node, Edit::Set(ADMIN, id, vec![field.clone()]));
            let core = world.nodes[node].core.as_ref().expect("it was up");
            let now = core.admin(ADMIN).and_then(|it| it.find(id)).and_then(|(_, entry)| entry.fields.get(&field.0));
            if now.is_none_or(|it| it.bytes != field.2) {
                world.model.blame("an edit is not in force where it was made".to_owned());
            }
        }
        (6..8, Some(id)) => world.edit(node, Edit::Delete(ADMIN, id)),
        _ => publish(world, node),
    }
}

fn publish(world: &mut World, node: usize) {
    let table = if world.below(2) == 0 { KEPT } else { DROPPED };
    let row = |world: &World| {
        let bytes = (world.below(4) > 0).then(|| world.now_ms.to_be_bytes().repeat(1 + world.below(20) as usize));
        (vec![world.below(12) as u8], bytes)
    };
    let rows = (0..1 + world.below(6)).map(|_| row(world)).collect();
    world.step(node, Event::Publish(table, rows));
    let owner = StorageId(world.nodes[node].storage);
    let core = world.nodes[node].core.as_ref().expect("it was up");
    world.model.published(table, owner, core);
}

fn trouble(world: &mut World) {
    let nodes = world.nodes.len() as u64;
    let (node, other) = (world.below(nodes) as usize, world.below(nodes) as usize);
    match world.below(10) {
        // The power of the whole site.
        9 => (0..world.nodes.len())
            .filter(|it| world.is_up(*it))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|it| crash(world, it)),
        0..3 if world.is_up(node) => crash(world, node),
        3 => {
            world.nodes[node].old_disk = world.nodes[node].disk.clone();
            world.nodes[node].old_disk.crash(0);
        }
        4 => drop(world.cuts.insert((node, other))),
        5 => world.cuts.extend([(node, other), (other, node)]),
        6 => world.cuts.clear(),
        7 => {
            let steps = [-3_600_000, -30_000, 0, 45_000, TEN_YEARS_MS];
            let step = steps[world.below(steps.len() as u64) as usize];
            // One clock may be absurd, and only where others have told the time: two of three would outvote the third.
            let is_told = world.nodes[node].core.as_ref().is_some_and(|it| it.clocks_heard() > 0);
            let is_one = node == world.model.victim;
            world.step_clock(node, if step < TEN_YEARS_MS || (is_told && is_one) { step } else { 0 });
        }
        _ => {}
    }
}

fn crash(world: &mut World, node: usize) {
    world.crash(node);
    let (disk, is_new) = match world.below(4) {
        0 if node == world.model.victim => (Memory::default(), true),
        1 if node == world.model.victim => (world.nodes[node].old_disk.clone(), false),
        _ => (world.nodes[node].disk.clone(), false),
    };
    if node == world.model.victim {
        world.model.forgot(node);
    }
    // A clock that is a little too far ahead: refused at first, accepted later.
    let clock_ms = [0, -60_000, 75_000][world.below(3) as usize];
    let at = world.now_ms + 10 + world.below(4000);
    world.at(at, Action::Restart { node, disk, clock_ms, is_new });
}

fn heal(world: &mut World) {
    world.cuts.clear();
    world.is_lossy = world.below(2) == 0;
    world.run_to(world.now_ms + 5000);
    // Whoever restarted says again what it has; a life that never says anything leaves the old one's rows.
    for node in 0..world.nodes.len() {
        for table in [KEPT, DROPPED] {
            world.step(node, Event::Publish(table, Vec::new()));
            let owner = StorageId(world.nodes[node].storage);
            let core = world.nodes[node].core.as_ref().expect("all are up");
            world.model.published(table, owner, core);
        }
    }
}

fn is_converged(world: &World) -> bool {
    let cores: Vec<_> = world.nodes.iter().filter_map(|it| it.core.as_ref()).collect();
    let own: Vec<StorageId> = world.nodes.iter().map(|it| StorageId(it.storage)).collect();
    let heads = |core: &super::core::Core, table| {
        core.owned(table)
            .map(|it| it.heads())
            .unwrap_or_default()
            .into_iter()
            .filter(|it| own.contains(&it.0))
            .collect::<Vec<_>>()
    };
    let first = cores[0];
    cores.len() == world.nodes.len()
        && cores.iter().all(|it| it.admin(ADMIN) == first.admin(ADMIN))
        && [KEPT, DROPPED].iter().all(|table| cores.iter().all(|it| heads(it, *table) == heads(first, *table)))
        && cores.iter().zip(&world.nodes).all(|(core, node)| {
            let is_current =
                |table| heads(core, table).iter().any(|it| (it.0, it.1) == (StorageId(node.storage), node.boot));
            is_current(KEPT) && is_current(DROPPED)
        })
}

#[test]
fn field_15_every_promise_holds_in_every_run() {
    let seeds = std::env::var("SMG_SIM_SEEDS").ok().and_then(|it| it.parse().ok()).unwrap_or(SEEDS);
    let first = std::env::var("SMG_SIM_SEED").ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    for seed in first..first + seeds {
        let (violations, _) = run(seed);
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [0, 7, 42] {
        assert_eq!(run(seed).1, run(seed).1);
    }
    assert_ne!(run(1).1, run(2).1);
}

#[test]
fn every_planted_bug_is_found() {
    let mut missed = Vec::new();
    for fault in faults::ALL {
        faults::plant(Some(*fault));
        let found = (0..SEEDS).find(|seed| !run(*seed).0.is_empty());
        faults::plant(None);
        match found {
            Some(seed) => println!("{fault:?}: seed {seed}"),
            None => missed.push(*fault),
        }
    }
    assert_eq!(missed, Vec::<Fault>::new());
}

/// A flood of ids and an absurd clock change nothing that lasts.
#[test]
fn a_clock_ten_years_ahead_is_refused_and_counted() {
    let mut world = World::new(5, 3, specs());
    world.is_lossy = false;
    world.run_to(3000);
    world.crash(2);
    let disk = world.nodes[2].disk.clone();
    world.cuts.extend([(2, 0), (2, 1), (0, 2), (1, 2)]);
    world.at(3001, Action::Restart { node: 2, disk, clock_ms: TEN_YEARS_MS, is_new: false });
    world.run_to(6000);
    let id = InstanceId(9);
    world.edit(2, Edit::Add(ADMIN, id, 1, vec![(0, 1, b"x".to_vec())]));
    world.cuts.clear();
    world.run_to(20_000);
    let core = world.nodes[0].core.as_ref().expect("it is up");
    assert!(core.admin(ADMIN).is_some_and(|it| it.find(id).is_none()));
    assert!(core.counts().stamps_ahead > 0);
}
