//! Any commands in any order: what was promised of each holds, and nothing is left of what was deleted.

mod fuzz;
mod rows;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::keys::Key;
use super::read;
use super::read::Missing;
use super::read::Of;
use super::read::Page;
use super::step::Head;
use super::*;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::history::Id;
use crate::history::Item;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Status;
use crate::history::Usage;
use crate::history::faults::Fault;
use crate::history::faults::plant;
use crate::raft::Coded as _;
use crate::storage::codec;

const ROOM: Room = Room { bytes_max: 1 << 20 };

#[derive(Clone, Default)]
struct World {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    names: u128,
}

impl World {
    fn apply(&mut self, entry: &Entry) -> Outcome {
        let (outcome, changes) = step(&self.rows, &entry.encode().unwrap()).unwrap();
        for (key, value) in changes {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => drop(self.rows.remove(&key)),
            }
        }
        outcome
    }

    fn run(&mut self, command: Command) -> Outcome {
        self.names += 1;
        let entry = Entry { id: CommandId(self.names + 1_000_000), seen: self.seen(), command };
        self.apply(&entry)
    }

    fn seen(&self) -> u64 {
        read::commands(&self.rows).unwrap()
    }

    /// As if so many commands had been carried out.
    fn set_commands(&mut self, commands: u64) {
        let head = Head { commands, ..Head::default() };
        self.rows.insert(Key::Head.encode(), codec::encode(&head).unwrap());
    }

    fn act(&mut self, owner: &Owner, act: Act) -> Outcome {
        self.run(Command::Of { owner: owner.clone(), room: ROOM, act: Box::new(act) })
    }

    fn begin(&mut self, owner: &Owner, begin: Begin) -> Outcome {
        self.act(owner, Act::Begin(Box::new(begin)))
    }

    fn finish(&mut self, owner: &Owner, response: &str, attempt: Option<u32>, output: &[&str]) -> Outcome {
        let finish = Finish {
            response: id(response),
            attempt,
            status: Status::Completed,
            body: b"ended".to_vec(),
            output: items(output),
        };
        self.act(owner, Act::Finish(finish))
    }

    fn status(&self, owner: &Owner, response: &str) -> Option<Status> {
        read::response(&self.rows, owner, &id(response)).ok().map(|it| it.0.status)
    }

    fn chain(&self, owner: &Owner, response: &str) -> Result<Vec<String>, Missing> {
        read::chain(&self.rows, owner, &id(response), 1 << 20).map(|it| names(&it))
    }

    fn page(&self, owner: &Owner, conversation: &str, after: Option<&str>, is_back: bool, most: usize) -> Vec<String> {
        let page = Page { after: after.map(id), is_back, most };
        names(&read::conversation_items(&self.rows, owner, &id(conversation), &page).unwrap())
    }

    /// Rows that belong to an owner.
    fn owned(&self) -> usize {
        self.rows.keys().filter(|it| it[0] == 1).count()
    }
}

fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
}

fn owner(tenant: &str) -> Owner {
    Owner::new(&TenantId::parse(tenant).unwrap(), None).unwrap()
}

fn item(name: &str) -> Item {
    Item { id: id(name), json: format!("content of {name}").into_bytes() }
}

fn items(names: &[&str]) -> Vec<Item> {
    names.iter().map(|it| item(it)).collect()
}

fn names(items: &[Item]) -> Vec<String> {
    items.iter().map(|it| it.id.to_string()).collect()
}

fn first(response: &str, input: &[&str]) -> Begin {
    Begin {
        response: id(response),
        created_ms: 1,
        previous: None,
        conversation: None,
        input: items(input),
        body: b"begun".to_vec(),
        lease: None,
        is_background: false,
        key: None,
        expires_ms: None,
    }
}

fn create(conversation: &str, with: &[&str]) -> Act {
    let (metadata, items) = (b"{}".to_vec(), items(with));
    Act::CreateConversation {
        conversation: id(conversation),
        created_ms: 1,
        metadata,
        items,
        key: None,
        expires_ms: None,
    }
}

fn delete(response: &str) -> Act {
    Act::DeleteResponse { response: id(response) }
}

