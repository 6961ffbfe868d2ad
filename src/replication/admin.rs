//! One admin table: instances that anyone may add, edit and delete anywhere, and that merge without being asked.
//!
//! An instance lives while its birth is in the store. Every add, edit and DELETE is an event with a dot, the context is the set of
//! events whose effect is in the store, and so *in context but not in store* means deleted: there are no tombstones, and a member
//! of any age rejoins by merging. Adding again is another birth. Fields merge one by one, the larger (stamp, dot) wins.
//!
//! *Invariants.* 1. A dot is in the context only if its effect is in the store; what was refused is in neither. 2. DELETE is final for its
//! instance, whatever is concurrent with it, because an edit carries no birth of its own. 3. Equal digests are equal tables.
//! Values are opaque: fields, kinds and versions that this release does not know are kept and passed on like all others.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Deserialize;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_128;

use super::dots::Actor;
use super::dots::Dot;
use super::dots::Dots;
pub use super::entry::ENTRY_BYTES_MAX;
pub use super::entry::Entry;
pub use super::entry::Field;
pub use super::entry::InstanceId;
pub use super::entry::Key;
use super::faults::Fault;
use super::faults::planted;
use super::hlc::Stamp;
use crate::transport::wire;

/// One event as it travels and as it is told to views.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It is (at least) this.
    Put(Key, Entry),
    /// It was deleted, by this event.
    Gone(Key, Dot),
}

/// How much a table may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Instances.
    pub entries_max: usize,
    /// Bytes of all entries.
    pub bytes_max: usize,
    /// Runs of the context: one for each life of a node that ever edited, and one for each gap. It is sent whole with every question.
    pub runs_max: usize,
}

impl Bounds {
    /// For what others have accepted: a quarter more, so that edits that race to the bound from two sides still converge.
    fn with_room(self) -> Self {
        let Self { entries_max, bytes_max, runs_max } = self;
        Self {
            entries_max: entries_max + entries_max / 4,
            bytes_max: bytes_max + bytes_max / 4,
            runs_max: runs_max + runs_max / 4,
        }
    }
}

/// Why an entry was not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The edit's fault: see [`ENTRY_BYTES_MAX`].
    #[error("the entry is too large")]
    EntryTooLarge,
    /// The table holds as much as it may: delete something first.
    #[error("the table is full")]
    TableFull,
    /// As many starts of nodes have edited the table as it can tell apart. Who has edited it since its own start may still.
    #[error(
        "too many starts of nodes have edited this table: make the edit at a node that has edited it since it was started"
    )]
    TooManyLives,
    /// The writer's clock is more than a minute ahead of the members' time.
    #[error("the stamp is from the future")]
    Ahead,
    /// There is no such instance (any more).
    #[error("no such instance")]
    Unknown,
}

/// A stretch of a table by key: what the asker lacks of it, and which instances in it live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// It begins after this key; None: at the first.
    pub after: Option<Key>,
    /// It ends with this key; None: it is the last stretch.
    pub upto: Option<Key>,
    /// Entries with news for the asker, whole.
    pub entries: Vec<(Key, Entry)>,
    /// Births of all living instances in the stretch.
    pub alive: Dots,
    /// What the sender knew, in the first stretch only.
    pub context: Option<Dots>,
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Admin {
    bounds: Bounds,
    context: Dots,
    entries: BTreeMap<Key, Entry>,
    weight: usize,
    /// The marks of all entries, added without carry: the store's part of the digest, kept up as it changes.
    marks: u128,
}

impl PartialEq for Admin {
    fn eq(&self, other: &Self) -> bool {
        (&self.context, &self.entries) == (&other.context, &other.entries)
    }
}

