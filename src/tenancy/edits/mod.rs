//! The door for operators to keys, tenants and models, and what puts those in force that the tables say.
//!
//! An edit is made in the tables and in force here before it is answered; what other nodes edit is put in force when it arrives. Edits go one after
//! the other; one that began is finished even if its caller goes away. A key belongs to the tenant's instance it was made for, so removing a tenant ends its keys for
//! good: a tenant of that name that somebody adds later has none of them. *Invariant:* an edit costs what it changes; what others edited is found by one
//! look at each row, at most every [`PAUSE`], so that a flood of keys cannot keep a node busy with reading them.

mod configured;
pub mod limits;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::config::Role;
use super::filed::Row as _;
use super::hash;
use super::hash::KeyHash;
use super::index;
use super::index::AllNews;
use super::index::Open;
use super::keys::ANONYMOUS;
use super::keys::Keys;
use super::keys::Principal;
use super::limit_spec::LimitSpec;
use super::listing::KeyId;
use super::listing::ShownKey;
use super::listing::ShownTenant;
use super::quota::InvalidQuota;
use super::quota::Quotas;
use super::rows;
use super::rows::KeyRow;
use super::rows::TenantRow;
use crate::base::clock::Clock;
use crate::base::entropy::Entropy;
use crate::base::ids::InvalidId;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::secret::Secret;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::base::turns::Turns;
use crate::limits::Definition;
use crate::replication;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Refusal;
use crate::replication::core::Edit;
use crate::replication::core::EditError as TableError;
use crate::replication::core::Settled;
use crate::replication::tables::KEYS;
use crate::replication::tables::MODELS;
use crate::replication::tables::TENANTS;
use crate::replication::tables::TableId;

const EDIT: Task = Task { name: "key-edit", stage: Stage::Decide, on_end: OnEnd::Fine };
const FOLLOW: Task = Task { name: "keys-in-force", stage: Stage::Decide, on_end: OnEnd::StopNode };

/// Least time between two readings of the whole tables. Longer would be felt in how fast an edit is in force elsewhere, which has a second; shorter lets
/// replication wait more often for a reading, which takes some milliseconds where the tables are full.
const PAUSE: Duration = Duration::from_millis(50);

/// Shortest key that may be given here. Its hash lies on disks, where a shorter one could be guessed.
pub const KEY_LEN_MIN: usize = 16;
/// Longest one. Keys of other systems are far shorter.
pub const KEY_LEN_MAX: usize = 512;

/// Why an edit was not made. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The caller's fault.
    #[error("no key with this id: `{0}`")]
    UnknownKey(KeyId),
    /// The caller's fault.
    #[error("no such tenant: `{0}`")]
    UnknownTenant(TenantId),
    /// The caller's fault.
    #[error("nothing is set for this model: `{0}`")]
    UnknownModel(ModelId),
    /// The caller's fault: a key belongs to a tenant that is there.
    #[error("no such tenant: `{0}`. Add it first, with POST /tenants or `smg tenants add {0}`")]
    NoTenant(TenantId),
    /// The caller's fault.
    #[error("a tenant of this name is there already: `{0}`. Change it with PATCH /tenants/{0}")]
    TenantTaken(TenantId),
    /// The caller's fault.
    #[error(
        "the name of a tenant has up to 64 letters, digits, `-`, `_` and `.`, begins with a letter or digit, and is not `anonymous`"
    )]
    TenantName,
    /// The caller's fault.
    #[error("`name`: {0}")]
    KeyName(InvalidId),
    /// The caller's fault.
    #[error(
        "`key` must have {KEY_LEN_MIN} to {KEY_LEN_MAX} printable ASCII characters without spaces; leave it out and one is made"
    )]
    KeyText,
    /// The caller's fault.
    #[error("this key is there already, as `{0}`: remove that one first, or give another key")]
    KeyTaken(KeyId),
    /// The caller's fault.
    #[error("this key is configured at this node already: give another one")]
    KeyConfigured,
    /// The caller's fault: nobody locks himself out.
    #[error("the key of this request belongs to this tenant: use an admin key of another tenant")]
    OwnTenant,
    /// The table's bound.
    #[error("there are as many keys as there may be: remove some that are not used any more, with DELETE /keys/ID")]
    TooManyKeys,
    /// The table's bound.
    #[error(
        "there are as many tenants as there may be: remove some that are not used any more, with DELETE /tenants/NAME"
    )]
    TooManyTenants,
    /// The table's bound.
    #[error(
        "there are as many models with limits as there may be: remove some that are not used any more, with DELETE /models/NAME"
    )]
    TooManyModels,
    /// The caller's fault.
    #[error(transparent)]
    Quota(#[from] InvalidQuota),
    /// A bound.
    #[error(
        "there are as many limits as there may be: take some away that are not needed, with `smg tenants set-limit`, `smg keys set-limit` or `smg models set-limit`"
    )]
    TooManyLimits,
    /// The tables.
    #[error(transparent)]
    NotKept(#[from] TableError),
}

