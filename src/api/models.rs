//! `/v1/models`: the union of what all workers serve.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::base::ids::ModelId;
use crate::workers::registry::Entry;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::error::ApiError;
use super::gateway::Gateway;

/// All models, by name.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> BoxFuture<'static, Result<Response, ApiError>> {
    Box::pin(async move {
        let fleet = Arc::clone(&*gateway.registry.fleet());
        let mut models: Vec<_> = fleet.by_model.iter().collect();
        models.sort_unstable_by_key(|it| it.0);
        let data: Vec<_> = models.into_iter().map(|(model, entries)| card(model, entries)).collect();
        Ok(super::json(&json!({"object": "list", "data": data})))
    })
}

/// One model; its name may contain slashes only where they are escaped.
pub fn one(gateway: Arc<Gateway>, request: Request<Body>) -> BoxFuture<'static, Result<Response, ApiError>> {
    Box::pin(async move {
        let name = super::last_segment(&request);
        let fleet = Arc::clone(&*gateway.registry.fleet());
        let found = fleet.by_model.get_key_value(name.as_str());
        let (model, entries) =
            found.ok_or(ApiError::UnknownModel { model: name, hint: ": GET /v1/models lists all".to_owned() })?;
        Ok(super::json(&card(model, entries)))
    })
}

fn card(model: &ModelId, entries: &[Arc<Entry>]) -> serde_json::Value {
    let served = entries.iter().flat_map(|it| &it.facts.models).filter(|it| it.id == *model);
    // The shortest: a request that fits it fits everywhere.
    let context = served.filter_map(|it| it.context_len).min();
    json!({"id": model.as_str(), "object": "model", "created": 0, "owned_by": "smg", "max_model_len": context})
}
