//! P8: what grows has a bound, also where somebody means it to grow.

use std::sync::Arc;
use std::time::Duration;

use super::cluster::Cluster;
use super::node::addr;
use super::node::name;
use super::seeds;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::membership;
use crate::replication::admin::Bounds;
use crate::replication::admin::InstanceId;
use crate::replication::core::Edit;
use crate::replication::core::EditError;
use crate::replication::core::Event;
use crate::replication::owned::Rule;
use crate::replication::owned::Share;
use crate::replication::tables::Kind;
use crate::replication::tables::Spec;
use crate::replication::tables::TableId;
use crate::transport::Peer;
use crate::transport::twin::Weather;

const SEEDS: u64 = 3;
const KEYS: TableId = TableId(3);
const LOADS: TableId = TableId(34);
const ENTRIES_MAX: usize = 120;
const BYTES_MAX: usize = 24 << 10;
const ROWS_MAX: usize = 60;
const SHARE_BYTES_MAX: usize = 8 << 10;
/// As the roster has it.
const MEMBERS_MAX: usize = 1024;

fn small() -> Vec<Spec> {
    let bounds = Bounds { entries_max: ENTRIES_MAX, bytes_max: BYTES_MAX, runs_max: 1000 };
    let share = Share { rows_max: ROWS_MAX, bytes_max: SHARE_BYTES_MAX };
    let spec = |id, name, kind| Spec { id, name, kind, bytes_per_s: 64 << 10 };
    vec![spec(KEYS, "keys", Kind::Admin(bounds)), spec(LOADS, "loads", Kind::Owned(Rule::Drop, share))]
}

/// Entries and their bytes at a node.
fn weigh(cluster: &Cluster, node: usize) -> (usize, usize) {
    let admin = cluster.nodes[node].core().admin(KEYS).expect("the table is there");
    let bytes =
        |entry: &crate::replication::admin::Entry| entry.fields.values().map(|it| it.bytes.len()).sum::<usize>();
    (admin.entries().count(), admin.entries().map(|(_, entry)| bytes(entry)).sum())
}

fn ids(cluster: &Cluster, node: usize) -> Vec<InstanceId> {
    let admin = cluster.nodes[node].core().admin(KEYS).expect("the table is there");
    admin.entries().map(|(key, _)| key.id).collect()
}

#[test]
fn p8_keys_without_end_fill_a_table_to_its_bound_and_it_works_again_once_some_are_deleted() {
    for seed in seeds(SEEDS) {
        let mut cluster = Cluster::with_tables(seed, 4, Weather::default(), small());
        cluster.run(Duration::from_secs(2));
        // Both sides of a split fill it at once; then all together, with keys of any size.
        cluster.split(&[0, 1], &[2, 3]);
        for n in 0..1500_usize {
            let (node, id) = (cluster.below(4), cluster.new_id());
            let bytes = vec![0x5A; cluster.below(if n % 7 == 0 { 100 << 10 } else { 600 })];
            cluster.edit(node, vec![Edit::Add(KEYS, id, 1, vec![(1, 1, bytes)])]);
            if n == 500 {
                cluster.twin.heal();
            }
            if n % 20 == 0 {
                cluster.run(Duration::from_millis(50));
                for node in 0..4 {
                    let (entries, bytes) = weigh(&cluster, node);
                    // Edits that race to the bound from two sides find a quarter more room.
                    assert!(
                        entries <= ENTRIES_MAX * 5 / 4 && bytes <= BYTES_MAX * 5 / 4,
                        "SEED={seed}: {entries}, {bytes}"
                    );
                }
            }
        }
        cluster.run(Duration::from_secs(20));
        let refused = cluster.nodes[0].answers.values().filter(|it| matches!(it, Err(EditError::Refused(_)))).count();
        assert!(refused > 100, "SEED={seed}: {refused}");
        // Each side had filled it on its own, which is more than one table holds: somebody has to choose.
        for (node, id) in
            [0, 3].iter().flat_map(|node| ids(&cluster, *node).into_iter().map(|id| (*node, id))).collect::<Vec<_>>()
        {
            // What is left of both sides must fit one table: few, and none that nearly fills it.
            let is_large = |it: &Cluster| {
                let admin = it.nodes[node].core().admin(KEYS).expect("the table is there");
                admin.find(id).is_some_and(|(_, entry)| entry.weight() > BYTES_MAX / 24)
            };
            if id.0 % 8 != 0 || is_large(&cluster) {
                cluster.edit(node, vec![Edit::Delete(KEYS, id)]);
                cluster.run(Duration::from_millis(5));
            }
        }
        let is_same = |it: &Cluster| it.up().all(|n| it.nodes[n].core().admin(KEYS) == it.nodes[0].core().admin(KEYS));
        let took = cluster.until(Duration::from_secs(30), is_same);
        let sizes: Vec<_> = (0..4).map(|node| weigh(&cluster, node)).collect();
        assert!(took.is_some(), "SEED={seed}: with room again it converges: {sizes:?}");
        let id = cluster.new_id();
        let request = cluster.edit(2, vec![Edit::Add(KEYS, id, 1, vec![(1, 1, b"key".to_vec())])]);
        // Its disk may have much to write before.
        let is_answered = |it: &Cluster| it.nodes[2].answers.contains_key(&request);
        assert!(cluster.until(Duration::from_secs(30), is_answered).is_some(), "SEED={seed}");
        let answer = &cluster.nodes[2].answers[&request];
        assert!(answer.as_ref().is_ok_and(|it| it.is_safe), "SEED={seed}: {answer:?}");
    }
}

