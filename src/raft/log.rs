//! The log of one group, as openraft asks for it.

use std::fmt::Debug;
use std::io;
use std::ops::Bound;
use std::ops::RangeBounds;
use std::time::Duration;

use openraft::AsyncRuntime as _;
use openraft::Entry;
use openraft::EntryPayload;
use openraft::LogId;
use openraft::OptionalSend;
use openraft::RaftLogReader;
use openraft::StorageIOError;
use openraft::Vote;
use openraft::storage::LogFlushed;
use openraft::storage::LogState;
use openraft::storage::RaftLogStorage;

use super::BATCH_BYTES_MAX;
use super::StorageError;
use super::TypeConfig;
use super::faults::Fault;
use super::faults::planted;
use super::read_or_stop;
use super::runtime::Runtime;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;
use crate::storage::StoreError;
use crate::storage::keys::Key;

/// A snapshot may take so long to be put in place. Later the group stops.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// How often it is looked whether it is.
const INSTALL_LOOK: Duration = Duration::from_millis(5);

/// The log of one group. Clones are the same one.
#[derive(Clone)]
pub struct Log {
    store: Store,
    group: GroupId,
    /// Whether entries go only once the state has them. Not where a log is looked at without a state.
    has_state: bool,
}

impl Log {
    /// The log of `group` in `store`.
    #[must_use]
    pub fn new(store: Store, group: GroupId) -> Self {
        Self { store, group, has_state: false }
    }

    /// The same beside the state of the group.
    #[must_use]
    pub(super) fn beside_state(self) -> Self {
        Self { has_state: true, ..self }
    }

    /// Waits until the state has an entry. openraft lets go of what a snapshot has while that may still be on its way to the disk: with the entries gone and the state not there, the group
    /// could not start again.
    async fn until_applied(&self, upto: LogId<StorageId>) -> Result<(), StoreError> {
        let since = Clock.now();
        let is_applied = || {
            let applied: Option<LogId<StorageId>> = read_or_stop(self.store.read(Key::Applied(self.group)));
            applied.is_some_and(|it| it.index >= upto.index)
        };
        while self.has_state && !planted(Fault::EntriesGoBeforeTheState) && !is_applied() {
            if Clock.now() > since + INSTALL_LIMIT {
                return Err(StoreError::Failed);
            }
            Clock.sleep(INSTALL_LOOK).await;
        }
        Ok(())
    }

    fn entries(&self, first: u64) -> impl Iterator<Item = Entry<TypeConfig>> + '_ {
        self.store.scan(Key::Entry(self.group, first)).map(|row| read_or_stop(row).1)
    }

    async fn write_durably(&self, batch: Batch) -> Result<(), StoreError> {
        self.store.on_disk(move |store| store.write_durably(batch)).await
    }
}

fn write_error(error: &StoreError) -> StorageError {
    StorageIOError::write_logs(error).into()
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<R>(&mut self, range: R) -> Result<Vec<Entry<TypeConfig>>, StorageError>
    where
        R: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let first = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        Ok(self.entries(first).take_while(|entry| range.contains(&entry.log_id.index)).collect())
    }

    /// What goes into one message: at least one entry, and no more bytes than a follower can take within a heartbeat.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry<TypeConfig>>, StorageError> {
        let mut room = if planted(Fault::MessagesHaveNoBound) { usize::MAX } else { BATCH_BYTES_MAX };
        let fits = |entry: &Entry<TypeConfig>| {
            let bytes = match &entry.payload {
                EntryPayload::Normal(command) => command.0.len(),
                EntryPayload::Blank | EntryPayload::Membership(_) => 0,
            };
            let fits = bytes <= room || entry.log_id.index == start;
            room = room.saturating_sub(bytes);
            fits
        };
        Ok(self.entries(start).take_while(|entry| entry.log_id.index < end).take_while(fits).collect())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let purged = read_or_stop(self.store.read(Key::Purged(self.group)));
        let last = read_or_stop(self.store.last::<Entry<TypeConfig>>(Key::Entry(self.group, 0)));
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.map(|(_, entry)| entry.log_id).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<StorageId>) -> Result<(), StorageError> {
        let write = async {
            let mut batch = Batch::default();
            batch.put(Key::Vote(self.group), vote)?;
            if planted(Fault::VotesAreNotSynced) {
                return self.store.write(batch);
            }
            self.write_durably(batch).await
        };
        write.await.map_err(|error| StorageIOError::write_vote(&error).into())
    }

    /// A member that led when it stopped does not lead when it starts: openraft would take up the office of the old term at once, and answer reads as far as an unsynced note of what was decided
    /// says, which is older than what clients were told. It votes as before, and whoever leads next has an entry of its own term decided first.
    async fn read_vote(&mut self) -> Result<Option<Vote<StorageId>>, StorageError> {
        let vote: Option<Vote<StorageId>> = read_or_stop(self.store.read(Key::Vote(self.group)));
        Ok(vote.map(|it| Vote {
            committed: it.committed && (!self.has_state || planted(Fault::OfficesOutliveTheProcess)),
            ..it
        }))
    }

    async fn save_committed(&mut self, committed: Option<LogId<StorageId>>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        // Not flushed: a lost hint costs a replay, never an entry.
        let written = batch.put(Key::Committed(self.group), &committed).and_then(|()| self.store.write(batch));
        written.map_err(|error| write_error(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId<StorageId>>, StorageError> {
        Ok(read_or_stop(self.store.read(Key::Committed(self.group))).flatten())
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry<TypeConfig>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut batch = Batch::default();
        for entry in entries {
            let key = Key::Entry(self.group, entry.log_id.index);
            batch.put(key, &entry).map_err(|error| write_error(&error))?;
        }
        // Readable when this returns, durable when the callback is called: the next batch can be gathered meanwhile, and
        // all batches that wait for the disk share one fsync.
        self.store.write(batch).map_err(|error| write_error(&error))?;
        let store = self.store.clone();
        drop(Runtime::spawn(async move {
            let is_skipped = planted(Fault::EntriesAreNotSynced);
            let flushed = if is_skipped { Ok(()) } else { store.on_disk(Store::flush).await };
            callback.log_io_completed(flushed.map_err(io::Error::other));
        }));
        Ok(())
    }

    async fn truncate(&mut self, from: LogId<StorageId>) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.delete_from(Key::Entry(self.group, from.index), None);
        self.write_durably(batch).await.map_err(|error| write_error(&error))
    }

    async fn purge(&mut self, upto: LogId<StorageId>) -> Result<(), StorageError> {
        let write = async {
            self.until_applied(upto).await?;
            let mut batch = Batch::default();
            batch.put(Key::Purged(self.group), &upto)?;
            batch.delete_from(Key::Entry(self.group, 0), Some(Key::Entry(self.group, upto.index + 1)));
            // ORDER: one write-ahead log, so the rows made by the entries purged here are durable no later than the purge.
            self.write_durably(batch).await
        };
        write.await.map_err(|error| write_error(&error))
    }
}
