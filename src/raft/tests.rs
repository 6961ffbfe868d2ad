//! openraft's own storage suite against our store, on a real directory, once for a group alone and once beside another.

use openraft::RaftSnapshotBuilder as _;
use openraft::storage::RaftLogStorage as _;
use openraft::storage::RaftStateMachine as _;
use openraft::testing::StoreBuilder;
use openraft::testing::Suite;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncSeekExt as _;
use tokio::io::AsyncWriteExt as _;

use super::Machine;
use super::RowChange;
use super::Rows;
use super::StorageError;
use super::TypeConfig;
use super::Unreadable;
use super::faults::Fault;
use super::faults::plant;
use super::log::Log;
use super::state_machine::StateMachine;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::keys::Key;

/// Keeps each command as a row.
#[derive(Default)]
struct Keeper<const IS_ITS_ROWS: bool>;

impl<const IS_ITS_ROWS: bool> Machine for Keeper<IS_ITS_ROWS> {
    const IS_ITS_ROWS: bool = IS_ITS_ROWS;

    fn restore(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }

    fn step(
        &mut self,
        _: &dyn Rows,
        index: u64,
        command: &[u8],
        changes: &mut Vec<RowChange>,
    ) -> Result<Vec<u8>, Unreadable> {
        changes.push((index.to_be_bytes().to_vec(), Some(command.to_vec())));
        Ok(Vec::new())
    }
}

/// The suite numbers its nodes.
impl From<u64> for StorageId {
    fn from(number: u64) -> Self {
        Self(u128::from(number))
    }
}

struct Fresh<const IS_ITS_ROWS: bool> {
    /// Other groups leave keys on both sides of the tested one.
    with_neighbours: bool,
}

impl<const ROWS: bool> StoreBuilder<TypeConfig, Log, StateMachine<Keeper<ROWS>>, TempDir> for Fresh<ROWS> {
    async fn build(&self) -> Result<(TempDir, Log, StateMachine<Keeper<ROWS>>), StorageError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(directory.path()).expect("a fresh store opens");
        let group = GroupId(1);
        if self.with_neighbours {
            let mut batch = Batch::default();
            for neighbour in [GroupId(0), GroupId(2)] {
                batch.put_group_row(neighbour, b"a", Some(b"not yours".to_vec()));
                batch.put(Key::Purged(neighbour), &super::LogId::default()).expect("encodes");
            }
            store.write(batch).expect("a fresh store can be written");
        }
        let machine = StateMachine::open(store.clone(), group).expect("a fresh store can be read");
        Ok((directory, Log::new(store, group), machine))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft() {
    Suite::test_all(Fresh::<false> { with_neighbours: false }).expect("the suite passes");
}

#[test]
fn the_store_passes_the_suite_between_two_other_groups() {
    Suite::test_all(Fresh::<false> { with_neighbours: true }).expect("the suite passes");
}

#[test]
fn a_machine_that_is_its_rows_passes_the_suite_too() {
    Suite::test_all(Fresh::<true> { with_neighbours: true }).expect("the suite passes");
}

const GROUP: GroupId = GroupId(1);

fn entries(indexes: std::ops::RangeInclusive<u64>) -> Vec<openraft::Entry<TypeConfig>> {
    let entry = |index| openraft::Entry {
        log_id: super::LogId::new(openraft::CommittedLeaderId::new(1, StorageId(1)), index),
        payload: openraft::EntryPayload::Normal(super::Opaque(format!("command {index}").into_bytes())),
    };
    indexes.map(entry).collect()
}

fn opened(directory: &TempDir) -> StateMachine<Keeper<true>> {
    let store = Store::open(directory.path()).expect("the store opens");
    StateMachine::open(store, GROUP).expect("the state is read")
}

fn rows(machine: &StateMachine<Keeper<true>>) -> Vec<crate::storage::GroupRow> {
    machine.rows().all().collect::<Result<_, _>>().expect("rows are read")
}

/// Another member's state, half of it newer than the snapshot is named, on its way to a member that has something else.
async fn travelled()
-> (TempDir, openraft::SnapshotMeta<StorageId, openraft::EmptyNode>, Vec<u8>, Vec<crate::storage::GroupRow>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut leader = opened(&directory);
    leader.apply(entries(1..=50)).await.expect("applies");
    leader.get_snapshot_builder().await.build_snapshot().await.expect("builds");
    let mut snapshot = leader.get_current_snapshot().await.expect("reads").expect("there is one");
    leader.apply(entries(51..=60)).await.expect("applies");
    let mut bytes = Vec::new();
    snapshot.snapshot.seek(std::io::SeekFrom::Start(0)).await.expect("seeks");
    snapshot.snapshot.read_to_end(&mut bytes).await.expect("reads");
    let all = rows(&leader);
    (directory, snapshot.meta, bytes, all)
}

#[tokio::test]
async fn a_state_that_travels_is_taken_whole_and_what_it_has_already_is_left_out() {
    let (_kept, meta, bytes, all) = travelled().await;
    assert_eq!((meta.last_log_id.map(|it| it.index), all.len()), (Some(50), 60));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut follower = opened(&directory);
    follower.apply(entries(1..=2)).await.expect("applies");
    let mut incoming = follower.begin_receiving_snapshot().await.expect("begins");
    incoming.write_all(&bytes[..bytes.len() - 1]).await.expect("writes");
    incoming.flush().await.expect("writes");
    let cut = follower.install_snapshot(&meta, incoming).await;
    assert!(cut.is_err() && rows(&follower).len() == 2, "one that is not whole changes nothing");
    let mut incoming = follower.begin_receiving_snapshot().await.expect("begins");
    incoming.write_all(&bytes).await.expect("writes");
    incoming.flush().await.expect("writes");
    follower.install_snapshot(&meta, incoming).await.expect("installs");
    assert_eq!(rows(&follower), all);
    follower.apply(entries(51..=61)).await.expect("applies");
    assert_eq!(rows(&follower).len(), 61);
    assert_eq!(follower.applied_state().await.expect("reads").0.map(|it| it.index), Some(61));
}

/// A snapshot is named and not yet in place when openraft lets go of the entries that it has: whether they go before the state has them, and whether they go then.
async fn goes(fault: Option<Fault>) -> (bool, bool) {
    plant(fault);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("the store opens");
    let mut state: StateMachine<Keeper<true>> = StateMachine::open(store.clone(), GROUP).expect("the state is read");
    let mut log = Log::new(store, GROUP).beside_state();
    let upto = entries(9..=9)[0].log_id;
    let before = tokio::time::timeout(std::time::Duration::from_secs(60), log.purge(upto)).await;
    plant(None);
    state.apply(entries(1..=9)).await.expect("applies");
    log.purge(upto).await.expect("purges");
    (before.is_ok(), log.get_log_state().await.expect("reads").last_purged_log_id == Some(upto))
}

#[tokio::test(start_paused = true)]
async fn entries_go_only_once_the_state_has_them() {
    assert_eq!(goes(None).await, (false, true));
    assert_eq!(goes(Some(Fault::EntriesGoBeforeTheState)).await, (true, true), "the planted bug is seen");
}

#[test]
fn a_group_that_is_cleared_goes_on_with_no_installation() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(directory.path()).expect("the store opens");
    let mut batch = Batch::default();
    batch
        .put(Key::Installing(GROUP), &openraft::SnapshotMeta::<StorageId, openraft::EmptyNode>::default())
        .expect("encodes");
    super::clear(GROUP, &mut batch);
    store.write(batch).expect("writes");
    assert!(StateMachine::<Keeper<true>>::open(store, GROUP).is_ok(), "it has no file to go on with");
}

