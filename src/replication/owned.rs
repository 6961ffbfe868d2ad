//! One owned table: each member writes its own rows, everyone keeps a copy of everyone's.
//!
//! An owner numbers its writes, so a copy is ordered by (boot, version) and the later one is the whole truth: merging is taking the
//! larger. What was written after version *n* is a delta; removed rows are kept as such until there are too many, then those that
//! are older than the floor must take the rows anew. *Invariants.* 1. A copy at version *n* is what the owner had at *n*: parts wait aside until they are
//! whole. 2. Nobody's rows are taken from a member that is down unless the table says so, or the dead would return by gossip.
//! 3. Ages travel as durations, so no clock of another node decides when a row expires.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::faults::Fault;
use super::faults::planted;
use crate::base::ids::StorageId;
use crate::transport::wire;

/// Longest row name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Removed rows kept as such, for each owner. Fewer make those who were away take all rows anew; more cost memory.
const REMOVED_MAX: usize = 256;

/// What becomes of rows whose owner is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// They go with it.
    Drop,
    /// They stay until the owner writes again or is forgotten.
    Keep,
    /// They go with it, and each is hidden when its owner has not written it for so long.
    Expire(Duration),
}

/// How much an owner may hold in a table.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Rows of one owner.
    pub rows_max: usize,
    /// Bytes of one owner.
    pub bytes_max: usize,
}

/// Why rows were not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More rows or bytes than one owner may have.
    #[error("one owner may not have that much")]
    TooMuch,
    /// Only their owner writes them.
    #[error("the rows belong to another member")]
    NotYours,
    /// The owner is not here, in another life here, or was forgotten.
    #[error("the owner is not here")]
    OwnerAbsent,
    /// Older than, or not next to, what is here.
    #[error("not next")]
    NotNext,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    version: u64,
    /// When it was written, on the clock here. Negative: before this node started.
    written_ms: i64,
    bytes: Option<Vec<u8>>,
}

/// The rows of one owner.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    boot: u64,
    head: u64,
    floor: u64,
    rows: BTreeMap<Vec<u8>, Row>,
}

/// A part on its way. What its sender had overwritten by then is not in it, so it is not whole before the version that its
/// sender had, whoever sends the rest.
#[derive(Clone, Debug)]
struct Staged {
    part: Part,
    goal: u64,
}

/// A row as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDelta {
    /// Its name.
    pub name: Vec<u8>,
    /// The write that made it so.
    pub version: u64,
    /// How long ago that was.
    pub age_ms: u64,
    /// The value; None: removed.
    pub bytes: Option<Vec<u8>>,
}

/// What one owner wrote after a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartDelta {
    /// Whose.
    pub owner: StorageId,
    /// In which life.
    pub boot: u64,
    /// It begins after this version; 0: it replaces all.
    pub from: u64,
    /// It ends with this version.
    pub to: u64,
    /// The version its sender has. The rows count once `to` is there.
    pub head: u64,
    /// Up to here removed rows are not told any more.
    pub floor: u64,
    /// In the order they were written.
    pub rows: Vec<RowDelta>,
}

/// One row that a reader has not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News<'a> {
    /// Who wrote it.
    pub owner: StorageId,
    /// In which life.
    pub boot: u64,
    /// Whether all of the owner's rows are told anew, in this life or because too many were removed.
    pub is_new: bool,
    /// Its name.
    pub name: &'a [u8],
    /// The value; None: removed.
    pub bytes: Option<&'a [u8]>,
    /// How long ago it was written.
    pub age: Duration,
}

/// How far someone is with an owner: life and version.
pub type Head = (StorageId, u64, u64);

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Owned {
    rule: Rule,
    share: Share,
    parts: BTreeMap<StorageId, Part>,
    /// Parts on their way, not yet whole. At most one for each owner.
    staged: BTreeMap<StorageId, Staged>,
}

