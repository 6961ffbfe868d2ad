//! `/workers`: who answers. Edits are kept before they are answered; a key goes in and never comes out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http::StatusCode;
use serde::Deserialize;
use serde::Deserializer;
use serde_json::Value;
use serde_json::json;

use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::secret::Secret;
use crate::workers::address::Origin;
use crate::workers::registry::EditError;
use crate::workers::registry::Entry;
use crate::workers::spec::Change;
use crate::workers::spec::Spec;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

/// Longest wait for a new worker to tell what it is before `POST /workers` answers.
const ADD_WAIT: Duration = Duration::from_secs(3);

/// Costs beyond these would be mistakes: they are factors.
const COSTS: std::ops::RangeInclusive<f32> = 0.01..=100.0;

/// What can be said of a worker.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    url: Option<String>,
    /// Absent leaves it, `null` takes it away.
    #[serde(default, deserialize_with = "present")]
    api_key: Option<Option<Secret>>,
    models: Option<Vec<String>>,
    priority: Option<u32>,
    cost: Option<f32>,
    labels: Option<BTreeMap<String, String>>,
    draining: Option<bool>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Secret>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Fields {
    fn check(self) -> Result<Change, ApiError> {
        if self.cost.is_some_and(|it| !COSTS.contains(&it)) {
            let (least, most) = (COSTS.start(), COSTS.end());
            return Err(ApiError::Refused(format!("`cost` must be a number from {least} to {most}")));
        }
        let parse = |names: Vec<String>| names.iter().map(|it| ModelId::parse(it)).collect::<Result<Vec<_>, _>>();
        let models = self.models.map(parse).transpose();
        Ok(Change {
            api_key: self.api_key,
            models: models.map_err(|error| ApiError::Refused(format!("`models`: {error}")))?,
            priority: self.priority,
            cost: self.cost,
            labels: self.labels,
            draining: self.draining,
        })
    }
}

/// All workers.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let fleet = Arc::clone(&*gateway.registry.fleet());
        let now = gateway.clock.now();
        let workers: Vec<_> =
            fleet.all.iter().map(|it| with_ledger(&gateway, it.id, view(&gateway, it, now))).collect();
        let suppressed = gateway.edits.suppressed();
        Ok(super::super::json(&json!({"workers": workers, "total": workers.len(), "suppressed": suppressed})))
    })
}

/// A worker with what all nodes have in flight there, as they last told.
fn with_ledger(gateway: &Gateway, id: WorkerId, mut shown: Value) -> Value {
    if let Some(ledger) = &gateway.ledger {
        let (others, _age) = ledger.gossiped(id);
        shown["cluster_load"] = json!(shown["load"].as_u64().unwrap_or(0) + u64::from(others.requests));
    }
    shown
}

/// One worker.
pub fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let id = worker_id(&request)?;
        let entry = find(&gateway, id)?;
        Ok(super::super::json(&view(&gateway, &entry, gateway.clock.now())))
    })
}

/// Adds a worker and says what it was found to be.
pub fn add(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let author = Author::of(&request);
        let fields: Fields = super::read(&gateway, request).await?;
        let url = fields.url.as_deref().ok_or_else(|| ApiError::Refused("`url` is required".to_owned()))?;
        let origin = Origin::parse(url).map_err(EditError::from)?;
        let mut spec = Spec::named(&origin, None);
        fields.check()?.apply(&mut spec);
        let (entry, settled) = gateway.edits.add(spec).await?;
        let id = entry.id;
        let _ = tokio::time::timeout(ADD_WAIT, gateway.prober.probe_now(id)).await; // late: the prober goes on asking
        let entry = gateway.registry.get(id).unwrap_or(entry);
        let added = view(&gateway, &entry, gateway.clock.now());
        author.did("worker_added", &entry.spec.url, &Value::Null, &added);
        let mut response = super::edited(&gateway, added, &settled);
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    })
}