fn lease(storage: u128, boot: u64, number: u64) -> Lease {
    Lease { storage: StorageId(storage), boot, number }
}

fn not_found(of: &str) -> Outcome {
    Outcome::Refused(Refusal::NotFound(id(of)))
}

#[test]
fn a_turn_continues_another_and_reads_all_before_it() {
    let (mut world, a) = (World::default(), owner("a"));
    assert_eq!(world.begin(&a, first("r1", &["i1"])), Outcome::Done);
    let second = || Begin { previous: Some(id("r1")), ..first("r2", &["i2", "i3"]) };
    assert_eq!(world.begin(&a, second()), Outcome::Refused(Refusal::Unfinished(id("r1"))));
    assert_eq!(world.finish(&a, "r1", None, &["o1"]), Outcome::Done);
    assert_eq!(world.begin(&a, second()), Outcome::Done);
    assert_eq!(world.finish(&a, "r2", None, &["o2"]), Outcome::Done);
    assert_eq!(world.chain(&a, "r2").unwrap(), ["i1", "o1", "i2", "i3", "o2"]);
    assert_eq!(names(&read::items(&world.rows, &a, &id("r2"), Of::Input).unwrap()), ["i2", "i3"]);
    assert_eq!(names(&read::items(&world.rows, &a, &id("r2"), Of::Output).unwrap()), ["o2"]);
    assert_eq!(read::item(&world.rows, &a, &id("o1")), Ok(item("o1")));
    let (row, body) = read::response(&world.rows, &a, &id("r2")).unwrap();
    assert_eq!((row.depth, row.inputs, row.outputs, body), (1, 2, 1, b"ended".to_vec()));
    assert_eq!(read::chain(&world.rows, &a, &id("r2"), 10), Err(Missing::TooLarge(10)));
    // What it continues goes: that is said, and nothing of it is read.
    assert_eq!(world.act(&a, delete("r1")), Outcome::Done);
    assert_eq!(world.chain(&a, "r2"), Err(Missing::Broken { of: id("r2"), gone: id("r1") }));
    assert_eq!(
        (world.begin(&a, second()), world.chain(&a, "r1")),
        (Outcome::Refused(Refusal::Exists(id("r2"))), Err(Missing::NotFound(id("r1"))))
    );
    assert_eq!(world.act(&a, delete("r1")), not_found("r1"));
}

#[test]
fn what_ended_does_not_end_again_and_is_not_cancelled() {
    let broken = |fault| {
        plant(fault);
        let (mut world, a) = (World::default(), owner("a"));
        world.begin(&a, first("r1", &[]));
        assert_eq!(world.act(&a, Act::Cancel { response: id("r1") }), Outcome::Done);
        assert_eq!(world.act(&a, Act::Cancel { response: id("r1") }), Outcome::Unchanged);
        let late = world.finish(&a, "r1", None, &["o1"]);
        plant(None);
        late != Outcome::Refused(Refusal::Ended(Status::Cancelled))
    };
    assert_eq!((broken(None), broken(Some(Fault::EndsChange))), (false, true));
}