impl Owned {
    /// An empty table.
    #[must_use]
    pub fn new(rule: Rule, share: Share) -> Self {
        Self { rule, share, parts: BTreeMap::new(), staged: BTreeMap::new() }
    }

    /// Writes rows of this node; None removes one. The first write of a life replaces what earlier ones left.
    pub fn publish(
        &mut self,
        now: Duration,
        owner: StorageId,
        boot: u64,
        rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    ) -> Result<PartDelta, Refusal> {
        let mut part = self.parts.get(&owner).filter(|it| it.boot == boot).cloned().unwrap_or_default();
        part.boot = boot;
        let from = part.head;
        for (name, bytes) in rows {
            part.head += 1;
            part.rows.insert(name, Row { version: part.head, written_ms: millis(now), bytes });
        }
        // An empty first write is one too: it says that this life has no rows.
        part.head = part.head.max(1);
        part.forget_removed();
        self.check(&part)?;
        self.staged.remove(&owner);
        self.parts.insert(owner, part);
        self.delta(now, owner, boot, from, usize::MAX).ok_or(Refusal::NotNext)
    }

    /// Rows in force: (owner, name, value).
    pub fn rows(&self, now: Duration) -> impl Iterator<Item = (StorageId, &[u8], &[u8])> {
        let since = match self.rule {
            Rule::Expire(after) => millis(now).saturating_sub(millis(after)),
            Rule::Drop | Rule::Keep => i64::MIN,
        };
        self.parts.iter().flat_map(move |(owner, part)| {
            let fresh = part.rows.iter().filter(move |(_, row)| row.written_ms > since);
            fresh.filter_map(|(name, row)| row.bytes.as_deref().map(|bytes| (*owner, name.as_slice(), bytes)))
        })
    }

