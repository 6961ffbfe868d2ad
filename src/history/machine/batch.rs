//! Commands of many writers in one entry of the log: one fsync for all of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Deserialize;
use serde::Serialize;

use super::command::Outcome;
use super::step::step;
use crate::raft::Coded;
use crate::raft::RowChange;
use crate::raft::Rows;
use crate::raft::Unreadable;

/// [`super::Entry`]s, encoded, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch(#[serde(with = "crate::base::byte_lists")] pub Vec<Vec<u8>>);

/// What each of them did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Outcome>);

impl Coded for Batch {}

impl Coded for Outcomes {}

/// Takes commands one after the other, each on the rows that the one before left. Answers what each did, and which rows are now otherwise.
pub fn steps(rows: &dyn Rows, commands: &[Vec<u8>]) -> Result<(Vec<Outcome>, Vec<RowChange>), Unreadable> {
    if let [command] = commands {
        return step(rows, command).map(|(outcome, changes)| (vec![outcome], changes));
    }
    let mut after = Overlay { rows, changes: BTreeMap::new() };
    let mut outcomes = Vec::with_capacity(commands.len());
    for command in commands {
        let (outcome, changes) = step(&after, command)?;
        outcomes.push(outcome);
        after.changes.extend(changes);
    }
    Ok((outcomes, after.changes.into_iter().collect()))
}

/// Rows, and what is otherwise.
pub(super) struct Overlay<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Rows for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        match self.changes.get(key) {
            Some(value) => value.clone(),
            None => self.rows.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, is_back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        if from >= to {
            return Vec::new();
        }
        let mine: Vec<_> = self.changes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))).collect();
        let mut rows: BTreeMap<Vec<u8>, Vec<u8>> =
            self.rows.scan(from, to, most.saturating_add(mine.len()), is_back).into_iter().collect();
        for (key, value) in mine {
            match value {
                Some(value) => drop(rows.insert(key.clone(), value.clone())),
                None => drop(rows.remove(key)),
            }
        }
        if is_back { rows.into_iter().rev().take(most).collect() } else { rows.into_iter().take(most).collect() }
    }
}
