//! What the core says to each event, one claim a test. Whole runs are in `replication/sim`.

use super::*;
use crate::replication::admin::Bounds;
use crate::replication::admin::InstanceId;
use crate::replication::dots::Dots;
use crate::replication::messages::Message;
use crate::replication::owned::PartDelta;
use crate::replication::owned::Rule;
use crate::replication::owned::Share;

const ADMIN: TableId = TableId(1);
const OWNED: TableId = TableId(2);
const STARVED: TableId = TableId(3);

fn specs() -> Vec<Spec> {
    let bounds = Bounds { entries_max: 3, bytes_max: 1 << 20, runs_max: 1000 };
    let share = Share { rows_max: 8, bytes_max: 4096 };
    let spec = |id, kind, bytes_per_s| Spec { id, name: "t", kind, bytes_per_s };
    vec![
        spec(ADMIN, Kind::Admin(bounds), 1 << 20),
        spec(OWNED, Kind::Owned(Rule::Keep, share), 1 << 20),
        spec(STARVED, Kind::Admin(bounds), 0),
    ]
}

fn member(n: u128) -> Member {
    Member { node: NodeId::parse(&format!("n{n}")).unwrap(), actor: Actor { storage: StorageId(n), boot: 1 } }
}

fn core(n: u128, others: &[u128]) -> Core {
    let mut core = Core::new(member(n), &specs(), Entropy::seeded(n as u64), Batch::new()).unwrap();
    step(&mut core, 0, Event::Members(others.iter().map(|it| member(*it)).collect()));
    core
}

fn now(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: Duration::from_millis(1_000_000 + ms) }
}

fn step(core: &mut Core, ms: u64, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    core.step(now(ms), event, &mut effects);
    effects
}

fn add(request: u64, id: u128) -> Event {
    Event::Edit(request, vec![Edit::Add(ADMIN, InstanceId(id), 1, vec![(0, 1, vec![1])])])
}

fn sent(effects: &[Effect]) -> Vec<(NodeId, Message)> {
    let message = |it: &Effect| match it {
        Effect::Send(to, _, frame) => Some((to.clone(), Message::decode(frame).unwrap())),
        _ => None,
    };
    effects.iter().filter_map(message).collect()
}

fn answers(effects: &[Effect]) -> Vec<Result<Settled, EditError>> {
    effects.iter().filter_map(|it| if let Effect::Answer(_, it) = it { Some(it.clone()) } else { None }).collect()
}

/// The acknowledgement of the push among these effects.
fn ack(effects: &[Effect]) -> Message {
    let push =
        sent(effects).into_iter().find_map(|it| if let Message::Push { push, .. } = it.1 { Some(push) } else { None });
    Message::Ack { push: push.unwrap() }
}

fn frame(message: &Message) -> Vec<u8> {
    message.encode().unwrap()
}

fn from(n: u128, message: &Message) -> Event {
    Event::Received(member(n).node, frame(message))
}

/// Stores what is to be stored, and returns what follows.
fn store(core: &mut Core, ms: u64, effects: &[Effect]) -> Vec<Effect> {
    let tokens = effects.iter().filter_map(|it| if let Effect::Store(token, _) = it { Some(*token) } else { None });
    tokens.flat_map(|token| step(core, ms, Event::Stored(token))).collect()
}

#[test]
fn alone_an_edit_is_answered_by_the_own_disk() {
    let mut it = core(1, &[]);
    let effects = step(&mut it, 1, add(1, 1));
    assert!(answers(&effects).is_empty(), "not before it is durable");
    assert_eq!(answers(&store(&mut it, 2, &effects)), [Ok(Settled { is_safe: true, pending: vec![] })]);
}

#[test]
fn with_others_it_is_answered_by_the_own_disk_and_one_of_them_and_says_who_lacks_it() {
    let mut it = core(1, &[2, 3]);
    let effects = step(&mut it, 1, add(1, 1));
    assert_eq!(sent(&effects).len(), 2, "it goes to every member at once");
    assert!(answers(&step(&mut it, 2, from(2, &ack(&effects)))).is_empty(), "the own disk is missing");
    let settled = Settled { is_safe: true, pending: vec![member(3).node] };
    assert_eq!(answers(&store(&mut it, 3, &effects)), [Ok(settled)]);
    assert_eq!(
        sent(&step(&mut it, 400, Event::Tick)).iter().filter(|it| matches!(it.1, Message::Push { .. })).count(),
        1
    );
    step(&mut it, 500, from(3, &ack(&effects)));
    assert!(it.pushing.is_empty());
}

