//! Claims about the log's decisions: a law over real replicated tables, and what each half says and keeps to itself.

use std::collections::BTreeMap;
use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::base::fuzz;
use crate::base::ids::WorkerId;
use crate::replication::owned::Owned;
use crate::replication::owned::PartDelta;
use crate::replication::owned::Rule;
use crate::replication::owned::Share;
use crate::routing::draw::Draw;
use crate::routing::prefix_log::batch::BATCH_BYTES_MAX;
use crate::routing::prefix_log::batch::Batch;
use crate::routing::prefix_map::chain::Boundary;
use crate::routing::prefix_map::slots::LEARNED_MAX;
use crate::routing::prefix_map::slots::Lesson;

const TTL: Duration = Duration::from_secs(180);
const TICK: Duration = Duration::from_millis(2812);
const KEY: u32 = 7;

fn core(me: u128) -> Core {
    let mut core = Core::new(Setting { me: StorageId(me), key: KEY, ttl: TTL, tick: TICK });
    let workers = (0..4).map(WorkerId).collect();
    core.step(Duration::ZERO, Event::Workers(workers), &mut Vec::new());
    core
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn prefix(n: u64) -> Boundary {
    Boundary::of(n << 16)
}

/// What the core wants done on an event.
fn after(core: &mut Core, now: Duration, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    core.step(now, event, &mut effects);
    effects
}

/// What it publishes when this node did these.
fn written(core: &mut Core, now: Duration, said: &[Said]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let effects = after(core, now, Event::Said(said.to_vec()));
    let rows = effects.into_iter().filter_map(|it| if let Effect::Publish(rows) = it { Some(rows) } else { None });
    rows.flatten().collect()
}

/// The batch in those rows.
fn told(core: &mut Core, now: Duration, said: &[Said]) -> Option<Batch> {
    let value = written(core, now, said).into_iter().find_map(|it| it.1)?;
    Some(Batch::decode(&value).expect("what is written is read"))
}

fn heard(owner: u128, age: Duration, batch: &Batch) -> Event {
    let row = Heard { owner: StorageId(owner), age, value: Some(batch.encode().expect("it has an encoding")) };
    Event::Heard { rows: vec![row], is_again: false }
}

fn puts(effects: &[Effect]) -> Vec<(WorkerId, Boundary, AtMs)> {
    let put = |it: &Effect| if let Effect::Put(worker, it, at) = it { Some((*worker, *it, *at)) } else { None };
    effects.iter().filter_map(put).collect()
}

// === the law ===

/// A node: its log, its copy of the replicated table, and the map that rows make.
struct Node {
    core: Core,
    table: Owned,
    seen: BTreeMap<StorageId, (u64, u64)>,
    map: BTreeMap<(WorkerId, Boundary), AtMs>,
}

struct World {
    now: Duration,
    nodes: Vec<Node>,
    /// On their way: to whom, since when, and what.
    deltas: Vec<(usize, Duration, PartDelta)>,
}

impl World {
    fn new() -> Self {
        let node = |me| Node {
            core: core(me),
            table: Owned::new(Rule::Drop, Share { rows_max: 4096, bytes_max: 4 << 20 }),
            seen: BTreeMap::new(),
            map: BTreeMap::new(),
        };
        Self { now: secs(1), nodes: (0..3).map(node).collect(), deltas: Vec::new() }
    }

    fn say(&mut self, at: usize, said: Said) {
        if let Said::NewLife(worker) = said {
            // As the router does.
            self.nodes[at].map.retain(|it, _| it.0 != worker);
        }
        let effects = after(&mut self.nodes[at].core, self.now, Event::Said(vec![said]));
        for effect in &effects {
            let Effect::Publish(rows) = effect else { continue };
            let (table, me) = (&mut self.nodes[at].table, StorageId(at as u128));
            let delta = table.publish(self.now, me, 1, rows.clone()).expect("it fits");
            self.deltas.extend((0..3).filter(|to| *to != at).map(|to| (to, self.now, delta.clone())));
        }
        self.apply(at, &effects);
    }

    fn read(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let effects = read(node, self.now, &mut node.seen.clone(), false);
        node.seen = node.table.heads().into_iter().map(|(owner, boot, head)| (owner, (boot, head))).collect();
        self.apply(at, &effects);
    }

    fn pull(&mut self, at: usize, from: usize) {
        let (parts, _) = self.nodes[from].table.deltas(self.now, &self.nodes[at].table.heads_asked(), 1 << 20);
        for part in parts.into_iter().filter(|it| it.owner != StorageId(at as u128)) {
            let _ = self.nodes[at].table.apply(self.now, part); // old ones are refused
        }
    }

    fn apply(&mut self, at: usize, effects: &[Effect]) {
        let tick = |at: AtMs| at.div_euclid(TICK.as_millis() as AtMs);
        let (node, now) = (&mut self.nodes[at], self.now);
        for effect in effects {
            match effect {
                Effect::Put(worker, it, at) => {
                    let known = node.map.entry((*worker, *it)).or_insert(*at);
                    *known = (*known).max(*at);
                }
                Effect::Withdraw(worker, it, at) => {
                    node.map.retain(|name, known| *name != (*worker, *it) || tick(*known) > tick(*at));
                }
                Effect::Forget(worker) => node.map.retain(|it, _| it.0 != *worker),
                Effect::Publish(_) | Effect::Learn(..) | Effect::ReadAgain => {}
            }
        }
        if effects.contains(&Effect::ReadAgain) {
            // This ends: what asks for it once more is a life that is newer still.
            let effects = read(node, now, &mut BTreeMap::new(), true);
            self.apply(at, &effects);
        }
    }
}

fn read(node: &mut Node, now: Duration, seen: &mut BTreeMap<StorageId, (u64, u64)>, is_again: bool) -> Vec<Effect> {
    let news = node.table.news(now, seen).into_iter();
    let rows = news.map(|it| Heard { owner: it.owner, age: it.age, value: it.bytes.map(<[u8]>::to_vec) }).collect();
    after(&mut node.core, now, Event::Heard { rows, is_again })
}

/// Whatever happens, and then all is made up for: the maps of three nodes.
fn run(seed: u64) -> [BTreeMap<(WorkerId, Boundary), AtMs>; 3] {
    let (mut world, mut draw) = (World::new(), Draw::new(seed));
    for _ in 0..150 {
        world.now += Duration::from_millis(draw.below(700) as u64);
        let (at, other) = (draw.below(3), draw.below(3));
        let (worker, it) = (WorkerId(draw.below(4) as u64), prefix(1 + draw.below(12) as u64));
        match draw.below(12) {
            0..4 => world.say(at, Said::Placed(worker, it)),
            4 => world.say(at, Said::Withdrawn(worker, it)),
            5 if draw.below(4) == 0 => world.say(at, Said::NewLife(worker)),
            6 => world.pull(at, other),
            7 => world.read(at),
            _ if !world.deltas.is_empty() => {
                let some = draw.below(world.deltas.len());
                let (to, sent, mut delta) = match draw.below(3) {
                    0 => world.deltas[some].clone(),
                    _ => world.deltas.swap_remove(some),
                };
                // Time on the way makes nothing younger: on a real network it is milliseconds.
                delta.rows.iter_mut().for_each(|row| row.age_ms += (world.now - sent).as_millis() as u64);
                if draw.below(4) != 0 {
                    let _ = world.nodes[to].table.apply(world.now, delta); // what is not next is refused
                }
            }
            _ => {}
        }
    }
    for (at, from) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        world.pull(at, from);
    }
    (0..3).for_each(|at| world.read(at));
    world.nodes.into_iter().map(|it| it.map).collect::<Vec<_>>().try_into().expect("three")
}

