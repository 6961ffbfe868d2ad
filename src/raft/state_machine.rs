//! The state of one group, as openraft asks for it: the pure machine, its rows on disk, and snapshots of them.
//!
//! Rows need no fsync of their own: the log that made them is durable, and they are written after it to the same
//! write-ahead log, position included, so a crash leaves an older state and the entries to catch up with.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use openraft::EmptyNode;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::OptionalSend;
use openraft::RaftSnapshotBuilder;
use openraft::StorageIOError;
use openraft::storage::RaftStateMachine;
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

use super::LogId;
use super::Machine;
use super::Opaque;
use super::StorageError;
use super::TypeConfig;
use super::Unreadable;
use super::read_or_stop;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::GroupRow;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::codec;
use crate::storage::keys::Key;

pub(super) type SnapshotMeta = openraft::SnapshotMeta<StorageId, EmptyNode>;
pub(super) type StoredMembership = openraft::StoredMembership<StorageId, EmptyNode>;

/// Why the state could not go on. The store's fault, or a newer release's.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the group's state holds what this release cannot read: {0}")]
    Unreadable(#[from] Unreadable),
}

/// A snapshot as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) meta: SnapshotMeta,
    pub(super) rows: Vec<u8>,
}

/// The state of one group. Clones are the same one.
pub(super) struct StateMachine<M> {
    store: Store,
    group: GroupId,
    machine: Arc<Mutex<M>>,
    /// Of the last snapshot that was made or came, or of the rows at the start. The next one is not much larger.
    snapshot_bytes: Arc<AtomicU64>,
}

impl<M> Clone for StateMachine<M> {
    fn clone(&self) -> Self {
        let (machine, snapshot_bytes) = (Arc::clone(&self.machine), Arc::clone(&self.snapshot_bytes));
        Self { store: self.store.clone(), group: self.group, machine, snapshot_bytes }
    }
}

impl<M: Machine> StateMachine<M> {
    /// The state of `group`, read back from its rows in `store`.
    pub(super) fn open(store: Store, group: GroupId) -> Result<Self, StateError> {
        let rows = store.group_rows(group)?;
        let bytes = rows.iter().map(|it| (it.0.len() + it.1.len()) as u64).sum();
        let machine = Arc::new(Mutex::new(restored(&rows)?));
        Ok(Self { store, group, machine, snapshot_bytes: Arc::new(AtomicU64::new(bytes)) })
    }

    /// How large a snapshot is, about.
    pub(super) fn snapshot_bytes(&self) -> u64 {
        self.snapshot_bytes.load(Ordering::Relaxed)
    }

    /// The machine as it is now.
    pub(super) fn read<R>(&self, read: impl FnOnce(&M) -> R) -> R {
        read(&self.machine.lock())
    }

    fn apply_one(&self, machine: &mut M, entry: Entry<TypeConfig>, batch: &mut Batch) -> Result<Opaque, StateError> {
        batch.put(Key::Applied(self.group), &entry.log_id)?;
        match entry.payload {
            EntryPayload::Blank => Ok(Opaque(Vec::new())),
            EntryPayload::Normal(command) => {
                let mut changes = Vec::new();
                let outcome = machine.step(entry.log_id.index, &command.0, &mut changes)?;
                changes.into_iter().for_each(|(key, value)| batch.put_group_row(self.group, &key, value));
                Ok(Opaque(outcome))
            }
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership);
                batch.put(Key::Membership(self.group), &stored)?;
                Ok(Opaque(Vec::new()))
            }
        }
    }

    fn install(&self, meta: &SnapshotMeta, bytes: Vec<u8>) -> Result<(), StateError> {
        let rows: Vec<GroupRow> = codec::decode(&bytes).map_err(StoreError::from)?;
        self.snapshot_bytes.store(bytes.len() as u64, Ordering::Relaxed);
        let installed = restored(&rows)?;
        let mut batch = Batch::default();
        batch.clear_group_rows(self.group);
        rows.into_iter().for_each(|(key, value)| batch.put_group_row(self.group, &key, Some(value)));
        match &meta.last_log_id {
            Some(applied) => batch.put(Key::Applied(self.group), applied)?,
            None => batch.delete(Key::Applied(self.group)),
        }
        batch.put(Key::Membership(self.group), &meta.last_membership)?;
        batch.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: bytes })?;
        let mut machine = self.machine.lock();
        self.store.write_durably(batch)?;
        *machine = installed;
        Ok(())
    }

    fn build(&self) -> Result<Snapshot<TypeConfig>, StateError> {
        let (applied, membership, rows) = {
            // Held so that rows and position are of the same moment.
            let _still = self.machine.lock();
            let (applied, membership) = self.position();
            (applied, membership, self.store.group_rows(self.group)?)
        };
        let rows = codec::encode(&rows).map_err(StoreError::from)?;
        self.snapshot_bytes.store(rows.len() as u64, Ordering::Relaxed);
        let meta = SnapshotMeta {
            // The state is a function of the position, so the position is name enough: two snapshots of it are equal.
            snapshot_id: applied.map_or_else(|| "empty".to_owned(), |it| it.to_string()),
            last_log_id: applied,
            last_membership: membership,
        };
        let mut batch = Batch::default();
        batch.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: rows.clone() })?;
        self.store.write_durably(batch)?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(rows)) })
    }

    fn position(&self) -> (Option<LogId>, StoredMembership) {
        let membership = read_or_stop(self.store.read(Key::Membership(self.group)));
        (read_or_stop(self.store.read(Key::Applied(self.group))), membership.unwrap_or_default())
    }
}

/// The machine that these rows make.
pub(super) fn restored<M: Machine>(rows: &[GroupRow]) -> Result<M, Unreadable> {
    let mut machine = M::default();
    rows.iter().try_for_each(|(key, value)| machine.restore(key, value))?;
    Ok(machine)
}

fn write_error(error: &StateError) -> StorageError {
    StorageIOError::write_state_machine(error).into()
}

impl<M: Machine> RaftSnapshotBuilder<TypeConfig> for StateMachine<M> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let machine = self.clone();
        let built = self.store.on_disk(move |_| Ok(machine.build())).await;
        built.map_err(StateError::from).flatten().map_err(|error| write_error(&error))
    }
}

impl<M: Machine> RaftStateMachine<TypeConfig> for StateMachine<M> {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok(self.position())
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Opaque>, StorageError>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        let mut machine = self.machine.lock();
        let outcomes: Result<Vec<_>, StateError> =
            entries.into_iter().map(|entry| self.apply_one(&mut machine, entry, &mut batch)).collect();
        // A failure leaves memory ahead of disk; openraft then stops this group, and a restart reads the disk.
        let written = outcomes.and_then(|outcomes| Ok(self.store.write(batch).map(|()| outcomes)?));
        written.map_err(|error| write_error(&error))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        let installed = self.store.on_disk(move |_| Ok(machine.install(&meta, snapshot.into_inner()))).await;
        installed.map_err(StateError::from).flatten().map_err(|error| write_error(&error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let kept: Option<Kept> = read_or_stop(self.store.read(Key::Snapshot(self.group)));
        Ok(kept.map(|it| Snapshot { meta: it.meta, snapshot: Box::new(Cursor::new(it.rows)) }))
    }
}
