//! The keys, tenants and models that this node knows: who presents what, and which limits apply to a request.
//!
//! *Invariants:* 1. what is in force depends on the rows alone (see [`super::filed`]). 2. It fails closed: a row that cannot be read is a key, and may be an admin's. Pure: no
//! clock, no lock, no table is held.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::config::Role;
use super::filed::Filed;
use super::filed::News;
use super::filed::Row as _;
use super::hash::KeyHash;
use super::keys::AuthError;
use super::keys::Key as Configured;
use super::keys::Principal;
use super::quota::Applies;
use super::quota::Quotas;
use super::quota::Scope;
use super::rows::KeyRow;
use super::rows::ModelRow;
use super::rows::TenantRow;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::limits::Definition;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;

/// What the tables have that is not in force yet.
#[derive(Default)]
pub(super) struct AllNews {
    pub(super) keys: News,
    pub(super) tenants: News,
    pub(super) models: News,
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
    /// By [`KeyHash::slot`], too. Counted are those that keep the admin API from being open.
    pub(super) keys: Filed<KeyRow>,
    pub(super) tenants: Filed<TenantRow>,
    pub(super) models: Filed<ModelRow>,
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
        let has_admin = self.keys.counted() > 0 || self.configured.values().flatten().any(is_admin);
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
        self.keys.of(&hash.slot()).filter(|(_, row)| row.hash.is(hash))
    }

    /// The row of a key that counts, found by the id of any row of that key.
    pub(super) fn key(&self, id: InstanceId) -> Option<(&Key, &KeyRow)> {
        self.same_key(&self.keys.instance(id)?.hash).next()
    }

    /// The row of a tenant that counts.
    pub(super) fn tenant(&self, name: &TenantId) -> Option<(&Key, &TenantRow)> {
        self.tenants.of(name).next()
    }

    /// The limits that a request of somebody for a model takes from. A key or tenant of no table has none.
    pub(super) fn applying(&self, principal: &Principal, model: &ModelId) -> SmallVec<[Applies; 4]> {
        let mut all = SmallVec::new();
        let mut add = |scope, (key, quotas): (&Key, &Quotas)| {
            all.extend(quotas.iter().map(|(what, it)| Applies {
                scope,
                what,
                units: it.units,
                limit: what.limit(key.id),
            }));
        };
        // ORDER: the narrowest first, so that what is refused took as little as may be from what others share.
        if let Some((key, row)) = principal.id.and_then(|it| self.key(it.0)) {
            add(Scope::Key, (key, row.quotas()));
        }
        if let Some((key, row)) = self.tenant(&principal.tenant) {
            add(Scope::Tenant, (key, row.quotas()));
        }
        if let Some((key, row)) = self.models.of(model).next() {
            add(Scope::Model, (key, row.quotas()));
        }
        all
    }

    /// How many limits there are, and how often one came or went.
    pub(super) fn limits(&self) -> (usize, u64) {
        let all = [self.keys.limits(), self.tenants.limits(), self.models.limits()];
        all.into_iter().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    /// All limits. Costs one look at each row.
    pub(super) fn definitions(&self) -> Vec<Definition> {
        let is_first = |first: Option<&Key>, key: &Key| first == Some(key);
        let keys = self.keys.definitions(|key, row| is_first(self.same_key(&row.hash).next().map(|it| it.0), key));
        let tenants = self.tenants.definitions(|key, row| is_first(self.tenant(&row.name).map(|it| it.0), key));
        let models = self.models.definitions(|key, row| is_first(self.models.of(&row.name).next().map(|it| it.0), key));
        keys.chain(tenants).chain(models).collect()
    }

    /// Whether the tenant that a key was made for is there.
    pub(super) fn has_instance(&self, name: &TenantId, id: InstanceId) -> bool {
        self.tenants.of(name).any(|it| it.0.id == id)
    }

    /// Takes what is new in the tables. A key finds its tenant.
    pub(super) fn take(&mut self, news: AllNews) {
        self.tenants.take(news.tenants);
        self.keys.take(news.keys);
        self.models.take(news.models);
    }
}

#[cfg(test)]
#[path = "index_laws.rs"]
mod laws;
