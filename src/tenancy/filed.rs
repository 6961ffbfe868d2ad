//! The rows of one replicated table as they were last read, found by instance and by name.
//!
//! Keys, tenants and models are kept alike: what differs is in [`Row`]. *Invariants:* 1. what is found depends on the rows alone, not on the order in which they came; of two
//! rows of one name the oldest counts, everywhere. 2. An edit costs what it changes, however many rows there are. Pure: no clock, no lock, no table is held.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::hash::Hash;

use super::quota::Quotas;
use crate::base::ids::StorageId;
use crate::limits::Definition;
use crate::replication::admin::Admin;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;
use crate::replication::dots::Actor;
use crate::replication::dots::Dot;
use crate::replication::hlc::Stamp;

/// What one kind of row is.
pub(super) trait Row: Sized {
    /// What rows are found by.
    type Name: Clone + Eq + Hash;
    /// The only kind of entry that this release knows in its table.
    const KIND: u16;

    /// Reads one. `None`: another release wrote something of it.
    fn read(id: InstanceId, entry: &Entry) -> Option<Self>;

    /// What it is found by.
    fn name(&self) -> Self::Name;

    /// Its limits.
    fn quotas(&self) -> &Quotas;

    /// Whether it is one of those whose number is kept. `None`: it cannot be read.
    fn is_counted(_: Option<&Self>) -> bool {
        false
    }
}

/// A row as it was last read.
pub(super) struct Held<R> {
    pub(super) born: Stamp,
    /// Stands for the entry at exactly these edits.
    mark: u64,
    /// `None`: it cannot be read.
    pub(super) row: Option<R>,
}

/// What a table has that rows read before have not.
#[derive(Default)]
pub(super) struct News {
    pub(super) changed: Vec<(Key, Entry)>,
    pub(super) gone: Vec<Key>,
}

/// See the file's header.
pub(super) struct Filed<R: Row> {
    rows: BTreeMap<Key, Held<R>>,
    /// The oldest first.
    by_name: HashMap<R::Name, Vec<Key>>,
    counted: usize,
    limits: usize,
    limit_changes: u64,
}

impl<R: Row> Default for Filed<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), by_name: HashMap::new(), counted: 0, limits: 0, limit_changes: 0 }
    }
}

impl<R: Row> Filed<R> {
    /// Those that can be read.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, &R)> {
        self.rows.iter().filter_map(|(key, held)| Some((key, held.row.as_ref()?)))
    }

    /// Names, each once.
    pub(super) fn names(&self) -> impl Iterator<Item = &R::Name> {
        self.by_name.keys()
    }

    /// Rows of a name, the one that counts first.
    pub(super) fn of<'a>(&'a self, name: &R::Name) -> impl Iterator<Item = (&'a Key, &'a R)> + use<'a, R> {
        let keys = self.by_name.get(name).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.rows.get(key)?.row.as_ref()?)))
    }

    /// A row of this instance.
    pub(super) fn instance(&self, id: InstanceId) -> Option<&R> {
        same_instance(&self.rows, id).find_map(|(_, held)| held.row.as_ref())
    }

    /// When a row came to be.
    pub(super) fn born(&self, key: &Key) -> Option<Stamp> {
        self.rows.get(key).map(|it| it.born)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// See [`Row::is_counted`].
    pub(super) fn counted(&self) -> usize {
        self.counted
    }

    /// How many limits there are, and how often one came or went.
    pub(super) fn limits(&self) -> (usize, u64) {
        (self.limits, self.limit_changes)
    }

    /// Limits of rows that count, which `counts` says. Costs one look at each row.
    pub(super) fn definitions<'a>(
        &'a self,
        counts: impl Fn(&Key, &R) -> bool + 'a,
    ) -> impl Iterator<Item = Definition> + 'a {
        let limited = self.rows().filter(|it| !it.1.quotas().is_empty());
        limited.filter(move |it| counts(it.0, it.1)).flat_map(|(key, row)| row.quotas().definitions(key.id))
    }

    /// Takes what is new. What came is in force before what went is not, so that a rotation of keys has no gap.
    pub(super) fn take(&mut self, news: News) {
        news.changed.into_iter().for_each(|(key, entry)| self.put(key, &entry));
        news.gone.iter().for_each(|key| self.remove(key));
    }

    fn put(&mut self, key: Key, entry: &Entry) {
        self.remove(&key);
        if entry.kind != R::KIND {
            return;
        }
        let held = Held { born: entry.born, mark: mark(entry), row: R::read(key.id, entry) };
        self.counted += usize::from(R::is_counted(held.row.as_ref()));
        self.limits += limits_of(&held);
        self.limit_changes += limits_of(&held) as u64;
        let name = held.row.as_ref().map(R::name);
        self.rows.insert(key, held);
        if let Some(name) = name {
            let age = |it: &Key| (self.rows.get(it).map(|held| held.born), it.birth);
            let like = self.by_name.entry(name).or_default();
            let at = like.partition_point(|it| age(it) < age(&key));
            like.insert(at, key);
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(held) = self.rows.remove(key) else { return };
        self.counted -= usize::from(R::is_counted(held.row.as_ref()));
        self.limits -= limits_of(&held);
        self.limit_changes += limits_of(&held) as u64;
        let Some(name) = held.row.as_ref().map(R::name) else { return };
        if let Some(like) = self.by_name.get_mut(&name) {
            like.retain(|it| it != key);
            if like.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// Everything in which the table differs. Costs one look at each entry.
    pub(super) fn news(&self, table: &Admin) -> News {
        let mut news = News::default();
        let mut held = self.rows.iter().peekable();
        for (key, entry) in table.entries().filter(|it| it.1.kind == R::KIND) {
            while let Some((old, _)) = held.next_if(|it| it.0 < key) {
                news.gone.push(*old);
            }
            let known = held.next_if(|it| it.0 == key).map(|it| it.1.mark);
            if known != Some(mark(entry)) {
                news.changed.push((*key, entry.clone()));
            }
        }
        news.gone.extend(held.map(|it| *it.0));
        news
    }

    /// The same for some instances. Costs a search for each.
    pub(super) fn news_of(&self, ids: &[InstanceId], table: &Admin) -> News {
        let mut news = News::default();
        for id in ids {
            let found = table.find(*id);
            let gone = same_instance(&self.rows, *id).map(|it| *it.0);
            news.gone.extend(gone.filter(|it| found.is_none_or(|(key, _)| key != it)));
            news.changed.extend(found.map(|(key, entry)| (*key, entry.clone())));
        }
        news
    }

    /// Everything it holds, for tests.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.rows.len() + self.by_name.len()
    }
}

fn limits_of<R: Row>(held: &Held<R>) -> usize {
    held.row.as_ref().map_or(0, |it| it.quotas().iter().count())
}

/// The rows of one instance.
fn same_instance<R>(rows: &BTreeMap<Key, Held<R>>, id: InstanceId) -> impl Iterator<Item = (&Key, &Held<R>)> {
    let first = Key { id, birth: Dot { actor: Actor { storage: StorageId(0), boot: 0 }, count: 0 } };
    rows.range(first..).take_while(move |it| it.0.id == id)
}

/// Two entries of one key with the same mark are the same entry: a field never has two values by one event.
fn mark(entry: &Entry) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
    entry.fields.iter().fold(ODD, |hash, (number, field)| {
        let Dot { actor: Actor { storage, boot }, count } = field.dot;
        let words = [u64::from(*number), storage.0 as u64, (storage.0 >> 64) as u64, boot, count];
        words.into_iter().fold(hash, mix)
    })
}