#[test]
fn a_conversation_takes_what_its_responses_read_and_made_once() {
    let (mut world, a) = (World::default(), owner("a"));
    assert_eq!(world.act(&a, create("c1", &["x1", "x2"])), Outcome::Done);
    let within = |response, input: &[&str]| Begin { conversation: Some(id("c1")), ..first(response, input) };
    assert_eq!(world.begin(&a, within("r1", &["x2", "i1"])), Outcome::Done);
    assert_eq!(world.page(&a, "c1", None, false, 9), ["x1", "x2"], "not before it has ended");
    world.finish(&a, "r1", None, &["o1"]);
    assert_eq!(world.page(&a, "c1", None, false, 9), ["x1", "x2", "i1", "o1"]);
    assert_eq!(world.page(&a, "c1", Some("x2"), false, 1), ["i1"]);
    assert_eq!(world.page(&a, "c1", Some("i1"), true, 9), ["x2", "x1"]);
    world.begin(&a, within("r2", &["i2"]));
    let failed =
        Finish { response: id("r2"), attempt: None, status: Status::Failed, body: Vec::new(), output: items(&["o2"]) };
    assert_eq!(world.act(&a, Act::Finish(failed)), Outcome::Done);
    assert_eq!(world.page(&a, "c1", None, true, 1), ["o1"], "what failed is the response's alone");
    let add = |names: &[&str]| Act::AddItems { conversation: id("c1"), items: items(names), key: None };
    assert_eq!(world.act(&a, add(&["y1", "x1"])), Outcome::Refused(Refusal::Exists(id("x1"))));
    assert_eq!(world.page(&a, "c1", None, true, 1), ["o1"], "all or none");
    let gone = Act::DeleteItem { conversation: id("c1"), item: id("i1") };
    assert_eq!((world.act(&a, gone.clone()), world.act(&a, gone)), (Outcome::Done, not_found("i1")));
    assert_eq!(world.act(&a, add(&["i1"])), Outcome::Done);
    assert_eq!(world.page(&a, "c1", None, false, 9), ["x1", "x2", "o1", "i1"]);
    // The response outlives its conversation, and the other way round.
    assert_eq!(world.act(&a, Act::DeleteConversation { conversation: id("c1") }), Outcome::Done);
    assert_eq!(world.chain(&a, "r1").unwrap(), ["x2", "i1", "o1"]);
    assert_eq!(world.begin(&a, within("r3", &[])), not_found("c1"));
}

#[test]
fn a_key_makes_one_thing_and_is_for_one_request() {
    let (mut world, a) = (World::default(), owner("a"));
    let keyed = |response, fingerprint| {
        let key = Some(Idempotency { key: "k".to_owned(), fingerprint, expires_ms: 50 });
        Begin { key, ..first(response, &["i"]) }
    };
    assert_eq!(world.begin(&a, keyed("r1", 7)), Outcome::Done);
    assert_eq!(world.begin(&a, keyed("r2", 7)), Outcome::Known(id("r1")));
    assert_eq!(world.begin(&a, keyed("r3", 8)), Outcome::Refused(Refusal::KeyReused));
    assert_eq!(world.begin(&owner("b"), keyed("r1", 8)), Outcome::Done, "a key is a tenant's own");
    world.run(Command::Expire { now_ms: 50 });
    assert_eq!(world.begin(&a, keyed("r4", 8)), Outcome::Done);
}

/// A lease lapses, another node takes over, and what the first one writes then is refused.
fn takeover(fault: Option<Fault>) -> bool {
    plant(fault);
    let (mut world, a) = (World::default(), owner("a"));
    let (one, other) = (lease(1, 1, 1), lease(2, 1, 1));
    let background = Begin { lease: Some(one), is_background: true, ..first("r1", &["i"]) };
    assert_eq!(world.begin(&a, background.clone()), Outcome::Refused(Refusal::NoLease));
    for (lease, beat) in [(one, 1), (other, 1), (one, 2)] {
        assert_eq!(world.run(Command::Renew { lease, beat }), Outcome::Done);
    }
    assert_eq!(world.begin(&a, background), Outcome::Done);
    let events = |attempt, first, event: &str| Act::Events {
        response: id("r1"),
        attempt,
        first,
        events: vec![event.as_bytes().to_vec()],
    };
    assert_eq!((world.status(&a, "r1"), world.act(&a, events(1, 0, "e0"))), (Some(Status::Queued), Outcome::Done));
    assert_eq!(world.act(&a, events(1, 2, "e2")), Outcome::Refused(Refusal::Gap(1)));
    let claim = || Act::Claim { response: id("r1"), lease: other };
    let mut is_right = world.act(&a, claim()) == Outcome::Refused(Refusal::Owned);
    is_right &= world.run(Command::Lapse { lease: one, beat: 1 }) == Outcome::Unchanged;
    is_right &= read::orphans(&world.rows, 9).unwrap().is_empty();
    world.run(Command::Lapse { lease: one, beat: 2 });
    is_right &= world.run(Command::Renew { lease: one, beat: 3 }) == Outcome::Refused(Refusal::Stale);
    is_right &= world.act(&a, events(1, 1, "lost")) == Outcome::Refused(Refusal::Stale);
    is_right &= read::orphans(&world.rows, 9).unwrap() == [(a.clone(), id("r1"))];
    world.act(&a, claim());
    is_right &= world.act(&a, events(1, 1, "late")) == Outcome::Refused(Refusal::Stale);
    is_right &= world.finish(&a, "r1", Some(1), &["o"]) == Outcome::Refused(Refusal::Stale);
    is_right &= world.act(&a, events(2, 1, "e1")) == Outcome::Done;
    is_right &= world.finish(&a, "r1", Some(2), &["o"]) == Outcome::Done;
    is_right &= read::events(&world.rows, &a, &id("r1"), 0, 9) == Ok(vec![b"e0".to_vec(), b"e1".to_vec()]);
    is_right &= read::orphans(&world.rows, 9).unwrap().is_empty();
    plant(None);
    is_right
}

