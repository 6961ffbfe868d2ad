//! Rows as a machine finds them: the state before a command, or of a read.

use std::collections::BTreeMap;

use super::read_or_stop;
use crate::storage::GroupView;

/// Rows of one moment, in the order of their keys. A disk that cannot be read stops the process: a machine that was told less than there is would go another way than the others.
pub trait Rows {
    /// One value.
    fn get(&self, key: &[u8]) -> Option<Vec<u8>>;

    /// Those from `from` to before `to`, at most so many. `is_back`: the last ones, last first.
    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Vec<(Vec<u8>, Vec<u8>)>;
}

impl Rows for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        BTreeMap::get(self, key).cloned()
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let range = self.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        let owned = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        if is_back { range.rev().take(most).map(owned).collect() } else { range.take(most).map(owned).collect() }
    }
}

impl Rows for GroupView<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        read_or_stop(GroupView::get(self, key))
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        GroupView::scan(self, from, to, is_back).take(most).map(read_or_stop).collect()
    }
}