#[test]
fn an_acknowledgement_of_an_earlier_life_counts_for_nothing() {
    let mut earlier = core(1, &[2]);
    let late = ack(&step(&mut earlier, 1, add(1, 1)));
    let again = Member { actor: Actor { boot: 2, ..member(1).actor }, ..member(1) };
    let mut it = Core::new(again, &specs(), Entropy::seeded(99), Batch::new()).unwrap();
    step(&mut it, 1, Event::Members(vec![member(2)]));
    let effects = step(&mut it, 2, add(1, 2));
    store(&mut it, 3, &effects);
    assert!(answers(&step(&mut it, 4, from(2, &late))).is_empty());
    assert_eq!(answers(&step(&mut it, 5, from(2, &ack(&effects)))).len(), 1);
}

#[test]
fn nobody_waits_for_a_member_that_is_down_nor_for_ever() {
    let mut it = core(1, &[2]);
    let effects = step(&mut it, 1, add(1, 1));
    assert!(answers(&store(&mut it, 2, &effects)).is_empty());
    assert_eq!(answers(&step(&mut it, 3, Event::Members(Vec::new()))).len(), 1);

    let mut it = core(1, &[2]);
    let effects = step(&mut it, 1, add(1, 1));
    store(&mut it, 2, &effects);
    let late: Vec<_> = (1..30).flat_map(|n| answers(&step(&mut it, n * 300, Event::Tick))).collect();
    assert_eq!(late, [Ok(Settled { is_safe: false, pending: vec![member(2).node] })]);
}

