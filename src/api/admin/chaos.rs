//! `/admin/chaos`: faults on purpose at this node, where it was started with `--chaos`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::WorkerId;
use crate::base::setting::Setting as _;
use crate::chaos;
use crate::chaos::core::Active;
use crate::chaos::fault::Fault;
use crate::workers::address::Origin;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

/// Those in force.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        on(&gateway)?;
        Ok(super::super::json(&json!({"faults": in_force(&gateway), "total": gateway.chaos.active().len()})))
    })
}

/// Begins one.
pub fn begin(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        on(&gateway)?;
        let author = Author::of(&request);
        let mut fields: Map<String, Value> = super::read(&gateway, request).await?;
        let expected = "`for`: how long it lasts, such as `30s`";
        let lasts = fields.remove("for").ok_or_else(|| ApiError::Refused(expected.to_owned()))?;
        let lasts = lasts.as_str().and_then(|it| Duration::parse(it).ok());
        let lasts = lasts.ok_or_else(|| ApiError::Refused(expected.to_owned()))?;
        let mut fault: Fault = serde_json::from_value(Value::Object(fields))
            .map_err(|error| ApiError::Refused(format!("the fault cannot be read: {error}")))?;
        fault.name_nodes(|it| node(&gateway, it))?;
        fault.name_worker(|it| worker(&gateway, it))?;
        let begun = gateway.chaos.begin(fault, lasts).ok_or(ApiError::NoChaos)?;
        let begun = begun.map_err(|refusal| ApiError::Refused(refusal.to_string()))?;
        let shown = show(&gateway, &begun);
        author.decided("fault_begun", &chaos::shown(begun.id), &Value::Null, &shown);
        Ok(super::super::json(&shown))
    })
}

/// Ends one.
pub fn lift(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        on(&gateway)?;
        let wanted = super::super::last_segment(&request);
        let lifted = chaos::parse_id(&wanted).map(|it| gateway.chaos.lift(Some(it))).unwrap_or_default();
        let lifted = lifted.first().ok_or_else(|| ApiError::UnknownFault(wanted.clone()))?;
        let shown = show(&gateway, lifted);
        Author::of(&request).decided("fault_lifted", &wanted, &shown, &Value::Null);
        Ok(super::super::json(&shown))
    })
}

/// Ends all.
pub fn lift_all(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        on(&gateway)?;
        let lifted: Vec<Value> = gateway.chaos.lift(None).iter().map(|it| show(&gateway, it)).collect();
        let answer = json!({"faults": lifted, "total": lifted.len()});
        Author::of(&request).decided("faults_lifted", "", &answer, &Value::Null);
        Ok(super::super::json(&answer))
    })
}

/// Those in force, as they are shown.
pub(super) fn in_force(gateway: &Gateway) -> Vec<Value> {
    gateway.chaos.active().iter().map(|it| show(gateway, it)).collect()
}

fn on(gateway: &Gateway) -> Result<(), ApiError> {
    if gateway.chaos.is_on() { Ok(()) } else { Err(ApiError::NoChaos) }
}

fn show(gateway: &Gateway, active: &Active) -> Value {
    let now = gateway.clock.now();
    let seconds = |it: Duration| (it.as_secs_f64() * 1e3).round() / 1e3;
    let mut shown = serde_json::to_value(&active.fault).unwrap_or_default();
    shown["id"] = json!(chaos::shown(active.id));
    shown["since_seconds"] = json!(seconds(now.saturating_duration_since(active.from)));
    shown["left_seconds"] = json!(seconds(active.until.saturating_duration_since(now)));
    shown
}

/// What the mesh knows a node by.
fn node(gateway: &Gateway, wanted: &str) -> Result<String, ApiError> {
    super::members::find(gateway, wanted).map(|it| it.peer.node.as_str().to_owned())
}

/// The address of a worker, by its id or its address. One that is not registered yet may be named by its address.
fn worker(gateway: &Gateway, wanted: &str) -> Result<String, ApiError> {
    if let Some(id) = WorkerId::parse(wanted) {
        let entry = gateway.registry.get(id).ok_or_else(|| ApiError::UnknownWorker(wanted.to_owned()))?;
        return Ok(entry.spec.url.clone());
    }
    let origin = Origin::parse(wanted).map_err(|error| ApiError::Refused(format!("`worker`: {error}")))?;
    Ok(origin.url())
}