/// Changes a worker. Draining waits for what is in flight, up to the drain timeout.
pub fn change(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (author, id) = (Author::of(&request), worker_id(&request)?);
        let fields: Fields = super::read(&gateway, request).await?;
        if fields.url.is_some() {
            return Err(ApiError::Refused("`url` cannot be changed: add the new one, then remove this one".to_owned()));
        }
        let before = view(&gateway, &*find(&gateway, id)?, gateway.clock.now());
        let is_drain = fields.draining == Some(true);
        let (entry, settled) = gateway.edits.change(id, fields.check()?).await?;
        author.did("worker_changed", &entry.spec.url, &before, &view(&gateway, &entry, gateway.clock.now()));
        let deadline = gateway.clock.now() + gateway.config.drain_timeout;
        while is_drain && entry.load.requests() > 0 && gateway.clock.now() < deadline {
            gateway.clock.sleep(Duration::from_millis(20)).await;
        }
        Ok(super::edited(&gateway, view(&gateway, &entry, gateway.clock.now()), &settled))
    })
}

/// Removes a worker.
pub fn remove(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let id = worker_id(&request)?;
        let (entry, settled) = gateway.edits.remove(id).await?;
        let before = view(&gateway, &entry, gateway.clock.now());
        Author::of(&request).did("worker_removed", &entry.spec.url, &before, &Value::Null);
        Ok(super::edited(&gateway, json!({"id": id.to_string(), "removed": true}), &settled))
    })
}

fn worker_id(request: &Request<Body>) -> Result<WorkerId, ApiError> {
    let text = super::super::last_segment(request);
    WorkerId::parse(&text).ok_or(ApiError::UnknownWorker(text))
}

fn find(gateway: &Gateway, id: WorkerId) -> Result<Arc<Entry>, ApiError> {
    gateway.registry.get(id).ok_or_else(|| ApiError::UnknownWorker(id.to_string()))
}

/// A worker as shown: never its key.
fn view(gateway: &Gateway, entry: &Entry, now: Instant) -> Value {
    let models: Vec<_> =
        entry.facts.models.iter().map(|it| json!({"id": it.id.as_str(), "context_len": it.context_len})).collect();
    let spec = &entry.spec;
    let (is_healthy, is_suspect) = entry.standing(now);
    json!({
        "id": entry.id.to_string(),
        "url": spec.url,
        "via": spec.via.map(|owner| node_name(gateway, owner)),
        "source": entry.source.name(),
        "runtime_type": entry.facts.engine.name(),
        "models": models,
        "state": entry.shown_state(now).as_str(),
        "is_healthy": is_healthy,
        "is_suspect": is_suspect,
        "observed_by": observed_by(gateway, entry),
        "draining": spec.is_draining,
        "priority": spec.priority,
        "cost": spec.cost,
        "labels": spec.labels,
        "load": entry.load.requests(),
        "queued_prefill_tokens": entry.load.queued_prefill_tokens(now),
        "prefill_tokens_per_second": entry.load.prefill_rate(),
        "has_api_key": spec.api_key.is_some(),
    })
}

/// Who watches it, and what each of them sees.
fn observed_by(gateway: &Gateway, entry: &Entry) -> Vec<Value> {
    let seen = gateway.prober.observers.seen(entry.id).into_iter();
    let shown = seen.map(|it| {
        json!({
            "node": node_name(gateway, it.by),
            "sight": it.sight.word().as_str(),
            "failures": it.sight.failures,
            "age_seconds": it.age.as_secs_f32(),
            "succeeded_seconds_ago": it.sight.succeeded_ago.map(|ago| (it.age + ago).as_secs_f32()),
        })
    });
    shown.collect()
}

/// A node as people know it, else as its certificate names it, where that is known.
fn node_name(gateway: &Gateway, storage: StorageId) -> String {
    if let Some(name) = super::members::name_of(gateway, storage) {
        return name;
    }
    let view = gateway.members.as_ref().map(|it| it.handle.view());
    let found = view.as_ref().and_then(|it| it.members.iter().find(|it| it.peer.storage == storage));
    found.map_or_else(|| storage.to_string(), |it| it.peer.node.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_type_is_not_repeated() {
        let said = |body: &str| {
            super::super::without_value(&serde_json::from_str::<Fields>(body).map(drop).expect_err("refused"))
        };
        assert_eq!(said(r#"{"url": 7}"#), "expected a string at line 1 column 9");
        for body in
            [r#"{"url": "http://a", "models": "sk-key"}"#, r#"{"url": "http://a", "models": "sk-key, expected"}"#]
        {
            assert!(!said(body).contains("sk-key") && said(body).contains("expected a sequence"), "{}", said(body));
        }
        assert!(said(r#"{"uri": "http://a"}"#).contains("unknown field `uri`"));
    }
}
