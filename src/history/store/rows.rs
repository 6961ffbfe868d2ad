//! Rows of replicated tables in the same database: opaque to everything here, one fsync with whatever else is written.
//!
//! A key is `ROWS, table (2 bytes, big-endian), the row's own key`. Its first byte is no [`SCHEMA`](super::keys::SCHEMA), so no scan of a group
//! meets one. Values carry their own version byte. Kept here because RocksDB is, apart from `keys.rs` because these keys are
//! of any length and no group's. *Invariant:* a batch is written whole or not at all, and is durable once it returned.

use rocksdb::Direction;
use rocksdb::IteratorMode;
use rocksdb::ReadOptions;

use super::Batch;
use super::Store;
use super::StoreError;

/// First byte of every such key. Never another's.
const ROWS: u8 = 2;

/// One row: table, key within it, value. No value removes it.
pub type Row = (u16, Vec<u8>, Option<Vec<u8>>);

impl Store {
    /// All rows of all tables.
    pub fn table_rows(&self) -> Result<Vec<Row>, StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound([ROWS + 1]);
        let rows = self.0.db.iterator_opt(IteratorMode::From(&[ROWS], Direction::Forward), options);
        rows.map(|row| {
            let (key, value) = row?;
            match *key {
                [ROWS, high, low, ref rest @ ..] => {
                    Ok((u16::from_be_bytes([high, low]), rest.to_vec(), Some(value.to_vec())))
                }
                _ => Err(StoreError::UnknownKey(key.to_vec())),
            }
        })
        .collect()
    }

    /// Writes rows, durably. Blocks on the disk.
    pub fn write_table_rows(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (table, key, value) in rows {
            let key = [&[ROWS], &table.to_be_bytes()[..], &key].concat();
            match value {
                Some(value) => batch.0.put(key, value),
                None => batch.0.delete(key),
            }
        }
        self.write_durably(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::GroupId;
    use super::super::keys::Key;
    use super::*;

    #[test]
    fn rows_are_there_after_a_restart_and_no_group_meets_them() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let row = |table, key: &[u8], value: Option<&[u8]>| (table, key.to_vec(), value.map(<[u8]>::to_vec));
        let rows = vec![row(1, b"", Some(b"context")), row(1, b"a", Some(b"x")), row(0x0201, b"b", Some(b"y"))];
        store.write_table_rows(rows.clone()).unwrap();
        store.write_table_rows(vec![row(1, b"a", None), row(2, b"c", Some(b""))]).unwrap();
        assert_eq!(store.scan::<u64>(Key::Entry(GroupId(u16::MAX), 0)).count(), 0);
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        let expected = [row(1, b"", Some(b"context")), row(2, b"c", Some(b"")), row(0x0201, b"b", Some(b"y"))];
        assert_eq!(store.table_rows().unwrap(), expected);
    }
}
