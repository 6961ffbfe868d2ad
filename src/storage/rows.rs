//! Rows of any key in the same database: those of replicated tables, and those that a raft group's machine has made. Opaque to everything here.
//!
//! A key is `kind, table or group (2 bytes, big-endian), the row's own key`. Its first byte is no [`SCHEMA`](super::keys::SCHEMA), so no scan of a log
//! meets one. Values carry their own version byte. Apart from `keys.rs` because these keys are
//! of any length. *Invariant:* a batch is written whole or not at all, and table rows are durable once their write returned.

use super::GroupId;
use super::engine::Change;
use super::engine::Moment;
use super::engine::Pairs;
use super::store::Batch;
use super::store::Store;
use super::store::StoreError;

/// First byte of every key of a replicated table. Never another's.
const TABLES: u8 = 2;
/// First byte of every row of a group. Never another's.
const GROUPS: u8 = 3;

/// One row: table, key within it, value. No value removes it.
pub type Row = (u16, Vec<u8>, Option<Vec<u8>>);

/// One row of a group: key within it, value.
pub type GroupRow = (Vec<u8>, Vec<u8>);

impl Store {
    /// All rows of all tables.
    pub fn table_rows(&self) -> Result<Vec<Row>, StoreError> {
        let rows = self.engine().scan(&[TABLES], vec![TABLES + 1]);
        rows.map(|row| {
            let (key, value) = row?;
            match *key {
                [TABLES, high, low, ref rest @ ..] => Ok((u16::from_be_bytes([high, low]), rest.to_vec(), Some(value))),
                _ => Err(StoreError::UnknownKey(key)),
            }
        })
        .collect()
    }

    /// Writes rows, durably. Blocks on the disk.
    pub fn write_table_rows(&self, rows: Vec<Row>) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for (table, key, value) in rows {
            let key = [&[TABLES], &table.to_be_bytes()[..], &key].concat();
            batch.push(match value {
                Some(value) => Change::Put(key, value),
                None => Change::Delete(key),
            });
        }
        self.write_durably(batch)
    }

    /// Rows of a group as they are now, whatever is written meanwhile.
    #[must_use]
    pub fn group_view(&self, group: GroupId) -> GroupView<'_> {
        let (from, to) = span(group);
        GroupView { moment: self.engine().moment(), from, to }
    }

    /// All rows of a group, in the order of their keys.
    pub fn group_rows(&self, group: GroupId) -> Result<Vec<GroupRow>, StoreError> {
        let (from, to) = span(group);
        let prefix = from.len();
        self.engine().scan(&from, to).map(|row| row.map(|(key, value)| (key[prefix..].to_vec(), value))).collect()
    }
}

impl Batch {
    /// Writes one row of a group, or removes it.
    pub fn put_group_row(&mut self, group: GroupId, key: &[u8], value: Option<Vec<u8>>) {
        let key = [&[GROUPS], &group.0.to_be_bytes()[..], key].concat();
        self.push(match value {
            Some(value) => Change::Put(key, value),
            None => Change::Delete(key),
        });
    }

    /// Removes every row of a group.
    pub fn clear_group_rows(&mut self, group: GroupId) {
        let (from, to) = span(group);
        self.push(Change::DeleteRange(from, to));
    }
}

/// Rows of a group at one moment.
pub struct GroupView<'a> {
    moment: Moment<'a>,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl GroupView<'_> {
    /// One value.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.moment.get(&[&self.from, key].concat())
    }

    /// Those from `from` to before `to`, in order; `is_back`: the last first.
    pub fn scan(&self, from: &[u8], to: &[u8], is_back: bool) -> impl Iterator<Item = Result<GroupRow, StoreError>> {
        let (from, to) = ([&self.from, from].concat(), [&self.from, to].concat());
        self.without_prefix(self.moment.scan(&from, &to, is_back))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Result<GroupRow, StoreError>> {
        self.without_prefix(self.moment.scan(&self.from, &self.to, false))
    }

    fn without_prefix<'b>(&self, rows: Pairs<'b>) -> impl Iterator<Item = Result<GroupRow, StoreError>> + use<'b> {
        let prefix = self.from.len();
        rows.map(move |row| row.map(|(key, value)| (key[prefix..].to_vec(), value)))
    }
}

/// Bounds of a group's rows. The upper one is excluded.
pub(super) fn span(group: GroupId) -> (Vec<u8>, Vec<u8>) {
    let prefix = |number: u32| {
        let [_, kind, high, low] = number.to_be_bytes();
        vec![kind, high, low]
    };
    let first = u32::from(GROUPS) << 16 | u32::from(group.0);
    (prefix(first), prefix(first + 1))
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn rows_of_a_group_are_its_own_up_to_the_last_group_there_can_be() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let groups = [GroupId(0), GroupId(1), GroupId(255), GroupId(256), GroupId(u16::MAX)];
        let mut batch = Batch::default();
        for group in groups {
            batch.put_group_row(group, b"", Some(vec![1]));
            batch.put_group_row(group, &[0xff; 3], Some(group.0.to_be_bytes().to_vec()));
        }
        store.write(batch).unwrap();
        store.write_table_rows(vec![(0, b"a".to_vec(), Some(Vec::new()))]).unwrap();
        let rows = |group: GroupId| vec![(Vec::new(), vec![1]), (vec![0xff; 3], group.0.to_be_bytes().to_vec())];
        groups.into_iter().for_each(|it| assert_eq!(store.group_rows(it).unwrap(), rows(it)));
        let mut batch = Batch::default();
        batch.clear_group_rows(GroupId(255));
        batch.put_group_row(GroupId(1), b"", None);
        store.write(batch).unwrap();
        let left = groups.map(|it| store.group_rows(it).unwrap().len());
        assert_eq!((left, store.table_rows().unwrap().len()), ([2, 1, 0, 2, 2], 1));
    }
}