#[test]
fn only_the_latest_attempt_writes_and_only_what_nobody_makes_is_taken_over() {
    assert!(takeover(None));
    for fault in [Fault::OldAttemptsWrite, Fault::JobsAreStolen, Fault::RenewalsAreMissed, Fault::LeasesComeBack] {
        assert!(!takeover(Some(fault)), "{fault:?} was not noticed");
    }
}

#[test]
fn a_later_start_of_a_node_ends_what_the_earlier_one_made() {
    let (mut world, a) = (World::default(), owner("a"));
    world.run(Command::Renew { lease: lease(1, 1, 1), beat: 9 });
    world.begin(&a, Begin { lease: Some(lease(1, 1, 1)), ..first("r1", &[]) });
    assert_eq!(world.run(Command::Renew { lease: lease(1, 2, 1), beat: 1 }), Outcome::Done);
    assert_eq!(world.run(Command::Renew { lease: lease(1, 1, 2), beat: 1 }), Outcome::Refused(Refusal::Stale));
    assert_eq!(world.finish(&a, "r1", Some(1), &[]), Outcome::Refused(Refusal::Stale));
    assert_eq!(read::orphans(&world.rows, 9).unwrap(), [(a.clone(), id("r1"))]);
    assert_eq!(read::leases(&world.rows).unwrap(), [(lease(1, 2, 1), 1)]);
    assert_eq!(world.act(&a, Act::Claim { response: id("r1"), lease: lease(1, 2, 1) }), Outcome::Done);
    assert_eq!(world.finish(&a, "r1", Some(2), &[]), Outcome::Done);
}

#[test]
fn a_long_command_comes_in_parts_and_does_what_it_does_whole() {
    let a = owner("a");
    let act = || Act::Begin(Box::new(first("r1", &["i1", "i2"])));
    let whole = codec::encode(&Command::Of { owner: a.clone(), room: ROOM, act: Box::new(act()) }).unwrap();
    let mut world = World::default();
    world.run(Command::Expire { now_ms: 1000 });
    let part = |at: u32, bytes: &[u8]| Command::Part { upload: 5, at, bytes: bytes.to_vec() };
    assert_eq!(world.run(part(1, b"x")), Outcome::Refused(Refusal::Gap(0)));
    assert_eq!(world.run(part(0, &whole[..20])), Outcome::Done);
    assert_eq!(world.run(part(0, &whole[..20])), Outcome::Unchanged);
    assert_eq!(world.run(Command::Run { upload: 5, parts: 2 }), Outcome::Refused(Refusal::Gap(1)));
    assert_eq!(world.run(part(1, &whole[20..])), Outcome::Done);
    assert_eq!(world.run(Command::Run { upload: 5, parts: 2 }), Outcome::Done);
    let mut direct = World::default();
    direct.act(&a, act());
    let owned = |it: &World| {
        it.rows.iter().filter(|it| it.0[0] == 1).map(|it| (it.0.clone(), it.1.clone())).collect::<Vec<_>>()
    };
    assert_eq!(owned(&world), owned(&direct));
    // What never gets its command goes, and so do parts of one that is none.
    world.run(Command::Part { upload: 6, at: 0, bytes: vec![9; 100] });
    world.run(Command::Part { upload: 7, at: 0, bytes: vec![9; 100] });
    assert_eq!(world.run(Command::Run { upload: 7, parts: 1 }), Outcome::Refused(Refusal::Unsound));
    let parts = |it: &World| it.rows.values().filter(|it| it.ends_with(&[9; 100])).count();
    assert_eq!(parts(&world), 1);
    world.run(Command::Expire { now_ms: 1000 + STAGED_MS });
    assert_eq!(parts(&world), 1, "time may have stood still until it began");
    world.run(Command::Expire { now_ms: 1000 + 2 * STAGED_MS });
    assert_eq!(parts(&world), 0);
    assert_eq!(world.rows.keys().filter(|it| it[0] == 2 && (4..=6).contains(&it[1])).count(), 0);
}