#[tokio::test]
async fn an_installation_that_was_interrupted_goes_on_at_the_next_start() {
    let (_kept, meta, bytes, all) = travelled().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut follower = opened(&directory);
    follower.apply(entries(1..=2)).await.expect("applies");
    drop(follower);
    // As a crash leaves it: the file is whole, some rows are gone and some are there.
    std::fs::create_dir_all(directory.path().join("exchange")).expect("a folder");
    std::fs::write(directory.path().join("exchange/incoming-1"), &bytes).expect("a file");
    let store = Store::open(directory.path()).expect("the store opens");
    let mut batch = Batch::default();
    batch.put(Key::Installing(GROUP), &meta).expect("encodes");
    batch.clear_group_rows(GROUP);
    batch.put_group_row(GROUP, &all[5].0, Some(all[5].1.clone()));
    store.write_durably(batch).expect("writes");
    drop(store);
    let mut follower = opened(&directory);
    assert_eq!(rows(&follower), all);
    assert_eq!(follower.applied_state().await.expect("reads").0.map(|it| it.index), Some(60));
    drop(follower);
    assert_eq!(rows(&opened(&directory)), all, "once");
}

#[tokio::test]
async fn what_a_snapshot_took_the_place_of_is_to_be_purged_also_after_a_restart_and_no_piece_of_one_is_left() {
    let (_kept, meta, bytes, _) = travelled().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let folder = directory.path().join("exchange");
    let files = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    let mut follower = opened(&directory);
    follower.apply(entries(1..=2)).await.expect("applies");
    assert_eq!(follower.removed(), 0, "nothing was removed");
    let mut incoming = follower.begin_receiving_snapshot().await.expect("begins");
    incoming.write_all(&bytes).await.expect("writes");
    incoming.flush().await.expect("writes");
    assert_eq!(files(), 0, "one that does not come whole has no name");
    follower.install_snapshot(&meta, incoming).await.expect("installs");
    assert_eq!((follower.removed(), files()), (60, 0));
    drop(follower);
    for name in ["incoming-1", "incoming-1.whole"] {
        std::fs::write(folder.join(name), b"what an earlier release or a crash left").expect("a file");
    }
    let follower = opened(&directory);
    assert_eq!((follower.removed(), files()), (60, 0));
    follower.purged(59).expect("writes");
    assert_eq!(follower.removed(), 60, "there was more");
    follower.purged(60).expect("writes");
    assert_eq!(follower.removed(), 0);
    drop(follower);
    assert_eq!(opened(&directory).removed(), 0);
}
