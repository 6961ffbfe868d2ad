//! `/tenants`: who may have keys. One that is disabled or removed is refused at every node, with all its keys.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::TenantId;
use crate::tenancy::edits::EditError;
use crate::tenancy::keys::Principal;
use crate::tenancy::listing::ShownTenant;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;
use super::keys::answered;
use super::limits;
use super::limits::Limited;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    enabled: Option<bool>,
    #[serde(default)]
    limits: Vec<Limited>,
}

/// All tenants.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let tenants: Vec<_> = gateway.keys.tenants().iter().map(|it| view(&gateway, it)).collect();
        Ok(super::super::json(&json!({"tenants": tenants, "total": tenants.len()})))
    })
}

/// One tenant.
pub fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move { Ok(super::super::json(&view(&gateway, &find(&gateway, &request)?))) })
}

/// Adds a tenant.
pub fn add(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let author = Author::of(&request);
        let wanted: Wanted = super::read(&gateway, request).await?;
        let edited = gateway.tenants.add_tenant(&wanted.name, wanted.enabled.unwrap_or(true)).await?;
        let added = view(&gateway, &edited.what);
        author.decided("tenant_added", edited.what.name.as_str(), &Value::Null, &added);
        let mut response = answered(&gateway, added, &edited);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    })
}

/// Enables a tenant, disables it, sets its limits.
pub fn change(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, by, before) = (Author::of(&request), principal(&request), find(&gateway, &request)?);
        let wanted: Changed = super::read(&gateway, request).await?;
        let limits = limits::wanted(&gateway, &wanted.limits)?;
        if wanted.enabled.is_none() && limits.is_empty() {
            return Err(ApiError::Refused("nothing to change: give `enabled`, `limits` or both".to_owned()));
        }
        let mut edited = None;
        if !limits.is_empty() {
            edited = Some(gateway.tenants.limit_tenant(before.name.clone(), limits).await?);
        }
        if let Some(is_enabled) = wanted.enabled {
            edited = Some(gateway.tenants.enable_tenant(before.name.clone(), is_enabled, by.as_deref()).await?);
        }
        let Some(edited) = edited else { return Err(ApiError::UnknownTenant(before.name.to_string())) };
        let after = view(&gateway, &edited.what);
        author.decided("tenant_changed", before.name.as_str(), &view(&gateway, &before), &after);
        Ok(answered(&gateway, after, &edited))
    })
}

/// Removes a tenant, for good.
pub fn remove(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, by, before) = (Author::of(&request), principal(&request), find(&gateway, &request)?);
        let edited = gateway.tenants.remove_tenant(before.name.clone(), by.as_deref()).await?;
        author.decided("tenant_removed", before.name.as_str(), &view(&gateway, &edited.what), &Value::Null);
        Ok(answered(&gateway, json!({"id": before.name.as_str(), "removed": true}), &edited))
    })
}

fn principal(request: &Request<Body>) -> Option<Arc<Principal>> {
    request.extensions().get().cloned()
}

fn find(gateway: &Gateway, request: &Request<Body>) -> Result<ShownTenant, ApiError> {
    let text = super::super::last_segment(request);
    let name = TenantId::parse(&text).map_err(|_no_name| ApiError::UnknownTenant(text))?;
    gateway.keys.tenant(&name).ok_or_else(|| EditError::UnknownTenant(name).into())
}

fn view(gateway: &Gateway, tenant: &ShownTenant) -> Value {
    json!({
        "name": tenant.name.as_str(),
        "enabled": tenant.is_enabled,
        "created": tenant.created.as_secs(),
        "keys": tenant.keys,
        "limits": limits::view(gateway, &tenant.quotas),
    })
}
