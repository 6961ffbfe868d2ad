//! What nodes of an older release say about tables, and what they left on disk, is read.

use std::time::Duration;

use super::admin::Change;
use super::admin::Entry;
use super::admin::Field;
use super::admin::InstanceId;
use super::admin::Key;
use super::admin::Slice;
use super::dots::Actor;
use super::dots::Dot;
use super::dots::Dots;
use super::hlc::Stamp;
use super::messages::Message;
use super::owned::PartDelta;
use super::owned::RowDelta;
use super::tables::TableId;
use crate::base::ids::StorageId;
use crate::base::older::Older;
use crate::membership::about::About;
use crate::transport::wire;

const VALUE_BYTES_MAX: usize = 1 << 20;

fn dot(storage: u128, count: u64) -> Dot {
    Dot { actor: Actor { storage: StorageId(storage), boot: 3 }, count }
}

fn key() -> Key {
    Key { id: InstanceId(0x1111_2222_3333_4444_5555_6666_7777_8888), birth: dot(u128::MAX, 70_000) }
}

fn entry() -> Entry {
    let stamp = |ms| Stamp::at(Duration::from_millis(ms));
    let field =
        |ms, count, bytes: &[u8]| Field { stamp: stamp(ms), dot: dot(7, count), version: 1, bytes: bytes.to_vec() };
    let fields = [(1, field(1_790_000_000_001, 1, b"\"http://w\"")), (300, field(1_790_000_000_002, 251, b""))];
    Entry { kind: 2, born: stamp(1_790_000_000_000), fields: fields.into() }
}

fn dots() -> Dots {
    [dot(7, 1), dot(7, 2), dot(7, 9), dot(u128::MAX, 70_000)].into_iter().collect()
}

fn part() -> PartDelta {
    let row = |name: &[u8], version, bytes: Option<&[u8]>| RowDelta {
        name: name.to_vec(),
        version,
        age_ms: 65_536,
        bytes: bytes.map(<[u8]>::to_vec),
    };
    let rows = vec![row(b"about", 4, Some(b"value")), row(b"gone", 5, None)];
    PartDelta { owner: StorageId(7), boot: 3, from: 3, to: 5, head: 6, floor: 2, rows }
}

fn about() -> About {
    let text = ToOwned::to_owned;
    let (name, release, zone, http) = (text("gw-1"), text("0.1.0"), text("rack-1"), text("http://10.0.0.1:30000"));
    About { name, release, zone, started: 1_790_000_000, http, features: vec![text("x")] }
}

fn messages() -> Vec<(&'static str, Message)> {
    let table = TableId(4);
    let slice = Slice {
        after: None,
        upto: Some(key()),
        entries: vec![(key(), entry())],
        alive: [dot(7, 1)].into_iter().collect(),
        context: Some(dots()),
    };
    let wall = Duration::from_millis(1_790_000_000_123);
    let changes = vec![(table, Change::Put(key(), entry())), (TableId(300), Change::Gone(key(), dot(7, 9)))];
    vec![
        ("digest", Message::Digest { is_answer: true, wall, tables: vec![(table, u128::MAX - 1)] }),
        ("push", Message::Push { push: 9, changes }),
        ("ack", Message::Ack { push: 9 }),
        ("pull", Message::Pull { table, nonce: 5, known: dots(), after: Some(key()) }),
        ("slice", Message::Slice { table, nonce: 5, slice }),
        ("pull_parts", Message::PullParts { table, heads: vec![(StorageId(7), 3, 5)] }),
        ("parts", Message::Parts { table, parts: vec![part()], is_all: false }),
    ]
}

#[test]
fn what_an_older_release_said_and_kept_of_tables_is_read() {
    let mut now: Vec<_> = messages().iter().map(|(name, it)| (*name, it.encode().unwrap())).collect();
    now.push(("row_of_admin", wire::encode(&entry()).unwrap()));
    now.push(("row_of_context", wire::encode(&dots()).unwrap()));
    now.push(("row_of_owner", wire::encode(&part()).unwrap()));
    now.push(("row_about", about().encode()));
    let older = Older::of("src/replication/older.hex", &now);
    for (name, message) in messages() {
        assert_eq!(Message::decode(older.bytes(name)).unwrap(), message, "{name}");
    }
    assert_eq!(wire::decode::<Entry, VALUE_BYTES_MAX>(older.bytes("row_of_admin")).unwrap(), entry());
    assert_eq!(wire::decode::<Dots, VALUE_BYTES_MAX>(older.bytes("row_of_context")).unwrap(), dots());
    assert_eq!(wire::decode::<PartDelta, VALUE_BYTES_MAX>(older.bytes("row_of_owner")).unwrap(), part());
    assert_eq!(About::decode(older.bytes("row_about")), Some(about()));
}
