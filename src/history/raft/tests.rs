//! openraft's own storage suite against our store, on a real directory, once for a group alone and once beside another.

use openraft::testing::StoreBuilder;
use openraft::testing::Suite;
use tempfile::TempDir;

use super::super::GroupId;
use super::super::store::Batch;
use super::super::store::Store;
use super::super::store::keys::Key;
use super::Log;
use super::StateMachine;
use super::StorageError;
use super::TypeConfig;

struct Fresh {
    /// Other groups leave keys on both sides of the tested one.
    with_neighbours: bool,
}

impl StoreBuilder<TypeConfig, Log, StateMachine, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Log, StateMachine), StorageError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(directory.path()).expect("a fresh store opens");
        let group = GroupId(1);
        if self.with_neighbours {
            let mut batch = Batch::default();
            for neighbour in [GroupId(0), GroupId(2)] {
                batch.put(Key::Worker(neighbour, 7), &b"not yours".to_vec()).expect("encodes");
                batch.put(Key::Purged(neighbour), &openraft::LogId::<u64>::default()).expect("encodes");
            }
            store.write(batch).expect("a fresh store can be written");
        }
        let machine = StateMachine::open(store.clone(), group).expect("a fresh store can be read");
        Ok((directory, Log::new(store, group), machine))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft() {
    Suite::test_all(Fresh { with_neighbours: false }).expect("the suite passes");
}

#[test]
fn the_store_passes_the_suite_between_two_other_groups() {
    Suite::test_all(Fresh { with_neighbours: true }).expect("the suite passes");
}
