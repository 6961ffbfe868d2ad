//! The log of a node that is alone: the same entries in the same store as a raft group of one, without an election.
//!
//! A group of one has nobody to ask, so an entry is committed when it is on this disk. Kept apart from `raft/` so that a
//! node without a mesh runs no raft task and no timer. *Invariants:* entries have term 1 and consecutive indices; entry, rows and
//! position are one batch; what is older than [`ENTRIES_KEPT`] is purged with it, so the disk holds a bounded log.

use std::path::Path;
use std::sync::Arc;

use openraft::CommittedLeaderId;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::LogId;
use parking_lot::Mutex;

use super::GroupId;
use super::error::AppendError;
use super::error::OpenError;
use super::handle::open_store;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::State;
use super::raft::TypeConfig;
use super::raft::read_state;
use super::raft::write_effects;
use super::store::Batch;
use super::store::Store;
use super::store::StoreError;
use super::store::keys::Key;

/// Entries kept behind the last one. They serve whoever reads what was changed when; the state does not need them.
const ENTRIES_KEPT: u64 = 1024;

/// The log. Clones are the same one.
#[derive(Clone)]
pub struct LocalLog(Arc<Inner>);

struct Inner {
    store: Store,
    group: GroupId,
    tip: Mutex<Tip>,
}

/// What is in force.
struct Tip {
    state: State,
    last: u64,
    has_failed: bool,
}

impl LocalLog {
    /// Opens or makes the log in `directory`, and reads its state back. Blocks on the disk.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let store = open_store(directory)?;
        let broken = |source| OpenError::Store { directory: directory.to_path_buf(), source };
        let group = GroupId::CONTROL;
        let state = read_state(&store, group).map_err(broken)?;
        let applied: Option<LogId<u64>> = store.read(Key::Applied(group)).map_err(broken)?;
        let tip = Tip { state, last: applied.map_or(0, |it| it.index), has_failed: false };
        Ok(Self(Arc::new(Inner { store, group, tip: Mutex::new(tip) })))
    }

    /// Appends one command. When this returns, it is on disk and in force, or it was refused.
    ///
    /// Commands go one after the other, each with its own fsync: they are an operator's edits, not requests. A caller that
    /// stops waiting does not undo its command.
    pub async fn append(&self, command: Command) -> Result<Outcome, AppendError> {
        let inner = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || inner.append(command)).await {
            Ok(result) => result,
            // Cancelled before it began, or a panic in it: not acknowledged either way.
            Err(_) => Err(AppendError::Closing),
        }
    }

    /// The state in force. A copy: it is read at start and by an operator.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.tip.lock().state.clone()
    }
}

impl Inner {
    fn append(&self, command: Command) -> Result<Outcome, AppendError> {
        let mut tip = self.tip.lock();
        if tip.has_failed {
            return Err(AppendError::Failed);
        }
        let (mut next, mut effects) = (tip.state.clone(), Vec::new());
        let outcome = next.step(command.clone(), &mut effects);
        if effects.is_empty() {
            return Ok(outcome);
        }
        let index = tip.last + 1;
        let written = self.batch(index, command, effects).and_then(|batch| self.store.write_durably(batch));
        if let Err(error) = written {
            // Whether the entry is on disk is unknown, so the state in memory may no longer be what the log says.
            tip.has_failed = true;
            return Err(error.into());
        }
        (tip.state, tip.last) = (next, index);
        Ok(outcome)
    }

