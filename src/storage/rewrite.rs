//! Files written anew, so that what was removed is in none of them.
//!
//! RocksDB removes nothing at once: a value that was deleted lies in the write-ahead log until its buffer is a file, and in files until they are merged with the one that says so, which may never happen.
//! Apart from `store.rs` because nothing else depends on it: a store that is never rewritten answers the same. *Invariant:* each call blocks for one [`Part`], so that whoever rewrites much can stop, and let others have the disk, in between.

use super::GroupId;
use super::keys::SCHEMA;
use super::rows;
use super::store::Store;
use super::store::StoreError;

/// Files that are written anew in one go, in bytes. Larger ones hold up a node that stops; smaller ones write the levels above them more often.
const PART_BYTES: u64 = 128 << 20;

/// Keys from the first to before the second, and how many bytes the files that have them take, about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    from: Vec<u8>,
    to: Vec<u8>,
    bytes: u64,
}

impl Store {
    /// Which moment it is: grows with every write.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.engine().number()
    }

    /// Whether nobody reads any more as of a moment before this one. While somebody does, what was there then stays in files.
    pub fn is_settled(&self, moment: u64) -> Result<bool, StoreError> {
        Ok(self.engine().oldest_view()?.is_none_or(|it| it >= moment))
    }

    /// Begins the write-ahead log anew; the old one goes. Answers what is to be given to [`Self::rewrite`] for everything of a group. Blocks on the disk.
    pub fn begin_rewrite(&self, group: GroupId) -> Result<Vec<Part>, StoreError> {
        self.room_for(0)?;
        self.fail_once(|| self.engine().begin_files())?;
        let [high, low] = group.0.to_be_bytes();
        let log = (vec![SCHEMA, high, low], vec![SCHEMA, high, low, u8::MAX]);
        let mut parts = Vec::new();
        for (from, to) in [log, rows::span(group)] {
            parts.extend(cut(from.clone(), to.clone(), self.engine().files(&from, &to)?));
        }
        Ok(parts)
    }

    /// Writes the files anew that have these keys. Blocks on the disk.
    pub fn rewrite(&self, part: &Part) -> Result<(), StoreError> {
        // What is written is there beside what it replaces, until it is whole.
        self.room_for(2 * part.bytes)?;
        self.fail_once(|| self.engine().rewrite(&part.from, &part.to))
    }
}

/// Cuts a span before files at which enough has come together. `files`: the first key of each, and its size.
fn cut(from: Vec<u8>, to: Vec<u8>, mut files: Vec<(Vec<u8>, u64)>) -> Vec<Part> {
    files.sort();
    let mut part = Part { from, to: to.clone(), bytes: 0 };
    let mut parts = Vec::new();
    for (first, bytes) in files {
        if part.bytes >= PART_BYTES && first > part.from && first < to {
            let next = Part { from: first.clone(), to: to.clone(), bytes: 0 };
            parts.push(Part { to: first, ..std::mem::replace(&mut part, next) });
        }
        part.bytes += bytes;
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Batch;
    use super::super::keys::Key;
    use super::*;

    #[test]
    fn a_span_is_cut_into_parts_without_a_gap() {
        let file = |key: u8, mebi: u64| (vec![key], mebi << 20);
        let parts = cut(vec![1], vec![9], vec![file(5, 100), file(0, 100), file(4, 100), file(7, 1), file(9, 300)]);
        let part = |from: u8, to: u8, mebi: u64| Part { from: vec![from], to: vec![to], bytes: mebi << 20 };
        assert_eq!(parts, [part(1, 5, 200), part(5, 9, 401)]);
        assert_eq!(cut(vec![1], vec![9], Vec::new()), [part(1, 9, 0)]);
    }

    /// How many files have a word.
    fn found(directory: &Path, word: &[u8]) -> usize {
        let entries = std::fs::read_dir(directory).unwrap();
        let has = |path: &Path| std::fs::read(path).unwrap().windows(word.len()).any(|it| it == word);
        entries.filter(|it| has(&it.as_ref().unwrap().path())).count()
    }

    #[test]
    fn what_was_removed_is_in_no_file_and_what_was_not_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (group, other) = (GroupId(1), GroupId(2));
        let mut batch = Batch::default();
        for word in ["qzvkwjxhgpbtnmrd", "ylfcsuoaeiwvqkzj"] {
            batch.put(Key::Entry(group, u64::from(word.as_bytes()[0])), &word).unwrap();
            batch.put_group_row(group, &word.as_bytes()[..1], Some(word.as_bytes().to_vec()));
        }
        batch.put_group_row(other, b"plmoknijbuhvygct", Some(Vec::new()));
        store.write_durably(batch).unwrap();
        // In files, as deep as they go, where nothing comes near them again.
        store.begin_rewrite(group).unwrap().iter().for_each(|it| store.rewrite(it).unwrap());
        let before = store.group_view(group);
        let mut batch = Batch::default();
        batch.delete_from(Key::Entry(group, 0), Some(Key::Entry(group, u64::from(b'r'))));
        batch.put_group_row(group, b"q", None);
        store.write_durably(batch).unwrap();
        let moment = store.moment();
        assert!(!store.is_settled(moment).unwrap(), "it is being read as it was");
        assert!(found(directory.path(), b"qzvkwjxhgpbtnmrd") > 0, "the search finds it");
        drop(before);
        let _later = store.group_view(group);
        assert!(store.is_settled(moment).unwrap());
        let parts = store.begin_rewrite(group).unwrap();
        assert_eq!(parts.len(), 2, "the log and the rows");
        parts.iter().for_each(|it| store.rewrite(it).unwrap());
        assert_eq!(found(directory.path(), b"qzvkwjxhgpbtnmrd"), 0);
        assert!(found(directory.path(), b"ylfcsuoaeiwvqkzj") > 0 && found(directory.path(), b"plmoknijbuhvygct") > 0);
        assert_eq!((store.group_rows(group).unwrap().len(), store.group_rows(other).unwrap().len()), (1, 1));
        assert_eq!(store.scan::<String>(Key::Entry(group, 0)).count(), 1);
    }
}
