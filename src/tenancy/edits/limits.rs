//! Edits of limits: of a tenant, of a key, of a model. All that one edit names are set, or none.
//!
//! *Invariant:* there are no more limits than the group divides; the door refuses the one that would be too many, and one that takes limits away is never refused for it.

use super::EditError;
use super::Edited;
use super::Edits;
use super::Inner;
use crate::base::ids::ModelId;
use crate::base::ids::TenantId;
use crate::base::limits::MINTS_MAX;
use crate::limits::LimitId;
use crate::replication::admin::InstanceId;
use crate::replication::core::Edit;
use crate::replication::core::Settled;
use crate::replication::tables::KEYS;
use crate::replication::tables::MODELS;
use crate::replication::tables::TENANTS;
use crate::replication::tables::TableId;
use crate::tenancy::filed::Row as _;
use crate::tenancy::index::Index;
use crate::tenancy::listing::KeyId;
use crate::tenancy::listing::ShownKey;
use crate::tenancy::listing::ShownModel;
use crate::tenancy::listing::ShownTenant;
use crate::tenancy::quota;
use crate::tenancy::quota::Quotas;
use crate::tenancy::quota::What;
use crate::tenancy::rows;
use crate::tenancy::rows::ModelRow;

/// Limits to be: units a window, or none.
pub type Wanted = Vec<(What, Option<u64>)>;

impl Edits {
    /// Sets limits of a tenant, or takes them away.
    pub async fn limit_tenant(&self, name: TenantId, wanted: Wanted) -> Result<Edited<ShownTenant>, EditError> {
        checked(&wanted)?;
        self.whole(move |inner| async move {
            let unknown = || EditError::UnknownTenant(name.clone());
            let before = inner.keys.tenant(&name).ok_or_else(unknown)?;
            let settled = inner.limit(TENANTS, &inner.rows_of_tenant(&name)?, &before.quotas, &wanted).await?;
            let what = inner.keys.tenant(&name).ok_or_else(unknown)?;
            Ok(Edited { what, settled, note: None })
        })
        .await
    }

    /// Sets limits of a key of the table, or takes them away.
    pub async fn limit_key(&self, id: KeyId, wanted: Wanted) -> Result<Edited<ShownKey>, EditError> {
        checked(&wanted)?;
        self.whole(move |inner| async move {
            let before = inner.keys.get(id).ok_or(EditError::UnknownKey(id))?;
            let settled = inner.limit(KEYS, &inner.rows_of_key(id)?, &before.quotas, &wanted).await?;
            let what = inner.keys.get(id).ok_or(EditError::UnknownKey(id))?;
            Ok(Edited { what, settled, note: None })
        })
        .await
    }

    /// Sets limits of a model, or takes them away, whether any worker serves it or not.
    pub async fn limit_model(&self, name: ModelId, wanted: Wanted) -> Result<Edited<ShownModel>, EditError> {
        checked(&wanted)?;
        self.whole(move |inner| async move {
            let settled = match inner.keys.model(&name) {
                Some(before) => inner.limit(MODELS, &inner.rows_of_model(&name), &before.quotas, &wanted).await?,
                None => inner.first_of_model(&name, &wanted).await?,
            };
            let what = inner.keys.model(&name).unwrap_or(ShownModel { name, quotas: Vec::new() });
            Ok(Edited { what, settled, note: None })
        })
        .await
    }

    /// Forgets a model with all its limits.
    pub async fn forget_model(&self, name: ModelId) -> Result<Edited<ShownModel>, EditError> {
        self.whole(move |inner| async move {
            let what = inner.keys.model(&name).ok_or_else(|| EditError::UnknownModel(name.clone()))?;
            let ids = inner.rows_of_model(&name);
            let edits = ids.iter().map(|it| Edit::Delete(MODELS, *it)).collect();
            let (settled, note) = inner.make(MODELS, edits, &ids).await?;
            Ok(Edited { what, settled, note })
        })
        .await
    }
}

fn checked(wanted: &Wanted) -> Result<(), EditError> {
    for (_, units) in wanted {
        quota::checked(*units)?;
    }
    Ok(())
}

impl Inner {
    fn rows_of_model(&self, name: &ModelId) -> Vec<InstanceId> {
        self.keys.read(|index| index.models.of(name).map(|it| it.0.id).collect())
    }

    /// Sets limits in rows that are there: where two nodes made one at once, in both.
    async fn limit(
        &self,
        table: TableId,
        ids: &[InstanceId],
        known: &[(What, u64, LimitId)],
        wanted: &Wanted,
    ) -> Result<Settled, EditError> {
        self.is_room(known, wanted)?;
        let edits = ids.iter().map(|it| Edit::Set(table, *it, rows::limited(wanted))).collect();
        Ok(self.make(table, edits, ids).await?.0)
    }

    /// The row of a model that there is none of yet.
    async fn first_of_model(&self, name: &ModelId, wanted: &Wanted) -> Result<Settled, EditError> {
        self.is_room(&[], wanted)?;
        // Nothing to take away: no row is made for that.
        let is_limited = wanted.iter().any(|it| it.1.is_some());
        let (id, row) = (self.new_id(), ModelRow { name: name.clone(), quotas: Quotas::default() });
        let add = || Edit::Add(MODELS, id, ModelRow::KIND, [row.write(), rows::limited(wanted)].concat());
        Ok(self.make(MODELS, is_limited.then(add).into_iter().collect(), &[id]).await?.0)
    }

    fn is_room(&self, known: &[(What, u64, LimitId)], wanted: &Wanted) -> Result<(), EditError> {
        let is_new = |(what, units): &&(What, Option<u64>)| units.is_some() && known.iter().all(|it| it.0 != *what);
        let added = wanted.iter().filter(is_new).count();
        let is_full = added > 0 && self.keys.read(Index::limits).0 + added > MINTS_MAX;
        if is_full { Err(EditError::TooManyLimits) } else { Ok(()) }
    }
}
