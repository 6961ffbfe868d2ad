//! The state of one group, as openraft asks for it: the pure machine, its rows on disk, and snapshots of them.
//!
//! Rows need no fsync of their own: the log that made them is durable, and they are written after it to the same
//! write-ahead log, position included, so a crash leaves an older state and the entries to catch up with.

use std::fs;
use std::fs::File;
use std::io;
use std::io::BufWriter;
use std::path::PathBuf;
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
use tokio::sync::watch;

use super::LogId;
use super::Machine;
use super::Opaque;
use super::StorageError;
use super::TypeConfig;
use super::Unreadable;
use super::content::Content;
use super::exchange;
use super::exchange::ExchangeError;
use super::exchange::Head;
use super::read_or_stop;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::GroupRow;
use crate::storage::GroupView;
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
    #[error("the state of another member could not be exchanged: {0}")]
    Exchange(#[from] ExchangeError),
    #[error("the file of a snapshot: {0}")]
    File(#[from] io::Error),
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
    /// The last entry that has taken effect.
    applied: Arc<watch::Sender<u64>>,
    /// The last entry that removed what may still lie in files; 0: there is none. See [`Key::Removed`].
    removed: Arc<watch::Sender<u64>>,
}

impl<M> Clone for StateMachine<M> {
    fn clone(&self) -> Self {
        let (machine, snapshot_bytes) = (Arc::clone(&self.machine), Arc::clone(&self.snapshot_bytes));
        let (store, group) = (self.store.clone(), self.group);
        let (applied, removed) = (Arc::clone(&self.applied), Arc::clone(&self.removed));
        Self { store, group, machine, snapshot_bytes, applied, removed }
    }
}

impl<M: Machine> StateMachine<M> {
    /// The state of `group`, read back from its rows in `store`.
    pub(super) fn open(store: Store, group: GroupId) -> Result<Self, StateError> {
        if M::IS_ITS_ROWS {
            let (machine, snapshot_bytes, applied, removed) = Default::default();
            let opened = Self { store, group, machine, snapshot_bytes, applied, removed };
            opened.finish_install()?;
            opened.drop_incoming()?;
            opened.begins_at()?;
            return Ok(opened);
        }
        let rows = store.group_rows(group)?;
        let bytes = rows.iter().map(|it| (it.0.len() + it.1.len()) as u64).sum();
        let machine = Arc::new(Mutex::new(restored(&rows)?));
        let (applied, removed, snapshot_bytes) = (Arc::default(), Arc::default(), Arc::new(AtomicU64::new(bytes)));
        let opened = Self { store, group, machine, snapshot_bytes, applied, removed };
        opened.begins_at()?;
        Ok(opened)
    }

    /// The rows as they are now, whatever takes effect meanwhile.
    pub(super) fn rows(&self) -> GroupView<'_> {
        self.store.group_view(self.group)
    }

    /// The last entry that has taken effect.
    pub(super) fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Waits until an entry has taken effect.
    pub(super) async fn until_applied(&self, index: u64) {
        let _ = self.applied.subscribe().wait_for(|it| *it >= index).await; // the sender is `self`'s
    }

    /// As the disk has it.
    fn begins_at(&self) -> Result<(), StoreError> {
        self.removed.send_replace(self.store.read(Key::Removed(self.group))?.unwrap_or(0));
        self.tell_applied()
    }

    /// Tells who waits how far the disk has it.
    fn tell_applied(&self) -> Result<(), StoreError> {
        let applied: Option<LogId> = self.store.read(Key::Applied(self.group))?;
        self.applied.send_replace(applied.map_or(0, |it| it.index));
        Ok(())
    }

    /// Which group.
    pub(super) fn group(&self) -> GroupId {
        self.group
    }

    /// The last entry that removed what may still lie in files; 0: there is none.
    pub(super) fn removed(&self) -> u64 {
        *self.removed.borrow()
    }

    /// Waits until there is one.
    pub(super) async fn until_removed(&self) {
        let _ = self.removed.subscribe().wait_for(|it| *it > 0).await; // the sender is `self`'s
    }

    /// What was removed at this entry may still lie in files, from when the batch is written.
    fn removes(&self, at: u64, batch: &mut Batch) -> Result<(), StoreError> {
        batch.put(Key::Removed(self.group), &at)?;
        self.removed.send_replace(at);
        Ok(())
    }

    /// What was removed up to this entry lies in no file any more.
    pub(super) fn purged(&self, upto: u64) -> Result<(), StoreError> {
        // Held so that no entry comes in between.
        let _still = self.machine.lock();
        if self.removed() > upto {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.delete(Key::Removed(self.group));
        self.store.write(batch)?;
        self.removed.send_replace(0);
        Ok(())
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
                let outcome = machine.step(&self.rows(), entry.log_id.index, &command.0, &mut changes)?;
                if changes.iter().any(|(key, value)| value.is_none() && M::is_record(key)) {
                    self.removes(entry.log_id.index, batch)?;
                }
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

    fn install(&self, meta: &SnapshotMeta, mut reader: Box<dyn io::Read + Send>) -> Result<(), StateError> {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes)?;
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
        let meta = meta_of(applied, membership);
        let mut batch = Batch::default();
        batch.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: rows.clone() })?;
        self.store.write_durably(batch)?;
        Ok(Snapshot { meta, snapshot: Box::new(Content::bytes(rows)) })
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
        let built =
            self.store.on_disk(move |_| Ok(if M::IS_ITS_ROWS { machine.build_rows() } else { machine.build() })).await;
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
        let mut machine = self.machine.lock();
        let applied =
            if M::IS_ITS_ROWS { self.apply_each(&mut machine, entries) } else { self.apply_all(&mut machine, entries) };
        read_or_stop(self.tell_applied());
        applied.map_err(|error| write_error(&error))
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Content>, StorageError> {
        let machine = self.clone();
        let made = self.store.on_disk(move |_| Ok(machine.incoming())).await.map_err(StateError::from).flatten();
        made.map(Box::new).map_err(|error| write_error(&error))
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Content>) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        let reader = snapshot.into_reader().await.map_err(|error| write_error(&error.into()))?;
        let install =
            move || if M::IS_ITS_ROWS { machine.install_rows(&meta, reader) } else { machine.install(&meta, reader) };
        let installed = self.store.on_disk(move |_| Ok(install())).await;
        read_or_stop(self.tell_applied());
        installed.map_err(StateError::from).flatten().map_err(|error| write_error(&error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let kept: Option<Kept> = read_or_stop(self.store.read(Key::Snapshot(self.group)));
        let Some(kept) = kept else { return Ok(None) };
        if M::IS_ITS_ROWS {
            return self.current().map(Some).map_err(|error| write_error(&error));
        }
        Ok(Some(Snapshot { meta: kept.meta, snapshot: Box::new(Content::bytes(kept.rows)) }))
    }
}

impl<M: Machine> StateMachine<M> {
    /// All in one write.
    fn apply_all(
        &self,
        machine: &mut M,
        entries: impl IntoIterator<Item = Entry<TypeConfig>>,
    ) -> Result<Vec<Opaque>, StateError> {
        let mut batch = Batch::default();
        let outcomes: Result<Vec<_>, StateError> =
            entries.into_iter().map(|entry| self.apply_one(machine, entry, &mut batch)).collect();
        // A failure leaves memory ahead of disk; openraft then stops this group, and a restart reads the disk.
        let outcomes = outcomes?;
        self.store.write(batch)?;
        Ok(outcomes)
    }

    /// Takes all entries that lie on this disk, decided or not. Answers the last one that the state has.
    pub(super) fn catch_up(&self) -> Result<Option<LogId>, StateError> {
        let mut machine = self.machine.lock();
        let first = self.position().0.map_or(0, |it| it.index + 1);
        let entries: Result<Vec<Entry<TypeConfig>>, StoreError> =
            self.store.scan(Key::Entry(self.group, first)).map(|entry| entry.map(|it| it.1)).collect();
        self.apply_each(&mut machine, entries?)?;
        Ok(self.position().0)
    }

    /// Each in a write of its own: the next one reads the rows that it left. A snapshot that came may have had some of them in it already, because it was made later than it was named; what
    /// they answer nobody waits for then.
    fn apply_each(
        &self,
        machine: &mut M,
        entries: impl IntoIterator<Item = Entry<TypeConfig>>,
    ) -> Result<Vec<Opaque>, StateError> {
        let applied = self.position().0.map_or(0, |it| it.index);
        let mut outcomes = Vec::new();
        for entry in entries {
            if entry.log_id.index <= applied && applied > 0 {
                outcomes.push(Opaque(Vec::new()));
                continue;
            }
            let mut batch = Batch::default();
            outcomes.push(self.apply_one(machine, entry, &mut batch)?);
            self.store.write(batch)?;
        }
        Ok(outcomes)
    }
}

// === the state of a machine that is its rows ===

/// Folder of files that are on their way from or to another member.
const EXCHANGE: &str = "exchange";
/// Ends the name of one that is read to its end for the first time.
const WHOLE: &str = "whole";

impl<M: Machine> StateMachine<M> {
    fn folder(&self) -> Result<Option<PathBuf>, io::Error> {
        let Some(directory) = self.store.directory() else { return Ok(None) };
        let folder = directory.join(EXCHANGE);
        fs::create_dir_all(&folder)?;
        Ok(Some(folder))
    }

    fn incoming_name(&self) -> String {
        format!("incoming-{}", self.group.0)
    }

    /// Removes what a process left that ended while a snapshot came.
    fn drop_incoming(&self) -> Result<(), io::Error> {
        let Some(directory) = self.store.directory() else { return Ok(()) };
        let path = directory.join(EXCHANGE).join(self.incoming_name());
        for path in [path.with_extension(WHOLE), path] {
            if path.try_exists()? {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Where a snapshot that comes is put.
    fn incoming(&self) -> Result<Content, StateError> {
        match self.folder()? {
            Some(folder) if M::IS_ITS_ROWS => {
                let path = folder.join(self.incoming_name());
                let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
                fs::remove_file(&path)?; // one that does not come whole leaves nothing
                Ok(Content::file(file))
            }
            Some(_) | None => Ok(Content::bytes(Vec::new())),
        }
    }

    /// The newest snapshot, which is made when it is read. It may then be newer than it is named here: whoever takes it leaves out what it has.
    fn current(&self) -> Result<Snapshot<TypeConfig>, StateError> {
        let (applied, membership) = self.position();
        let meta = meta_of(applied, membership);
        let machine = self.clone();
        let content = match self.folder()? {
            Some(folder) => Content::made_by(move || machine.exported(folder).map_err(io::Error::other)),
            None => Content::bytes({
                let mut bytes = Vec::new();
                machine.export(&mut bytes)?;
                bytes
            }),
        };
        Ok(Snapshot { meta, snapshot: Box::new(content) })
    }

    /// All rows in a file without a name.
    fn exported(&self, folder: PathBuf) -> Result<File, StateError> {
        let path = folder.join(format!("outgoing-{}", self.group.0));
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        fs::remove_file(&path)?; // it goes with whoever reads it
        let mut out = BufWriter::new(file);
        self.export(&mut out)?;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        self.snapshot_bytes.store(file.metadata()?.len(), Ordering::Relaxed);
        Ok(file)
    }

    fn export(&self, out: &mut dyn io::Write) -> Result<(), StateError> {
        let (view, head) = {
            // Held so that rows and position are of the same moment.
            let _still = self.machine.lock();
            let (applied, membership) = self.position();
            (self.rows(), Head { applied, membership })
        };
        Ok(exchange::export(&view, &head, out)?)
    }

    /// Nothing is written but that there is one: the rows themselves are on disk, and the entries that made them may go.
    fn build_rows(&self) -> Result<Snapshot<TypeConfig>, StateError> {
        let snapshot = self.current()?;
        let mut batch = Batch::default();
        batch.put(Key::Snapshot(self.group), &Kept { meta: snapshot.meta.clone(), rows: Vec::new() })?;
        self.store.write_durably(batch)?;
        Ok(snapshot)
    }

    fn install_rows(&self, meta: &SnapshotMeta, mut reader: Box<dyn io::Read + Send>) -> Result<(), StateError> {
        let Some(folder) = self.folder()? else {
            return self.take_rows(meta, reader, Batch::default());
        };
        let path = folder.join(self.incoming_name());
        // Read once to see that it is whole: from then on there is no way back.
        let mut copied = BufWriter::new(File::create(path.with_extension(WHOLE))?);
        let head = exchange::import(Tee { from: &mut reader, to: &mut copied }, |_| Ok(()));
        let copied = copied.into_inner().map_err(io::IntoInnerError::into_error)?;
        head?;
        copied.sync_all()?;
        fs::rename(path.with_extension(WHOLE), &path)?;
        File::open(&folder)?.sync_all()?;
        let mut batch = Batch::default();
        batch.put(Key::Installing(self.group), meta)?;
        self.store.write_durably(batch)?;
        self.finish_install()
    }

    /// Goes on with an installation that had begun.
    fn finish_install(&self) -> Result<(), StateError> {
        let Some(meta) = self.store.read::<SnapshotMeta>(Key::Installing(self.group))? else { return Ok(()) };
        let Some(folder) = self.folder()? else { return Ok(()) };
        let path = folder.join(self.incoming_name());
        let file = io::BufReader::new(File::open(&path)?);
        let mut batch = Batch::default();
        batch.clear_group_rows(self.group);
        self.store.write(batch)?;
        let mut last = Batch::default();
        last.delete(Key::Installing(self.group));
        self.take_rows(&meta, Box::new(file), last)?;
        Ok(fs::remove_file(&path)?)
    }

    /// Puts rows in, a frame at a time; with the last write it counts.
    fn take_rows(
        &self,
        meta: &SnapshotMeta,
        reader: Box<dyn io::Read + Send>,
        mut last: Batch,
    ) -> Result<(), StateError> {
        let _still = self.machine.lock();
        let is_in_memory = self.store.directory().is_none();
        if is_in_memory {
            last.clear_group_rows(self.group);
        }
        let mut bytes = 0;
        let head = exchange::import(reader, |rows| {
            let mut batch = Batch::default();
            let into = if is_in_memory { &mut last } else { &mut batch };
            for (key, value) in rows {
                bytes += (key.len() + value.len()) as u64;
                into.put_group_row(self.group, &key, Some(value));
            }
            self.store.write(batch)
        })?;
        match &head.applied {
            Some(applied) => last.put(Key::Applied(self.group), applied)?,
            None => last.delete(Key::Applied(self.group)),
        }
        last.put(Key::Membership(self.group), &head.membership)?;
        // What was here before may have had what is not there any more.
        self.removes(head.applied.map_or(0, |it| it.index), &mut last)?;
        last.put(Key::Snapshot(self.group), &Kept { meta: meta.clone(), rows: Vec::new() })?;
        self.snapshot_bytes.store(bytes, Ordering::Relaxed);
        Ok(self.store.write_durably(last)?)
    }
}

/// The state is a function of the position, so the position is name enough: two snapshots of it are equal.
fn meta_of(applied: Option<LogId>, membership: StoredMembership) -> SnapshotMeta {
    let snapshot_id = applied.map_or_else(|| "empty".to_owned(), |it| it.to_string());
    SnapshotMeta { snapshot_id, last_log_id: applied, last_membership: membership }
}

/// Reads, and writes what it read.
struct Tee<'a, R, W> {
    from: &'a mut R,
    to: &'a mut W,
}

impl<R: io::Read, W: io::Write> io::Read for Tee<'_, R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.to.write_all(&buffer[..read])?;
        Ok(read)
    }
}
