//! `/cluster/*` beside the members: this node, its links and tables, whether all is well, and taking it out of service.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::StorageId;
use crate::control;
use crate::control::Standing;
use crate::control::core::bootstrap;
use crate::control::machine::Command;
use crate::control::machine::Outcome;
use crate::membership::Status;
use crate::observability::labels::Label as _;
use crate::replication::core::Colour;
use crate::storage::Durability;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

/// How long the control group may take to agree. Longer than it takes to elect a leader.
const FINALIZE_LIMIT: Duration = Duration::from_secs(5);

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
        "durability": gateway.storage.durability().name(),
        "control": gateway.control.as_ref().and_then(|it| control(&it.status())),
        "chaos": gateway.chaos.is_on().then(|| super::chaos::in_force(gateway)),
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

/// The control group, as it is here. None: a node without a mesh that never needed one.
fn control(status: &control::Status) -> Option<Value> {
    if status.standing == Standing::Dormant {
        return None;
    }
    let shown = |it: &std::collections::BTreeSet<StorageId>| it.iter().map(ToString::to_string).collect::<Vec<_>>();
    let group = &status.group;
    Some(json!({
        "standing": status.standing.to_string(),
        "cluster_id": status.cluster.map(|it| it.to_string()),
        "leader": group.leader.map(|it| it.to_string()),
        "term": group.term,
        "voters": shown(&group.voters),
        "changing_voters": group.is_joint,
        "learners": shown(&group.learners),
        "applied": group.applied,
        "feature_level": status.level,
    }))
}

/// What a person must do about it, if anything. A group that is not there yet is no fault of this node.
fn control_reason(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Outside(bootstrap::Standing::TwoClusters(..) | bootstrap::Standing::OtherCluster { .. })
        | Standing::Expelled(_)
        | Standing::NeedsMesh(_)
        | Standing::Promised(_) => Some(format!("control group: {standing}")),
        Standing::Outside(
            bootstrap::Standing::Member(_)
            | bootstrap::Standing::Waiting { .. }
            | bootstrap::Standing::Granted { .. }
            | bootstrap::Standing::Collecting { .. },
        )
        | Standing::Registering { .. }
        | Standing::Member(_)
        | Standing::Dormant
        | Standing::Passing(_) => None,
    }
}

/// This node's connections to other nodes.
pub fn links(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let links = gateway.members.as_ref().map(|it| it.handle.links()).unwrap_or_default();
        let told = super::members::told(&gateway);
        let shown = links.iter().map(|it| {
            json!({
                "node_id": it.peer.node.as_str(),
                "name": told.get(&it.peer.storage).map(|it| &it.name),
                "addr": it.peer.addr.to_string(),
                "class": it.class.as_str(),
                "rtt_ms": (it.rtt.as_secs_f64() * 1e6).round() / 1e3,
            })
        });
        let links: Vec<_> = shown.collect();
        Ok(super::super::json(&json!({"links": links, "total": links.len()})))
    })
}

/// The replicated tables, as they are here.
pub fn tables(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let tables: Vec<_> = gateway.tables.colours().iter().map(table).collect();
        let it = gateway.tables.counts();
        let refused = json!({
            "strangers": it.strangers,
            "garbage": it.garbage,
            "unknown_tables": it.unknown_tables,
            "stamps_ahead": it.stamps_ahead,
            "too_much": it.too_much,
            "not_owner": it.not_owner,
            "refuted": it.refuted,
            "deferred": it.deferred,
            "pushes_left": it.pushes_left,
            "impostors": it.impostors,
        });
        Ok(super::super::json(&json!({"tables": tables, "total": tables.len(), "refused": refused})))
    })
}

fn table(colour: &Colour) -> Value {
    json!({
        "name": colour.name,
        "entries": colour.entries,
        "lives": colour.lives,
        "bytes_sent": colour.bytes_sent,
        "red": colour.is_red,
        "in_force": colour.is_in_force,
    })
}

