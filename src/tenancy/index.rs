//! The keys and tenants that this node knows, found by what a request presents: the configured ones and those of the tables.
//!
//! *Invariants:* 1. what is in force depends on the rows alone, not on the order in which they came; where two rows are of one key or one
//! name, the oldest counts, everywhere. 2. It fails closed: a row that cannot be read is a key, and may be an admin's. 3. An edit costs what it changes, however many
//! keys there are. Pure: no clock, no lock, no table is held.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use super::config::Role;
use super::hash::KeyHash;
use super::keys::AuthError;
use super::keys::Key as Configured;
use super::keys::Principal;
use super::quota::Quotas;
use super::rows::KEY;
use super::rows::KeyRow;
use super::rows::TENANT;
use super::rows::TenantRow;
use crate::base::ids::StorageId;
use crate::base::ids::TenantId;
use crate::limits::Definition;
use crate::replication::admin::Admin;
use crate::replication::admin::Entry;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;
use crate::replication::dots::Actor;
use crate::replication::dots::Dot;
use crate::replication::hlc::Stamp;

/// A row as it was last read.
pub(super) struct Held<R> {
    pub(super) born: Stamp,
    /// Stands for the entry at exactly these edits.
    mark: u64,
    /// `None`: it cannot be read.
    pub(super) row: Option<R>,
}

/// The rows of one table.
pub(super) type Rows<R> = BTreeMap<Key, Held<R>>;

/// What a table has that rows read before have not.
#[derive(Default)]
pub(super) struct News {
    pub(super) changed: Vec<(Key, Entry)>,
    pub(super) gone: Vec<Key>,
}

/// What nobody needs a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Model requests: there is no key at all.
    pub models: bool,
    /// The admin API, from this machine: there is no admin key.
    pub admin: bool,
}

/// See the file's header.
#[derive(Default)]
pub struct Index {
    /// By [`KeyHash::slot`].
    configured: HashMap<u64, Vec<(KeyHash, Arc<Principal>)>>,
    pub(super) keys: Rows<KeyRow>,
    /// By [`KeyHash::slot`], the oldest first.
    by_hash: HashMap<u64, Vec<Key>>,
    pub(super) tenants: Rows<TenantRow>,
    /// The oldest first.
    by_name: HashMap<TenantId, Vec<Key>>,
    /// Rows that keep the admin API from being open.
    admins: usize,
    /// Limits in all rows of tenants.
    limits: usize,
    /// How often one of them came or went.
    limit_changes: u64,
}

impl Index {
    /// Other keys are configured.
    pub fn configure(&mut self, keys: Vec<Configured>) {
        self.configured.clear();
        for Configured { principal, secret } in keys {
            let hash = KeyHash::of(secret.expose().as_bytes());
            self.configured.entry(hash.slot()).or_default().push((hash, principal));
        }
    }

    /// Who presents this.
    pub fn identify(&self, presented: &[u8]) -> Result<Arc<Principal>, AuthError> {
        let hash = KeyHash::of(presented);
        if let Some(principal) = self.configured(&hash) {
            return match self.tenant(&principal.tenant) {
                Some((_, row)) if !row.is_enabled => Err(AuthError::TenantDisabled(row.name.clone())),
                // A configured key needs no tenant in the table.
                Some(_) | None => Ok(Arc::clone(principal)),
            };
        }
        let (_, row) = self.same_key(&hash).next().ok_or(AuthError::Unknown)?;
        if row.is_disabled {
            return Err(AuthError::Disabled);
        }
        let name = &row.principal.tenant;
        match self.tenant(name) {
            Some((_, tenant)) if self.has_instance(name, row.tenant) => {
                let is_enabled = tenant.is_enabled;
                is_enabled.then(|| Arc::clone(&row.principal)).ok_or_else(|| AuthError::TenantDisabled(name.clone()))
            }
            Some(_) | None => Err(AuthError::TenantGone(name.clone())),
        }
    }

    /// What nobody needs a key for.
    #[must_use]
    pub fn open(&self) -> Open {
        let is_admin = |it: &(KeyHash, Arc<Principal>)| it.1.role == Role::Admin;
        let has_admin = self.admins > 0 || self.configured.values().flatten().any(is_admin);
        Open { models: self.configured.is_empty() && self.keys.is_empty(), admin: !has_admin }
    }

    /// The configured key of this hash.
    pub(super) fn configured(&self, hash: &KeyHash) -> Option<&Arc<Principal>> {
        self.configured.get(&hash.slot())?.iter().find(|it| it.0.is(hash)).map(|it| &it.1)
    }

    /// Everybody who has a configured key.
    pub(super) fn configured_principals(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.configured.values().flatten().map(|it| &it.1)
    }

