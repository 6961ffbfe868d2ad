//! Rows as the machine finds them: the state before a command, or of a read.

use std::collections::BTreeMap;

/// A key, and the value it has now. None: it is gone.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// Rows of one moment, in the order of their keys. Whoever implements it answers for faults of the disk: a machine that was told less than there is would go another way than the others.
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
