//! Limits in the admin API: the same words for tenants, keys and models.

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::limits::LimitId;
use crate::tenancy::edits::limits::Wanted;
use crate::tenancy::quota::Per;
use crate::tenancy::quota::What;

use super::super::error::ApiError;
use super::super::gateway::Gateway;

/// A limit that would be kept and not held to.
const NOWHERE: &str = "this node divides no limits, because its data directory cannot be used (see `GET /cluster/health`); mend that, or ask another node";

/// One limit to be set; without a number, to be taken away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limited {
    what: String,
    per: Option<String>,
    limit: Option<Value>,
}

impl Limited {
    fn read(&self) -> Result<(What, Option<u64>), ApiError> {
        const EXPECTED: &str = "`what`: requests or tokens with `per`: second or minute, or streams without `per`; `limit`: a whole number from 0 to 2147483648, or null for none";
        let bad = || ApiError::BadParameter { name: "limits", expected: EXPECTED };
        let what = What::parse(&self.what, self.per.as_deref().unwrap_or_default()).ok_or_else(bad)?;
        let units = match &self.limit {
            None | Some(Value::Null) => None,
            Some(number) => Some(number.as_u64().ok_or_else(bad)?),
        };
        Ok((what, units))
    }
}

/// What is wanted, if this node can hold to it.
pub(super) fn wanted(gateway: &Gateway, limits: &[Limited]) -> Result<Wanted, ApiError> {
    let wanted = limits.iter().map(Limited::read).collect::<Result<Wanted, _>>()?;
    let is_set = wanted.iter().any(|it| it.1.is_some());
    if is_set && gateway.budgets.limits().is_nowhere() {
        return Err(ApiError::Refused(NOWHERE.to_owned()));
    }
    Ok(wanted)
}

/// Limits, each as it stands at this node; `null` until this node has heard of its share.
pub(super) fn view(gateway: &Gateway, quotas: &[(What, u64, LimitId)]) -> Vec<Value> {
    quotas.iter().map(|it| one(gateway, it)).collect()
}

fn one(gateway: &Gateway, (what, units, limit): &(What, u64, LimitId)) -> Value {
    let here = gateway.budgets.limits().standing(*limit).map(|it| {
        json!({
            "share": it.share,
            "left": it.left,
            "in_use": it.in_use,
            "waiting": it.waiting,
            "debt": it.debt,
            "spent": it.counters.spent,
            "returned": it.counters.returned,
            "asked": it.counters.asked,
        })
    });
    json!({ "what": what.kind.as_str(), "per": what.per.map(Per::as_str), "limit": units, "here": here })
}
