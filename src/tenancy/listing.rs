//! Keys, tenants and models as the admin API shows them: never a key, nor its hash.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::index::Index;
use super::keys::Keys;
use super::keys::Principal;
use super::quota::What;
use super::rows::KeyRow;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::limits::LimitId;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;

/// A key of the table as it is named. Shown as `k-` and 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub(super) InstanceId);

impl KeyId {
    /// Reads `k-0123456789abcdef0123456789abcdef`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex =
            text.strip_prefix("k-").filter(|hex| hex.len() == 32 && hex.bytes().all(|it| it.is_ascii_hexdigit()))?;
        u128::from_str_radix(hex, 16).ok().map(|it| Self(InstanceId(it)))
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "k-{:032x}", self.0.0)
    }
}

/// Whether a key is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// It is.
    Active,
    /// An admin disabled it.
    Disabled,
    /// An admin disabled its tenant.
    TenantDisabled,
    /// An admin removed its tenant, for good: one that is added again is another.
    TenantRemoved,
}

impl KeyState {
    /// As the API says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::TenantDisabled => "tenant_disabled",
            Self::TenantRemoved => "tenant_removed",
        }
    }
}

/// A key.
#[derive(Clone, Debug)]
pub struct ShownKey {
    /// `None`: it is configured at this node.
    pub id: Option<KeyId>,
    /// Who it stands for.
    pub principal: Arc<Principal>,
    /// Since 1970; `None`: it is configured.
    pub created: Option<Duration>,
    /// Whether it is let in.
    pub state: KeyState,
    /// What it may use, each with the limit that holds it to that.
    pub quotas: Vec<(What, u64, LimitId)>,
}

/// A model that something is set for.
#[derive(Clone, Debug)]
pub struct ShownModel {
    /// As clients name it.
    pub name: ModelId,
    /// What may be used of it, each with the limit that holds it to that.
    pub quotas: Vec<(What, u64, LimitId)>,
}

/// A tenant.
#[derive(Clone, Debug)]
pub struct ShownTenant {
    /// Its name.
    pub name: TenantId,
    /// Whether its keys are let in.
    pub is_enabled: bool,
    /// Since 1970.
    pub created: Duration,
    /// Keys of the table that were made for it.
    pub keys: usize,
    /// What it may use, each with the limit that holds it to that.
    pub quotas: Vec<(What, u64, LimitId)>,
}

impl Keys {
    /// All keys: those of the table, the newest first, then those configured at this node.
    #[must_use]
    pub fn list(&self) -> Vec<ShownKey> {
        self.read(|index| {
            let counts = |key: &Key, row: &KeyRow| index.same_key(&row.hash).next().is_some_and(|it| it.0 == key);
            let rows = index.keys.rows();
            let mut all: Vec<_> = rows.filter(|it| counts(it.0, it.1)).map(|(key, row)| index.show(key, row)).collect();
            all.sort_by_key(|it| Reverse((it.created, it.id.map(|it| it.0))));
            let mut configured: Vec<_> = index.configured_principals().map(|it| index.show_configured(it)).collect();
            configured.sort_by(|a, b| a.principal.name.cmp(&b.principal.name));
            all.extend(configured);
            all
        })
    }

    /// A key of the table.
    #[must_use]
    pub fn get(&self, id: KeyId) -> Option<ShownKey> {
        self.read(|index| index.key(id.0).map(|(key, row)| index.show(key, row)))
    }

    /// All tenants, by name.
    #[must_use]
    pub fn tenants(&self) -> Vec<ShownTenant> {
        self.read(|index| {
            let mut counted: BTreeMap<InstanceId, usize> = BTreeMap::new();
            for row in index.keys.rows().map(|it| it.1) {
                *counted.entry(row.tenant).or_default() += 1;
            }
            let names: BTreeSet<&TenantId> = index.tenants.names().collect();
            let count = |id| counted.get(&id).copied().unwrap_or(0);
            names.into_iter().filter_map(|name| index.show_tenant(name, count)).collect()
        })
    }

    /// One tenant.
    #[must_use]
    pub fn tenant(&self, name: &TenantId) -> Option<ShownTenant> {
        self.read(|index| {
            let of = |id| index.keys.rows().filter(|it| it.1.tenant == id).count();
            index.show_tenant(name, of)
        })
    }

    /// All models that something is set for, by name.
    #[must_use]
    pub fn models(&self) -> Vec<ShownModel> {
        self.read(|index| {
            let names: BTreeSet<&ModelId> = index.models.names().collect();
            names.into_iter().filter_map(|name| index.show_model(name)).collect()
        })
    }

    /// One of them.
    #[must_use]
    pub fn model(&self, name: &ModelId) -> Option<ShownModel> {
        self.read(|index| index.show_model(name))
    }
}

impl Index {
    fn show(&self, key: &Key, row: &KeyRow) -> ShownKey {
        let name = &row.principal.tenant;
        let state = match self.tenant(name) {
            _ if row.is_disabled => KeyState::Disabled,
            Some((_, tenant)) if self.has_instance(name, row.tenant) => {
                if tenant.is_enabled {
                    KeyState::Active
                } else {
                    KeyState::TenantDisabled
                }
            }
            Some(_) | None => KeyState::TenantRemoved,
        };
        let created = self.keys.born(key).map(|it| it.wall());
        let quotas = row.quotas.shown(key.id);
        ShownKey { id: Some(KeyId(key.id)), principal: Arc::clone(&row.principal), created, state, quotas }
    }

    fn show_configured(&self, principal: &Arc<Principal>) -> ShownKey {
        let is_off = self.tenant(&principal.tenant).is_some_and(|it| !it.1.is_enabled);
        let state = if is_off { KeyState::TenantDisabled } else { KeyState::Active };
        ShownKey { id: None, principal: Arc::clone(principal), created: None, state, quotas: Vec::new() }
    }

    fn show_tenant(&self, name: &TenantId, keys: impl Fn(InstanceId) -> usize) -> Option<ShownTenant> {
        let (key, row) = self.tenant(name)?;
        let created = self.tenants.born(key).map(|it| it.wall()).unwrap_or_default();
        let keys = self.tenants.of(name).map(|it| keys(it.0.id)).sum();
        let quotas = row.quotas.shown(key.id);
        Some(ShownTenant { name: name.clone(), is_enabled: row.is_enabled, created, keys, quotas })
    }

    fn show_model(&self, name: &ModelId) -> Option<ShownModel> {
        let (key, row) = self.models.of(name).next()?;
        Some(ShownModel { name: name.clone(), quotas: row.quotas.shown(key.id) })
    }
}
