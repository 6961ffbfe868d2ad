//! `/keys`: API keys that are in force at every node. A key is told once, when it is made; what is kept of it is a hash.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::TenantId;
use crate::base::secret::Secret;
use crate::tenancy::edits::Edited;
use crate::tenancy::edits::NewKey;
use crate::tenancy::keys::Role;
use crate::tenancy::listing::KeyId;
use crate::tenancy::listing::KeyState;
use crate::tenancy::listing::ShownKey;

use super::super::Response;
use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;
use super::limits;
use super::limits::Limited;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    tenant: String,
    role: Option<String>,
    key: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    disabled: Option<bool>,
    #[serde(default)]
    limits: Vec<Limited>,
}

/// All keys.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let keys: Vec<_> = gateway.keys.list().iter().map(|it| view(&gateway, it)).collect();
        Ok(super::super::json(&json!({"keys": keys, "total": keys.len()})))
    })
}

/// One key.
pub fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move { Ok(super::super::json(&view(&gateway, &find(&gateway, &request)?))) })
}

/// Adds a key and tells it, unless the caller gave it.
pub fn add(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let author = Author::of(&request);
        let wanted: Wanted = super::read(&gateway, request).await?;
        let tenant = TenantId::parse(&wanted.tenant).map_err(|it| ApiError::Refused(format!("`tenant`: {it}")))?;
        let role = wanted.role.as_deref().map_or(Some(Role::User), Role::parse);
        let role = role.ok_or_else(|| ApiError::Refused("`role` must be `admin` or `user`".to_owned()))?;
        let is_made_here = wanted.key.is_none();
        let (edited, key) =
            gateway.tenants.add_key(NewKey { name: wanted.name, tenant, role, key: wanted.key }).await?;
        let added = view(&gateway, &edited.what);
        author.decided("key_added", &name(&edited.what), &Value::Null, &added);
        let mut answer = added;
        if is_made_here {
            answer["key"] = json!(key.expose());
        }
        let mut response = answered(&gateway, answer, &edited);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    })
}

/// Disables a key, takes that back, sets its limits.
pub fn change(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, before) = (Author::of(&request), find(&gateway, &request)?);
        let id = key_id(&request)?;
        let wanted: Changed = super::read(&gateway, request).await?;
        let limits = limits::wanted(&gateway, &wanted.limits)?;
        if wanted.disabled.is_none() && limits.is_empty() {
            return Err(ApiError::Refused("nothing to change: give `disabled`, `limits` or both".to_owned()));
        }
        let mut edited = None;
        if !limits.is_empty() {
            edited = Some(gateway.tenants.limit_key(id, limits).await?);
        }
        if let Some(is_disabled) = wanted.disabled {
            edited = Some(gateway.tenants.disable_key(id, is_disabled).await?);
        }
        let Some(edited) = edited else { return Err(ApiError::UnknownKey(Some(id))) };
        let after = view(&gateway, &edited.what);
        author.decided("key_changed", &name(&edited.what), &view(&gateway, &before), &after);
        Ok(answered(&gateway, after, &edited))
    })
}

/// Removes a key, for good.
pub fn remove(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let id = key_id(&request)?;
        let edited = gateway.tenants.remove_key(id).await?;
        Author::of(&request).decided("key_removed", &name(&edited.what), &view(&gateway, &edited.what), &Value::Null);
        Ok(answered(&gateway, json!({"id": id.to_string(), "removed": true}), &edited))
    })
}

/// An edit's answer, with what people must know besides.
pub(super) fn answered<T>(gateway: &Gateway, mut value: Value, edited: &Edited<T>) -> Response {
    if let Some(note) = &edited.note {
        value["note"] = json!(note);
    }
    super::edited(gateway, value, &edited.settled)
}

/// What is no id is not repeated: it may be a key.
fn key_id(request: &Request<Body>) -> Result<KeyId, ApiError> {
    KeyId::parse(&super::super::last_segment(request)).ok_or(ApiError::UnknownKey(None))
}

fn find(gateway: &Gateway, request: &Request<Body>) -> Result<ShownKey, ApiError> {
    let id = key_id(request)?;
    gateway.keys.get(id).ok_or(ApiError::UnknownKey(Some(id)))
}

fn name(key: &ShownKey) -> String {
    key.id.map(|it| it.to_string()).unwrap_or_default()
}

fn view(gateway: &Gateway, key: &ShownKey) -> Value {
    json!({
        "id": key.id.map(|it| it.to_string()),
        "name": &*key.principal.name,
        "tenant": key.principal.tenant.as_str(),
        "role": key.principal.role.as_str(),
        "created": key.created.map(|it| it.as_secs()),
        "disabled": key.state == KeyState::Disabled,
        "state": key.state.as_str(),
        "limits": limits::view(gateway, &key.quotas),
        "source": if key.id.is_some() { "api" } else { "config" },
    })
}
