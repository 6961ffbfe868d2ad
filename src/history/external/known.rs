//! Rows as far as they are known, and what else was asked for.
//!
//! The machine is a function. So it is run over what is known, what it missed is fetched in one go, and it is run again, until it misses nothing: two or three rounds to the server
//! for a batch of hundreds of commands, where asking for row after row would be thousands. What it said before it knew all is thrown away.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::server::Found;
use super::server::Want;
use crate::raft::RowChange;
use crate::raft::Rows;

/// See the file's header. BOUND: what one batch or one read looks at.
#[derive(Default)]
pub(super) struct Known {
    found: BTreeMap<Want, Found>,
    missed: RefCell<BTreeSet<Want>>,
}

impl Known {
    /// What was missed since the last time.
    pub(super) fn take_missed(&self) -> Vec<Want> {
        self.missed.take().into_iter().collect()
    }

    /// All that was ever asked for.
    pub(super) fn asked(&self) -> Vec<Want> {
        self.found.keys().cloned().collect()
    }

    pub(super) fn learn(&mut self, wants: Vec<Want>, found: Vec<Found>) {
        self.found.extend(wants.into_iter().zip(found));
    }

    pub(super) fn find(&self, want: &Want) -> Option<&Found> {
        self.found.get(want)
    }

    /// Whether these answers are the ones that are known.
    pub(super) fn is_same(&self, wants: &[Want], found: &[Found]) -> bool {
        wants.iter().zip(found).all(|(want, found)| self.find(want) == Some(found))
    }

    fn ask(&self, want: Want) -> Found {
        match self.find(&want) {
            Some(found) => found.clone(),
            None => {
                self.missed.borrow_mut().insert(want);
                Vec::new()
            }
        }
    }
}

impl Rows for Known {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.ask(Want::Row(key.to_vec())).pop().map(|it| it.1)
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Found {
        if from >= to {
            return Vec::new();
        }
        self.ask(Want::Rows { from: from.to_vec(), to: to.to_vec(), most, is_back })
    }
}

/// One row at a time, as changes leave it.
pub(super) struct After<'a>(pub(super) &'a Known, pub(super) &'a [RowChange]);

impl Rows for After<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.1.iter().find(|it| it.0 == key) {
            Some(change) => change.1.clone(),
            None => self.0.get(key),
        }
    }

    fn scan(&self, _: &[u8], _: &[u8], _: usize, _: bool) -> Found {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_missed_once_and_found_when_it_was_learnt() {
        let mut known = Known::default();
        assert_eq!((known.get(b"a"), known.get(b"a"), known.scan(b"b", b"a", 1, false)), (None, None, vec![]));
        let missed = known.take_missed();
        assert_eq!(missed, [Want::Row(b"a".to_vec())]);
        let row = (b"a".to_vec(), b"1".to_vec());
        known.learn(missed.clone(), vec![vec![row.clone()]]);
        assert_eq!((known.get(b"a"), known.take_missed()), (Some(b"1".to_vec()), vec![]));
        assert!(known.is_same(&missed, &[vec![row]]) && !known.is_same(&missed, &[vec![]]));
        let changes = [(b"a".to_vec(), None), (b"b".to_vec(), Some(b"2".to_vec()))];
        let after = After(&known, &changes);
        assert_eq!((after.get(b"a"), after.get(b"b")), (None, Some(b"2".to_vec())));
    }
}