#[test]
fn time_that_has_stood_still_takes_no_upload_away() {
    let mut world = World::default();
    let part = |at: u32| Command::Part { upload: 5, at, bytes: vec![9; 10] };
    assert_eq!(world.run(part(0)), Outcome::Done);
    world.run(Command::Expire { now_ms: 50_000 * CLOCK_STEP_MS });
    assert_eq!(world.run(part(1)), Outcome::Done, "it had begun just before");
}

#[test]
fn no_clock_makes_everything_go_at_once() {
    let gone = |fault| {
        plant(fault);
        let (mut world, a) = (World::default(), owner("a"));
        let now = 1_000 * CLOCK_STEP_MS;
        world.run(Command::Expire { now_ms: now });
        world.begin(&a, Begin { expires_ms: Some(now + 30 * CLOCK_STEP_MS), ..first("r1", &["i"]) });
        world.begin(&a, Begin { expires_ms: Some(now + 10), ..first("r2", &["i"]) });
        assert_eq!(world.run(Command::Expire { now_ms: now + 9 }), Outcome::Unchanged);
        assert_eq!(world.run(Command::Expire { now_ms: now + 10 }), Outcome::Done);
        assert_eq!(world.status(&a, "r2"), None);
        world.run(Command::Expire { now_ms: now + 3_650 * CLOCK_STEP_MS });
        world.run(Command::Expire { now_ms: 0 });
        let is_gone = world.status(&a, "r1").is_none();
        (0..30).for_each(|_| drop(world.run(Command::Expire { now_ms: now + 30 * CLOCK_STEP_MS })));
        plant(None);
        assert_eq!((world.status(&a, "r1"), world.owned()), (None, 0));
        is_gone
    };
    assert_eq!((gone(None), gone(Some(Fault::AnyClockIsBelieved))), (false, true));
}

#[test]
fn what_is_full_takes_nothing_new_and_lets_end_what_began() {
    let (mut world, a) = (World::default(), owner("a"));
    let within = |bytes_max, act| Command::Of { owner: owner("a"), room: Room { bytes_max }, act: Box::new(act) };
    assert_eq!(world.run(within(40, Act::Begin(Box::new(first("r1", &["i"]))))), Outcome::Done);
    let full = Outcome::Refused(Refusal::Full(40));
    assert_eq!(world.run(within(40, Act::Begin(Box::new(first("r2", &["i"]))))), full);
    assert_eq!(world.run(within(40, create("c1", &["a", "b", "c"]))), full);
    assert_eq!(world.finish(&a, "r1", None, &["o1", "o2", "o3"]), Outcome::Done);
    assert_eq!((world.status(&a, "r2"), read::usage(&world.rows, &a).unwrap().responses), (None, 1));
    world.act(&a, delete("r1"));
    assert_eq!((read::usage(&world.rows, &a), world.owned()), (Ok(Usage::default()), 0));
}

#[test]
fn commands_are_remembered_for_so_long_and_refused_after_it() {
    let (mut world, a) = (World::default(), owner("a"));
    let entry = |n: u64, seen| {
        let command = Command::Of {
            owner: a.clone(),
            room: ROOM,
            act: Box::new(Act::Begin(Box::new(first(&format!("r{n}"), &[])))),
        };
        Entry { id: CommandId(n.into()), seen, command }
    };
    (1..=100).for_each(|n| assert_eq!(world.apply(&entry(n, n - 1)), Outcome::Done));
    world.set_commands(REMEMBERED - 1);
    assert_eq!(world.apply(&entry(100, 99)), Outcome::Done, "as before");
    world.set_commands(REMEMBERED);
    (101..=200).for_each(|n| assert_eq!(world.apply(&entry(n, REMEMBERED)), Outcome::Done));
    assert_eq!(world.apply(&entry(100, 99)), Outcome::Refused(Refusal::TooOld));
    assert_eq!(world.apply(&entry(101, REMEMBERED)), Outcome::Done, "as before");
    // Of the last hundred, and of the refusal.
    let memories = world.rows.keys().filter(|it| it[0] == 2 && (it[1] == 2 || it[1] == 3)).count();
    assert_eq!(memories, 200);
}

