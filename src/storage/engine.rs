//! What a store stands on: RocksDB, or in tests a disk in memory whose power can be cut. Both say the same of bytes in order and of fsync.

use std::path::Path;

use rocksdb::BlockBasedOptions;
use rocksdb::BottommostLevelCompaction;
use rocksdb::CompactOptions;
use rocksdb::DB;
use rocksdb::DBCompressionType;
use rocksdb::Direction;
use rocksdb::IteratorMode;
use rocksdb::Options;
use rocksdb::ReadOptions;
use rocksdb::WriteBatch;

use super::faults::Fault;
use super::faults::planted;
use super::store::StoreError;
use super::torn;

/// Of each of the three.
const WRITE_BUFFER_BYTES: usize = 32 << 20;

/// A key and its value.
pub(super) type Pair = (Vec<u8>, Vec<u8>);
pub(super) type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, StoreError>> + 'a>;

/// One change.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// From the first to before the second.
    DeleteRange(Vec<u8>, Vec<u8>),
}

/// See the file's header.
pub(super) enum Engine {
    Rocks(DB),
    #[cfg(test)]
    Memory(super::memory::Disk),
}

impl Engine {
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        torn::end_logs(directory).map_err(StoreError::Log)?;
        let mut options = Options::default();
        options.create_if_missing(true);
        if planted(Fault::TornLogsAreRefused) {
            options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::AbsoluteConsistency);
        }
        // BOUND: three write buffers, which only fill where much is written, and a few files: a log must not take a gateway's memory. Of smaller ones, which
        // are merged more often, 43 % of a busy node's processor time went there (docs/reports/history.md).
        options.set_write_buffer_size(WRITE_BUFFER_BYTES);
        options.set_max_write_buffer_number(3);
        options.set_max_bytes_for_level_base(4 * WRITE_BUFFER_BYTES as u64);
        options.set_max_open_files(64);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        // What is new is merged again soon, or deleted: only what stays is worth packing.
        options.set_compression_per_level(&[DBCompressionType::None, DBCompressionType::None, DBCompressionType::Lz4]);
        // Files are written out as they grow, or an fsync of the log would wait for all of one.
        options.set_bytes_per_sync(1 << 20);
        // Most names that are looked up are new.
        let mut tables = BlockBasedOptions::default();
        tables.set_bloom_filter(10.0, false);
        options.set_block_based_table_factory(&tables);
        DB::open(&options, directory).map(Self::Rocks).map_err(open_error)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Rocks(db) => Ok(db.get(key)?),
            #[cfg(test)]
            Self::Memory(disk) => disk.get(key),
        }
    }

    /// Everything as it is now, whatever is written meanwhile.
    pub(super) fn moment(&self) -> Moment<'_> {
        match self {
            Self::Rocks(db) => Moment::Rocks(db.snapshot()),
            #[cfg(test)]
            Self::Memory(disk) => Moment::Memory(disk.clone()),
        }
    }

    /// Where it lies. None: in memory.
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Rocks(db) => Some(db.path()),
            #[cfg(test)]
            Self::Memory(_) => None,
        }
    }

    /// What lies from `from` to before `to`, in order.
    pub(super) fn scan(&self, from: &[u8], to: Vec<u8>) -> Pairs<'_> {
        match self {
            Self::Rocks(db) => {
                let mut options = ReadOptions::default();
                options.set_iterate_upper_bound(to);
                let rows = db.iterator_opt(IteratorMode::From(from, Direction::Forward), options);
                Box::new(rows.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())).map_err(Into::into)))
            }
            #[cfg(test)]
            Self::Memory(disk) => disk.scan(from, &to),
        }
    }

    /// The last of what lies from `from` to before `to`.
    pub(super) fn last(&self, from: Vec<u8>, to: Vec<u8>) -> Result<Option<Pair>, StoreError> {
        match self {
            Self::Rocks(db) => {
                let mut options = ReadOptions::default();
                options.set_iterate_lower_bound(from);
                options.set_iterate_upper_bound(to);
                let row = db.iterator_opt(IteratorMode::End, options).next().transpose()?;
                Ok(row.map(|(key, value)| (key.into_vec(), value.into_vec())))
            }
            #[cfg(test)]
            Self::Memory(disk) => disk.scan(&from, &to).last().transpose(),
        }
    }

    pub(super) fn write(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self {
            Self::Rocks(db) => {
                let mut batch = WriteBatch::default();
                for change in changes {
                    match change {
                        Change::Put(key, value) => batch.put(key, value),
                        Change::Delete(key) => batch.delete(key),
                        Change::DeleteRange(from, to) => batch.delete_range(from, to),
                    }
                }
                Ok(db.write(batch)?)
            }
            #[cfg(test)]
            Self::Memory(disk) => disk.write(changes),
        }
    }

    /// Bytes that may still be written. None: the system does not say.
    pub(super) fn free(&self) -> Option<u64> {
        match self {
            Self::Rocks(db) => {
                let found = rustix::fs::statvfs(db.path()).ok()?;
                Some(found.f_bavail.saturating_mul(found.f_frsize))
            }
            #[cfg(test)]
            Self::Memory(disk) => disk.free(),
        }
    }

    pub(super) fn flush(&self) -> Result<(), StoreError> {
        match self {
            Self::Rocks(db) => Ok(db.flush_wal(true)?),
            #[cfg(test)]
            Self::Memory(disk) => disk.flush(),
        }
    }

    // === what lies in files, of which a disk in memory has none ===

    /// The number of the last write.
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Rocks(db) => db.latest_sequence_number(),
            #[cfg(test)]
            Self::Memory(_) => 0,
        }
    }

    /// The last write that the oldest [`Moment`] has which somebody holds.
    pub(super) fn oldest_view(&self) -> Result<Option<u64>, StoreError> {
        match self {
            Self::Rocks(db) => Ok(db.property_int_value(c"rocksdb.oldest-snapshot-sequence")?.filter(|it| *it > 0)),
            #[cfg(test)]
            Self::Memory(_) => Ok(None),
        }
    }

    /// Puts into files what only the write-ahead log has. The log begins anew.
    pub(super) fn begin_files(&self) -> Result<(), StoreError> {
        match self {
            Self::Rocks(db) => Ok(db.flush()?),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// The files that have anything from `from` to before `to`: the first key of each, and its size.
    pub(super) fn files(&self, from: &[u8], to: &[u8]) -> Result<Vec<(Vec<u8>, u64)>, StoreError> {
        match self {
            Self::Rocks(db) => {
                let found = db.live_files()?.into_iter().filter_map(|it| {
                    let (first, last) = (it.start_key?, it.end_key?);
                    (last.as_slice() >= from && first.as_slice() < to).then_some((first, it.size as u64))
                });
                Ok(found.collect())
            }
            #[cfg(test)]
            Self::Memory(_) => Ok(Vec::new()),
        }
    }

    /// Merges all files that have anything from `from` to before `to`, also those that nothing comes after.
    pub(super) fn rewrite(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        match self {
            Self::Rocks(db) => {
                let mut options = CompactOptions::default();
                options.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
                options.set_exclusive_manual_compaction(false);
                let failures = || db.property_int_value(rocksdb::properties::BACKGROUND_ERRORS);
                let before = failures()?;
                db.compact_range_opt(Some(from), Some(to), &options);
                // What it came to is told nowhere else.
                if failures()? == before { Ok(()) } else { Err(StoreError::Failed) }
            }
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}

/// What an engine holds at one moment.
pub(super) enum Moment<'a> {
    Rocks(rocksdb::Snapshot<'a>),
    /// A simulation reads between two writes, so its disk is of one moment by itself.
    #[cfg(test)]
    Memory(super::memory::Disk),
}

impl Moment<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Self::Rocks(db) => Ok(db.get(key)?),
            #[cfg(test)]
            Self::Memory(disk) => disk.get(key),
        }
    }

    /// What lies from `from` to before `to`, in order; `is_back`: the last first.
    pub(super) fn scan(&self, from: &[u8], to: &[u8], is_back: bool) -> Pairs<'_> {
        match self {
            Self::Rocks(db) => {
                let mut options = ReadOptions::default();
                options.set_iterate_lower_bound(from);
                options.set_iterate_upper_bound(to);
                let mode = if is_back { IteratorMode::End } else { IteratorMode::Start };
                let rows = db.iterator_opt(mode, options);
                Box::new(rows.map(|row| row.map(|(key, value)| (key.into_vec(), value.into_vec())).map_err(Into::into)))
            }
            #[cfg(test)]
            Self::Memory(disk) => {
                let rows: Vec<_> = disk.scan(from, to).collect();
                if is_back { Box::new(rows.into_iter().rev()) } else { Box::new(rows.into_iter()) }
            }
        }
    }
}

/// RocksDB tells a held lock from a failing disk only in words.
fn open_error(error: rocksdb::Error) -> StoreError {
    let is_held = error.kind() == rocksdb::ErrorKind::IOError && error.as_ref().contains("/LOCK");
    if is_held { StoreError::InUse } else { StoreError::Database(error) }
}
