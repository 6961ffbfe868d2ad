//! The rows as a command leaves them, before anybody has seen it: those before, and what is otherwise.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::Overlay;
use super::keys::Key;
use super::keys::span;
use crate::raft::RowChange;
use crate::raft::Rows;
use crate::raft::Unreadable;
use crate::storage::codec;

/// See the file's header.
pub(super) struct Draft<'a> {
    after: Overlay<'a>,
    /// A row that cannot be read: nothing that was concluded counts.
    is_damaged: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn new(rows: &'a dyn Rows) -> Self {
        Self { after: Overlay { rows, changes: BTreeMap::new() }, is_damaged: false }
    }

    /// Forgets what was changed.
    pub(super) fn clear(&mut self) {
        self.after.changes.clear();
    }

    /// What is otherwise; an error if a row could not be read.
    pub(super) fn changes(self) -> Result<Vec<RowChange>, Unreadable> {
        if self.is_damaged { Err(Unreadable) } else { Ok(self.after.changes.into_iter().collect()) }
    }

    fn value(&self, key: &Key<'_>) -> Option<Vec<u8>> {
        self.after.get(&key.encode())
    }

    pub(super) fn get<T: DeserializeOwned>(&mut self, key: &Key<'_>) -> Option<T> {
        let value = self.value(key)?;
        self.read(&value)
    }

    pub(super) fn has(&self, key: &Key<'_>) -> bool {
        self.value(key).is_some()
    }

    /// What a row takes, in bytes.
    pub(super) fn bytes_len(&self, key: &Key<'_>) -> u64 {
        self.value(key).map_or(0, |it| it.len() as u64)
    }

    /// Writes a row. Answers what it takes, in bytes.
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, key: &Key<'_>, value: &T) -> u64 {
        match codec::encode(value) {
            Ok(value) => {
                let bytes = value.len() as u64;
                self.after.changes.insert(key.encode(), Some(value));
                bytes
            }
            Err(_too_long) => {
                self.is_damaged = true; // content is bounded far below what the codec takes
                0
            }
        }
    }

    /// Writes a row as it is.
    pub(super) fn put_raw(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.after.changes.insert(key, Some(value));
    }

    pub(super) fn delete(&mut self, key: &Key<'_>) {
        self.delete_raw(key.encode());
    }

    pub(super) fn delete_raw(&mut self, key: Vec<u8>) {
        self.after.changes.insert(key, None);
    }

    /// Rows whose keys begin as `first` does less `less` bytes of its end, in order, at most so many.
    pub(super) fn scan(&self, first: &Key<'_>, less: usize, most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let (from, to) = span(first, less);
        self.scan_raw(&from, &to, most)
    }

    pub(super) fn scan_raw(&self, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.after.scan(from, to, most, false)
    }

    pub(super) fn read<T: DeserializeOwned>(&mut self, value: &[u8]) -> Option<T> {
        let read = codec::decode(value).ok();
        self.is_damaged |= read.is_none();
        read
    }
}