    /// Rows of one key, the one that counts first.
    pub(super) fn same_key<'a>(&'a self, hash: &'a KeyHash) -> impl Iterator<Item = (&'a Key, &'a KeyRow)> {
        let slot = self.by_hash.get(&hash.slot()).into_iter().flatten();
        slot.filter_map(|key| Some((key, self.keys.get(key)?.row.as_ref()?))).filter(|(_, row)| row.hash.is(hash))
    }

    /// The row of a key that counts, found by the id of any row of that key.
    pub(super) fn key(&self, id: InstanceId) -> Option<(&Key, &KeyRow)> {
        let row = of(&self.keys, id).find_map(|(_, held)| held.row.as_ref())?;
        self.same_key(&row.hash).next()
    }

    /// Rows of a tenant, the one that counts first.
    pub(super) fn same_name(&self, name: &TenantId) -> impl Iterator<Item = (&Key, &TenantRow)> {
        let keys = self.by_name.get(name).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.tenants.get(key)?.row.as_ref()?)))
    }

    /// The row of a tenant that counts.
    pub(super) fn tenant(&self, name: &TenantId) -> Option<(&Key, &TenantRow)> {
        self.same_name(name).next()
    }

    /// What a tenant may use: its instance, and the limits of it.
    pub(super) fn quotas(&self, name: &TenantId) -> Option<(InstanceId, &Quotas)> {
        self.tenant(name).map(|(key, row)| (key.id, &row.quotas)).filter(|it| it.1.iter().next().is_some())
    }

    /// How many limits there are, and how often one came or went.
    pub(super) fn limits(&self) -> (usize, u64) {
        (self.limits, self.limit_changes)
    }

    /// The limits of all tenants. Costs one look at each name.
    pub(super) fn definitions(&self) -> Vec<Definition> {
        let names = self.by_name.keys().filter_map(|it| self.quotas(it));
        names.flat_map(|(id, quotas)| quotas.definitions(id)).collect()
    }

    /// Whether the tenant that a key was made for is there.
    pub(super) fn has_instance(&self, name: &TenantId, id: InstanceId) -> bool {
        self.by_name.get(name).is_some_and(|them| them.iter().any(|it| it.id == id))
    }

    /// Takes what is new in the table of keys. What came is in force before what went is not, so that a rotation has no gap.
    pub(super) fn take_keys(&mut self, news: News) {
        news.changed.into_iter().for_each(|(key, entry)| self.put_key(key, &entry));
        news.gone.iter().for_each(|key| self.remove_key(key));
    }

    /// Takes what is new in the table of tenants.
    pub(super) fn take_tenants(&mut self, news: News) {
        news.changed.into_iter().for_each(|(key, entry)| self.put_tenant(key, &entry));
        news.gone.iter().for_each(|key| self.remove_tenant(key));
    }

    fn put_key(&mut self, key: Key, entry: &Entry) {
        self.remove_key(&key);
        if entry.kind != KEY {
            return;
        }
        let held = Held { born: entry.born, mark: mark(entry), row: KeyRow::read(entry) };
        self.admins += usize::from(keeps_admin_closed(&held));
        let slot = held.row.as_ref().map(|it| it.hash.slot());
        self.keys.insert(key, held);
        if let Some(slot) = slot {
            file(&self.keys, self.by_hash.entry(slot).or_default(), key);
        }
    }

    fn remove_key(&mut self, key: &Key) {
        let Some(held) = self.keys.remove(key) else { return };
        self.admins -= usize::from(keeps_admin_closed(&held));
        if let Some(row) = held.row {
            unfile(&mut self.by_hash, &row.hash.slot(), key);
        }
    }

    fn put_tenant(&mut self, key: Key, entry: &Entry) {
        self.remove_tenant(&key);
        if entry.kind != TENANT {
            return;
        }
        let held = Held { born: entry.born, mark: mark(entry), row: TenantRow::read(entry) };
        let name = held.row.as_ref().map(|it| it.name.clone());
        let limits = limits_of(held.row.as_ref());
        self.limits += limits;
        self.limit_changes += limits as u64;
        self.tenants.insert(key, held);
        if let Some(name) = name {
            file(&self.tenants, self.by_name.entry(name).or_default(), key);
        }
    }

    fn remove_tenant(&mut self, key: &Key) {
        if let Some(row) = self.tenants.remove(key).and_then(|it| it.row) {
            let limits = limits_of(Some(&row));
            self.limits -= limits;
            self.limit_changes += limits as u64;
            unfile(&mut self.by_name, &row.name, key);
        }
    }
}

fn limits_of(row: Option<&TenantRow>) -> usize {
    row.map_or(0, |it| it.quotas.iter().count())
}

fn keeps_admin_closed(held: &Held<KeyRow>) -> bool {
    held.row.as_ref().is_none_or(|it| it.principal.role == Role::Admin && !it.is_disabled)
}

/// Files a row among its like, by age.
fn file<R>(rows: &Rows<R>, like: &mut Vec<Key>, key: Key) {
    let age = |it: &Key| (rows.get(it).map(|held| held.born), it.birth);
    let at = like.partition_point(|it| age(it) < age(&key));
    like.insert(at, key);
}

fn unfile<N: std::hash::Hash + Eq>(index: &mut HashMap<N, Vec<Key>>, name: &N, key: &Key) {
    if let Some(like) = index.get_mut(name) {
        like.retain(|it| it != key);
        if like.is_empty() {
            index.remove(name);
        }
    }
}

/// The rows of one instance.
fn of<R>(rows: &Rows<R>, id: InstanceId) -> impl Iterator<Item = (&Key, &Held<R>)> {
    let first = Key { id, birth: Dot { actor: Actor { storage: StorageId(0), boot: 0 }, count: 0 } };
    rows.range(first..).take_while(move |it| it.0.id == id)
}

/// Everything in which a table differs from the rows. Costs one look at each entry.
pub(super) fn news<R>(rows: &Rows<R>, kind: u16, table: &Admin) -> News {
    let mut news = News::default();
    let mut held = rows.iter().peekable();
    for (key, entry) in table.entries().filter(|it| it.1.kind == kind) {
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
pub(super) fn news_of<R>(rows: &Rows<R>, ids: &[InstanceId], table: &Admin) -> News {
    let mut news = News::default();
    for id in ids {
        let found = table.find(*id);
        news.gone.extend(of(rows, *id).map(|it| *it.0).filter(|it| found.is_none_or(|(key, _)| key != it)));
        news.changed.extend(found.map(|(key, entry)| (*key, entry.clone())));
    }
    news
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

#[cfg(test)]
#[path = "index_laws.rs"]
mod laws;
