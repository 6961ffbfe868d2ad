//! `/cluster/members`: who is here, as this node sees it, by the names that nodes give themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use serde_json::json;

use crate::base::ids::StorageId;
use crate::control::machine::Command;
use crate::control::machine::Outcome;
use crate::control::machine::Refusal;
use crate::membership::Member;
use crate::membership::about;
use crate::membership::about::About;
use crate::replication::tables::NODES;

use super::super::audit::Author;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::Answered;

/// How long the control group may take to agree. Longer than it takes to elect a leader.
const FORGET_LIMIT: Duration = Duration::from_secs(5);

/// What every node says of itself, by its data directory.
pub(super) fn told(gateway: &Gateway) -> BTreeMap<StorageId, About> {
    gateway.tables.owned(NODES, |now, rows| {
        let rows = rows.rows(now).filter(|(_, name, _)| *name == about::ROW);
        rows.filter_map(|(owner, _, value)| Some((owner, About::decode(value)?))).collect()
    })
}

/// What one node calls itself.
pub(super) fn name_of(gateway: &Gateway, storage: StorageId) -> Option<String> {
    let row = gateway.tables.owned(NODES, |now, rows| {
        let row = rows.rows(now).find(|(owner, name, _)| *owner == storage && *name == about::ROW);
        row.and_then(|(_, _, value)| About::decode(value))
    });
    row.map(|it| it.name).filter(|it| !it.is_empty())
}

/// All members, this node included; none without the mesh.
pub fn list(gateway: Arc<Gateway>, _: Request<Body>) -> Answered {
    Box::pin(async move {
        let members = all(&gateway);
        let is_on = gateway.members.is_some();
        Ok(super::super::json(&json!({"members": members, "total": members.len(), "mesh": is_on})))
    })
}

fn all(gateway: &Gateway) -> Vec<Value> {
    let Some(members) = &gateway.members else { return Vec::new() };
    let told = told(gateway);
    let view = members.handle.view();
    view.members.iter().map(|it| show(it, it.peer.node == members.me, told.get(&it.peer.storage), gateway)).collect()
}

/// What a node says of itself comes a moment after it does; this one knows its own name from the start.
fn show(member: &Member, is_self: bool, about: Option<&About>, gateway: &Gateway) -> Value {
    let peer = &member.peer;
    let said = |read: fn(&About) -> &String| about.map(read).filter(|it| !it.is_empty());
    json!({
        "node_id": peer.node.as_str(),
        "storage_id": peer.storage.to_string(),
        "name": said(|it| &it.name).or(is_self.then_some(&gateway.node.name)),
        "addr": peer.addr.to_string(),
        "state": member.status.as_str(),
        "incarnation": member.incarnation,
        "zone": peer.zone.as_ref().map(|it| it.as_str()),
        "is_self": is_self,
        "http": said(|it| &it.http),
        "release": said(|it| &it.release),
        "started_at": about.map(|it| it.started),
        "features": about.map(|it| it.features.clone()).unwrap_or_default(),
    })
}

/// Forgets a member that left or is down, everywhere and for good: what it alone said goes with it.
pub fn forget(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let wanted = super::super::last_segment(&request);
        let found = find(&gateway, &wanted)?;
        let before = show(&found, false, told(&gateway).get(&found.peer.storage), &gateway);
        if found.status.is_active() {
            let state = found.status.as_str();
            let text =
                format!("`{wanted}` is {state}: stop it first, only a node that left or is down can be forgotten");
            return Err(ApiError::Refused(text));
        }
        let settled = gateway.tables.forget(found.peer.storage).await?;
        let is_agreed = forget_for_good(&gateway, found.peer.storage).await;
        Author::of(&request).did("member_forgotten", "", &before, &Value::Null);
        let answer = json!({"node_id": found.peer.node.as_str(), "storage_id": found.peer.storage.to_string(), "forgotten": true, "agreed": is_agreed});
        Ok(super::edited(&gateway, answer, &settled))
    })
}

/// Lets the control group forget it, too: it then votes no more and is not let in again. False: no majority answered, so it may be asked again.
async fn forget_for_good(gateway: &Gateway, storage: StorageId) -> bool {
    let Some(control) = &gateway.control else { return true };
    match control.propose(&Command::Forget { storage }, FORGET_LIMIT).await {
        Ok(Outcome::Changed | Outcome::Unchanged | Outcome::Refused(Refusal::Unknown)) => true,
        Ok(Outcome::Refused(_)) | Err(_) => false,
    }
}

/// By node id, data directory or name; a name that two have is nobody's.
pub(super) fn find(gateway: &Gateway, wanted: &str) -> Result<Member, ApiError> {
    let unknown = || ApiError::UnknownMember(wanted.to_owned());
    let view = gateway.members.as_ref().ok_or_else(unknown)?.handle.view();
    let told = told(gateway);
    let by_id = |it: &&Member| it.peer.node.as_str() == wanted || it.peer.storage.to_string() == wanted;
    let by_name = |it: &&Member| told.get(&it.peer.storage).is_some_and(|it| it.name == wanted);
    let found = view.members.iter().find(by_id).or_else(|| {
        let mut named = view.members.iter().filter(by_name);
        named.next().filter(|_| named.next().is_none())
    });
    found.cloned().ok_or_else(unknown)
}
