//! The admin API and the health pages. Edits go through the doors of their areas, which keep them before they answer.

pub mod chaos;
pub mod cluster;
pub mod history;
pub mod keys;
mod limits;
pub mod members;
pub mod models;
pub mod policies;
pub mod tenants;
pub mod workers;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::replication::core::Settled;
use crate::storage::Durability;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::error::ApiError;
use super::gateway::Gateway;

type Answered = BoxFuture<'static, Result<Response, ApiError>>;

/// The process lives.
pub fn liveness(_: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async { Ok(super::json(&json!({"status": "alive"}))) })
}

/// Ready when the cluster's tables are in force here and some worker can be given a request, and while the node is not stopping. Says too whether edits survive a
/// restart: a node that lost its disk still serves.
pub fn readiness(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        if gateway.phase.is_draining() {
            return Err(ApiError::Draining);
        }
        if !gateway.has_joined() {
            return Err(ApiError::Joining);
        }
        let fleet = gateway.registry.fleet();
        let now = gateway.clock.now();
        let serving = fleet.by_model.values().flat_map(|it| it.iter()).any(|it| it.is_available(now));
        if serving || fleet.all.is_empty() {
            let durability = gateway.storage.durability().name();
            return Ok(super::json(&json!({
                "status": "ready", "workers": fleet.all.len(), "durability": durability})));
        }
        Err(ApiError::AllBusy { retry_after: Duration::from_secs(1) })
    })
}

/// A body as the type a handler wants.
async fn read<T: serde::de::DeserializeOwned>(gateway: &Gateway, request: Request<Body>) -> Result<T, ApiError> {
    let held = gateway.intake.read(request.into_body()).await?;
    let text = |error| format!("the body cannot be read: {}", without_value(&error));
    serde_json::from_slice(&held.bytes).map_err(|error| ApiError::Refused(text(error)))
}

/// What is wrong and where, without the value: it may be a key that slipped into another field.
fn without_value(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let expected = text.rfind(", expected ").filter(|_| text.starts_with("invalid "));
    expected.map_or_else(|| text.clone(), |at| text[at + 2..].to_owned())
}

/// An edit's answer: what is in force now, whether it will be after a restart, and which members have not got it yet.
fn edited(gateway: &Gateway, mut value: serde_json::Value, settled: &Settled) -> Response {
    let pending: Vec<&str> = settled.pending.iter().map(|it| it.as_str()).collect();
    value["durable"] = json!(gateway.storage.durability() == Durability::On);
    value["pending"] = json!(pending);
    super::json(&value)
}
