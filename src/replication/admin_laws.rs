//! The laws of an admin table, and its neighbours' opinion: a plain model and the OR-set of `crdts`.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::ids::StorageId;

const BOUNDS: Bounds = Bounds { entries_max: 1000, bytes_max: 1 << 20, runs_max: 1000 };
const NEVER: Duration = Duration::from_secs(1 << 40);

/// What may happen at one of three replicas.
#[derive(Clone, Copy, Debug)]
enum Op {
    Add(usize, u128),
    Set(usize, u128, u16, u64),
    Delete(usize, u128),
    /// The first takes everything of the second.
    Pull(usize, usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (at, id) = (0..3usize, 0..4u128);
    let op = prop_oneof![
        (at.clone(), id.clone()).prop_map(|(at, id)| Op::Add(at, id)),
        (at.clone(), id.clone(), 0..2u16, 0..6u64).prop_map(|(at, id, field, stamp)| Op::Set(at, id, field, stamp)),
        (at.clone(), id).prop_map(|(at, id)| Op::Delete(at, id)),
        (at.clone(), at).prop_map(|(to, from)| Op::Pull(to, from)),
    ];
    proptest::collection::vec(op, 0..40)
}

fn actor(at: usize) -> Actor {
    Actor { storage: StorageId(at as u128 + 1), boot: 1 }
}

fn stamp(of: u64) -> Stamp {
    Stamp::at(Duration::from_secs(of))
}

/// A whole pull, in slices of that many bytes.
fn pull(to: &mut Admin, from: &Admin, known: &Dots, bytes: usize) {
    let (mut after, mut theirs, mut refused) = (None, Dots::default(), Dots::default());
    loop {
        let slice = from.slice(known, after, bytes);
        theirs = slice.context.clone().unwrap_or(theirs);
        after = slice.upto;
        refused.union(&to.absorb(slice, &theirs, Stamp::at(NEVER)).0);
        if after.is_none() {
            return to.finish(theirs, &refused);
        }
    }
}

fn merged(a: &Admin, b: &Admin) -> Admin {
    let mut sum = a.clone();
    pull(&mut sum, b, &Dots::default(), usize::MAX);
    sum
}

fn play(ops: &[Op]) -> Vec<Admin> {
    let mut replicas = vec![Admin::new(BOUNDS); 3];
    for op in ops {
        match *op {
            Op::Add(at, id) => drop(replicas[at].add(InstanceId(id), 1, vec![(0, 1, vec![1])], actor(at), stamp(1))),
            Op::Set(at, id, field, more) => {
                // As the hybrid clock gives them: above all that was seen here, near nobody else's.
                let after = stamp(replicas[at].latest().wall().as_secs() + 1 + more);
                drop(replicas[at].set(InstanceId(id), vec![(field, 1, vec![more as u8])], actor(at), after));
            }
            Op::Delete(at, id) => drop(replicas[at].delete(InstanceId(id), actor(at))),
            Op::Pull(to, from) => replicas[to] = merged(&replicas[to].clone(), &replicas[from]),
        }
    }
    replicas
}

proptest! {
    #[test]
    fn merging_is_idempotent_commutative_and_associative(ops in ops()) {
        let it = play(&ops);
        let (a, b, c) = (&it[0], &it[1], &it[2]);
        prop_assert_eq!(&merged(a, a), a);
        prop_assert_eq!(merged(a, b), merged(b, a));
        prop_assert_eq!(merged(&merged(a, b), c), merged(a, &merged(b, c)));
        prop_assert_eq!(merged(a, b).digest(), merged(b, a).digest(), "equal tables have equal digests");
    }

    #[test]
    fn a_delta_in_slices_of_any_size_is_the_full_state(ops in ops(), bytes in 1..2000usize) {
        let it = play(&ops);
        let (full, mut delta) = (merged(&it[0], &it[1]), it[0].clone());
        let known = delta.context().clone();
        pull(&mut delta, &it[1], &known, bytes);
        prop_assert_eq!(delta.digest(), full.digest());
        prop_assert_eq!(delta, full);
    }

    #[test]
    fn field_12_what_was_deleted_anywhere_is_dead_everywhere_after_merging(ops in ops()) {
        let mut births = BTreeSet::new();
        let mut dead = BTreeSet::new();
        for end in 1..=ops.len() {
            let it = play(&ops[..end]);
            let alive: BTreeSet<Key> = it.iter().flat_map(|it| it.entries.keys().copied()).collect();
            if let Op::Delete(at, id) = ops[end - 1] {
                let before = play(&ops[..end - 1]);
                dead.extend(before[at].find(InstanceId(id)).map(|(key, _)| *key));
            }
            births.extend(alive);
        }
        let it = play(&ops);
        let all = merged(&merged(&it[0], &it[1]), &it[2]);
        let left: BTreeSet<Key> = all.entries.keys().copied().collect();
        prop_assert_eq!(left, births.difference(&dead).copied().collect(), "and nothing else is");
    }

    #[test]
    fn instances_live_and_die_as_members_of_an_or_set_do(ops in ops()) {
        use crdts::CmRDT as _;
        use crdts::CvRDT as _;
        let mut sets: Vec<crdts::Orswot<Key, usize>> = vec![crdts::Orswot::new(); 3];
        let mut played = Vec::new();
        for op in &ops {
            let before = play(&played);
            played.push(*op);
            let after = play(&played);
            match *op {
                Op::Add(at, _) => {
                    for (key, _) in after[at].entries().filter(|(key, _)| !before[at].entries.contains_key(key)) {
                        let context = sets[at].read_ctx().derive_add_ctx(at);
                        let op = sets[at].add(*key, context);
                        sets[at].apply(op);
                    }
                }
                Op::Delete(at, id) => {
                    if let Some((key, _)) = before[at].find(InstanceId(id)) {
                        let context = sets[at].contains(key).derive_rm_ctx();
                        let op = sets[at].rm(*key, context);
                        sets[at].apply(op);
                    }
                }
                Op::Pull(to, from) => {
                    let other = sets[from].clone();
                    sets[to].merge(other);
                }
                Op::Set(..) => {}
            }
            for (ours, theirs) in after.iter().zip(&sets) {
                let ours: BTreeSet<Key> = ours.entries.keys().copied().collect();
                prop_assert_eq!(ours, theirs.read().val.into_iter().collect());
            }
        }
    }

    #[test]
    fn the_later_edit_of_each_field_wins_and_fields_do_not_touch_each_other(a in 0..9u64, b in 0..9u64) {
        let mut one = Admin::new(BOUNDS);
        one.add(InstanceId(1), 1, vec![(0, 1, vec![0]), (1, 1, vec![0])], actor(0), stamp(0)).unwrap();
        let mut two = merged(&Admin::new(BOUNDS), &one);
        one.set(InstanceId(1), vec![(0, 1, vec![1])], actor(0), stamp(a + 1)).unwrap();
        two.set(InstanceId(1), vec![(0, 1, vec![2])], actor(1), stamp(b + 1)).unwrap();
        two.set(InstanceId(1), vec![(1, 9, vec![3])], actor(1), stamp(0)).unwrap();
        let sum = merged(&one, &two);
        let fields = &sum.find(InstanceId(1)).unwrap().1.fields;
        prop_assert_eq!(fields[&0].bytes[0], if a > b { 1 } else { 2 }, "the writer decides between equal stamps");
        prop_assert_eq!((fields[&1].version, &fields[&1].bytes), (9, &vec![3]), "what we do not understand is kept");
    }
}

#[test]
fn adding_again_is_a_new_instance_that_the_old_delete_does_not_touch() {
    let mut one = Admin::new(BOUNDS);
    one.add(InstanceId(1), 1, Vec::new(), actor(0), stamp(0)).unwrap();
    let mut away = merged(&Admin::new(BOUNDS), &one);
    one.delete(InstanceId(1), actor(0)).unwrap();
    one.add(InstanceId(1), 1, Vec::new(), actor(0), stamp(0)).unwrap();
    // Who was away edits the old one with the latest clock of all, and deletes nothing.
    away.set(InstanceId(1), vec![(0, 1, vec![1])], actor(1), Stamp::at(NEVER)).unwrap();
    let sum = merged(&away, &one);
    assert_eq!(sum, merged(&one, &away));
    let left: Vec<_> = sum.entries().collect();
    assert_eq!((left.len(), left[0].1.fields.len(), left[0].0.birth.count), (1, 0, 3));
}

#[test]
fn what_is_from_the_future_is_refused_and_not_taken_for_deleted() {
    let (mut far, mut here) = (Admin::new(BOUNDS), Admin::new(BOUNDS));
    let change = far.add(InstanceId(1), 1, vec![(0, 1, vec![1])], actor(0), stamp(1000)).unwrap();
    far.add(InstanceId(2), 1, Vec::new(), actor(0), stamp(1)).unwrap();
    assert_eq!(here.apply(change.clone(), stamp(100)), Err(Refusal::Ahead));
    let slice = far.slice(here.context(), None, usize::MAX);
    let (refused, _) = here.absorb(slice, far.context(), stamp(100));
    here.finish(far.context().clone(), &refused);
    assert!(here.find(InstanceId(1)).is_none() && here.find(InstanceId(2)).is_some());
    assert_ne!(here.digest(), far.digest(), "they go on asking");
    assert_eq!(here.apply(change, stamp(2000)), Ok(true), "once its time has come it is taken");
    assert_eq!(here.digest(), far.digest());
}

#[test]
fn what_is_too_large_or_too_many_is_refused_but_what_races_to_the_bound_converges() {
    let small = Bounds { entries_max: 4, bytes_max: 1 << 20, runs_max: 1000 };
    let mut sides = [Admin::new(small), Admin::new(small)];
    for (at, side) in sides.iter_mut().enumerate() {
        let huge = vec![(0, 1, vec![0; ENTRY_BYTES_MAX])];
        assert_eq!(side.add(InstanceId(9), 1, huge, actor(at), stamp(1)), Err(Refusal::EntryTooLarge));
        let adds = (0..5).map(|n| side.add(InstanceId(n), 1, Vec::new(), actor(at), stamp(1)).is_ok()).filter(|it| *it);
        assert_eq!(adds.count(), 4);
        side.delete(InstanceId(0), actor(at)).unwrap();
        side.delete(InstanceId(1), actor(at)).unwrap();
    }
    assert!(sides[0].add(InstanceId(5), 1, Vec::new(), actor(0), stamp(1)).is_ok());
    let [a, b] = &sides;
    assert_eq!(merged(a, b), merged(b, a), "3 and 2 are one more than 4");
    assert_eq!(merged(a, b).entries().count(), 5);
}

#[test]
fn a_year_of_adds_and_deletes_costs_no_memory() {
    let mut table = Admin::new(BOUNDS);
    for n in 0..20_000u32 {
        table.add(InstanceId(n.into()), 1, vec![(0, 1, vec![0; 100])], actor(0), stamp(1)).unwrap();
        table.delete(InstanceId(n.into()), actor(0)).unwrap();
    }
    assert_eq!((table.weight(), table.context().runs(), table.entries().count()), (0, 1, 0));
}

/// Each start of a node that edits is remembered for ever, so there are only so many; those that are known go on, and what others accepted meanwhile converges.
#[test]
fn starts_without_end_are_refused_and_the_known_ones_go_on() {
    let few = Bounds { runs_max: 8, ..BOUNDS };
    let life = |boot| Actor { storage: StorageId(1), boot };
    let (mut here, mut there) = (Admin::new(few), Admin::new(few));
    let add = |table: &mut Admin, boot: u64| table.add(InstanceId(boot.into()), 1, Vec::new(), life(boot), stamp(1));
    for boot in 1..=8 {
        let change = add(&mut here, boot).unwrap();
        there.apply(change, stamp(100)).unwrap();
    }
    assert_eq!(add(&mut here, 9), Err(Refusal::TooManyLives));
    assert_eq!(here.delete(InstanceId(1), life(9)), Err(Refusal::TooManyLives));
    assert!(add(&mut here, 8).is_ok() && here.delete(InstanceId(1), life(8)).is_ok(), "it is known");
    let (mut wide, mut wider) = (Admin::new(BOUNDS), Admin::new(BOUNDS));
    let two: Vec<_> = [21, 22].map(|boot| add(&mut wide, boot).unwrap()).to_vec();
    two.into_iter()
        .for_each(|it| assert_eq!(there.apply(it, stamp(100)), Ok(true), "a quarter more of what others took"));
    assert_eq!(there.context().runs(), 10);
    let more = add(&mut wide, 23).unwrap();
    let before = there.clone();
    assert_eq!(there.apply(more, stamp(100)), Err(Refusal::TooManyLives));
    (30..40).for_each(|boot| drop(add(&mut wider, boot).unwrap()));
    assert_eq!(there.has_room_for(wider.context()), Err(Refusal::TooManyLives));
    assert_eq!(there, before, "what is refused changes nothing");
}
