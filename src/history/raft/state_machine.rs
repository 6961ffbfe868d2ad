//! The state of one group, as openraft asks for it: the pure machine, its rows on disk, and snapshots of them.
//!
//! Rows need no fsync of their own: the log that made them is durable, and they are written after it to the same
//! write-ahead log, position included, so a crash leaves an older state and the entries to catch up with.

use std::io::Cursor;
use std::sync::Arc;

use openraft::BasicNode;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::LogId;
use openraft::OptionalSend;
use openraft::RaftSnapshotBuilder;
use openraft::SnapshotMeta;
use openraft::StorageIOError;
use openraft::StoredMembership;
use openraft::storage::RaftStateMachine;
use openraft::storage::Snapshot;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::Serialize;

use super::super::GroupId;
use super::super::machine::Effect;
use super::super::machine::Outcome;
use super::super::machine::State;
use super::super::store::Batch;
use super::super::store::Store;
use super::super::store::StoreError;
use super::super::store::codec;
use super::super::store::keys::Key;
use super::StorageError;
use super::TypeConfig;
use super::on_disk;
use super::read_or_stop;

/// The state as a snapshot carries it: workers by id, and the document of policies.
type Rows = (Vec<(u64, Vec<u8>)>, Option<Vec<u8>>);

/// A snapshot as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    meta: SnapshotMeta<u64, BasicNode>,
    rows: Vec<u8>,
}

/// The state of one group. Clones are the same one.
#[derive(Clone)]
pub struct StateMachine {
    store: Store,
    group: GroupId,
    state: Arc<Mutex<State>>,
}

impl StateMachine {
    /// The state of `group`, read back from its rows in `store`.
    pub fn open(store: Store, group: GroupId) -> Result<Self, StoreError> {
        let state = read_state(&store, group)?;
        Ok(Self { store, group, state: Arc::new(Mutex::new(state)) })
    }

    fn apply_one(&self, state: &mut State, entry: Entry<TypeConfig>, batch: &mut Batch) -> Result<Outcome, StoreError> {
        batch.put(Key::Applied(self.group), &entry.log_id)?;
        match entry.payload {
            EntryPayload::Blank => Ok(Outcome::Nothing),
            EntryPayload::Normal(command) => {
                let mut effects = Vec::new();
                let outcome = state.step(command, &mut effects);
                write_effects(self.group, effects, batch)?;
                Ok(outcome)
            }
            EntryPayload::Membership(membership) => {
                let stored = StoredMembership::new(Some(entry.log_id), membership);
                batch.put(Key::Membership(self.group), &stored)?;
                Ok(Outcome::Nothing)
            }
        }
    }

    fn install(&self, meta: &SnapshotMeta<u64, BasicNode>, bytes: Vec<u8>) -> Result<(), StoreError> {
        let (workers, policies): Rows = codec::decode(&bytes)?;
        let mut batch = Batch::default();
        batch.delete_from(Key::Worker(self.group, 0), None);
        let mut installed = State::default();
        for (id, spec) in workers {
            batch.put(Key::Worker(self.group, id), &spec)?;
            installed.restore(id, spec);
        }
        write_effects(self.group, vec![Effect::Policies(policies.clone())], &mut batch)?;
        installed.restore_policies(policies);
        match &meta.last_log_id {
            Some(applied) => batch.put(Key::Applied(self.group), applied)?,
            None => batch.delete(Key::Applied(self.group)),
        }
        batch.put(Key::Membership(self.group), &meta.last_membership)?;
        batch.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: bytes })?;
        let mut state = self.state.lock();
        self.store.write_durably(batch)?;
        *state = installed;
        Ok(())
    }

    fn build(&self) -> Result<Snapshot<TypeConfig>, StoreError> {
        let (applied, membership, rows) = {
            // Held so that rows and position are of the same moment; the state is in memory, so it is short.
            let state = self.state.lock();
            let workers = state.workers().map(|(id, spec)| (id, spec.to_vec())).collect();
            let rows: Rows = (workers, state.policies().map(<[u8]>::to_vec));
            let (applied, membership) = self.position();
            (applied, membership, codec::encode(&rows)?)
        };
        let meta = SnapshotMeta {
            // The state is a function of the position, so the position is name enough: two snapshots of it are equal.
            snapshot_id: applied.map_or_else(|| "empty".to_owned(), |it: LogId<u64>| it.to_string()),
            last_log_id: applied,
            last_membership: membership,
        };
        let mut batch = Batch::default();
        batch.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: rows.clone() })?;
        self.store.write_durably(batch)?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(rows)) })
    }

    fn position(&self) -> (Option<LogId<u64>>, StoredMembership<u64, BasicNode>) {
        let membership = read_or_stop(self.store.read(Key::Membership(self.group)));
        (read_or_stop(self.store.read(Key::Applied(self.group))), membership.unwrap_or_default())
    }
}

/// The state of `group` as its rows tell it.
pub(in crate::history) fn read_state(store: &Store, group: GroupId) -> Result<State, StoreError> {
    let mut state = State::default();
    for row in store.scan::<Vec<u8>>(Key::Worker(group, 0)) {
        match row? {
            (Key::Worker(_, id), spec) => state.restore(id, spec),
            (other, _) => return Err(StoreError::UnknownKey(other.encode())),
        }
    }
    state.restore_policies(store.read(Key::Policies(group))?);
    Ok(state)
}

/// The effects of a command as changes of rows.
pub(in crate::history) fn write_effects(
    group: GroupId,
    effects: Vec<Effect>,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    for effect in effects {
        match effect {
            Effect::Put { id, spec } => batch.put(Key::Worker(group, id), &spec)?,
            Effect::Delete { id } => batch.delete(Key::Worker(group, id)),
            Effect::Policies(Some(spec)) => batch.put(Key::Policies(group), &spec)?,
            Effect::Policies(None) => batch.delete(Key::Policies(group)),
        }
    }
    Ok(())
}

fn write_error(error: &StoreError) -> StorageError {
    StorageIOError::write_state_machine(error).into()
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let machine = self.clone();
        on_disk(move || machine.build()).await.map_err(|error| write_error(&error))
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId<u64>>, StoredMembership<u64, BasicNode>), StorageError> {
        Ok(self.position())
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        let mut state = self.state.lock();
        let outcomes: Result<Vec<_>, _> =
            entries.into_iter().map(|entry| self.apply_one(&mut state, entry, &mut batch)).collect();
        // A failure leaves memory ahead of disk; openraft then stops this group, and a restart reads the disk.
        outcomes.and_then(|outcomes| self.store.write(batch).map(|()| outcomes)).map_err(|error| write_error(&error))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta<u64, BasicNode>,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        on_disk(move || machine.install(&meta, snapshot.into_inner())).await.map_err(|error| write_error(&error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let kept: Option<Kept> = read_or_stop(self.store.read(Key::Snapshot(self.group)));
        Ok(kept.map(|it| Snapshot { meta: it.meta, snapshot: Box::new(Cursor::new(it.rows)) }))
    }
}
