//! Commands and rows that are like some, damaged: carried out or refused, and the rows that are left fit.

use proptest::prelude::*;

use super::*;
use crate::base::fuzz;

/// Commands that no owner of the plans gives.
fn others() -> Vec<Vec<u8>> {
    let lease = Lease { storage: StorageId(1), boot: 1, number: 1 };
    let inner = Command::Of { owner: owner("a"), room: ROOM, act: Box::new(delete("r1")) };
    let odd: Id = codec::decode(&codec::encode("a b").unwrap()).unwrap();
    let unsound = Begin { response: odd, ..first("r1", &["i1"]) };
    [
        Command::Of { owner: owner("a"), room: ROOM, act: Box::new(Act::Begin(Box::new(unsound))) },
        Command::Part { upload: 7, at: 0, bytes: codec::encode(&inner).unwrap() },
        Command::Run { upload: 7, parts: 1 },
        Command::Renew { lease, beat: 3 },
        Command::Lapse { lease, beat: 3 },
        Command::Expire { now_ms: 100 },
        Command::Restore {
            at: 0,
            rows: vec![(serde_bytes::ByteBuf::from(b"k".to_vec()), serde_bytes::ByteBuf::from(b"v".to_vec()))],
            is_last: false,
        },
    ]
    .map(|command| Entry { id: CommandId(5), seen: 0, command }.encode().unwrap())
    .into()
}

/// Whether a row's names are such that a client can say.
fn is_named(key: &[u8]) -> bool {
    use keys::Parsed;
    let is_id = |it: &Id| Id::parse(it.as_str()).is_ok();
    match keys::parse(key) {
        Some(
            Parsed::Response(owner, id)
            | Parsed::Body(owner, id)
            | Parsed::Item(owner, id, _)
            | Parsed::Event(owner, id),
        ) => owner.is_sound() && is_id(&id),
        Some(Parsed::Conversation(owner, id) | Parsed::Entry(owner, id, _) | Parsed::ItemOf(owner, id)) => {
            owner.is_sound() && is_id(&id)
        }
        Some(Parsed::Place(owner, id, item)) => owner.is_sound() && is_id(&id) && is_id(&item),
        Some(Parsed::Usage(owner)) => owner.is_sound(),
        Some(_) => true,
        None => false,
    }
}

proptest! {
    #![proptest_config(fuzz::config())]

    /// Any command that is like one, after any others; and then any row that is like one.
    #[test]
    fn fuzz_damaged_commands_and_rows_are_carried_out_or_refused(
        plan in plans(),
        damaged in proptest::collection::vec(prop_oneof![
            fuzz::damaged(others()),
            acts().prop_flat_map(|act| {
                let command = Command::Of { owner: owner("a"), room: ROOM, act: Box::new(act) };
                fuzz::damaged(vec![Entry { id: CommandId(1 << 90), seen: 0, command }.encode().unwrap()])
            }),
        ], 1..4),
        at in any::<proptest::sample::Index>(),
        hurt in fuzz::Damages::any(),
    ) {
        let mut world = World::default();
        for (_, act, _) in plan.into_iter().take(8) {
            world.act(&owner("a"), act);
        }
        for command in damaged {
            if let Ok((_, changes)) = fuzz::within(codec::BYTES_MAX, || step(&world.rows, &command)) {
                for (key, value) in changes {
                    prop_assert!(is_named(&key), "nobody could delete {key:02x?}");
                    match value {
                        Some(value) => drop(world.rows.insert(key, value)),
                        None => drop(world.rows.remove(&key)),
                    }
                }
                let report = verify::verify(&world.rows);
                prop_assert_eq!(report.told.first(), None, "rows that do not fit after {:?}", command);
            }
        }
        if let Some(key) = world.rows.keys().nth(at.index(world.rows.len().max(1))).cloned() {
            let row = world.rows.get_mut(&key).expect("it is there");
            *row = hurt.of(std::mem::take(row));
            drop(verify::verify(&world.rows));
            for n in 0..4 {
                let (owner, id) = (owner("a"), id(&format!("r{n}")));
                // Any answer will do.
                let _ = (read::response(&world.rows, &owner, &id), read::items(&world.rows, &owner, &id, Of::Input), read::chain(&world.rows, &owner, &id, u64::MAX));
                let _ = step(&world.rows, &others()[n]);
            }
        }
    }
}
