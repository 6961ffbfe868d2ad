//! `/models`: what is set for models by name, whether a worker serves them or not. Clients see `/v1/models`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::ModelId;
use crate::tenancy::listing::ShownModel;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;
use super::keys::answered;
use super::limits;
use super::limits::Limited;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    limits: Vec<Limited>,
}

/// All that are served, and all that something is set for.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let set = gateway.keys.models();
        let fleet = Arc::clone(&*gateway.registry.fleet());
        let names: BTreeSet<&ModelId> = fleet.by_model.keys().chain(set.iter().map(|it| &it.name)).collect();
        let models: Vec<_> = names.into_iter().map(|it| view(&gateway, it, set_for(&set, it))).collect();
        Ok(super::super::json(&json!({"models": models, "total": models.len()})))
    })
}

fn set_for<'a>(set: &'a [ShownModel], name: &ModelId) -> Option<&'a ShownModel> {
    set.binary_search_by(|it| it.name.cmp(name)).ok().map(|at| &set[at])
}

/// One model; its name may contain slashes only where they are escaped.
pub fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let name = name(&request)?;
        let set = gateway.keys.model(&name);
        if set.is_none() && !gateway.registry.fleet().by_model.contains_key(&name) {
            let hint = ": it is not served and nothing is set for it, GET /models lists all".to_owned();
            return Err(ApiError::UnknownModel { model: name.to_string(), hint });
        }
        Ok(super::super::json(&view(&gateway, &name, set.as_ref())))
    })
}

/// Sets limits of a model, or takes them away.
pub fn change(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, name) = (Author::of(&request), name(&request)?);
        let wanted: Changed = super::read(&gateway, request).await?;
        let limits = limits::wanted(&gateway, &wanted.limits)?;
        if limits.is_empty() {
            return Err(ApiError::Refused("nothing to change: give `limits`".to_owned()));
        }
        let before = view(&gateway, &name, gateway.keys.model(&name).as_ref());
        let edited = gateway.tenants.limit_model(name.clone(), limits).await?;
        let after = view(&gateway, &name, Some(&edited.what));
        author.decided("model_changed", name.as_str(), &before, &after);
        Ok(answered(&gateway, after, &edited))
    })
}

/// Takes away what is set for a model. Workers that serve it go on.
pub fn remove(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, name) = (Author::of(&request), name(&request)?);
        let edited = gateway.tenants.forget_model(name.clone()).await?;
        author.decided("model_removed", name.as_str(), &view(&gateway, &name, Some(&edited.what)), &Value::Null);
        Ok(answered(&gateway, json!({"id": name.as_str(), "removed": true}), &edited))
    })
}

fn name(request: &Request<Body>) -> Result<ModelId, ApiError> {
    ModelId::parse(&super::super::last_segment(request))
        .map_err(|error| ApiError::Refused(format!("the name of a model: {error}")))
}

fn view(gateway: &Gateway, name: &ModelId, set: Option<&ShownModel>) -> Value {
    let fleet = gateway.registry.fleet();
    json!({
        "name": name.as_str(),
        "workers": fleet.by_model.get(name).map_or(0, |it| it.len()),
        "limits": limits::view(gateway, set.map_or(&[][..], |it| &it.quotas)),
    })
}
