//! What every backend does, as one suite: over memory and over a server that fails on demand here, over real servers in `make test-backends`, which includes this file.
//!
//! Every law has owners, leases and names of its own, so that they may run over rows that others left.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::entropy::Entropy;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::history::Backend;
use crate::history::Handle;
use crate::history::Id;
use crate::history::Item;
use crate::history::Lease;
use crate::history::Memory;
use crate::history::Owner;
use crate::history::Status;
use crate::history::Usage;
use crate::history::config::Config;
use crate::history::machine::Act;
use crate::history::machine::Begin;
use crate::history::machine::Command;
use crate::history::machine::CommandId;
use crate::history::machine::Entry;
use crate::history::machine::Finish;
use crate::history::machine::Idempotency;
use crate::history::machine::Outcome;
use crate::history::machine::Refusal;
use crate::history::machine::Room;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::machine::read::Of;
use crate::history::machine::read::Page;
use crate::raft::Coded as _;
use crate::raft::Rows;

const LIMIT: Duration = Duration::from_secs(30);
const ROOM: Room = Room { bytes_max: 1 << 30 };
/// Who writes at the same time, and how often each.
const WRITERS: usize = 32;
const WRITES: usize = 8;

/// Runs the whole suite. `make`: another gateway over the same rows.
pub(crate) async fn suite(make: impl Fn() -> Arc<dyn Backend>) {
    let here = Gateway::new(make(), 1);
    let there = Gateway::new(make(), 2);
    what_was_answered_is_read_everywhere(&here, &there).await;
    owners_are_apart(&here, &there).await;
    a_refusal_changes_nothing(&here).await;
    a_retry_counts_once(&here, &there).await;
    a_key_makes_a_request_idempotent(&here, &there).await;
    conversations_are_read_in_pages(&here, &there).await;
    only_the_latest_attempt_writes(&here, &there).await;
    what_is_long_goes_in_parts(&here, &there).await;
    what_is_deleted_is_in_no_row(&here, &there).await;
    what_expires_goes(&here, &there).await;
    nobody_loses_what_another_wrote(&here, &there).await;
    any_plan_does_what_it_does_in_memory(&here, &there).await;
}

/// One of those that share the rows.
#[derive(Clone)]
pub(crate) struct Gateway {
    backend: Arc<dyn Backend>,
    entropy: Entropy,
}

impl Gateway {
    /// Its names are drawn from the system and `salt`: they are its own also where the rows are old.
    pub(crate) fn new(backend: Arc<dyn Backend>, salt: u64) -> Self {
        Self { backend, entropy: Entropy::seeded(Entropy::from_os().next_u64() ^ salt) }
    }

    pub(crate) fn owner(&self) -> Owner {
        let name = format!("t{:016x}", self.entropy.next_u64());
        Owner::new(&TenantId::parse(&name).unwrap(), None).unwrap()
    }

    fn entry(&self, owner: &Owner, act: Act) -> Entry {
        let command = Command::Of { owner: owner.clone(), room: ROOM, act: Box::new(act) };
        Entry { id: CommandId(self.entropy.next_u128()), seen: self.backend.commands(), command }
    }

    async fn propose(&self, entry: &Entry) -> Outcome {
        self.backend.propose(entry.encode().unwrap(), LIMIT).await.unwrap()
    }

    async fn command(&self, command: Command) -> Outcome {
        let id = CommandId(self.entropy.next_u128());
        self.propose(&Entry { id, seen: self.backend.commands(), command }).await
    }

    pub(crate) async fn act(&self, owner: &Owner, act: Act) -> Outcome {
        self.propose(&self.entry(owner, act)).await
    }

    async fn begin(&self, owner: &Owner, begin: Begin) -> Outcome {
        self.act(owner, Act::Begin(Box::new(begin))).await
    }

