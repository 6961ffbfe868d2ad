//! The database: one RocksDB for all groups, typed by [`Key`], with one door to fsync.
//!
//! *Invariants.* 1. Durable means fsynced: a [`Store::write_durably`] or [`Store::flush`] that returned. RocksDB's own default does not
//! fsync. 2. Writes reach the disk in the order they were made, because there is one write-ahead log: fsyncing a later write
//! makes every earlier one durable. 3. After one failed write or fsync nothing is acknowledged any more: the kernel may have
//! dropped the dirty pages, so a second fsync that succeeds proves nothing.

use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::engine::Change;
use super::engine::Engine;
use super::engine::Pair;
use super::faults::Fault;
use super::faults::planted;
use super::keys;
use super::keys::Key;
use crate::base::clock::Clock;
use crate::chaos;
use crate::chaos::core::Disk;

/// What the store could not do. The disk's or the operator's fault unless it is [`StoreError::Failed`]'s later echo.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("another process is using it")]
    InUse,
    /// The database said no: the disk, damage.
    #[error("{0}")]
    Database(#[from] rocksdb::Error),
    /// A log of the database cannot be read or ended before its damage: the disk.
    #[error("a log of the database cannot be looked through: {0}")]
    Log(std::io::Error),
    /// A value in it cannot be read, or one given cannot be written.
    #[error(transparent)]
    Codec(#[from] codec::CodecError),
    /// A key in it is not ours.
    #[error("unknown key: {0:?}")]
    UnknownKey(Vec<u8>),
    /// There is too little room to begin anything. Nothing was changed; it may be asked again when there is more.
    #[error("the disk is full: {0} bytes are left")]
    Full(u64),
    /// The disk does not work, on purpose.
    #[error("the disk is broken")]
    Broken,
    /// An earlier write or fsync failed, so nothing is acknowledged any more.
    #[error("an earlier write failed")]
    Failed,
}

/// Free bytes below which nothing is begun that grows: votes, and what is under way, must still find room, because a write that fails stops the
/// process. Two write buffers on their way to files are the largest of it. Less and a full disk stops nodes; more is taken from small disks.
pub const ROOM_MIN: u64 = 16 << 20;

/// Changes that become visible and durable together.
#[derive(Default)]
pub struct Batch(Vec<Change>);

impl Batch {
    /// Writes one value.
    pub fn put<T: Serialize>(&mut self, key: Key, value: &T) -> Result<(), StoreError> {
        self.0.push(Change::Put(key.encode(), codec::encode(value)?));
        Ok(())
    }

    /// Removes one key.
    pub fn delete(&mut self, key: Key) {
        self.0.push(Change::Delete(key.encode()));
    }

    /// Removes the keys of one kind from `first` to before `end`; None: to the last of them.
    pub fn delete_from(&mut self, first: Key, end: Option<Key>) {
        let (from, last) = keys::span(first);
        self.0.push(Change::DeleteRange(from, end.map_or(last, Key::encode)));
    }

    /// Writes bytes as they are, as another release may.
    #[cfg(test)]
    pub(crate) fn put_raw(&mut self, key: Key, bytes: Vec<u8>) {
        self.0.push(Change::Put(key.encode(), bytes));
    }

    pub(super) fn push(&mut self, change: Change) {
        self.0.push(change);
    }
}

/// The database. Clones are the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    engine: Engine,
    written: AtomicU64,
    synced: Mutex<u64>,
    has_failed: AtomicBool,
    /// How long fsyncs take, where somebody wants to know.
    fsync: OnceLock<Histogram>,
    /// What is wrong with the disk, where that may be.
    chaos: OnceLock<chaos::Handle>,
}