    fn batch(&self, index: u64, command: Command, effects: Vec<super::machine::Effect>) -> Result<Batch, StoreError> {
        let position = |index| LogId::new(CommittedLeaderId::new(1, 0), index);
        let entry = Entry::<TypeConfig> { log_id: position(index), payload: EntryPayload::Normal(command) };
        let mut batch = Batch::default();
        batch.put(Key::Entry(self.group, index), &entry)?;
        batch.put(Key::Applied(self.group), &entry.log_id)?;
        write_effects(self.group, effects, &mut batch)?;
        if let Some(oldest) = index.checked_sub(ENTRIES_KEPT).filter(|oldest| *oldest > 0) {
            batch.put(Key::Purged(self.group), &position(oldest))?;
            batch.delete(Key::Entry(self.group, oldest));
        }
        Ok(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(id: u64, text: &str) -> Command {
        Command::PutWorker { id, spec: text.into() }
    }

    fn kept(log: &LocalLog) -> Vec<(u64, Vec<u8>)> {
        log.state().workers().map(|(id, spec)| (id, spec.to_vec())).collect()
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let log = LocalLog::open(directory.path()).unwrap();
        for command in [put(1, "a"), put(2, "b"), put(1, "c"), Command::RemoveWorker { id: 2 }] {
            assert_eq!(log.append(command).await.unwrap(), Outcome::Changed);
        }
        drop(log);
        let log = LocalLog::open(directory.path()).unwrap();
        assert_eq!(kept(&log), [(1, b"c".to_vec())]);
        assert_eq!(log.append(put(3, "d")).await.unwrap(), Outcome::Changed, "it goes on where it was");
        assert_eq!(log.0.tip.lock().last, 5);
    }

    #[tokio::test]
    async fn commands_from_many_callers_are_all_kept() {
        let directory = tempfile::tempdir().unwrap();
        let log = LocalLog::open(directory.path()).unwrap();
        let appends = (0..32).map(|id| log.append(put(id, "x")));
        let outcomes = futures_util::future::join_all(appends).await;
        assert!(outcomes.iter().all(|it| matches!(it, Ok(Outcome::Changed))));
        drop(log);
        assert_eq!(kept(&LocalLog::open(directory.path()).unwrap()).len(), 32);
    }

    #[tokio::test]
    async fn the_log_on_disk_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let log = LocalLog::open(directory.path()).unwrap();
        // As if that many had been appended, so that the test need not wait for as many fsyncs.
        log.0.tip.lock().last = ENTRIES_KEPT - 2;
        for round in 0..5 {
            log.append(put(1, &round.to_string())).await.unwrap();
        }
        let indices = |it: Result<(Key, Entry<TypeConfig>), StoreError>| it.unwrap().1.log_id.index;
        let left: Vec<_> = log.0.store.scan(Key::Entry(GroupId::CONTROL, 0)).map(indices).collect();
        let purged: Option<LogId<u64>> = log.0.store.read(Key::Purged(GroupId::CONTROL)).unwrap();
        assert_eq!((left.len(), purged.map(|it| it.index)), (5, Some(3)));
    }

    #[tokio::test]
    async fn a_group_can_take_the_log_of_a_node_that_was_alone() {
        use openraft::storage::RaftLogStorage as _;
        use openraft::storage::RaftStateMachine as _;
        let directory = tempfile::tempdir().unwrap();
        let log = LocalLog::open(directory.path()).unwrap();
        log.append(put(1, "a")).await.unwrap();
        log.append(put(2, "b")).await.unwrap();
        let store = log.0.store.clone();
        let mut machine = super::super::raft::StateMachine::open(store.clone(), GroupId::CONTROL).unwrap();
        let last = super::super::raft::Log::new(store, GroupId::CONTROL).get_log_state().await.unwrap().last_log_id;
        assert_eq!(last.map(|it| it.index), Some(2));
        assert_eq!(machine.applied_state().await.unwrap().0, last);
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_a_typed_error() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"in the way").unwrap();
        assert!(matches!(LocalLog::open(&file), Err(OpenError::NotWritable { .. })));
    }

    #[tokio::test]
    async fn a_directory_in_use_is_a_typed_error_and_the_holder_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let log = LocalLog::open(directory.path()).unwrap();
        assert!(matches!(LocalLog::open(directory.path()), Err(OpenError::InUse { .. })));
        assert_eq!(log.append(put(1, "a")).await.unwrap(), Outcome::Changed);
    }
}