/// What an edit brought.
#[derive(Clone, Debug)]
pub struct Edited<T> {
    /// As it is, or was.
    pub what: T,
    /// How far the edit is.
    pub settled: Settled,
    /// What was nobody's before and is somebody's now, or the other way round: for people.
    pub note: Option<String>,
}

/// A key to be.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Who it stands for.
    pub name: String,
    /// Whose.
    pub tenant: TenantId,
    /// What it may do.
    pub role: Role,
    /// The key; `None`: one is made.
    pub key: Option<Secret>,
}

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Edits(Arc<Inner>);

struct Inner {
    keys: Arc<Keys>,
    tables: replication::Handle,
    entropy: Entropy,
    turns: Turns,
    /// The limits of all keys, tenants and models.
    defined: watch::Sender<Arc<[Definition]>>,
    /// Limits that the configuration names.
    configured: watch::Sender<Vec<LimitSpec>>,
    /// Held while tables are read and put in force, so that an older reading never follows a newer one.
    applying: Mutex<()>,
}

impl Edits {
    /// Puts in force what the tables say, and follows them from now on. `defined`: is told all limits whenever they change.
    #[must_use]
    pub fn start(
        keys: Arc<Keys>,
        tables: replication::Handle,
        entropy: Entropy,
        defined: watch::Sender<Arc<[Definition]>>,
        tasks: &Tasks,
    ) -> Self {
        let turns = Turns::new(EDIT, tasks.clone());
        let (configured, applying) = Default::default();
        let inner = Arc::new(Inner { keys, tables, entropy, turns, defined, configured, applying });
        inner.apply();
        let following = Arc::clone(&inner);
        let changes = [TENANTS, KEYS, MODELS].map(|it| inner.tables.changes(it));
        tasks.spawn(FOLLOW, |stop| async move {
            let [mut tenants, mut keys, mut models] = changes;
            loop {
                let changed = async {
                    tokio::select! { it = tenants.changed() => it, it = keys.changed() => it, it = models.changed() => it }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = changed => if changed.is_err() { return },
                }
                following.apply();
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = Clock.sleep(PAUSE) => {}
                }
            }
        });
        Self(inner)
    }

    /// Adds a key. The key itself is in the answer, and nowhere else.
    pub async fn add_key(&self, new: NewKey) -> Result<(Edited<ShownKey>, Secret), EditError> {
        let name = TenantId::parse(&new.name).map_err(EditError::KeyName)?; // the same rule holds for it
        let is_fit = |it: &Secret| {
            (KEY_LEN_MIN..=KEY_LEN_MAX).contains(&it.expose().len())
                && it.expose().bytes().all(|it| it.is_ascii_graphic())
        };
        if new.key.as_ref().is_some_and(|it| !is_fit(it)) {
            return Err(EditError::KeyText);
        }
        let key = new.key.unwrap_or_else(hash::generate);
        let hash = KeyHash::of(key.expose().as_bytes());
        let edit = self.whole(move |inner| async move {
            let tenant = inner.keys.read(|index| match (index.configured(&hash), index.same_key(&hash).next()) {
                (Some(_), _) => Err(EditError::KeyConfigured),
                (None, Some((taken, _))) => Err(EditError::KeyTaken(KeyId(taken.id))),
                (None, None) => Ok(index.tenant(&new.tenant).map(|it| it.0.id)),
            })?;
            let tenant = tenant.ok_or_else(|| EditError::NoTenant(new.tenant.clone()))?;
            let principal = Principal { name: name.as_str().into(), tenant: new.tenant, role: new.role, id: None };
            let row =
                KeyRow { hash, principal: Arc::new(principal), tenant, is_disabled: false, quotas: Quotas::default() };
            let id = inner.new_id();
            let (settled, note) = inner.make(KEYS, vec![Edit::Add(KEYS, id, KeyRow::KIND, row.write())], &[id]).await?;
            let what = inner.keys.get(KeyId(id)).ok_or(EditError::UnknownKey(KeyId(id)))?;
            Ok(Edited { what, settled, note })
        });
        Ok((edit.await?, key))
    }

    /// Disables a key, or takes that back.
    pub async fn disable_key(&self, id: KeyId, is_disabled: bool) -> Result<Edited<ShownKey>, EditError> {
        self.whole(move |inner| async move {
            let ids = inner.rows_of_key(id)?;
            let edits = ids.iter().map(|it| Edit::Set(KEYS, *it, rows::key_disabled(is_disabled))).collect();
            let (settled, note) = inner.make(KEYS, edits, &ids).await?;
            Ok(Edited { what: inner.keys.get(id).ok_or(EditError::UnknownKey(id))?, settled, note })
        })
        .await
    }

    /// Removes a key, for good.
    pub async fn remove_key(&self, id: KeyId) -> Result<Edited<ShownKey>, EditError> {
        self.whole(move |inner| async move {
            let (ids, what) = (inner.rows_of_key(id)?, inner.keys.get(id).ok_or(EditError::UnknownKey(id))?);
            let edits = ids.iter().map(|it| Edit::Delete(KEYS, *it)).collect();
            let (settled, note) = inner.make(KEYS, edits, &ids).await?;
            Ok(Edited { what, settled, note })
        })
        .await
    }

    /// Adds a tenant.
    pub async fn add_tenant(&self, name: &str, is_enabled: bool) -> Result<Edited<ShownTenant>, EditError> {
        let name = tenant_name(name).ok_or(EditError::TenantName)?;
        self.whole(move |inner| async move {
            if inner.keys.tenant(&name).is_some() {
                return Err(EditError::TenantTaken(name));
            }
            let (id, row) = (inner.new_id(), TenantRow { name: name.clone(), is_enabled, quotas: Quotas::default() });
            let (settled, note) =
                inner.make(TENANTS, vec![Edit::Add(TENANTS, id, TenantRow::KIND, row.write())], &[id]).await?;
            let what = inner.keys.tenant(&name).ok_or(EditError::UnknownTenant(name))?;
            Ok(Edited { what, settled, note })
        })
        .await
    }

    /// Enables a tenant or disables it. `author`: who asks, who may not lock himself out.
    pub async fn enable_tenant(
        &self,
        name: TenantId,
        is_enabled: bool,
        author: Option<&Principal>,
    ) -> Result<Edited<ShownTenant>, EditError> {
        if !is_enabled {
            not_of_own(&name, author)?;
        }
        self.whole(move |inner| async move {
            let ids = inner.rows_of_tenant(&name)?;
            let edits = ids.iter().map(|it| Edit::Set(TENANTS, *it, rows::tenant_enabled(is_enabled))).collect();
            let (settled, note) = inner.make(TENANTS, edits, &ids).await?;
            let what = inner.keys.tenant(&name).ok_or(EditError::UnknownTenant(name))?;
            Ok(Edited { what, settled, note })
        })
        .await
    }

    /// Removes a tenant, and so ends the keys that were made for it.
    pub async fn remove_tenant(
        &self,
        name: TenantId,
        author: Option<&Principal>,
    ) -> Result<Edited<ShownTenant>, EditError> {
        not_of_own(&name, author)?;
        self.whole(move |inner| async move {
            let ids = inner.rows_of_tenant(&name)?;
            let what = inner.keys.tenant(&name).ok_or(EditError::UnknownTenant(name))?;
            let edits = ids.iter().map(|it| Edit::Delete(TENANTS, *it)).collect();
            let (settled, note) = inner.make(TENANTS, edits, &ids).await?;
            Ok(Edited { what, settled, note })
        })
        .await
    }

    /// Runs one edit in its turn.
    async fn whole<F, T>(&self, edit: impl FnOnce(Arc<Inner>) -> F) -> Result<T, EditError>
    where
        F: Future<Output = Result<T, EditError>> + Send + 'static,
        T: Send + 'static,
    {
        let edit = edit(Arc::clone(&self.0));
        self.0.turns.run(edit).await.unwrap_or(Err(EditError::NotKept(TableError::Closing)))
    }
}

