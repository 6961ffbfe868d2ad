//! `/cluster/members`: who is here, as this node sees it.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use serde_json::json;

use crate::membership::Member;

use super::super::gateway::Gateway;
use super::super::gateway::Members;
use super::Answered;

/// All members, this node included; none without the mesh.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let members = gateway.members.as_ref().map(|it| all(it, &gateway.node.name)).unwrap_or_default();
        let is_on = gateway.members.is_some();
        Ok(super::super::json(&json!({"members": members, "total": members.len(), "mesh": is_on})))
    })
}

fn all(members: &Members, name: &str) -> Vec<Value> {
    members.handle.view().members.iter().map(|it| show(it, members, name)).collect()
}

/// What nodes call themselves does not travel yet: only this one's name is known.
fn show(member: &Member, members: &Members, name: &str) -> Value {
    let peer = &member.peer;
    let is_me = peer.node == members.me;
    json!({
        "node_id": peer.node.as_str(),
        "storage_id": peer.storage.to_string(),
        "name": is_me.then_some(name),
        "addr": peer.addr.to_string(),
        "state": member.status.as_str(),
        "incarnation": member.incarnation,
        "zone": peer.zone.as_ref().map(|it| it.as_str()),
        "is_self": is_me,
    })
}