#[test]
fn p8_rows_without_end_stay_within_each_owners_share() {
    for seed in seeds(SEEDS) {
        let mut cluster = Cluster::with_tables(seed, 3, Weather { loss: 0.02, ..Weather::default() }, small());
        cluster.run(Duration::from_secs(2));
        for n in 0..600_usize {
            let node = cluster.below(3);
            let name = (0..cluster.below(40)).map(|_| cluster.entropy.next_u64() as u8).collect();
            let value =
                (cluster.below(5) > 0).then(|| vec![n as u8; cluster.below(if n % 9 == 0 { 20_000 } else { 400 })]);
            cluster.tables(node, Event::Publish(LOADS, vec![(name, value)]));
            if n % 20 == 0 {
                cluster.run(Duration::from_millis(100));
            }
            let Some(owned) = cluster.nodes[node].core().owned(LOADS) else { continue };
            let bytes: usize = owned.rows(Duration::ZERO).map(|it| it.1.len() + it.2.len()).sum();
            assert!(
                owned.len() <= 3 * ROWS_MAX && bytes <= 3 * SHARE_BYTES_MAX,
                "SEED={seed}: {} {bytes}",
                owned.len()
            );
        }
        let refused: u64 = (0..3).map(|n| cluster.nodes[n].core().counts().too_much).sum();
        assert!(refused > 100, "SEED={seed}: {refused}");
    }
}

#[test]
fn p8_members_that_come_and_go_without_end_are_forgotten() {
    let begun = Clock.now();
    let peer = |n: usize| Peer {
        node: name(n),
        storage: StorageId(n as u128),
        boot: 1,
        generation: 1,
        renewals: 0,
        addr: addr(n),
        zone: None,
    };
    let core = |n: usize| {
        membership::core::Core::new(begun, peer(n), membership::Config::default(), Entropy::seeded(n as u64))
    };
    let (mut victim, mut now, mut effects) = (core(0), begun, Vec::new());
    for n in 1..2 * MEMBERS_MAX {
        let (mut guest, mut said) = (core(n), Vec::new());
        guest.step(now, membership::core::Event::Met(addr(0), Box::new(peer(0))), &mut said);
        guest.step(now, membership::core::Event::Leave, &mut said);
        for effect in said {
            if let membership::core::Effect::Send(_, packet) = effect {
                victim.step(now, membership::core::Event::Received(Arc::new(peer(n)), packet), &mut effects);
            }
        }
        // It does not say goodbye to who has not answered it, so this is said for it.
        victim.step(now, membership::core::Event::Received(Arc::new(peer(n)), vec![1, 1]), &mut effects);
        effects.clear();
        now += Duration::from_millis(10);
    }
    let left = victim.view().members.len();
    assert!((MEMBERS_MAX / 2..=MEMBERS_MAX + 1).contains(&left), "{left} of {} are remembered", 2 * MEMBERS_MAX);
}

#[test]
fn p8_edits_that_nobody_acknowledges_are_refused_once_too_many_wait() {
    let mut cluster = Cluster::with_tables(1, 3, Weather::default(), {
        let bounds = Bounds { entries_max: 100_000, bytes_max: 64 << 20, runs_max: 1000 };
        vec![Spec { id: KEYS, name: "keys", kind: Kind::Admin(bounds), bytes_per_s: 1 << 20 }]
    });
    cluster.run(Duration::from_secs(2));
    cluster.split(&[0], &[1, 2]);
    for _ in 0..5_000 {
        let id = cluster.new_id();
        cluster.edit(0, vec![Edit::Add(KEYS, id, 1, vec![(1, 1, b"key".to_vec())])]);
    }
    let busy = cluster.nodes[0].answers.values().filter(|it| **it == Err(EditError::Busy)).count();
    assert!((800..=1_000).contains(&busy), "{busy}: four thousand may wait");
    cluster.twin.heal();
    let is_same = |it: &Cluster| it.up().all(|n| weigh(it, n) == weigh(it, 0));
    assert!(cluster.until(Duration::from_secs(60), is_same).is_some(), "and those that were made are everywhere");
}