#[test]
fn what_is_not_sound_changes_nothing() {
    let mut world = World::default();
    let text = serde_json::to_value(first("r1", &["i"])).unwrap();
    let bad = |path: &str, with: &str| -> Begin {
        let mut text = text.clone();
        *text.pointer_mut(path).unwrap() = with.into();
        serde_json::from_value(text).unwrap()
    };
    for begin in
        [bad("/response", ""), bad("/response", "a\0b"), bad("/input/0/id", &"x".repeat(300)), bad("/response", "é")]
    {
        assert_eq!(world.begin(&owner("a"), begin), Outcome::Refused(Refusal::Unsound));
    }
    let queued =
        Finish { response: id("r"), attempt: None, status: Status::Queued, body: Vec::new(), output: Vec::new() };
    assert_eq!(world.act(&owner("a"), Act::Finish(queued)), Outcome::Refused(Refusal::Unsound));
    assert_eq!(world.owned(), 0);
    assert!(step(&world.rows, b"\x01garbage").is_err() && step(&world.rows, &[9, 0, 0]).is_err());
    let damaged = BTreeMap::from([(keys::Key::Response(&owner("a"), &id("r1")).encode(), b"damaged".to_vec())]);
    let entry = Entry {
        id: CommandId(1),
        seen: 0,
        command: Command::Of { owner: owner("a"), room: ROOM, act: Box::new(delete("r1")) },
    };
    assert!(step(&damaged, &entry.encode().unwrap()).is_err(), "a group must not go on past it");
}

// === any commands in any order ===

fn acts() -> impl Strategy<Value = Act> {
    let response = || (0..4_u8).prop_map(|it| format!("r{it}"));
    let conversation = || (0..2_u8).prop_map(|it| id(&format!("c{it}")));
    let some = || {
        proptest::collection::btree_set(0..6_u8, 0..3)
            .prop_map(|it| it.iter().map(|it| item(&format!("m{it}"))).collect::<Vec<_>>())
    };
    let key = || {
        proptest::option::weighted(0.2, (0..2_u8, 0..2_u128)).prop_map(|it| {
            it.map(|(key, fingerprint)| Idempotency { key: key.to_string(), fingerprint, expires_ms: 9 })
        })
    };
    prop_oneof![
        4 => (response(), proptest::option::of(response()), proptest::option::of(conversation()), some(), key(), proptest::option::of(0..20_u64)).prop_map(
            |(response, previous, conversation, input, key, expires_ms)| {
                Act::Begin(Box::new(Begin { previous: previous.map(|it| id(&it)), conversation, input, key, expires_ms, ..first(&response, &[]) }))
            }
        ),
        4 => (response(), some(), any::<bool>()).prop_map(|(response, output, is_well)| {
            let status = if is_well { Status::Completed } else { Status::Failed };
            Act::Finish(Finish { response: id(&response), attempt: None, status, body: b"ended".to_vec(), output })
        }),
        1 => response().prop_map(|it| Act::Cancel { response: id(&it) }),
        1 => response().prop_map(|it| delete(&it)),
        2 => (conversation(), some(), key()).prop_map(|(conversation, items, key)| {
            Act::CreateConversation { conversation, created_ms: 1, metadata: b"{}".to_vec(), items, key, expires_ms: None }
        }),
        1 => (conversation(), 0..9_usize).prop_map(|(conversation, len)| Act::UpdateConversation { conversation, metadata: vec![b'm'; len] }),
        1 => conversation().prop_map(|conversation| Act::DeleteConversation { conversation }),
        2 => (conversation(), some(), key()).prop_map(|(conversation, items, key)| Act::AddItems { conversation, items, key }),
        1 => (conversation(), 0..6_u8).prop_map(|(conversation, item)| Act::DeleteItem { conversation, item: id(&format!("m{item}")) }),
    ]
}

