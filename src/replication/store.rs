//! Where tables survive: rows of opaque bytes, written in batches. What implements it lies outside this area.
//!
//! *What a store promises.* A batch is written whole or not at all; batches are written in order; once a write returns, it
//! and all before it survive. *What it may lose:* batches that were not answered, from the end.

use super::tables::TableId;

/// One row: None removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Of which table.
    pub table: TableId,
    /// Its key within the table; the empty one is the context.
    pub key: Vec<u8>,
    /// Version byte and value.
    pub value: Option<Vec<u8>>,
}

/// Rows that become durable together.
pub type Batch = Vec<Row>;

/// Why a store could not. After a failed write nothing is acknowledged until a restart.
#[derive(Debug, thiserror::Error)]
#[error("the tables' store failed: {0}")]
pub struct StoreError(pub String);

/// See the file's header.
pub trait Store: Send {
    /// All rows, in any order.
    fn load(&self) -> Result<Batch, StoreError>;
    /// Writes a batch. When this returns it is durable.
    fn append(&mut self, batch: Batch) -> Result<(), StoreError>;
}

#[cfg(test)]
pub(crate) mod memory {
    //! The twin without a disk, which can lose what was not yet synced.

    use std::collections::BTreeMap;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    use parking_lot::Mutex;

    use super::*;

    /// A [`Memory`] that outlives who writes it, as a disk outlives a process, and that can break.
    #[derive(Clone, Default)]
    pub(crate) struct Disk(Arc<(Mutex<Memory>, AtomicBool)>);

    impl Disk {
        /// From now on no write succeeds.
        pub(crate) fn fail(&self) {
            self.0.1.store(true, Ordering::Relaxed);
        }

        /// Whether anything durable has these bytes in it.
        pub(crate) fn has(&self, bytes: &[u8]) -> bool {
            self.0.0.lock().rows.values().any(|it| it.windows(bytes.len()).any(|it| it == bytes))
        }
    }

    impl Store for Disk {
        fn load(&self) -> Result<Batch, StoreError> {
            self.0.0.lock().load()
        }

        fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
            if self.0.1.load(Ordering::Relaxed) {
                return Err(StoreError("broken".to_owned()));
            }
            self.0.0.lock().append(batch)
        }
    }

    type Rows = BTreeMap<(TableId, Vec<u8>), Vec<u8>>;

    /// What is durable, and batches on their way there.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Memory {
        rows: Rows,
        unsynced: VecDeque<Batch>,
    }

    impl Memory {
        /// Takes a batch without syncing it.
        pub(crate) fn write(&mut self, batch: Batch) {
            self.unsynced.push_back(batch);
        }

        /// Makes the oldest unsynced batch durable.
        pub(crate) fn sync_one(&mut self) {
            for row in self.unsynced.pop_front().into_iter().flatten() {
                match row.value {
                    Some(value) => drop(self.rows.insert((row.table, row.key), value)),
                    None => drop(self.rows.remove(&(row.table, row.key))),
                }
            }
        }

        /// Whether a durable row's key begins like that.
        pub(crate) fn holds(&self, table: TableId, key: &[u8]) -> bool {
            self.rows
                .range((table, key.to_vec())..)
                .next()
                .is_some_and(|((it, found), _)| *it == table && found.starts_with(key))
        }

        /// The power goes: the first `kept` unsynced batches happen to be on the disk, the rest is lost.
        pub(crate) fn crash(&mut self, kept: usize) {
            (0..kept.min(self.unsynced.len())).for_each(|_| self.sync_one());
            self.unsynced.clear();
        }
    }

    impl Store for Memory {
        fn load(&self) -> Result<Batch, StoreError> {
            let row = |((table, key), value): (&(TableId, Vec<u8>), &Vec<u8>)| Row {
                table: *table,
                key: key.clone(),
                value: Some(value.clone()),
            };
            Ok(self.rows.iter().map(row).collect())
        }

        fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
            self.write(batch);
            (0..self.unsynced.len()).for_each(|_| self.sync_one());
            Ok(())
        }
    }
}
