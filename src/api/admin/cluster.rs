//! `/cluster/*` beside the members: this node, its links, and taking it out of service.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use serde_json::json;

use super::super::audit::Author;
use super::super::gateway::Gateway;
use super::Answered;

/// This node: who it is, how it is, what runs in it.
pub fn node(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move { Ok(super::super::json(&this(&gateway))) })
}

fn this(gateway: &Gateway) -> Value {
    let (node, members) = (&gateway.node, gateway.members.as_ref());
    let me = members.and_then(|it| it.handle.view().get(&it.me).cloned());
    let fleet = gateway.registry.fleet();
    let now = gateway.clock.now();
    let totals = gateway.metrics.models().totals();
    let tasks = node.tasks.running().into_iter();
    let tasks: Vec<_> =
        tasks.map(|it| json!({"name": it.name, "stage": it.stage.as_str(), "running": it.count})).collect();
    json!({
        "name": node.name,
        "release": env!("CARGO_PKG_VERSION"),
        "node_id": me.as_ref().map(|it| it.peer.node.as_str()),
        "storage_id": me.as_ref().map(|it| it.peer.storage.to_string()),
        "zone": me.as_ref().and_then(|it| it.peer.zone.as_ref()).map(|it| it.as_str()),
        "mesh": members.is_some(),
        "draining": gateway.phase.is_draining(),
        "durability": gateway.history.durability().name(),
        "uptime_seconds": now.saturating_duration_since(node.started).as_secs(),
        "workers": fleet.all.len(),
        "workers_available": fleet.all.iter().filter(|it| it.is_available(now)).count(),
        "requests_active": gateway.metrics.active(),
        "requests_total": totals.requests,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "cached_tokens": totals.cached_tokens,
        "tasks": tasks,
    })
}

/// This node's connections to other nodes.
pub fn links(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let links = gateway.members.as_ref().map(|it| it.handle.links()).unwrap_or_default();
        let shown = links.iter().map(|it| {
            json!({
                "node_id": it.peer.node.as_str(),
                "addr": it.peer.addr.to_string(),
                "class": it.class.as_str(),
                "rtt_ms": (it.rtt.as_secs_f64() * 1e6).round() / 1e3,
            })
        });
        let links: Vec<_> = shown.collect();
        Ok(super::super::json(&json!({"links": links, "total": links.len()})))
    })
}

/// Takes this node out of service as SIGTERM does: it answers, finishes what is in flight, and its process ends.
pub fn drain(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let answer = json!({
            "draining": true,
            "requests_active": gateway.metrics.active(),
            "drain_timeout_seconds": gateway.config.drain_timeout.as_secs_f64(),
        });
        Author::of(&request).did("node_drained", "", &Value::Null, &answer);
        gateway.phase.ask();
        Ok(super::super::json(&answer))
    })
}
