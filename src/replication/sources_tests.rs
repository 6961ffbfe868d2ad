//! What DESIGN says of sources, one claim a test.

use super::*;
use crate::replication::dots::Actor;
use crate::replication::dots::Dot;

#[derive(Default)]
struct World {
    here: Vec<u128>,
    forgotten: Vec<u128>,
    dead: Vec<&'static str>,
}

impl Standing for World {
    fn is_here(&self, owner: StorageId) -> bool {
        self.here.contains(&owner.0)
    }
    fn is_forgotten(&self, owner: StorageId) -> bool {
        self.forgotten.contains(&owner.0)
    }
    fn is_dead(&self, place: &Place) -> bool {
        self.dead.contains(&place.url.as_str())
    }
}

fn flag(url: &str, owner: u128) -> Assertion {
    Assertion { url: url.to_owned(), owner: StorageId(owner), source: Source::Flag, is_local: false }
}

fn instance(url: &str, id: u128) -> Instance {
    let birth = Dot { actor: Actor { storage: StorageId(1), boot: 1 }, count: id as u64 };
    Instance { key: Key { id: InstanceId(id), birth }, born: Stamp::default(), place: at(url) }
}

fn at(url: &str) -> Place {
    Place { url: url.to_owned(), via: None }
}

fn urls(instances: &[Instance], assertions: &[Assertion], suppressed: &[&str], world: &World) -> Vec<String> {
    let suppressed = suppressed.iter().map(|it| at(it)).collect();
    in_force(instances, assertions, &suppressed, world).into_iter().map(|it| it.place.url).collect()
}

#[test]
fn a_flags_worker_outlives_its_node_until_it_is_dead_or_the_node_is_forgotten() {
    let said = [flag("a", 1)];
    assert_eq!(urls(&[], &said, &[], &World::default()), ["a"]);
    assert!(urls(&[], &said, &[], &World { dead: vec!["a"], ..World::default() }).is_empty());
    assert_eq!(
        urls(&[], &said, &[], &World { dead: vec!["a"], here: vec![1], ..World::default() }),
        ["a"],
        "its node insists"
    );
    assert!(urls(&[], &said, &[], &World { forgotten: vec![1], ..World::default() }).is_empty());
}

#[test]
fn what_discovery_says_goes_with_whoever_watches() {
    let said = [Assertion { source: Source::Discovery, ..flag("a", 1) }];
    assert!(urls(&[], &said, &[], &World::default()).is_empty());
    assert_eq!(urls(&[], &said, &[], &World { here: vec![1], ..World::default() }), ["a"]);
}

#[test]
fn a_deleted_flag_worker_stays_away_until_somebody_posts_it() {
    let (world, said) = (World { here: vec![1, 2], ..World::default() }, [flag("a", 1)]);
    let plan = delete(&at("a"), &[], &said, &BTreeSet::new());
    assert_eq!(plan, Plan { suppress: true, ..Plan::default() });
    assert!(urls(&[], &said, &["a"], &world).is_empty());
    assert!(urls(&[], &[flag("a", 1), flag("a", 2)], &["a"], &world).is_empty(), "nor by another node's flag");
    let plan = post(&at("a"), &[], &[instance("a", 7)]);
    assert_eq!(plan, Plan { delete: vec![InstanceId(7)], add: true, ..Plan::default() });
    assert_eq!(urls(&[instance("a", 8)], &said, &["a"], &world), ["a"], "also where the suppression is still seen");
}

#[test]
fn delete_of_a_posted_worker_takes_every_instance_and_suppresses_nothing() {
    let plan = delete(&at("a"), &[instance("a", 1), instance("b", 2), instance("a", 3)], &[], &BTreeSet::new());
    assert_eq!(plan, Plan { delete: vec![InstanceId(1), InstanceId(3)], ..Plan::default() });
}

#[test]
fn the_oldest_instance_counts_and_a_local_worker_is_reached_through_its_node() {
    let world = World { here: vec![1, 2], ..World::default() };
    let local = |owner| Assertion { is_local: true, ..flag("l", owner) };
    let all =
        in_force(&[instance("a", 9), instance("a", 4)], &[local(2), local(1), flag("a", 2)], &BTreeSet::new(), &world);
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].instance, &all[0].asserted_by), (Some(InstanceId(4)), &vec![StorageId(2)]));
    assert_eq!((all[1].place.via, all[2].place.via), (Some(StorageId(1)), Some(StorageId(2))));
    let hidden = [local(1).place()].into();
    assert_eq!(in_force(&[], &[local(2), local(1)], &hidden, &world).len(), 1, "each owner's is a worker of its own");
    let again = post(&at("a"), &[instance("a", 9), instance("a", 4)], &[]);
    assert_eq!(again, Plan { set: Some(InstanceId(4)), ..Plan::default() }, "the one that counts is edited");
    assert_eq!(urls(&[], &[local(1)], &[], &World::default()), Vec::<String>::new(), "nobody else reaches it");
}