proptest! {
    #[test]
    fn field_15_rows_in_any_order_lost_or_repeated_end_in_the_same_map(seed in any::<u64>()) {
        let [one, two, three] = run(seed);
        prop_assert_eq!(&one, &two);
        prop_assert_eq!(&one, &three);
    }

    #[test]
    fn garbage_is_counted_and_changes_nothing(bytes in any::<Vec<u8>>()) {
        let mut core = core(1);
        let row = Heard { owner: StorageId(2), age: secs(0), value: Some(bytes) };
        let effects = after(&mut core, secs(1), Event::Heard { rows: vec![row], is_again: false });
        prop_assert!(effects.is_empty() || core.counts().garbage == 0);
    }
}

// === what is told ===

#[test]
fn nothing_is_told_twice_before_half_of_its_life_is_over_whoever_told_it() {
    let (mut core, mut other) = (core(1), core(9));
    let place = [Said::Placed(WorkerId(0), prefix(1)), Said::Placed(WorkerId(0), prefix(1))];
    assert_eq!(told(&mut core, secs(1), &place).expect("it is new").sections[0].placed, [prefix(1)]);
    assert_eq!(told(&mut core, secs(40), &place), None);
    assert!(told(&mut core, secs(40), &[Said::Placed(WorkerId(1), prefix(1))]).is_some(), "another worker");
    assert!(told(&mut core, secs(91), &place).is_some(), "a prefix in use stays cached");

    let batch = told(&mut other, secs(1), &[Said::Placed(WorkerId(2), prefix(5))]).expect("it is new");
    after(&mut core, secs(100), heard(9, secs(1), &batch));
    assert_eq!(told(&mut core, secs(101), &[Said::Placed(WorkerId(2), prefix(5))]), None, "others know it from others");
}