type Plan = Vec<(bool, Act, bool)>;

fn plans() -> impl Strategy<Value = Plan> {
    proptest::collection::vec((any::<bool>(), acts(), proptest::bool::weighted(0.2)), 0..40)
}

/// Runs a plan, retries included, and answers what is wrong.
fn run(plan: &Plan) -> Result<(), String> {
    let owners = [owner("a"), owner("b")];
    let (mut both, mut alone) = (World::default(), World::default());
    let mut entries: Vec<(Entry, Outcome)> = Vec::new();
    for (n, (is_b, act, is_retried)) in (0_u64..).zip(plan) {
        let command = Command::Of { owner: owners[usize::from(*is_b)].clone(), room: ROOM, act: Box::new(act.clone()) };
        let entry = Entry { id: CommandId(n.into()), seen: both.seen(), command };
        let outcome = both.apply(&entry);
        if !is_b && alone.apply(&Entry { seen: alone.seen(), ..entry.clone() }) != outcome {
            return Err(format!("another owner changed what {act:?} does"));
        }
        entries.push((entry, outcome));
        if *is_retried {
            // Some command before is retried: its outcome is what it was, and nothing changes.
            let (entry, outcome) = &entries[n as usize / 2];
            let before = both.rows.clone();
            if both.apply(entry) != *outcome || both.rows != before {
                return Err(format!("a retry of {entry:?} counted"));
            }
        }
    }
    let report = verify::verify(&both.rows);
    if let Some(fault) = report.told.first() {
        return Err(format!("the rows do not fit: {fault}"));
    }
    let rows_of_a = |world: &World| {
        world
            .rows
            .iter()
            .filter(|it| it.0.starts_with(&[1, 1, b'a']))
            .map(|it| (it.0.clone(), it.1.clone()))
            .collect::<Vec<_>>()
    };
    if rows_of_a(&both) != rows_of_a(&alone) {
        return Err("owners are not apart".to_owned());
    }
    check_usage(&both, &owners)?;
    for owner in &owners {
        (0..4).for_each(|n| drop(both.act(owner, delete(&format!("r{n}")))));
        (0..2).for_each(|n| drop(both.act(owner, Act::DeleteConversation { conversation: id(&format!("c{n}")) })));
    }
    both.run(Command::Expire { now_ms: 100 });
    let left = both.owned() + both.rows.keys().filter(|it| it[0] == 2 && it[1] == 4).count();
    if left == 0 { Ok(()) } else { Err(format!("rows that outlived what they belong to: {left}")) }
}

fn check_usage(world: &World, owners: &[Owner]) -> Result<(), String> {
    for owner in owners {
        let responses: Vec<_> =
            (0..4).filter_map(|n| read::response(&world.rows, owner, &id(&format!("r{n}"))).ok()).collect();
        let conversations: Vec<_> =
            (0..2).filter_map(|n| read::conversation(&world.rows, owner, &id(&format!("c{n}"))).ok()).collect();
        let bytes = responses.iter().map(|it| it.0.bytes).chain(conversations.iter().map(|it| it.bytes)).sum();
        let real = Usage { responses: responses.len() as u64, conversations: conversations.len() as u64, bytes };
        let said = read::usage(&world.rows, owner).map_err(|it| it.to_string())?;
        if real != said {
            return Err(format!("usage is {real:?}, and {said:?} is said"));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 400 }))]

    #[test]
    fn owners_are_apart_retries_count_once_and_nothing_outlives_what_it_belongs_to(plan in plans()) {
        prop_assert_eq!(run(&plan), Ok(()));
    }
}

#[test]
fn the_laws_notice_what_breaks_them() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let plans: Vec<Plan> = (0..200).map(|_| plans().new_tree(&mut runner).unwrap().current()).collect();
    for fault in [Fault::RetriesCountTwice, Fault::OwnersAreOne, Fault::ItemsOutliveTheirResponse] {
        plant(Some(fault));
        let found = plans.iter().filter(|it| run(it).is_err()).count();
        plant(None);
        assert!(found > 0, "{fault:?} was not noticed");
    }
}