#[test]
fn a_push_is_passed_on_once_and_acknowledged_when_it_is_durable() {
    let (mut a, mut b) = (core(1, &[2, 3]), core(2, &[1, 3]));
    let effects = step(&mut a, 1, add(1, 1));
    let push = sent(&effects)[0].1.clone();
    let first = step(&mut b, 2, from(1, &push));
    let to: Vec<_> = sent(&first).into_iter().map(|it| it.0).collect();
    assert_eq!(to, [member(3).node], "passed on, not yet acknowledged");
    let after = store(&mut b, 3, &first);
    assert_eq!(sent(&after), [(member(1).node, ack(&effects))]);
    let again = step(&mut b, 4, from(1, &push));
    assert!(sent(&again).is_empty(), "no news is not passed on");
    assert_eq!(sent(&store(&mut b, 5, &again)).len(), 1, "but acknowledged: the first one may be lost");
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged_and_nothing_edited() {
    let (mut a, mut b) = (core(1, &[2]), core(2, &[1]));
    let push = sent(&step(&mut a, 1, add(1, 1)))[0].1.clone();
    step(&mut b, 2, Event::StoreFailed);
    let effects = step(&mut b, 3, from(1, &push));
    assert!(store(&mut b, 4, &effects).is_empty());
    assert_eq!(answers(&step(&mut b, 5, add(1, 2))), [Err(EditError::DiskFailed)]);
}

#[test]
fn all_edits_of_a_request_are_made_or_none() {
    let mut it = core(1, &[]);
    step(&mut it, 1, add(1, 1));
    let before = it.admin(ADMIN).unwrap().clone();
    let edits = vec![
        Edit::Set(ADMIN, InstanceId(1), vec![(0, 1, vec![2])]),
        Edit::Add(ADMIN, InstanceId(2), 1, vec![]),
        Edit::Delete(ADMIN, InstanceId(1)),
        Edit::Delete(ADMIN, InstanceId(77)),
    ];
    let effects = step(&mut it, 2, Event::Edit(2, edits));
    assert_eq!(answers(&effects), [Err(EditError::Refused(Refusal::Unknown))]);
    assert!(*it.admin(ADMIN).unwrap() == before && effects.len() == 1);
    assert_eq!(it.admin(ADMIN).unwrap().digest(), before.digest());
}

#[test]
fn strangers_garbage_and_unknown_tables_are_counted_and_change_nothing() {
    let mut it = core(1, &[2]);
    let digest = Message::Digest { is_answer: true, wall: Duration::ZERO, tables: vec![(TableId(999), 1)] };
    assert!(step(&mut it, 1, from(9, &digest)).is_empty());
    assert!(step(&mut it, 2, Event::Received(member(2).node, vec![1, 99, 7])).is_empty());
    step(&mut it, 3, from(2, &digest));
    assert_eq!((it.counts().strangers, it.counts().garbage, it.counts().unknown_tables), (1, 1, 1));
}

#[test]
fn a_member_that_writes_what_it_does_not_own_is_refused_and_counted() {
    let mut it = core(1, &[2]);
    step(&mut it, 1, Event::Publish(OWNED, vec![(vec![1], Some(vec![1]))]));
    let part = |owner: u128, boot| PartDelta {
        owner: StorageId(owner),
        boot,
        from: 0,
        to: 9,
        head: 9,
        floor: 0,
        rows: vec![],
    };
    // This node's own rows, rows of a life that is not here, rows of an admin table.
    for (table, part) in [(OWNED, part(1, 1)), (OWNED, part(2, 7)), (ADMIN, part(2, 1))] {
        step(&mut it, 2, from(2, &Message::Parts { table, parts: vec![part], is_all: true }));
    }
    assert_eq!(it.counts().not_owner, 3);
    assert_eq!(it.owned(OWNED).unwrap().heads(), [(StorageId(1), 1, 1)]);
    // What it believes of this node it learns better when it asks.
    step(&mut it, 3, from(2, &Message::PullParts { table: OWNED, heads: vec![(StorageId(1), 1, 50)] }));
    assert_eq!((it.counts().refuted, it.owned(OWNED).unwrap().heads()[0].2), (1, 52));
}

#[test]
fn what_a_forgotten_member_said_goes_and_does_not_return() {
    let mut it = core(1, &[2]);
    let parts = vec![PartDelta { owner: StorageId(5), boot: 1, from: 0, to: 1, head: 1, floor: 0, rows: vec![] }];
    let message = Message::Parts { table: OWNED, parts, is_all: true };
    step(&mut it, 1, from(2, &message));
    assert_eq!(it.owned(OWNED).unwrap().heads().len(), 1, "it outlives its owner");
    step(&mut it, 2, Event::Forget(StorageId(5)));
    step(&mut it, 3, from(2, &message));
    assert!(it.owned(OWNED).unwrap().heads().is_empty());
}

#[test]
fn field_15_a_table_that_cannot_be_exchanged_turns_red_and_stops_no_other() {
    let (mut a, mut b) = (core(1, &[2]), core(2, &[1]));
    step(&mut a, 1, add(1, 1));
    step(&mut a, 1, Event::Edit(2, vec![Edit::Add(STARVED, InstanceId(5), 1, vec![])]));
    for ms in (0..8000).step_by(250) {
        let mut inbox: Vec<(u128, Vec<Effect>)> =
            vec![(2, step(&mut a, ms, Event::Tick)), (1, step(&mut b, ms, Event::Tick))];
        while let Some((to, effects)) = inbox.pop() {
            let target = if to == 1 { &mut a } else { &mut b };
            for (_, message) in sent(&effects) {
                // Pushes are lost, so anti-entropy has to do it.
                if !matches!(message, Message::Push { .. }) {
                    let effects = step(target, ms, from(3 - to, &message));
                    inbox.push((3 - to, effects));
                }
            }
        }
    }
    assert_eq!(b.admin(ADMIN).unwrap().entries().count(), 1);
    let red: Vec<_> = b.colours().into_iter().filter(|it| it.is_red).map(|it| it.table).collect();
    assert_eq!(red, [STARVED]);
    assert!(a.counts().deferred > 0 && b.colours()[0].is_in_force);
}

#[test]
fn a_row_that_cannot_be_read_stops_the_start() {
    let mut it = core(1, &[]);
    let effects = step(&mut it, 1, add(1, 1));
    let rows = |effects: &[Effect]| {
        effects.iter().find_map(|it| if let Effect::Store(_, it) = it { Some(it.clone()) } else { None })
    };
    let good = rows(&effects).unwrap();
    let start = |rows| Core::new(member(1), &specs(), Entropy::seeded(1), rows);
    let again = start(good.clone()).unwrap();
    assert!(again.admin(ADMIN) == it.admin(ADMIN));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at].value = Some(vec![9, 9, 9]);
        assert!(matches!(start(bad), Err(LoadError::Damaged { table: 1, .. })));
    }
}