#[test]
fn what_nobody_was_told_is_not_taken_back_and_what_was_is() {
    let mut core = core(1);
    let (place, withdraw) = (Said::Placed(WorkerId(0), prefix(1)), Said::Withdrawn(WorkerId(0), prefix(1)));
    assert_eq!(told(&mut core, secs(1), &[place, withdraw]), None, "both within one batch");
    assert_eq!(told(&mut core, secs(2), &[withdraw]), None);
    assert!(told(&mut core, secs(3), &[place]).is_some());
    let batch = told(&mut core, secs(4), &[withdraw]).expect("others believe it");
    assert_eq!((&batch.sections[0].placed[..], &batch.sections[0].withdrawn[..]), (&[][..], &[prefix(1)][..]));
    assert!(told(&mut core, secs(5), &[place]).is_some(), "true again");
}

#[test]
fn a_worker_that_began_anew_is_told_of_once_and_what_it_gets_then_is_told_again() {
    let (mut one, mut other) = (core(1), core(2));
    let place = Said::Placed(WorkerId(0), prefix(1));
    let before = told(&mut one, secs(1), &[place]).expect("it is new");
    let anew = told(&mut one, secs(10), &[place, Said::NewLife(WorkerId(0)), place]).expect("it is news");
    assert!(anew.sections[0].is_new_life && anew.sections[0].placed == [prefix(1)]);
    let effects = after(&mut other, secs(11), heard(1, secs(1), &anew));
    assert_eq!(effects[..2], [Effect::Forget(WorkerId(0)), Effect::ReadAgain]);
    assert_eq!(puts(&effects), [(WorkerId(0), prefix(1), 10_000)], "what came after it counts");
    assert_eq!(puts(&after(&mut other, secs(11), heard(1, secs(10), &before))), [], "what came before does not");
    assert_eq!(told(&mut other, secs(13), &[Said::NewLife(WorkerId(0))]), None, "its own prober saw the same");
    assert!(told(&mut one, secs(14), &[Said::NewLife(WorkerId(0))]).is_some(), "its second, though, is another");
}

#[test]
fn of_a_caches_lessons_the_one_that_says_most_is_told_and_taken_once() {
    let (mut one, mut other) = (core(1), core(2));
    let taught = |lesson, age| Said::Taught(WorkerId(3), lesson, secs(age));
    let all = [taught(Lesson::Forgets, 90), taught(Lesson::Forgets, 60), taught(Lesson::Remembers, 120)];
    let batch = told(&mut one, secs(1), &all).expect("it is news");
    let learn = |lesson, age| Effect::Learn(WorkerId(3), lesson, secs(age));
    let expected = [learn(Lesson::Forgets, 60), learn(Lesson::Remembers, 120)];
    assert_eq!(after(&mut other, secs(2), heard(1, secs(0), &batch)), expected);
    let Event::Heard { rows, .. } = heard(1, secs(0), &batch) else { unreachable!("it is what was made") };
    assert_eq!(after(&mut other, secs(2), Event::Heard { rows, is_again: true }), []);
    assert_eq!(after(&mut one, secs(2), heard(1, secs(0), &batch)), [], "its own");
}

#[test]
fn rows_of_a_worker_that_is_not_known_yet_count_once_it_is() {
    let (mut one, mut other) = (core(1), core(2));
    one.step(secs(0), Event::Workers((0..10).map(WorkerId).collect()), &mut Vec::new());
    let batch = told(&mut one, secs(1), &[Said::Placed(WorkerId(9), prefix(1))]).expect("it is new");
    assert_eq!(after(&mut other, secs(2), heard(1, secs(1), &batch)), []);
    let workers: HashSet<WorkerId> = (0..10).map(WorkerId).collect();
    assert_eq!(after(&mut other, secs(3), Event::Workers(workers)), [Effect::ReadAgain]);
    assert_eq!(puts(&after(&mut other, secs(3), heard(1, secs(2), &batch))).len(), 1);
}