    pub(crate) async fn read<R: Send + 'static>(&self, reading: impl Fn(&dyn Rows) -> R + Send + 'static) -> R {
        let answer = Arc::new(parking_lot::Mutex::new(None));
        let answered = Arc::clone(&answer);
        let reading = move |rows: &dyn Rows| *answer.lock() = Some(reading(rows));
        self.backend.read(Box::new(reading), LIMIT).await.unwrap();
        let read = answered.lock().take();
        read.unwrap()
    }

    async fn chain(&self, owner: &Owner, response: &str) -> Result<Vec<String>, Missing> {
        let (owner, response) = (owner.clone(), id(response));
        self.read(move |rows| read::chain(rows, &owner, &response, u64::MAX).map(|it| names(&it))).await
    }

    async fn page(&self, owner: &Owner, of: &str, after: Option<&str>, is_back: bool, most: usize) -> Vec<String> {
        let (owner, of, page) = (owner.clone(), id(of), Page { after: after.map(id), is_back, most });
        self.read(move |rows| names(&read::conversation_items(rows, &owner, &of, &page).unwrap())).await
    }

    async fn usage(&self, owner: &Owner) -> Usage {
        let owner = owner.clone();
        self.read(move |rows| read::usage(rows, &owner).unwrap()).await
    }

    /// All rows of an owner's, whatever they are.
    async fn rows(&self, owner: &Owner) -> Vec<(Vec<u8>, Vec<u8>)> {
        let name = owner_name(owner);
        let mut from = vec![1, u8::try_from(name.len()).unwrap()];
        from.extend(name.as_bytes());
        let mut to = from.clone();
        *to.last_mut().unwrap() += 1;
        self.read(move |rows| rows.scan(&from, &to, usize::MAX, false)).await
    }
}

fn owner_name(owner: &Owner) -> String {
    let text = serde_json::to_string(owner).unwrap();
    text.split('"').find(|it| it.len() == 17 && it.starts_with('t')).unwrap().to_owned()
}