impl Inner {
    fn new_id(&self) -> InstanceId {
        InstanceId(self.entropy.next_u128())
    }

    /// The instances of a key: where two nodes were given the same one at once, both.
    fn rows_of_key(&self, id: KeyId) -> Result<Vec<InstanceId>, EditError> {
        let of = |row: &KeyRow, index: &index::Index| index.same_key(&row.hash).map(|it| it.0.id).collect();
        self.keys.read(|index| index.key(id.0).map(|(_, row)| of(row, index))).ok_or(EditError::UnknownKey(id))
    }

    fn rows_of_tenant(&self, name: &TenantId) -> Result<Vec<InstanceId>, EditError> {
        let ids: Vec<_> = self.keys.read(|index| index.tenants.of(name).map(|it| it.0.id).collect());
        if ids.is_empty() { Err(EditError::UnknownTenant(name.clone())) } else { Ok(ids) }
    }

    /// Makes edits of these instances of one table, and puts them in force.
    async fn make(
        &self,
        table: TableId,
        edits: Vec<Edit>,
        ids: &[InstanceId],
    ) -> Result<(Settled, Option<String>), EditError> {
        let before = self.keys.read(index::Index::open);
        let settled = self.tables.edit(edits).await.map_err(|error| match error {
            TableError::Refused(Refusal::TableFull) if table == KEYS => EditError::TooManyKeys,
            TableError::Refused(Refusal::TableFull) if table == MODELS => EditError::TooManyModels,
            TableError::Refused(Refusal::TableFull) => EditError::TooManyTenants,
            other => EditError::NotKept(other),
        })?;
        let _applying = self.applying.lock();
        let ids = |it| if it == table { ids } else { &[] };
        let (keys, tenants, models) = (
            self.tables.admin(KEYS, |it| self.keys.read(|index| index.keys.news_of(ids(KEYS), it))),
            self.tables.admin(TENANTS, |it| self.keys.read(|index| index.tenants.news_of(ids(TENANTS), it))),
            self.tables.admin(MODELS, |it| self.keys.read(|index| index.models.news_of(ids(MODELS), it))),
        );
        self.take(AllNews { keys, tenants, models });
        Ok((settled, note(before, self.keys.read(index::Index::open))))
    }