/// Whether this node is as it should be, and if not, why. It serves in either case: readiness is another matter.
pub fn health(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let colours = gateway.tables.colours();
        let mut reasons = reasons(&colours, gateway.storage.durability(), gateway.tables.counts().impostors);
        let control = gateway.control.as_ref().map(control::Handle::status);
        reasons.extend(control.as_ref().and_then(|it| control_reason(&it.standing)));
        if control.is_some_and(|it| !it.has_room) {
            reasons.push(
                "the disk is full: this node takes no part in what the cluster decides until there is room".to_owned(),
            );
        }
        let faults = gateway.chaos.active();
        if !faults.is_empty() {
            let kinds: Vec<_> = faults.iter().map(|it| it.fault.kind().as_str()).collect();
            reasons.push(format!("it fails on purpose: {}; `smg chaos` says until when", kinds.join(", ")));
        }
        let view = gateway.members.as_ref().map(|it| it.handle.view()).unwrap_or_default();
        let members: serde_json::Map<_, _> =
            Status::ALL.iter().map(|it| (it.as_str().to_owned(), json!(view.count(*it)))).collect();
        let tables: Vec<_> = colours.iter().map(table).collect();
        let status = if reasons.is_empty() { "green" } else { "red" };
        Ok(super::super::json(&json!({"status": status, "reasons": reasons, "members": members, "tables": tables})))
    })
}

fn reasons(colours: &[Colour], durability: Durability, impostors: u64) -> Vec<String> {
    let mut reasons = Vec::new();
    let named = |is: fn(&&Colour) -> bool| {
        let names: Vec<_> = colours.iter().filter(is).map(|it| it.name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = named(|it| it.is_red) {
        reasons.push(format!(
            "not exchanged with any member for three rounds: {names}. Edits made elsewhere may be missing here; look at /cluster/links"
        ));
    }
    if let Some(names) = named(|it| !it.is_red && !it.is_in_force) {
        reasons.push(format!(
            "not compared with the cluster since the start: {names}. Edits made elsewhere may be missing here"
        ));
    }
    match durability {
        Durability::On | Durability::Off => {}
        Durability::Unavailable => {
            reasons.push("the data directory cannot be used: edits made here hold until the restart".to_owned())
        }
        Durability::Failed => reasons.push("the disk failed: edits are refused here until a restart".to_owned()),
    }
    if impostors > 0 {
        reasons.push("another process runs from a copy of this data directory: stop one of the two".to_owned());
    }
    reasons
}

/// Raises the cluster's feature level as far as every node's release can follow: what they bring is used from then on, and older releases are refused.
pub fn finalize(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let absent = || ApiError::Refused("this node takes no part in a control group".to_owned());
        let control = gateway.control.as_ref().ok_or_else(absent)?;
        let known = control.read(|it| (it.level(), it.level_in_reach()));
        let (before, to) = known.ok_or_else(|| ApiError::Refused(control.status().standing.to_string()))?;
        let reason = match control.propose(&Command::RaiseLevel { to }, FINALIZE_LIMIT).await {
            Ok(Outcome::Changed | Outcome::Unchanged) => None,
            Ok(Outcome::Refused(refusal)) => Some(refusal.to_string()),
            Err(error) => Some(error.to_string()),
        };
        let level = if reason.is_none() { to } else { before };
        let answer = json!({"feature_level": level, "before": before, "agreed": reason.is_none(), "reason": reason});
        Author::of(&request).did("level_raised", "", &json!({"feature_level": before}), &answer);
        Ok(super::super::json(&answer))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::tables::TABLES;

    fn colours(is: fn(&str) -> (bool, bool)) -> Vec<Colour> {
        let colour = |it: &crate::replication::tables::Spec| {
            let (is_red, is_in_force) = is(it.name);
            Colour { table: it.id, name: it.name, is_red, is_in_force, entries: 0, lives: 0, bytes_sent: 0 }
        };
        TABLES.iter().map(colour).collect()
    }

    #[test]
    fn a_node_says_why_it_is_red_and_nothing_else() {
        assert_eq!(reasons(&colours(|_| (false, true)), Durability::On, 0), Vec::<String>::new());
        let red = reasons(&colours(|it| (it == "keys" || it == "loads", it != "nodes")), Durability::Failed, 1);
        let [silent, waiting, disk, copy] = red.as_slice() else { panic!("four reasons: {red:?}") };
        assert!(
            silent.contains("three rounds: keys, loads.") && waiting.contains("since the start: nodes."),
            "{red:?}"
        );
        assert!(disk.contains("refused") && copy.contains("copy of this data directory"), "{red:?}");
    }
}