pub(crate) fn id(text: &str) -> Id {
    Id::parse(text).unwrap()
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

pub(crate) fn first(response: &str, input: Vec<Item>) -> Begin {
    Begin {
        response: id(response),
        created_ms: 1,
        previous: None,
        conversation: None,
        input,
        body: b"begun".to_vec(),
        lease: None,
        is_background: false,
        key: None,
        expires_ms: None,
    }
}

pub(crate) fn finish(response: &str, attempt: Option<u32>, output: Vec<Item>) -> Act {
    let (response, status) = (id(response), Status::Completed);
    Act::Finish(Finish { response, attempt, status, body: b"ended".to_vec(), output })
}

fn create(conversation: &str, with: &[&str], key: Option<Idempotency>) -> Act {
    let (metadata, items) = (b"{}".to_vec(), items(with));
    Act::CreateConversation { conversation: id(conversation), created_ms: 1, metadata, items, key, expires_ms: None }
}

fn add(conversation: &str, with: &[&str]) -> Act {
    Act::AddItems { conversation: id(conversation), items: items(with), key: None }
}

// === the laws ===

async fn what_was_answered_is_read_everywhere(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    assert_eq!(here.begin(&owner, first("r1", items(&["i1", "i2"]))).await, Outcome::Done);
    assert_eq!(there.act(&owner, finish("r1", None, items(&["o1"]))).await, Outcome::Done);
    let next = Begin { previous: Some(id("r1")), ..first("r2", items(&["i3"])) };
    assert_eq!(there.begin(&owner, next).await, Outcome::Done);
    for gateway in [here, there] {
        let of = owner.clone();
        let (response, body) = gateway.read(move |rows| read::response(rows, &of, &id("r1")).unwrap()).await;
        assert_eq!((response.status, response.inputs, response.outputs), (Status::Completed, 2, 1));
        assert_eq!(body, b"ended");
        let of = owner.clone();
        let input = gateway.read(move |rows| read::items(rows, &of, &id("r1"), Of::Input).unwrap()).await;
        assert_eq!(input, items(&["i1", "i2"]));
        assert_eq!(gateway.chain(&owner, "r2").await.unwrap(), ["i1", "i2", "o1", "i3"]);
        let of = owner.clone();
        assert_eq!(gateway.read(move |rows| read::item(rows, &of, &id("o1"))).await, Ok(item("o1")));
    }
}

async fn owners_are_apart(here: &Gateway, there: &Gateway) {
    let (a, b) = (here.owner(), here.owner());
    here.begin(&a, first("r1", items(&["secret"]))).await;
    here.act(&a, create("c1", &["m1"], None)).await;
    let not_found = |of: &str| Outcome::Refused(Refusal::NotFound(id(of)));
    let next = |previous: &str| Begin { previous: Some(id(previous)), ..first("r2", items(&[])) };
    assert_eq!(there.begin(&b, next("r1")).await, not_found("r1"));
    assert_eq!(there.act(&b, Act::DeleteResponse { response: id("r1") }).await, not_found("r1"));
    assert_eq!(there.act(&b, add("c1", &["m2"])).await, not_found("c1"));
    assert_eq!(there.chain(&b, "r1").await, Err(Missing::NotFound(id("r1"))));
    let of = b.clone();
    let stolen = there.read(move |rows| read::item(rows, &of, &id("secret"))).await;
    assert_eq!(stolen, Err(Missing::NotFound(id("secret"))));
    assert_eq!(there.begin(&b, first("r1", items(&["own"]))).await, Outcome::Done, "names are an owner's");
    assert_eq!(here.chain(&a, "r1").await.unwrap(), ["secret"]);
    assert_eq!(there.usage(&b).await.responses, 1);
}

async fn a_refusal_changes_nothing(here: &Gateway) {
    let owner = here.owner();
    here.begin(&owner, first("r1", items(&["i1"]))).await;
    here.act(&owner, finish("r1", None, items(&["o1"]))).await;
    let before = here.rows(&owner).await;
    let exists = Outcome::Refused(Refusal::Exists(id("r1")));
    assert_eq!(here.begin(&owner, first("r1", items(&["i9"]))).await, exists);
    let ended = Outcome::Refused(Refusal::Ended(Status::Completed));
    assert_eq!(here.act(&owner, finish("r1", None, items(&["o9"]))).await, ended);
    let full = Command::Of {
        owner: owner.clone(),
        room: Room { bytes_max: 1 },
        act: Box::new(Act::Begin(Box::new(first("r2", items(&["i2"]))))),
    };
    assert_eq!(here.command(full).await, Outcome::Refused(Refusal::Full(1)));
    assert_eq!(here.rows(&owner).await, before);
}

async fn a_retry_counts_once(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    here.act(&owner, create("c1", &[], None)).await;
    let entry = here.entry(&owner, add("c1", &["m1"]));
    for gateway in [here, there, here] {
        assert_eq!(gateway.propose(&entry).await, Outcome::Done);
    }
    let refused = here.entry(&owner, add("c2", &["m2"]));
    let not_found = Outcome::Refused(Refusal::NotFound(id("c2")));
    assert_eq!(here.propose(&refused).await, not_found);
    here.act(&owner, create("c2", &[], None)).await;
    assert_eq!(there.propose(&refused).await, not_found, "as the first time");
    assert_eq!(there.page(&owner, "c1", None, false, 9).await, ["m1"]);
    // All at once, in one transaction or in several.
    let entry = here.entry(&owner, add("c1", &["m3"]));
    let proposals = [here, there, here, there].map(|it| it.propose(&entry));
    assert_eq!(join_all(proposals).await, [const { Outcome::Done }; 4]);
    assert_eq!(here.page(&owner, "c1", None, false, 9).await, ["m1", "m3"]);
}

async fn a_key_makes_a_request_idempotent(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    let key = |fingerprint| Some(Idempotency { key: "k".to_owned(), fingerprint, expires_ms: u64::MAX });
    assert_eq!(here.act(&owner, create("c1", &["m1"], key(1))).await, Outcome::Done);
    assert_eq!(there.act(&owner, create("c2", &["m1"], key(1))).await, Outcome::Known(id("c1")));
    assert_eq!(there.act(&owner, create("c3", &["m2"], key(2))).await, Outcome::Refused(Refusal::KeyReused));
    assert_eq!(here.usage(&owner).await.conversations, 1);
}

async fn conversations_are_read_in_pages(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    here.act(&owner, create("c1", &["m1", "m2"], None)).await;
    there.begin(&owner, Begin { conversation: Some(id("c1")), ..first("r1", items(&["m3"])) }).await;
    there.act(&owner, finish("r1", None, items(&["m4"]))).await;
    here.act(&owner, add("c1", &["m5", "m6"])).await;
    assert_eq!(here.page(&owner, "c1", None, false, 99).await, ["m1", "m2", "m3", "m4", "m5", "m6"]);
    assert_eq!(there.page(&owner, "c1", None, true, 2).await, ["m6", "m5"]);
    assert_eq!(there.page(&owner, "c1", Some("m5"), true, 2).await, ["m4", "m3"]);
    assert_eq!(here.page(&owner, "c1", Some("m2"), false, 3).await, ["m3", "m4", "m5"]);
    here.act(&owner, Act::DeleteItem { conversation: id("c1"), item: id("m4") }).await;
    assert_eq!(there.page(&owner, "c1", Some("m2"), false, 2).await, ["m3", "m5"]);
    let of = owner.clone();
    let one = move |rows: &dyn Rows| read::conversation_item(rows, &of, &id("c1"), &id("m5"));
    assert_eq!(there.read(one).await, Ok(item("m5")));
}

async fn only_the_latest_attempt_writes(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    let lease = |of: &Gateway| Lease { storage: StorageId(of.entropy.next_u128()), boot: 1, number: 1 };
    let (dead, heir) = (lease(here), lease(there));
    let renew = |lease, beat| Command::Renew { lease, beat };
    assert_eq!(here.command(renew(dead, 1)).await, Outcome::Done);
    assert_eq!(here.begin(&owner, Begin { lease: Some(dead), ..first("r1", items(&["i"])) }).await, Outcome::Done);
    let events = |attempt, first, event: &str| {
        let events = vec![event.as_bytes().to_vec()];
        Act::Events { response: id("r1"), attempt, first, events }
    };
    assert_eq!(here.act(&owner, events(1, 0, "e0")).await, Outcome::Done);
    assert_eq!(there.command(renew(heir, 1)).await, Outcome::Done);
    let claim = || Act::Claim { response: id("r1"), lease: heir };
    assert_eq!(there.act(&owner, claim()).await, Outcome::Refused(Refusal::Owned));
    let held = there.read(|rows| read::leases(rows).unwrap()).await;
    assert!(held.contains(&(dead, 1)) && held.contains(&(heir, 1)));
    there.command(Command::Lapse { lease: dead, beat: 1 }).await;
    let orphan = (owner.clone(), id("r1"));
    assert!(there.read(|rows| read::orphans(rows, usize::MAX).unwrap()).await.contains(&orphan));
    assert_eq!(there.act(&owner, claim()).await, Outcome::Done);
    for late in [events(1, 1, "late"), finish("r1", Some(1), items(&["late"]))] {
        assert_eq!(here.act(&owner, late).await, Outcome::Refused(Refusal::Stale));
    }
    assert_eq!(there.act(&owner, events(2, 1, "e1")).await, Outcome::Done);
    assert_eq!(there.act(&owner, finish("r1", Some(2), items(&["o"]))).await, Outcome::Done);
    let of = owner.clone();
    let followed = here.read(move |rows| read::events(rows, &of, &id("r1"), 1, 9)).await;
    assert_eq!(followed, Ok(vec![b"e1".to_vec()]));
    assert!(!there.read(|rows| read::orphans(rows, usize::MAX).unwrap()).await.contains(&orphan));
}

async fn what_is_long_goes_in_parts(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    let me = (StorageId(here.entropy.next_u128()), 1);
    let handle = Handle::new(Arc::clone(&here.backend), &Config::default(), None, me, here.entropy.clone());
    let mut json = vec![b'x'; 5 << 20];
    json.extend(b"\0\xff\0the end");
    let long = Item { id: id("long"), json };
    let begin = Act::Begin(Box::new(first("r1", vec![long.clone(), item("short")])));
    assert_eq!(handle.act_within(&owner, begin, LIMIT).await, Ok(Outcome::Done));
    let of = owner.clone();
    let read = there.read(move |rows| read::items(rows, &of, &id("r1"), Of::Input).unwrap()).await;
    assert!(read == [long, item("short")], "it is what it was");
    there.act(&owner, Act::DeleteResponse { response: id("r1") }).await;
    assert_eq!(here.usage(&owner).await, Usage::default());
}

async fn what_is_deleted_is_in_no_row(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    here.begin(&owner, Begin { expires_ms: Some(u64::MAX), ..first("r1", items(&["i1"])) }).await;
    here.act(&owner, finish("r1", None, items(&["o1"]))).await;
    let many: Vec<String> = (0..1500).map(|it| format!("m{it}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    here.act(&owner, create("c1", &many, None)).await;
    assert_eq!(there.page(&owner, "c1", Some("m1400"), false, 3).await, ["m1401", "m1402", "m1403"]);
    assert!(here.rows(&owner).await.len() > 3000);
    assert_eq!(there.act(&owner, Act::DeleteResponse { response: id("r1") }).await, Outcome::Done);
    assert_eq!(there.act(&owner, Act::DeleteConversation { conversation: id("c1") }).await, Outcome::Done);
    assert_eq!(here.rows(&owner).await, []);
}

async fn what_expires_goes(here: &Gateway, there: &Gateway) {
    let owner = here.owner();
    here.begin(&owner, Begin { expires_ms: Some(1), ..first("r1", items(&["i1"])) }).await;
    here.begin(&owner, first("r2", items(&["i2"]))).await;
    let now_ms = crate::history::now_ms();
    while there.read(|rows| read::expiry(rows).unwrap().1).await.is_some_and(|it| it <= 1) {
        there.command(Command::Expire { now_ms }).await;
    }
    assert_eq!(here.chain(&owner, "r1").await, Err(Missing::NotFound(id("r1"))));
    assert_eq!(here.chain(&owner, "r2").await.unwrap(), ["i2"]);
}

async fn nobody_loses_what_another_wrote(here: &Gateway, there: &Gateway) {
    let owner = &here.owner();
    here.act(owner, create("c1", &[], None)).await;
    let write = |writer: usize| async move {
        let gateway = if writer.is_multiple_of(2) { here } else { there };
        for n in 0..WRITES {
            let name = format!("m{writer}_{n}");
            assert_eq!(gateway.act(owner, add("c1", &[&name])).await, Outcome::Done);
            let is_there = gateway.page(owner, "c1", None, false, usize::MAX).await.contains(&name);
            assert!(is_there, "what was answered is read");
        }
    };
    // Count and content are two rows: a read has both of the same moment.
    let look = |gateway: &'static str| async move {
        let gateway = if gateway == "here" { here } else { there };
        loop {
            let of = owner.clone();
            let (said, real) = gateway
                .read(move |rows| {
                    let said = read::conversation(rows, &of, &id("c1")).unwrap().items as usize;
                    let page = Page { after: None, is_back: false, most: usize::MAX };
                    (said, read::conversation_items(rows, &of, &id("c1"), &page).unwrap().len())
                })
                .await;
            assert_eq!(said, real);
            if real == WRITERS * WRITES {
                return;
            }
        }
    };
    tokio::join!(join_all((0..WRITERS).map(write)), look("here"), look("there"));
    let mut all = there.page(owner, "c1", None, false, usize::MAX).await;
    all.sort();
    all.dedup();
    assert_eq!(all.len(), WRITERS * WRITES, "each once");
}

// === any plan ===

async fn any_plan_does_what_it_does_in_memory(here: &Gateway, there: &Gateway) {
    let memory = Gateway::new(Arc::new(Memory::default()), 3);
    for seed in 0..4 {
        let draw = Entropy::seeded(seed);
        let owners = [here.owner(), here.owner()];
        let mut done: Vec<Entry> = Vec::new();
        for _ in 0..60 {
            let gateway = if draw.below(2) == 0 { here } else { there };
            let entry = match done.get(draw.below(done.len() * 5 + 1)) {
                Some(again) => again.clone(),
                None => gateway.entry(&owners[draw.below(2)], an_act(&draw)),
            };
            let expected = memory.propose(&Entry { seen: memory.backend.commands(), ..entry.clone() }).await;
            assert_eq!(gateway.propose(&entry).await, expected, "seed {seed}: {entry:?}");
            done.push(entry);
        }
        for owner in &owners {
            assert_eq!(here.rows(owner).await, memory.rows(owner).await, "seed {seed}");
        }
    }
}

fn an_act(draw: &Entropy) -> Act {
    let (response, conversation) = (format!("r{}", draw.below(4)), format!("c{}", draw.below(2)));
    let some: Vec<String> = (0..6).filter(|_| draw.below(3) == 0).map(|it| format!("m{it}")).collect();
    let some: Vec<&str> = some.iter().map(String::as_str).collect();
    let fingerprint = draw.below(2) as u128;
    let key = (draw.below(5) == 0).then(|| Idempotency { key: "k".to_owned(), fingerprint, expires_ms: u64::MAX });
    match draw.below(10) {
        0..3 => Act::Begin(Box::new(Begin {
            previous: (draw.below(2) == 0).then(|| id(&format!("r{}", draw.below(4)))),
            conversation: (draw.below(3) == 0).then(|| id(&conversation)),
            key,
            ..first(&response, items(&some))
        })),
        3..5 => finish(&response, None, items(&some)),
        5 => create(&conversation, &some, key),
        6 => add(&conversation, &some),
        7 => Act::DeleteItem { conversation: id(&conversation), item: id(&format!("m{}", draw.below(6))) },
        8 => Act::Cancel { response: id(&response) },
        _ if draw.below(2) == 0 => Act::DeleteResponse { response: id(&response) },
        _ => Act::DeleteConversation { conversation: id(&conversation) },
    }
}