    /// Puts in force what the tables say now.
    fn apply(&self) {
        let _applying = self.applying.lock();
        // ORDER: keys are read first: a key that is put in force finds its tenant, which was there before it.
        let keys = self.tables.admin(KEYS, |it| self.keys.read(|index| index.keys.news(it)));
        let tenants = self.tables.admin(TENANTS, |it| self.keys.read(|index| index.tenants.news(it)));
        let models = self.tables.admin(MODELS, |it| self.keys.read(|index| index.models.news(it)));
        self.take(AllNews { keys, tenants, models });
    }

    fn take(&self, news: AllNews) {
        let changes = |index: &index::Index| index.limits().1;
        let before = self.keys.read(changes);
        self.keys.change(|index| index.take(news));
        if self.keys.read(changes) != before {
            let defined = self.keys.read(index::Index::definitions);
            self.defined.send_if_modified(|it| {
                let is_other = **it != *defined;
                if is_other {
                    *it = defined.into();
                }
                is_other
            });
        }
    }
}

/// Names that stand in paths of this API as they are.
fn tenant_name(name: &str) -> Option<TenantId> {
    let is_plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
    let is_sound = name.bytes().all(is_plain) && name.starts_with(|it: char| it.is_ascii_alphanumeric());
    if is_sound && name != ANONYMOUS { TenantId::parse(name).ok() } else { None }
}

/// Whether a tenant that is added can be called so.
pub(super) fn is_tenant_name(name: &str) -> bool {
    tenant_name(name).is_some()
}

fn not_of_own(name: &TenantId, author: Option<&Principal>) -> Result<(), EditError> {
    // Who has no key is called so, and is in no tenant that can be here.
    if author.is_some_and(|it| it.tenant == *name) { Err(EditError::OwnTenant) } else { Ok(()) }
}

/// What people must know of an edit besides what they asked for.
fn note(before: Open, after: Open) -> Option<String> {
    let of = |before: bool, after: bool, opened, closed| match (before, after) {
        (false, true) => Some(opened),
        (true, false) => Some(closed),
        (true, true) | (false, false) => None,
    };
    let admin = of(
        before.admin,
        after.admin,
        "No admin key is left: the admin API answers on loopback only, to anybody there.",
        "From now on the admin API needs an admin key, at every node, on loopback too.",
    );
    let models = of(
        before.models,
        after.models,
        "No key is left: model requests need none.",
        "From now on model requests need a key, at every node.",
    );
    let notes: Vec<&str> = models.into_iter().chain(admin).collect();
    (!notes.is_empty()).then(|| notes.join(" "))
}

#[cfg(test)]
mod tests;