    /// What was written since `seen`, which is brought up to date: for readers that follow. Rows of owners that went are not told;
    /// `is_new` says that what was read of that owner before counts no longer.
    pub fn news<'a>(&'a self, now: Duration, seen: &mut BTreeMap<StorageId, (u64, u64)>) -> Vec<News<'a>> {
        seen.retain(|owner, _| self.parts.contains_key(owner));
        let mut news = Vec::new();
        for (owner, part) in &self.parts {
            let before = seen.insert(*owner, part.order());
            let from = before.filter(|it| it.0 == part.boot && it.1 >= part.floor).map_or(0, |it| it.1);
            let mut rows: Vec<_> = part.rows.iter().filter(|(_, row)| row.version > from).collect();
            rows.sort_unstable_by_key(|(_, row)| row.version);
            news.extend(rows.into_iter().map(|(name, row)| News {
                owner: *owner,
                boot: part.boot,
                is_new: from == 0,
                name,
                bytes: row.bytes.as_deref(),
                age: Duration::from_millis(millis(now).saturating_sub(row.written_ms).max(0).unsigned_abs()),
            }));
        }
        news
    }

    /// Rows of all owners, removed ones not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.values().map(|part| part.rows.values().filter(|row| row.bytes.is_some()).count()).sum()
    }

    /// Whether nobody has a row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How far each owner's rows are here.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        self.parts.iter().map(|(owner, part)| (*owner, part.boot, part.head)).collect()
    }

    /// The same, counting what is on its way.
    #[must_use]
    pub fn heads_asked(&self) -> Vec<Head> {
        let mut heads: BTreeMap<StorageId, (u64, u64)> =
            self.parts.iter().map(|(owner, part)| (*owner, part.order())).collect();
        for (owner, staged) in &self.staged {
            let head = heads.entry(*owner).or_default();
            *head = (*head).max(staged.part.order());
        }
        heads.into_iter().map(|(owner, (boot, head))| (owner, boot, head)).collect()
    }

    /// Equal heads have equal ones.
    #[must_use]
    pub fn digest(&self) -> u128 {
        xxh3_128(&wire::encode(&self.heads()).unwrap_or_default()) // numbers always have an encoding
    }

    /// What an asker with `theirs` lacks, up to about `bytes_max`, and whether that is all.
    #[must_use]
    pub fn deltas(&self, now: Duration, theirs: &[Head], bytes_max: usize) -> (Vec<PartDelta>, bool) {
        let (mut deltas, mut left) = (Vec::new(), bytes_max);
        for (owner, part) in &self.parts {
            let known = theirs.iter().find(|it| it.0 == *owner).map_or((0, 0), |it| (it.1, it.2));
            if known >= part.order() {
                continue;
            }
            if left == 0 {
                return (deltas, false);
            }
            let from = if known.0 == part.boot { known.1 } else { 0 };
            let Some(delta) = self.delta(now, *owner, part.boot, from, left) else { continue };
            left = left.saturating_sub(64 + delta.rows.iter().map(RowDelta::weight).sum::<usize>());
            let is_whole = delta.to == delta.head;
            deltas.push(delta);
            if !is_whole {
                return (deltas, false);
            }
        }
        (deltas, true)
    }

    /// One owner's rows after a version.
    #[must_use]
    pub fn delta(&self, now: Duration, owner: StorageId, boot: u64, from: u64, bytes_max: usize) -> Option<PartDelta> {
        let part = self.parts.get(&owner).filter(|it| it.boot == boot)?;
        let from = if from < part.floor { 0 } else { from };
        let mut rows: Vec<_> = part.rows.iter().filter(|(_, row)| row.version > from).collect();
        rows.sort_unstable_by_key(|(_, row)| row.version);
        if planted(Fault::RemovalsAreNotSent) {
            rows.retain(|(_, row)| row.bytes.is_some());
        }
        let (mut delta, mut left) = (part.empty_delta(owner, from), bytes_max);
        for (name, row) in rows {
            let age_ms = millis(now).saturating_sub(row.written_ms).max(0).unsigned_abs();
            let row = RowDelta { name: name.clone(), version: row.version, age_ms, bytes: row.bytes.clone() };
            if row.weight() > left && !delta.rows.is_empty() {
                delta.to = delta.rows.last().map_or(from, |it| it.version);
                break;
            }
            left = left.saturating_sub(row.weight());
            delta.rows.push(row);
        }
        Some(delta)
    }

    /// Takes rows of another owner. Says whether rows in force changed: a part of them waits aside.
    pub fn apply(&mut self, now: Duration, delta: PartDelta) -> Result<bool, Refusal> {
        let known = self.parts.get(&delta.owner).map_or((0, 0), Part::order);
        let theirs = (delta.boot, delta.to);
        let is_old = if planted(Fault::OwnedIgnoresBoot) { known.1 >= theirs.1 } else { known >= theirs };
        if is_old {
            return Err(Refusal::NotNext);
        }
        let (mut part, goal) = self.base_for(&delta)?;
        let written = |age_ms: u64| millis(now).saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
        for row in delta.rows {
            let it = Row { version: row.version, written_ms: written(row.age_ms), bytes: row.bytes };
            part.rows.insert(row.name, it);
        }
        (part.head, part.floor) = (delta.to, delta.floor);
        self.check(&part)?;
        let goal = goal.max(delta.head);
        if delta.to < goal && !planted(Fault::OwnedTakesParts) {
            self.staged.insert(delta.owner, Staged { part, goal });
            return Ok(false);
        }
        part.forget_removed();
        self.staged.remove(&delta.owner);
        self.parts.insert(delta.owner, part);
        Ok(true)
    }

    /// What a delta adds to, and the version at which that is whole.
    fn base_for(&mut self, delta: &PartDelta) -> Result<(Part, u64), Refusal> {
        if delta.from == 0 {
            return Ok((Part { boot: delta.boot, ..Part::default() }, 0));
        }
        let is_next = |part: &Part| part.boot == delta.boot && (delta.from..=delta.to).contains(&part.head);
        if let Some(staged) = self.staged.get(&delta.owner).filter(|it| is_next(&it.part)) {
            if delta.head >= staged.goal {
                return Ok((staged.part.clone(), staged.goal));
            }
            // Its sender is behind the one who began: begin anew, or nobody may ever be far enough.
            self.staged.remove(&delta.owner);
        }
        let whole = self.parts.get(&delta.owner).filter(|it| is_next(it)).cloned();
        whole.map(|it| (it, 0)).ok_or(Refusal::NotNext)
    }

    /// Whether the table takes rows of that owner: `life` is its boot if it is here.
    #[must_use]
    pub fn takes(&self, boot: u64, life: Option<u64>) -> bool {
        match life {
            // A life that membership has not seen yet is taken up once it has.
            Some(life) => boot == life || (boot < life && self.rule == Rule::Keep),
            None => self.rule == Rule::Keep,
        }
    }

    /// Forgets the rows of every life that is not here, where the rule says so. Returns whose.
    pub fn retain(&mut self, life: impl Fn(StorageId) -> Option<u64>) -> Vec<StorageId> {
        let is_gone = |table: &Self, owner: StorageId, part: &Part| !table.takes(part.boot, life(owner));
        let staged = self.staged.iter().filter(|(owner, it)| is_gone(self, **owner, &it.part)).map(|(owner, _)| *owner);
        let staged: Vec<StorageId> = staged.collect();
        let gone = self.parts.iter().filter(|(owner, it)| is_gone(self, **owner, it)).map(|(owner, _)| *owner);
        let gone: Vec<StorageId> = gone.collect();
        // One by one: what is on its way may be of another life than what is here.
        staged.iter().for_each(|owner| drop(self.staged.remove(owner)));
        gone.iter().for_each(|owner| drop(self.parts.remove(owner)));
        gone
    }

    /// Forgets one owner's rows.
    pub fn forget(&mut self, owner: StorageId) {
        self.parts.remove(&owner);
        self.staged.remove(&owner);
    }

    /// Somebody else has rows of this node that it never wrote, at `head`: goes past them. Says whether that was needed.
    pub fn refute(&mut self, owner: StorageId, boot: u64, head: u64) -> bool {
        let Some(part) = self.parts.get_mut(&owner).filter(|it| it.boot == boot && it.head < head) else {
            return false;
        };
        // Everyone takes the rows anew, because what they have at these versions is not ours.
        part.head = head;
        for row in part.rows.values_mut() {
            part.head += 1;
            row.version = part.head;
        }
        part.head += 1;
        part.floor = part.head;
        true
    }

    fn check(&self, part: &Part) -> Result<(), Refusal> {
        let is_named = part.rows.keys().all(|name| name.len() <= NAME_BYTES_MAX);
        let bytes: usize =
            part.rows.iter().map(|(name, row)| name.len() + row.bytes.as_ref().map_or(0, Vec::len)).sum();
        let live = part.rows.values().filter(|row| row.bytes.is_some()).count();
        let removed = part.rows.len() - live;
        let fits = live <= self.share.rows_max && bytes <= self.share.bytes_max && removed <= 2 * REMOVED_MAX;
        if is_named && fits { Ok(()) } else { Err(Refusal::TooMuch) }
    }
}

impl RowDelta {
    fn weight(&self) -> usize {
        24 + self.name.len() + self.bytes.as_ref().map_or(0, Vec::len)
    }
}

impl Part {
    fn order(&self) -> (u64, u64) {
        (self.boot, self.head)
    }

    fn empty_delta(&self, owner: StorageId, from: u64) -> PartDelta {
        let (boot, head, floor) = (self.boot, self.head, self.floor);
        PartDelta { owner, boot, from, to: head, head, floor, rows: Vec::new() }
    }

    fn forget_removed(&mut self) {
        let removed = self.rows.values().filter(|row| row.bytes.is_none()).count();
        if removed > REMOVED_MAX {
            self.rows.retain(|_, row| row.bytes.is_some());
            self.floor = self.head;
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "owned_tests.rs"]
mod tests;