impl Admin {
    /// An empty table.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, context: Dots::default(), entries: BTreeMap::new(), weight: 0, marks: 0 }
    }

    /// Living instances, in the order of their ids.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// The living instance of that name.
    #[must_use]
    pub fn find(&self, id: InstanceId) -> Option<(&Key, &Entry)> {
        let first =
            Key { id, birth: Dot { actor: Actor { storage: crate::base::ids::StorageId(0), boot: 0 }, count: 0 } };
        self.entries.range(first..).next().filter(|(key, _)| key.id == id)
    }

    /// The events whose effect is in the store.
    #[must_use]
    pub fn context(&self) -> &Dots {
        &self.context
    }

    /// Bytes of all entries, as counted.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The highest stamp in the store.
    #[must_use]
    pub fn latest(&self) -> Stamp {
        self.entries.values().map(Entry::latest).max().unwrap_or_default()
    }

    /// Equal tables have equal ones, others do not (within 128 bits).
    #[must_use]
    pub fn digest(&self) -> u128 {
        let marks = if planted(Fault::DeleteIsNotCounted) { 0 } else { self.marks };
        let bytes = wire::encode(&(&self.context, marks)).unwrap_or_default(); // sets always have an encoding
        xxh3_128(&bytes)
    }

    /// Adds an instance here. The caller checked nothing.
    pub fn add(
        &mut self,
        id: InstanceId,
        kind: u16,
        fields: Vec<(u16, u8, Vec<u8>)>,
        actor: Actor,
        stamp: Stamp,
    ) -> Result<Change, Refusal> {
        let dot = self.next(actor);
        let field = |(number, version, bytes)| (number, Field { stamp, dot, version, bytes });
        let entry = Entry { kind, born: stamp, fields: fields.into_iter().map(field).collect() };
        self.fits(&entry, 0, 1, self.bounds)?;
        self.remembers(&[dot].into_iter().collect(), self.bounds)?;
        Ok(self.write(Key { id, birth: dot }, entry))
    }

    /// Edits fields of an instance here.
    pub fn set(
        &mut self,
        id: InstanceId,
        fields: Vec<(u16, u8, Vec<u8>)>,
        actor: Actor,
        stamp: Stamp,
    ) -> Result<Change, Refusal> {
        let dot = self.next(actor);
        let (key, old) = self.find(id).ok_or(Refusal::Unknown)?;
        let (key, mut entry) = (*key, old.clone());
        let before = entry.weight();
        let field = |(number, version, bytes)| (number, Field { stamp, dot, version, bytes });
        entry.fields.extend(fields.into_iter().map(field));
        self.fits(&entry, before, 0, self.bounds)?;
        self.remembers(&[dot].into_iter().collect(), self.bounds)?;
        Ok(self.write(key, entry))
    }

    /// Deletes an instance, for good.
    pub fn delete(&mut self, id: InstanceId, actor: Actor) -> Result<Change, Refusal> {
        let key = *self.find(id).ok_or(Refusal::Unknown)?.0;
        let dot = if planted(Fault::DeleteIsNotCounted) { key.birth } else { self.next(actor) };
        self.remembers(&[dot].into_iter().collect(), self.bounds)?;
        self.remove(key);
        self.context.insert(dot);
        if planted(Fault::DeleteForgetsTheBirth) {
            self.context.subtract(&[key.birth].into_iter().collect());
        }
        Ok(Change::Gone(key, dot))
    }

    /// Takes another member's event. Says whether it was news; doing it twice changes nothing.
    pub fn apply(&mut self, change: Change, horizon: Stamp) -> Result<bool, Refusal> {
        if let (Change::Gone(_, dot), true) = (&change, planted(Fault::PushClaimsAll)) {
            self.context.union(&(1..dot.count).map(|count| Dot { count, ..*dot }).collect());
        }
        match change {
            Change::Put(key, entry) => {
                let dots = entry.dots(key.birth);
                let is_news = !self.context.covers(&dots);
                self.put(key, entry, horizon)?;
                Ok(is_news)
            }
            Change::Gone(key, dot) => {
                let is_news = !self.context.contains(dot) || self.entries.contains_key(&key);
                self.remembers(&[dot, key.birth].into_iter().collect(), self.bounds.with_room())?;
                self.remove(key);
                self.context.insert(dot);
                if !planted(Fault::DeleteForgetsTheBirth) {
                    self.context.insert(key.birth);
                }
                Ok(is_news)
            }
        }
    }

    /// What an asker that knows `known` lacks, after a key, up to about `bytes_max`.
    #[must_use]
    pub fn slice(&self, known: &Dots, after: Option<Key>, bytes_max: usize) -> Slice {
        let context = after.is_none().then(|| self.context.clone());
        let mut slice = Slice { after, upto: None, entries: Vec::new(), alive: Dots::default(), context };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut left = bytes_max;
        let mut last = after;
        for (key, entry) in self.entries.range((from, Bound::Unbounded)) {
            let has_news = !known.covers(&entry.dots(key.birth));
            let cost = if has_news { entry.weight() } else { 4 };
            // At least one goes with each slice, or a large entry would stop the pull.
            if cost > left && last != after {
                slice.upto = last;
                break;
            }
            left = left.saturating_sub(cost);
            last = Some(*key);
            if has_news {
                slice.entries.push((*key, entry.clone()));
            }
            if has_news || !planted(Fault::AliveOnlyIfSent) {
                slice.alive.insert(key.birth);
            }
        }
        slice
    }

    /// Whether there is room for what a member knows. If not, nothing of its table can be taken: what is deleted there could not be told from what is unknown here.
    pub fn has_room_for(&self, theirs: &Dots) -> Result<(), Refusal> {
        self.remembers(theirs, self.bounds.with_room())
    }

    /// Takes a stretch from a member that knew `theirs` when it began to answer. Returns the dots of what was refused, and
    /// what changed here.
    pub fn absorb(&mut self, slice: Slice, theirs: &Dots, horizon: Stamp) -> (Dots, Vec<Change>) {
        let (mut refused, mut changes) = (Dots::default(), Vec::new());
        for (key, entry) in slice.entries {
            let dots = entry.dots(key.birth);
            match self.put(key, entry, horizon) {
                Ok(()) => changes.extend(self.entries.get(&key).map(|it| Change::Put(key, it.clone()))),
                Err(_) => refused.union(&dots), // counted by the caller
            }
        }
        let from = slice.after.map_or(Bound::Unbounded, Bound::Excluded);
        let to = slice.upto.map_or(Bound::Unbounded, Bound::Included);
        let is_dead = |key: &&Key| theirs.contains(key.birth) && !slice.alive.contains(key.birth);
        let dead: Vec<Key> = self.entries.range((from, to)).map(|(key, _)| key).filter(is_dead).copied().collect();
        for key in dead {
            self.remove(key);
            changes.push(Change::Gone(key, key.birth));
        }
        (refused, changes)
    }

    /// All stretches of a member that knew `theirs` were taken, but for what was `refused`.
    pub fn finish(&mut self, mut theirs: Dots, refused: &Dots) {
        // What is known here stays known, also where the same dots were refused just now.
        theirs.subtract(refused);
        self.context.union(&theirs);
    }

    /// Takes an entry back from disk.
    pub fn restore(&mut self, key: Key, entry: Entry) {
        self.place(key, Some(entry));
    }

    /// Takes a local edit back: the context and the instance are as they were before it.
    pub fn undo(&mut self, context: Dots, key: Key, old: Option<Entry>) {
        self.place(key, old);
        self.context = context;
    }

    /// Takes the context back from disk.
    pub fn restore_context(&mut self, context: Dots) {
        self.context = context;
    }

    fn next(&self, actor: Actor) -> Dot {
        self.context.next(actor)
    }

    fn put(&mut self, key: Key, entry: Entry, horizon: Stamp) -> Result<(), Refusal> {
        let dots = entry.dots(key.birth);
        let revives = planted(Fault::EditRevives) && !self.context.covers(&dots);
        let is_dead = !self.entries.contains_key(&key) && self.context.contains(key.birth) && !revives;
        self.remembers(&dots, self.bounds.with_room())?;
        // Of the dead nothing is kept, so nothing can be too much.
        if !is_dead {
            if entry.latest() >= horizon {
                return Err(Refusal::Ahead);
            }
            let old = self.entries.get(&key);
            let (before, more) = (old.map_or(0, Entry::weight), usize::from(old.is_none()));
            let mut merged = old.cloned().unwrap_or_else(|| Entry { fields: BTreeMap::new(), ..entry.clone() });
            merged.merge(entry);
            self.fits(&merged, before, more, self.bounds.with_room())?;
            self.place(key, Some(merged));
        }
        self.context.union(&dots);
        Ok(())
    }

    fn write(&mut self, key: Key, entry: Entry) -> Change {
        self.context.union(&entry.dots(key.birth));
        self.place(key, Some(entry.clone()));
        Change::Put(key, entry)
    }

    fn remove(&mut self, key: Key) {
        self.place(key, None);
    }

    /// The only door to the store: keeps weight and marks.
    fn place(&mut self, key: Key, entry: Option<Entry>) {
        if let Some(entry) = &entry {
            self.weight += entry.weight();
            self.marks ^= mark(&key, entry);
        }
        let old = match entry {
            Some(entry) => self.entries.insert(key, entry),
            None => self.entries.remove(&key),
        };
        if let Some(old) = old {
            self.weight -= old.weight();
            self.marks ^= mark(&key, &old);
        }
    }

    fn remembers(&self, more: &Dots, bounds: Bounds) -> Result<(), Refusal> {
        let before = self.context.runs();
        if before + more.runs() <= bounds.runs_max {
            return Ok(());
        }
        let mut all = self.context.clone();
        all.union(more);
        if all.runs() > bounds.runs_max.max(before) { Err(Refusal::TooManyLives) } else { Ok(()) }
    }

    fn fits(&self, entry: &Entry, before: usize, more: usize, bounds: Bounds) -> Result<(), Refusal> {
        let weight = entry.weight();
        if weight > ENTRY_BYTES_MAX {
            return Err(Refusal::EntryTooLarge);
        }
        let is_full =
            self.entries.len() + more > bounds.entries_max || self.weight - before + weight > bounds.bytes_max;
        if is_full && (more > 0 || weight > before) { Err(Refusal::TableFull) } else { Ok(()) }
    }
}

/// Stands for an entry at exactly these edits.
fn mark(key: &Key, entry: &Entry) -> u128 {
    let edits: Vec<_> = entry.fields.iter().map(|(number, field)| (number, field.dot)).collect();
    xxh3_128(&wire::encode(&(key, edits)).unwrap_or_default()) // numbers always have an encoding
}

#[cfg(test)]
#[path = "admin_laws.rs"]
mod laws;