#[test]
fn hashes_under_another_key_and_rows_past_their_time_count_for_nothing() {
    let mut other = core(2);
    let batch = told(&mut core(1), secs(1), &[Said::Placed(WorkerId(0), prefix(1))]).expect("it is new");
    assert_eq!(after(&mut other, secs(2000), heard(1, secs(1801), &batch)), []);
    assert_eq!(after(&mut other, secs(2000), heard(1, secs(1), &Batch { key: KEY + 1, ..batch })), []);
    assert_eq!(other.counts().foreign_keys, 1);
}

// === bounds ===

#[test]
fn a_flood_fills_one_batch_and_the_rest_is_counted_and_told_later() {
    let mut core = core(1);
    let flood: Vec<Said> = (0..60_000).map(|n| Said::Placed(WorkerId(n % 4), prefix(n))).collect();
    let value = written(&mut core, secs(1), &flood)[0].1.clone().expect("a batch");
    assert!(value.len() <= BATCH_BYTES_MAX && value.len() > BATCH_BYTES_MAX - 200, "{}", value.len());
    assert_eq!(core.counts().sent + core.counts().over_batch, 60_000);
    let left = flood.iter().rev().take(100).copied().collect::<Vec<_>>();
    assert_eq!(
        told(&mut core, secs(2), &left)
            .expect("they were not told")
            .sections
            .iter()
            .map(|it| it.placed.len())
            .sum::<usize>(),
        100
    );
    let workers: Vec<Said> = (0..5000).map(|n| Said::NewLife(WorkerId(n))).collect();
    assert!(written(&mut core, secs(3), &workers)[0].1.as_ref().expect("a batch").len() <= BATCH_BYTES_MAX);
}

#[test]
fn rows_take_the_names_of_the_oldest_and_go_when_their_time_is_over() {
    let mut core = core(1);
    let mut table: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut apply = |rows: Vec<(Vec<u8>, Option<Vec<u8>>)>| {
        for (name, value) in rows {
            match value {
                Some(value) => drop(table.insert(name, value)),
                None => drop(table.remove(&name)),
            }
        }
        (table.len(), table.values().map(Vec::len).sum::<usize>())
    };
    for n in 0..2000 {
        let said: Vec<Said> = (0..700).map(|it| Said::Placed(WorkerId(0), prefix(n * 700 + it))).collect();
        let (rows, bytes) = apply(written(&mut core, Duration::from_millis(n * 100), &said));
        assert!(rows <= 512 && bytes <= 1 << 20, "{rows} rows, {bytes} bytes");
    }
    assert!(core.counts().over_share > 1000);
    let quiet = after(&mut core, secs(2100), Event::Tick);
    let [Effect::Publish(rows)] = &quiet[..] else { panic!("{quiet:?}") };
    assert_eq!(apply(rows.clone()), (0, 0));
}

#[test]
fn steady_traffic_removes_no_row() {
    let mut core = core(1);
    for n in 0..2000 {
        let rows = written(&mut core, Duration::from_millis(n * 500), &[Said::Placed(WorkerId(0), prefix(n))]);
        let removed = rows.iter().filter(|it| it.1.is_none()).count();
        assert!(removed <= 1, "row {n}: {removed}");
        assert!(rows.iter().any(|it| it.1.is_some()));
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    #[test]
    fn fuzz_damaged_batches_are_taken_or_counted(all in prop::collection::vec((fuzz::damaged({
        let mut other = core(9);
        let said = |worker, n| Said::Placed(WorkerId(worker), prefix(n));
        let all = [vec![said(0, 1), said(0, 2), said(1, 3)], vec![said(2, 9)], vec![Said::NewLife(WorkerId(3))]];
        let told = all.iter().map(|it| told(&mut other, secs(1), it).expect("new").encode().unwrap());
        told.chain([Batch::default().encode().unwrap()]).collect()
    }), 0..1000_u64, any::<bool>()), 1..6)) {
        let mut core = core(1);
        for (now, (value, age, is_again)) in (1..).zip(all) {
            let read = fuzz::whole(8 * BATCH_BYTES_MAX, 1, &value, Batch::decode, |it| it.encode().unwrap());
            let before = core.counts();
            let row = Heard { owner: StorageId(2), age: secs(age), value: Some(value) };
            after(&mut core, secs(now), Event::Heard { rows: vec![row], is_again });
            let is_old = secs(age) > TTL * u32::from(LEARNED_MAX);
            let counted = (core.counts().garbage - before.garbage, core.counts().foreign_keys - before.foreign_keys);
            let expected = (u64::from(read.is_none() && !is_old), u64::from(read.is_some_and(|it| it.key != KEY) && !is_old));
            prop_assert_eq!(counted, expected);
        }
    }
}