proptest::proptest! {
    #[test]
    fn no_frame_makes_a_core_panic(frames in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), 0..20)) {
        let mut it = core(1, &[2]);
        for bytes in frames {
            let frame = [&[crate::transport::wire::VERSION], &bytes[..]].concat();
            step(&mut it, 1, Event::Received(member(2).node, frame));
        }
    }
}

/// Rows of an owner that the joiner has not met yet are refused: it would be ready without them.
#[test]
fn field_08_a_joiner_is_not_in_force_while_it_lacks_rows_of_members_it_has_not_met() {
    let share = Share { rows_max: 8, bytes_max: 4096 };
    let fleeting = vec![Spec { id: OWNED, name: "t", kind: Kind::Owned(Rule::Drop, share), bytes_per_s: 1 << 20 }];
    let made = |n: u128| Core::new(member(n), &fleeting, Entropy::seeded(n as u64), Batch::new()).unwrap();
    let (mut placer, mut joiner) = (made(1), made(3));
    step(&mut placer, 0, Event::Members(vec![member(2)]));
    let rows = step(&mut placer, 0, Event::Publish(OWNED, vec![(b"prefix".to_vec(), Some(vec![1]))]));
    let Some(Effect::Send(_, _, parts)) = rows.into_iter().find(|it| matches!(it, Effect::Send(..))) else {
        panic!("it is told to the other member");
    };
    step(&mut joiner, 0, Event::Members(vec![member(2)]));
    step(&mut joiner, 1, Event::Received(member(2).node, parts.clone()));
    assert!(!joiner.is_in_force(), "the rows are member 1's, and it has not met it");
    step(&mut joiner, 2, Event::Members(vec![member(1), member(2)]));
    assert!(!sent(&step(&mut joiner, 250, Event::Tick)).is_empty(), "it looks again soon");
    step(&mut joiner, 251, Event::Received(member(2).node, parts));
    assert!(joiner.is_in_force());
    let seen = joiner.owned(OWNED).map(|it| it.rows(Duration::ZERO).count());
    assert_eq!(seen, Some(1));
}

/// Everything that two cores said to each other while one of each was edited, and what the first put on disk.
static SAID: std::sync::LazyLock<(Vec<Vec<u8>>, Batch)> = std::sync::LazyLock::new(|| {
    let (mut a, mut b) = (core(1, &[2]), core(2, &[1]));
    let (mut frames, mut rows) = (Vec::new(), Batch::new());
    for ms in (0..3000).step_by(250) {
        let mut inbox = vec![(2, step(&mut a, ms, Event::Tick)), (1, step(&mut b, ms, Event::Tick))];
        if ms % 1000 == 0 {
            inbox.push((2, step(&mut a, ms, add(ms, u128::from(ms) + 1))));
            inbox.push((1, step(&mut b, ms, Event::Publish(OWNED, vec![(vec![ms as u8], Some(vec![1; 9]))]))));
        }
        while let Some((to, effects)) = inbox.pop() {
            let target = if to == 1 { &mut a } else { &mut b };
            for effect in &effects {
                match effect {
                    Effect::Send(_, _, frame) => {
                        frames.push(frame.clone());
                        inbox.push((3 - to, step(target, ms, Event::Received(member(3 - to).node, frame.clone()))));
                    }
                    Effect::Store(_, batch) => rows.extend(batch.iter().cloned()),
                    _ => {}
                }
            }
        }
    }
    // Contexts with gaps, and such as nobody has: a question after `known`, as it travels.
    type Lives = Vec<(u128, Vec<(u64, Vec<(u64, u64)>)>)>;
    for runs in [
        vec![(1, 0), (2, 5)],
        vec![(1, 0), (u64::MAX, 0)],
        vec![(1, u64::MAX - 1), (1, 0)],
        vec![(1 << 62, 1 << 62)],
        vec![(0, 0)],
    ] {
        let known: Lives = vec![(2, vec![(1, runs)])];
        frames.push(crate::transport::wire::encode(&(3_u8, ADMIN, 7_u64, known, None::<()>)).unwrap());
    }
    let is_read: Vec<_> = frames[frames.len() - 5..].iter().map(|it| Message::decode(it).is_ok()).collect();
    assert_eq!(
        is_read,
        [true, false, false, false, false],
        "the first of them is a question, the others have counts that cannot be"
    );
    let kinds: std::collections::BTreeSet<_> = frames.iter().map(|it| it[1]).collect();
    assert!(kinds.len() >= 6 && !rows.is_empty(), "frames of nearly every kind: {kinds:?}");
    // As they lie there afterwards: the last of each.
    let last: std::collections::BTreeMap<_, _> = rows.into_iter().map(|it| ((it.table, it.key.clone()), it)).collect();
    let rows: Batch = last.into_values().filter(|it| it.value.is_some()).collect();
    let is_admins = |it: &crate::replication::store::Row| it.table == ADMIN && !it.key.is_empty();
    assert!(
        rows.iter().any(is_admins)
            && rows.iter().any(|it| it.table == OWNED)
            && rows.iter().any(|it| it.key.is_empty())
    );
    assert!(Core::new(member(1), &specs(), Entropy::seeded(1), rows.clone()).is_ok(), "it starts with them");
    (frames, rows)
});

