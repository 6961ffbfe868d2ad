//! `/v1/responses` where history is kept: made on any worker that speaks chat completions, and there afterwards at every node.
//!
//! ```text
//!  POST ─ create ─┬─ making ─────▶ relay (a chat request) ─▶ answer ─▶ the client, and its end to history
//!                 └─ background ─▶ relay ─▶ answer ─▶ events in history ◀── follow ◀── GET ?stream=true, at any node
//!  GET, DELETE, cancel, input_items ─ records          takeover ─▶ background, or failed
//! ```
//! *Invariants:* what a client was told of a response, history has (P3), but for one that says `storage_unconfirmed`; no record of another owner is read or named (P9); routing, limits, retries and accounts are the relay's
//! alone. With `--history-backend none` none of this runs, and `/v1/responses` is passed on as it is.

mod answer;
mod background;
mod context;
mod create;
mod follow;
pub(super) mod keys;
mod making;
pub(super) mod metrics;
pub(super) mod query;
mod record;
pub(super) mod records;
mod stored;
mod takeover;

use std::sync::Arc;

use http::Request;

use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Task;
use crate::dialects::responses::Refused as Unfit;
use crate::history::Handle;
use crate::history::InvalidName;
use crate::history::Owner;
use crate::tenancy::keys::Principal;

use super::error::ApiError;
use super::gateway::Gateway;

pub(super) use context::name;
pub(super) use create::create;
pub(super) use stored::items;
pub(super) use stored::objects;

const TAKEOVER: Task = Task { name: "takeover", stage: Stage::Decide, on_end: OnEnd::Log };
/// What a worker is asked instead.
const CHAT: &str = "/v1/chat/completions";

/// Looks after responses whose node is gone, where history is kept.
pub fn start(gateway: &Arc<Gateway>) {
    let Some(history) = gateway.history.clone() else { return };
    let looking = Arc::clone(gateway);
    gateway.node.tasks.spawn(TAKEOVER, |stop| takeover::run(looking, history, stop));
}

/// History, and whose records a request is about.
pub(super) fn asked<B>(gateway: &Gateway, request: &Request<B>) -> Result<(Handle, Owner), ApiError> {
    let principal = match request.extensions().get::<Arc<Principal>>() {
        Some(principal) => Arc::clone(principal),
        None => gateway.keys.authenticate(request.headers())?,
    };
    let principal = gateway.admit(principal)?;
    let history = gateway.history.clone().ok_or(ApiError::NoHistory)?;
    let owner = owner(&history, &principal)?;
    Ok((history, owner))
}

fn owner(history: &Handle, principal: &Principal) -> Result<Owner, ApiError> {
    let invalid = |_: InvalidName| Unfit::invalid("api key", "one with a name of at most 128 bytes");
    Ok(history.owner(&principal.tenant, &principal.name).map_err(invalid)?)
}
