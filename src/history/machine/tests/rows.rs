//! Many commands at once, rows that go elsewhere, and rows that are damaged.

use std::collections::BTreeMap;

use serde_bytes::ByteBuf;

use super::*;

#[test]
fn commands_in_one_batch_see_each_other_and_a_refused_one_leaves_the_rest() {
    let a = owner("a");
    let entry = |n: u128, act| {
        let command = Command::Of { owner: a.clone(), room: ROOM, act: Box::new(act) };
        Entry { id: CommandId(n), seen: 0, command }.encode().unwrap()
    };
    let begin = |of: &str| Act::Begin(Box::new(first(of, &["i"])));
    let commands = [entry(1, begin("r1")), entry(2, begin("r1")), entry(3, create("c1", &[])), entry(1, begin("r1"))];
    let rows = BTreeMap::new();
    let (outcomes, changes) = steps(&rows, &commands).unwrap();
    let exists = Outcome::Refused(Refusal::Exists(id("r1")));
    assert_eq!(outcomes, [Outcome::Done, exists, Outcome::Done, Outcome::Done]);
    let rows: BTreeMap<_, _> = changes.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
    assert!(read::response(&rows, &a, &id("r1")).is_ok() && read::conversation(&rows, &a, &id("c1")).is_ok());
    assert_eq!(read::commands(&rows), Ok(3));
}

fn some_history() -> World {
    let (mut world, a) = (World::default(), owner("a"));
    world.act(&a, create("c1", &["m1", "m2"]));
    world.begin(&a, Begin { conversation: Some(id("c1")), ..first("r1", &["i1"]) });
    world.finish(&a, "r1", None, &["o1", "o2"]);
    world.begin(&owner("b"), Begin { expires_ms: Some(5), ..first("r1", &["i1"]) });
    world
}

#[test]
fn an_export_is_put_in_where_nothing_is_and_nothing_else_is_taken_meanwhile() {
    let world = some_history();
    let rows: Vec<(ByteBuf, ByteBuf)> =
        world.rows.clone().into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    let restore = |at: usize, to: usize| Command::Restore {
        at: at as u64,
        rows: rows[at..to].to_vec(),
        is_last: to == rows.len(),
    };
    let (mut other, half) = (World::default(), rows.len() / 2);
    assert_eq!(other.run(restore(0, half)), Outcome::Done);
    assert_eq!(other.run(restore(0, half)), Outcome::Unchanged, "as after a lost answer");
    assert_eq!(other.begin(&owner("c"), first("r1", &[])), Outcome::Refused(Refusal::Restoring(half as u64)));
    assert_eq!(other.run(restore(half + 1, rows.len())), Outcome::Refused(Refusal::Gap(half as u64)));
    assert_eq!(other.run(restore(half, rows.len())), Outcome::Done);
    assert_eq!(other.run(restore(0, half)), Outcome::Refused(Refusal::NotEmpty));
    let owned = |it: &World| {
        it.rows.iter().filter(|it| it.0[0] == 1).map(|it| (it.0.clone(), it.1.clone())).collect::<Vec<_>>()
    };
    assert_eq!(owned(&other), owned(&world));
    assert_eq!(other.seen(), world.seen(), "its count, which is higher");
    assert_eq!(verify::verify(&other.rows).told, Vec::<String>::new());
}

#[test]
fn rows_that_were_damaged_are_told() {
    let world = some_history();
    let sound = verify::verify(&world.rows);
    assert_eq!((sound.faults, sound.total.responses, sound.total.conversations), (0, 2, 1), "{sound:?}");
    let owned: Vec<Vec<u8>> = world.rows.keys().filter(|it| it[0] == 1).cloned().collect();
    for key in owned {
        let mut gone = world.rows.clone();
        gone.remove(&key);
        // An item of which a later response had one of the same name is found by nobody, once that is deleted.
        let may_be_gone = matches!(keys::parse(&key), Some(keys::Parsed::ItemOf(..)));
        assert!(may_be_gone || verify::verify(&gone).faults > 0, "a row is missing: {:?}", keys::parse(&key));
        let mut cut = world.rows.clone();
        cut.insert(key.clone(), vec![1]);
        assert!(verify::verify(&cut).faults > 0, "a row is cut short: {:?}", keys::parse(&key));
    }
}