proptest::proptest! {
    #![proptest_config(crate::base::fuzz::config())]

    #[test]
    fn fuzz_damaged_frames_are_taken_or_refused(frames in proptest::collection::vec(crate::base::fuzz::damaged(SAID.0.clone()), 0..12)) {
        let mut it = core(1, &[2]);
        for (ms, frame) in (0..).zip(frames) {
            crate::base::fuzz::whole(crate::replication::messages::FRAME_BYTES_MAX, 1, &frame, |it| Message::decode(it).ok(), |it| it.encode().unwrap());
            step(&mut it, 250 * ms, Event::Received(member(2).node, frame));
            step(&mut it, 250 * ms, Event::Tick);
        }
    }

    #[test]
    fn fuzz_damaged_rows_stop_the_start_and_nothing_else(at in proptest::prelude::any::<proptest::sample::Index>(), seed in proptest::prelude::any::<proptest::sample::Index>(), length in proptest::prelude::any::<proptest::sample::Index>(), bytes in crate::base::fuzz::damaged(SAID.1.iter().filter_map(|it| it.value.clone()).collect())) {
        let mut rows = SAID.1.clone();
        let (at, other) = (at.index(rows.len()), seed.index(rows.len()));
        let start = |rows: Batch| crate::base::fuzz::within(1 << 20, || Core::new(member(1), &specs(), Entropy::seeded(1), rows).map(drop));
        rows[at].value = Some(bytes.clone());
        let is_readable = match (rows[at].table, rows[at].key.is_empty()) {
            (OWNED, _) => crate::transport::wire::decode::<PartDelta, 65536>(&bytes).is_ok(),
            (_, true) => crate::transport::wire::decode::<Dots, 65536>(&bytes).is_ok(),
            (_, false) => crate::transport::wire::decode::<crate::replication::admin::Entry, 65536>(&bytes).is_ok(),
        };
        let started = start(rows.clone());
        // Rows of an owner have bounds besides.
        proptest::prop_assert!(started.is_err() || is_readable, "a row that cannot be read was passed over");
        proptest::prop_assert!(started.is_ok() || !is_readable || rows[at].table == OWNED, "{started:?}");
        // A key that is cut is the context's, or none.
        let mut rows = SAID.1.clone();
        let cut = length.index(rows[other].key.len().max(1));
        let is_cut = rows[other].table != OWNED && rows[other].value.is_some() && cut > 0 && cut < rows[other].key.len();
        rows[other].key.truncate(cut);
        proptest::prop_assert!(start(rows).is_err() || !is_cut, "a key of {cut} bytes was taken");
    }
}
