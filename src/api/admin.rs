//! Workers and the state of this node.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::base::ids::WorkerId;
use crate::base::secret::Secret;
use crate::workers::registry::EditError;
use crate::workers::registry::Entry;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::audit::Author;
use super::error::ApiError;
use super::gateway::Gateway;

type Answered = BoxFuture<'static, Result<Response, ApiError>>;

/// Longest wait for a new worker to tell what it is before `POST /workers` answers.
const ADD_WAIT: Duration = Duration::from_secs(3);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWorker {
    url: String,
    api_key: Option<Secret>,
    #[serde(default)]
    models: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    draining: bool,
}

/// The process lives.
pub fn liveness(_: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async { Ok(super::json(&json!({"status": "alive"}))) })
}

/// Ready when some worker can be given a request, and while the node is not stopping.
pub fn readiness(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        if gateway.phase.is_draining() {
            return Err(ApiError::Draining);
        }
        let fleet = gateway.registry.fleet();
        let now = gateway.clock.now();
        let serving = fleet.by_model.values().flat_map(|it| it.iter()).any(|it| it.is_available(now));
        if serving || fleet.all.is_empty() {
            return Ok(super::json(&json!({"status": "ready", "workers": fleet.all.len()})));
        }
        Err(ApiError::AllBusy { retry_after: Duration::from_secs(1) })
    })
}

/// All workers.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let fleet = Arc::clone(&*gateway.registry.fleet());
        let now = gateway.clock.now();
        let workers: Vec<_> = fleet.all.iter().map(|it| view(it, now)).collect();
        Ok(super::json(&json!({"workers": workers, "total": workers.len()})))
    })
}

/// One worker.
pub fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let id = worker_id(&request)?;
        let entry = find(&gateway, id)?;
        Ok(super::json(&view(&entry, gateway.clock.now())))
    })
}

/// Adds a worker and says what it was found to be.
pub fn add(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let author = Author::of(&request);
        let new: NewWorker = read(&gateway, request).await?;
        let models: Result<Vec<ModelId>, _> = new.models.iter().map(|it| ModelId::parse(it)).collect();
        let models = models.map_err(|error| ApiError::Refused(format!("`models`: {error}")))?;
        let id = gateway.registry.add(&new.url, new.api_key, models).map_err(edit)?;
        let _ = tokio::time::timeout(ADD_WAIT, gateway.prober.probe_now(id)).await; // late: the prober goes on asking
        let entry = find(&gateway, id)?;
        let added = view(&entry, gateway.clock.now());
        author.did("worker_added", &entry.spec.url, &Value::Null, &added);
        let mut response = super::json(&added);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    })
}

/// Drains a worker or takes it back. Draining waits for what is in flight, up to the drain timeout.
pub fn change(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, id) = (Author::of(&request), worker_id(&request)?);
        let change: Change = read(&gateway, request).await?;
        let before = view(&*find(&gateway, id)?, gateway.clock.now());
        let entry = gateway.registry.set_draining(id, change.draining).map_err(edit)?;
        author.did("worker_changed", &entry.spec.url, &before, &view(&entry, gateway.clock.now()));
        let deadline = gateway.clock.now() + gateway.config.drain_timeout;
        while change.draining && entry.load.requests() > 0 && gateway.clock.now() < deadline {
            gateway.clock.sleep(Duration::from_millis(20)).await;
        }
        Ok(super::json(&view(&entry, gateway.clock.now())))
    })
}

/// Removes a worker.
pub fn remove(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let id = worker_id(&request)?;
        let entry = gateway.registry.remove(id).map_err(edit)?;
        gateway.router.observe(gateway.clock.now(), crate::routing::Feedback::Forgotten(id));
        let before = view(&entry, gateway.clock.now());
        Author::of(&request).did("worker_removed", &entry.spec.url, &before, &Value::Null);
        Ok(super::json(&json!({"id": id.to_string(), "removed": true})))
    })
}

fn worker_id(request: &Request<Body>) -> Result<WorkerId, ApiError> {
    let text = super::last_segment(request);
    WorkerId::parse(&text).ok_or(ApiError::UnknownWorker(text))
}

fn find(gateway: &Gateway, id: WorkerId) -> Result<Arc<Entry>, ApiError> {
    let fleet = gateway.registry.fleet();
    fleet.all.iter().find(|it| it.id == id).cloned().ok_or_else(|| ApiError::UnknownWorker(id.to_string()))
}

fn edit(error: EditError) -> ApiError {
    match error {
        EditError::Unknown(id) => ApiError::UnknownWorker(id.to_string()),
        EditError::Url(_) | EditError::TooMany => ApiError::Refused(error.to_string()),
    }
}

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

/// A worker as shown: never its key.
fn view(entry: &Entry, now: Instant) -> serde_json::Value {
    let models: Vec<_> =
        entry.facts.models.iter().map(|it| json!({"id": it.id.as_str(), "context_len": it.context_len})).collect();
    json!({
        "id": entry.id.to_string(),
        "url": entry.spec.url,
        "runtime_type": entry.facts.engine.name(),
        "models": models,
        "state": entry.shown_state(now).as_str(),
        "is_healthy": entry.is_available(now),
        "load": entry.load.requests(),
        "queued_prefill_tokens": entry.load.queued_prefill_tokens(),
        "has_api_key": entry.spec.api_key.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        let said = |body: &str| without_value(&serde_json::from_str::<NewWorker>(body).map(drop).expect_err("refused"));
        assert_eq!(said(r#"{"url": 7}"#), "expected a string at line 1 column 9");
        for body in
            [r#"{"url": "http://a", "models": "sk-key"}"#, r#"{"url": "http://a", "models": "sk-key, expected"}"#]
        {
            assert!(!said(body).contains("sk-key") && said(body).contains("expected a sequence"), "{}", said(body));
        }
        assert!(said(r#"{"uri": "http://a"}"#).contains("unknown field `uri`"));
    }
}
