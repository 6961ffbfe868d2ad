//! What the driver does about a server that fails, and that it is a backend like every other.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::External;
use super::fake::Fail;
use super::fake::Fake;
use crate::base::entropy::Entropy;
use crate::base::tasks::Tasks;
use crate::history::Backend;
use crate::history::Memory;
use crate::history::Unavailable;
use crate::history::conformance;
use crate::history::conformance::Gateway;
use crate::history::conformance::first;
use crate::history::conformance::id;
use crate::history::machine::Act;
use crate::history::machine::Command;
use crate::history::machine::CommandId;
use crate::history::machine::Entry;
use crate::history::machine::Outcome;
use crate::history::machine::REMEMBERED;
use crate::history::machine::Refusal;
use crate::history::machine::Room;
use crate::history::machine::read;
use crate::observability::metrics::Registry;
use crate::raft::Coded as _;
use crate::raft::Rows;

const LIMIT: Duration = Duration::from_secs(8);

fn over(fake: &Fake) -> Arc<External> {
    // Never dropped: tasks end with their owner.
    let tasks: &'static Tasks = Box::leak(Box::new(Tasks::new()));
    Arc::new(External::over(Arc::new(fake.clone()), &Entropy::seeded(1), &mut Registry::default(), tasks))
}

/// A response begins. `n`: which command it is.
fn begin(n: u128, response: &str) -> Entry {
    let owner = crate::history::Owner::new(&crate::base::ids::TenantId::parse("a").unwrap(), None).unwrap();
    let act = Box::new(Act::Begin(Box::new(first(response, Vec::new()))));
    Entry { id: CommandId(n), seen: 0, command: Command::Of { owner, room: Room { bytes_max: 1 << 20 }, act } }
}

async fn propose(backend: &External, entry: &Entry) -> Result<Outcome, Unavailable> {
    backend.propose(entry.encode().unwrap(), LIMIT).await
}

async fn commands(backend: &External) -> Result<(), Unavailable> {
    backend.read(Box::new(|rows: &dyn Rows| assert!(read::commands(rows).is_ok())), LIMIT).await
}

#[tokio::test]
async fn memory_and_a_server_are_backends_alike() {
    let memory: Arc<dyn Backend> = Arc::new(Memory::default());
    conformance::suite(|| Arc::clone(&memory)).await;
    let fake = Fake::default();
    conformance::suite(|| over(&fake)).await;
}

