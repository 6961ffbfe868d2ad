//! openraft's own storage suite against our store, on a real directory, once for a group alone and once beside another.

use openraft::testing::StoreBuilder;
use openraft::testing::Suite;
use tempfile::TempDir;

use super::Machine;
use super::RowChange;
use super::StorageError;
use super::TypeConfig;
use super::Unreadable;
use super::log::Log;
use super::state_machine::StateMachine;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::keys::Key;

/// Keeps each command as a row.
#[derive(Default)]
struct Keeper;

impl Machine for Keeper {
    fn restore(&mut self, _key: &[u8], _value: &[u8]) -> Result<(), Unreadable> {
        Ok(())
    }

    fn step(&mut self, index: u64, command: &[u8], changes: &mut Vec<RowChange>) -> Result<Vec<u8>, Unreadable> {
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

struct Fresh {
    /// Other groups leave keys on both sides of the tested one.
    with_neighbours: bool,
}

impl StoreBuilder<TypeConfig, Log, StateMachine<Keeper>, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Log, StateMachine<Keeper>), StorageError> {
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
    Suite::test_all(Fresh { with_neighbours: false }).expect("the suite passes");
}

#[test]
fn the_store_passes_the_suite_between_two_other_groups() {
    Suite::test_all(Fresh { with_neighbours: true }).expect("the suite passes");
}
