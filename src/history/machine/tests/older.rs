//! The log of an older release is carried out as it was there: the same answers, and the same rows on disk. Members of both releases carry out the same log.

use super::*;
use crate::base::older::Older;
use crate::raft::RowChange;

/// One of each command that a cluster of these releases may have in its log, in an order in which each does something.
#[expect(clippy::too_many_lines, reason = "one of each, and their order matters")]
fn log() -> Vec<Entry> {
    let a = Owner::new(&TenantId::parse("team").unwrap(), Some("ci")).unwrap();
    let of = |act| Command::Of { owner: a.clone(), room: ROOM, act: Box::new(act) };
    let key = |key: &str| Some(Idempotency { key: key.to_owned(), fingerprint: 1 << 100, expires_ms: 90_000 });
    let (lives, other) = (lease(u128::MAX, 3, 1), lease(9, 300, 70_000));
    let background = Begin {
        previous: Some(id("r1")),
        conversation: Some(id("c1")),
        lease: Some(lives),
        is_background: true,
        key: key("begin"),
        expires_ms: Some(100_000),
        ..first("r2", &["i2", "i3"])
    };
    let finish = |response: &str, attempt, status, output: &[&str]| {
        of(Act::Finish(Finish {
            response: id(response),
            attempt,
            status,
            body: b"ended".to_vec(),
            output: items(output),
        }))
    };
    let conversation = Act::CreateConversation {
        conversation: id("c1"),
        created_ms: 1_790_000_000_000,
        metadata: br#"{"k":"v"}"#.to_vec(),
        items: items(&["m1"]),
        key: key("create"),
        expires_ms: Some(80_000),
    };
    let added = Act::AddItems { conversation: id("c1"), items: items(&["m2", "m3"]), key: key("add") };
    let events = |attempt, first, events: &[&str]| {
        let events = events.iter().map(|it| it.as_bytes().to_vec()).collect();
        of(Act::Events { response: id("r2"), attempt, first, events })
    };
    let whole = codec::encode(&of(Act::CreateConversation {
        conversation: id("c2"),
        created_ms: 2,
        metadata: b"{}".to_vec(),
        items: items(&["long"]),
        key: None,
        expires_ms: None,
    }))
    .unwrap();
    let (head, tail) = whole.split_at(20);
    let part = |at, bytes: &[u8]| Command::Part { upload: 77, at, bytes: bytes.to_vec() };
    let commands = vec![
        Command::Renew { lease: lives, beat: 1 },
        Command::Renew { lease: other, beat: 1 },
        of(conversation),
        of(Act::Begin(Box::new(first("r1", &["i1"])))),
        finish("r1", None, Status::Completed, &["o1"]),
        of(Act::Begin(Box::new(background))),
        events(1, 0, &["one", "two"]),
        of(added),
        of(Act::UpdateConversation { conversation: id("c1"), metadata: b"{}".to_vec() }),
        of(Act::DeleteItem { conversation: id("c1"), item: id("m2") }),
        Command::Lapse { lease: lives, beat: 1 },
        of(Act::Claim { response: id("r2"), lease: other }),
        events(2, 2, &["three"]),
        events(1, 3, &["late"]),
        finish("r2", Some(2), Status::Incomplete, &["o2"]),
        of(Act::Begin(Box::new(first("r3", &["i4"])))),
        of(Act::Cancel { response: id("r3") }),
        of(Act::DeleteResponse { response: id("r1") }),
        part(0, head),
        part(1, tail),
        Command::Run { upload: 77, parts: 2 },
        of(Act::DeleteConversation { conversation: id("nobody") }),
        Command::Expire { now_ms: 85_000 },
    ];
    let ids = 1_000_000..;
    ids.zip(commands).map(|(id, command)| Entry { id: CommandId(id), seen: 0, command }).collect()
}

#[test]
fn the_log_of_an_older_release_is_carried_out_as_it_was_there() {
    let (mut world, log) = (World::default(), log());
    let names: Vec<_> = (0..log.len()).map(|it| ["entry", "outcome", "rows"].map(|of| format!("{of}_{it}"))).collect();
    let mut now = Vec::new();
    for (entry, [entry_name, outcome_name, rows_name]) in log.iter().zip(&names) {
        let bytes = entry.encode().unwrap();
        let (outcome, changes) = step(&world.rows, &bytes).unwrap();
        world.apply(entry);
        now.push((entry_name.as_str(), bytes));
        now.push((outcome_name.as_str(), outcome.encode().unwrap()));
        now.push((rows_name.as_str(), codec::encode(&changes).unwrap()));
    }
    let batch = || Batch(log.iter().take(3).map(|it| it.encode().unwrap()).collect());
    let outcomes = || Outcomes(vec![Outcome::Done, Outcome::Refused(Refusal::Stale)]);
    now.push(("batch", batch().encode().unwrap()));
    now.push(("outcomes", outcomes().encode().unwrap()));
    let older = Older::of("src/history/machine/tests/older.hex", &now);

    assert_eq!(Batch::decode(older.bytes("batch")).unwrap(), batch());
    assert_eq!(Outcomes::decode(older.bytes("outcomes")).unwrap(), outcomes());

    // From what was written there alone.
    let mut rows = BTreeMap::new();
    for (entry, [entry_name, outcome_name, rows_name]) in log.iter().zip(&names) {
        assert_eq!(Entry::decode(older.bytes(entry_name)).unwrap(), *entry);
        let (outcome, changes) = step(&rows, older.bytes(entry_name)).unwrap();
        assert_eq!(Outcome::decode(older.bytes(outcome_name)).unwrap(), outcome, "{entry:?}");
        assert_eq!(codec::decode::<Vec<RowChange>>(older.bytes(rows_name)).unwrap(), changes, "{entry:?}");
        for (key, value) in changes {
            match value {
                Some(value) => drop(rows.insert(key, value)),
                None => drop(rows.remove(&key)),
            }
        }
    }
    let (world, a) = (World { rows, names: 0 }, Owner::new(&TenantId::parse("team").unwrap(), Some("ci")).unwrap());
    assert_eq!(world.status(&a, "r2"), Some(Status::Incomplete));
    assert_eq!(super::names(&read::items(&world.rows, &a, &id("r2"), Of::Input).unwrap()), ["i2", "i3"]);
    assert_eq!(world.page(&a, "c2", None, false, 9), ["long"]);
}