#[tokio::test]
async fn a_server_that_fails_now_and_then_loses_nothing_and_does_nothing_twice() {
    let fake = Fake::default();
    let fails = [
        Fail::Connect,
        Fail::Fetch,
        Fail::BeforeCommit,
        Fail::AfterCommit,
        Fail::Overtaken,
        Fail::Moments,
        Fail::AfterCommit,
    ];
    fake.fail(&[fails, fails].concat());
    conformance::suite(|| over(&fake)).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_may_have_counted_is_made_again_and_counts_once() {
    for fail in [Fail::Connect, Fail::Fetch, Fail::BeforeCommit, Fail::AfterCommit, Fail::Overtaken] {
        let fake = Fake::default();
        let backend = over(&fake);
        fake.fail(&[fail]);
        assert_eq!(propose(&backend, &begin(1, "r1")).await, Ok(Outcome::Done), "{fail:?}");
        let exists = Outcome::Refused(Refusal::Exists(id("r1")));
        assert_eq!(propose(&backend, &begin(2, "r1")).await, Ok(exists), "{fail:?}");
        assert_eq!(backend.commands(), 2, "{fail:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_goes_in_one_transaction_and_rows_are_fetched_together() {
    let fake = Fake::default();
    let backend = over(&fake);
    let entries: Vec<Entry> = (0..200).map(|it| begin(it, &format!("r{it}"))).collect();
    let done = join_all(entries.iter().map(|it| propose(&backend, it))).await;
    assert!(done.iter().all(|it| *it == Ok(Outcome::Done)));
    let counts = fake.counts();
    assert!((counts.connects, counts.commits) == (1, 1) && counts.fetches <= 3, "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_full_or_gone_is_told_apart_and_nobody_waits_for_longer_than_he_said() {
    let fake = Fake::default();
    let backend = over(&fake);
    fake.fail(&[Fail::NoRoom]);
    assert_eq!(propose(&backend, &begin(1, "r1")).await, Err(Unavailable::NoRoom));
    fake.fail(&[Fail::Hang]);
    assert_eq!(propose(&backend, &begin(2, "r2")).await, Err(Unavailable::Unreached));
    assert_eq!(propose(&backend, &begin(3, "r3")).await, Ok(Outcome::Done), "the next one is not held up");
    fake.fail(&[Fail::Connect; 100]);
    fake.fail(&[Fail::Fetch]);
    assert_eq!(propose(&backend, &begin(4, "r4")).await, Err(Unavailable::Unreached));
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_is_refused_at_once() {
    let fake = Fake::default();
    let backend = over(&fake);
    fake.fail(&[Fail::Hang]);
    let entries: Vec<Entry> = (0..5000).map(|it| begin(it, "r")).collect();
    let done = join_all(entries.iter().map(|it| propose(&backend, it))).await;
    let count = |of| done.iter().filter(|it| **it == Err(of)).count();
    assert!(count(Unavailable::Busy) > 500 && count(Unavailable::Busy) + count(Unavailable::Unreached) == 5000);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_refused_alone() {
    let fake = Fake::default();
    let backend = over(&fake);
    let (good, garbage) = (begin(1, "r1"), b"\x01garbage".to_vec());
    let (good, bad) = tokio::join!(propose(&backend, &good), backend.propose(garbage, LIMIT));
    assert_eq!((good, bad), (Ok(Outcome::Done), Err(Unavailable::Damaged)));
    fake.change(|rows| rows.values_mut().for_each(|it| *it = b"damaged".to_vec()));
    assert_eq!(propose(&backend, &begin(2, "r2")).await, Err(Unavailable::Damaged));
}

#[tokio::test]
async fn a_read_on_a_connection_that_was_lost_meanwhile_goes_on_another() {
    let fake = Fake::default();
    let backend = over(&fake);
    assert_eq!(commands(&backend).await, Ok(()));
    fake.fail(&[Fail::Fetch]);
    assert_eq!(commands(&backend).await, Ok(()));
    fake.fail(&[Fail::Moments; 3]);
    assert_eq!(commands(&backend).await, Ok(()));
    assert_eq!(fake.counts().connects, 2);
    fake.fail(&[Fail::Fetch, Fail::Connect]);
    assert_eq!(commands(&backend).await, Err(Unavailable::Unreached));
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_knows_less_than_there_is_may_begin() {
    let fake = Fake::default();
    let (first, entry) = (over(&fake), begin(1, "r1"));
    assert_eq!(propose(&first, &entry).await, Ok(Outcome::Done));
    // Many commands by others: the number is raised, and what was remembered goes.
    let head = Gateway::new(first.clone(), 1).read(|rows| rows.scan(&[2, 1], &[2, 2], 1, false)).await;
    let number = |it: &[u8]| it.len() - 2;
    fake.change(|rows| {
        let (key, mut value) = head[0].clone();
        let at = number(&value);
        // A count of four bytes, as the format has it.
        value.splice(at.., [252].into_iter().chain((u32::try_from(REMEMBERED).unwrap() * 2).to_le_bytes()));
        rows.retain(|key, _| key[..2] != [2, 2]);
        rows.insert(key, value);
    });
    let second = over(&fake);
    assert_eq!(second.commands(), 0);
    assert_eq!(propose(&second, &begin(2, "r2")).await, Ok(Outcome::Done));
    assert!(second.commands() > REMEMBERED);
}