impl Store {
    /// Opens or makes the database in `directory`. One process at a time.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Ok(Self::on(Engine::open(directory)?))
    }

    /// A store on a disk in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(disk: super::memory::Disk) -> Self {
        Self::on(Engine::Memory(disk))
    }

    fn on(engine: Engine) -> Self {
        let (written, synced, has_failed, fsync, chaos) = Default::default();
        Self(Arc::new(Inner { engine, written, synced, has_failed, fsync, chaos }))
    }

    /// Where it lies: for files that belong to it. None: in memory.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.0.engine.directory()
    }

    /// Runs what waits for the disk where waiting is allowed. Work that was given up, because the runtime goes down, counts as failed.
    pub async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.clone();
        #[cfg(test)]
        if let Engine::Memory(disk) = &self.0.engine {
            // On the simulation's own time, so that a run repeats itself.
            crate::base::clock::Clock.sleep(disk.latency()).await;
            return work(&store);
        }
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(StoreError::Failed))
    }

    /// One value.
    pub fn read<T: DeserializeOwned>(&self, key: Key) -> Result<Option<T>, StoreError> {
        let bytes = self.0.engine.get(&key.encode())?;
        Ok(bytes.map(|it| codec::decode(&it)).transpose()?)
    }

    /// Values of the kind of `first`, from it on, in order.
    pub fn scan<T: DeserializeOwned>(&self, first: Key) -> impl Iterator<Item = Result<(Key, T), StoreError>> + '_ {
        let (from, to) = keys::span(first);
        self.0.engine.scan(&from, to).map(|row| row_of(row?))
    }

    /// The last value of the kind of `first`.
    pub fn last<T: DeserializeOwned>(&self, first: Key) -> Result<Option<(Key, T)>, StoreError> {
        let (from, to) = keys::span(first);
        self.0.engine.last(from, to)?.map(row_of).transpose()
    }

    /// Makes the changes visible. They are durable after the next [`Store::flush`].
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.fail_once(|| {
            self.hurts()?;
            self.0.engine.write(batch.0)?;
            self.0.written.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    }

    /// Makes everything written so far durable. Blocks on the disk: not for an async worker thread.
    ///
    /// Many callers share one fsync: who waited for the lock while another's fsync covered its writes need not do its own.
    pub fn flush(&self) -> Result<(), StoreError> {
        let mine = self.0.written.load(Ordering::SeqCst);
        self.fail_once(|| {
            let mut synced = self.0.synced.lock();
            if mine <= *synced {
                return Ok(());
            }
            // ORDER: the count is read before the fsync. A write that lands during it may not be covered by it.
            let covered = self.0.written.load(Ordering::SeqCst);
            let begun = Clock.now();
            Clock.block(self.hurts()?);
            self.0.engine.flush()?;
            let took = Clock.now() - begun;
            self.0.fsync.get().into_iter().for_each(|it| it.observe(took.as_secs_f64()));
            if took >= Duration::from_secs(1) && planted(Fault::SlowDisksAreBroken) {
                return Err(StoreError::Broken);
            }
            *synced = covered;
            Ok(())
        })
    }

    /// Fsyncs are measured from now on.
    pub(super) fn measure(&self, fsync: Histogram) {
        let _ = self.0.fsync.set(fsync); // it is measured already
    }

    /// The disk may fail on purpose from now on.
    pub(super) fn hurt(&self, chaos: chaos::Handle) {
        let _ = self.0.chaos.set(chaos); // it may already
    }

    fn disk(&self) -> Disk {
        self.0.chaos.get().map_or_else(Disk::default, chaos::Handle::disk)
    }

    /// Fails where the disk does, on purpose; else how much longer an fsync takes.
    fn hurts(&self) -> Result<Duration, StoreError> {
        let disk = self.disk();
        if disk.fails { Err(StoreError::Broken) } else { Ok(disk.delay) }
    }

    /// Whether there is room for this many bytes beside what is kept free. Asks the system each time: it costs a microsecond, and room
    /// that a person makes counts at once.
    pub fn room_for(&self, bytes: u64) -> Result<(), StoreError> {
        let free = if self.disk().is_full { Some(0) } else { self.0.engine.free() };
        match free {
            Some(free) if free < ROOM_MIN.saturating_add(bytes) => {
                self.0.has_failed.fetch_or(planted(Fault::FullDisksAreBroken), Ordering::SeqCst);
                Err(StoreError::Full(free))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Makes the changes visible and durable. Blocks on the disk.
    pub fn write_durably(&self, batch: Batch) -> Result<(), StoreError> {
        self.write(batch)?;
        self.flush()
    }

    /// As if a write had failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.0.has_failed.store(true, Ordering::SeqCst);
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(super) fn fail_once(&self, work: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        if self.0.has_failed.load(Ordering::SeqCst) {
            return Err(StoreError::Failed);
        }
        let result = work();
        if result.is_err() && planted(Fault::FailuresAreForgotten) {
            return Ok(());
        }
        if result.is_err() {
            self.0.has_failed.store(true, Ordering::SeqCst);
        }
        result
    }
}

fn row_of<T: DeserializeOwned>((key, value): Pair) -> Result<(Key, T), StoreError> {
    let key = Key::decode(&key).ok_or_else(|| StoreError::UnknownKey(key.to_vec()))?;
    Ok((key, codec::decode(&value)?))
}

#[cfg(test)]
mod tests {
    use super::super::GroupId;
    use super::super::faults::Fault as Planted;
    use super::super::faults::plant;
    use super::*;
    use crate::base::entropy::Entropy;
    use crate::base::tasks::Tasks;
    use crate::chaos::fault::Fault;
    use crate::observability::metrics::Registry;

    /// One whose disk can be made to fail.
    fn in_a_lab(directory: &Path) -> (Store, chaos::Handle) {
        let store = Store::open(directory).unwrap();
        let chaos = chaos::start(Entropy::seeded(1), &mut Registry::default(), &Tasks::new());
        store.hurt(chaos.clone());
        (store, chaos)
    }

    #[test]
    fn groups_share_a_store_and_never_see_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mut batch = Batch::default();
        for group in [0, 1, 2] {
            for index in 1..=3_u64 {
                batch.put(Key::Entry(GroupId(group), index), &(u64::from(group) * 10 + index)).unwrap();
            }
        }
        store.write_durably(batch).unwrap();
        let read =
            |group| store.scan::<u64>(Key::Entry(GroupId(group), 0)).map(|row| row.unwrap().1).collect::<Vec<_>>();
        assert_eq!(read(1), [11, 12, 13]);
        assert_eq!(store.last::<u64>(Key::Entry(GroupId(1), 0)).unwrap().map(|row| row.1), Some(13));
        assert_eq!(store.last::<u64>(Key::Entry(GroupId(7), 0)).unwrap(), None);

        let mut batch = Batch::default();
        batch.delete_from(Key::Entry(GroupId(1), 2), None);
        batch.delete_from(Key::Entry(GroupId(2), 0), Some(Key::Entry(GroupId(2), 3)));
        store.write_durably(batch).unwrap();
        assert_eq!((read(0), read(1), read(2)), (vec![1, 2, 3], vec![11], vec![23]));
    }

    #[test]
    fn after_a_failure_nothing_is_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let failed = store.fail_once(|| Err(StoreError::UnknownKey(Vec::new())));
        assert!(failed.is_err());
        assert!(matches!(store.write_durably(Batch::default()), Err(StoreError::Failed)));
        assert!(matches!(store.flush(), Err(StoreError::Failed)));
    }

    #[tokio::test]
    async fn planted_bugs_believe_a_disk_that_fails_and_not_one_that_is_slow() {
        let directory = tempfile::tempdir().unwrap();
        let (store, chaos) = in_a_lab(directory.path());
        let writes = |value: u64| {
            let mut batch = Batch::default();
            batch.put(Key::Entry(GroupId(0), 1), &value).unwrap();
            store.write_durably(batch)
        };
        plant(Some(Planted::FailuresAreForgotten));
        chaos.begin(Fault::DiskFail {}, Duration::from_secs(60)).unwrap().unwrap();
        assert!(writes(1).is_ok(), "as if it were there");
        assert_eq!((chaos.lift(None).len(), store.read::<u64>(Key::Entry(GroupId(0), 1)).unwrap()), (1, None));
        plant(Some(Planted::SlowDisksAreBroken));
        assert!(writes(2).is_ok());
        chaos.begin(Fault::DiskSlow { ms: 1_000 }, Duration::from_secs(60)).unwrap().unwrap();
        assert!(matches!(writes(3), Err(StoreError::Broken)));
        plant(None);
    }

    #[tokio::test]
    async fn a_full_disk_that_is_taken_for_a_broken_one_never_writes_again() {
        let directory = tempfile::tempdir().unwrap();
        let (store, chaos) = in_a_lab(directory.path());
        chaos.begin(Fault::DiskFull {}, Duration::from_secs(60)).unwrap().unwrap();
        plant(Some(Planted::FullDisksAreBroken));
        assert!(matches!(store.room_for(0), Err(StoreError::Full(0))));
        plant(None);
        assert_eq!(chaos.lift(None).len(), 1);
        assert!(matches!(store.write(Batch::default()), Err(StoreError::Failed)), "though there is room again");
    }

    #[tokio::test]
    async fn a_disk_fails_is_slow_and_is_full_on_purpose() {
        let directory = tempfile::tempdir().unwrap();
        let (store, chaos) = in_a_lab(directory.path());
        let begin = |fault| chaos.begin(fault, Duration::from_secs(60)).unwrap().unwrap();
        let writes = || {
            let mut batch = Batch::default();
            batch.put(Key::Entry(GroupId(0), 1), &1_u64).unwrap();
            store.write_durably(batch)
        };
        begin(Fault::DiskFull {});
        assert!(matches!(store.room_for(0), Err(StoreError::Full(0))));
        assert!(writes().is_ok(), "what is under way finds room");
        assert_eq!(chaos.lift(None).len(), 1);
        assert!(store.room_for(0).is_ok());
        begin(Fault::DiskSlow { ms: 50 });
        let begun = Clock.now();
        assert!(writes().is_ok() && Clock.now() - begun >= Duration::from_millis(50));
        begin(Fault::DiskFail {});
        assert!(matches!(writes(), Err(StoreError::Broken)));
        assert_eq!(chaos.lift(None).len(), 2);
        assert!(matches!(writes(), Err(StoreError::Failed)), "a disk that is well again proves nothing");
    }

    #[test]
    fn a_store_is_held_by_one_process_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let _held = Store::open(directory.path()).unwrap();
        assert!(matches!(Store::open(directory.path()), Err(StoreError::InUse)));
    }
}
