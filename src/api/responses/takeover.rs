//! Responses whose node is gone: claimed by the node that looks after leases, and made here or marked as failed.
//!
//! Only what has no event and waits in the background can be made again: of everything else a worker may have been asked, and a tool may have been run for it. The claim is one command, so a response has one owner
//! at any time, and what an earlier one still writes is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use crate::base::ids::TenantId;
use crate::base::tasks::Stop;
use crate::dialects::responses::Create;
use crate::dialects::responses::request;
use crate::history;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Rows;
use crate::history::Status;
use crate::history::machine::Act;
use crate::history::machine::Refusal;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::machine::read::Of;
use crate::tenancy::keys::Principal;
use crate::tenancy::keys::Role;
use crate::tenancy::listing::KeyId;

use super::super::gateway::Gateway;
use super::background::Job;
use super::background::Place;
use super::context;
use super::context::Names;
use super::metrics::Takeover;
use super::record::NODE_LOST;
use super::record::Record;
use super::stored;
use super::stored::Ask;
use super::stored::Stored;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until its stage stops.
pub(super) async fn run(gateway: Arc<Gateway>, history: Handle, stop: Stop) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = gateway.clock.sleep(LOOK_EVERY) => {}
        }
        let orphans = match history.orphans().await {
            Ok(orphans) => orphans,
            Err(error) => {
                tracing::debug!(%error, "responses that nobody makes were not looked at; they are looked at again");
                continue;
            }
        };
        for (owner, id) in orphans {
            if gateway.phase.is_draining() {
                return;
            }
            if let Err(error) = take_over(&gateway, &history, owner, &id).await {
                tracing::debug!(%error, response = %id, "a response was not taken over; it is tried again");
            }
        }
    }
}

async fn take_over(gateway: &Arc<Gateway>, history: &Handle, owner: Owner, id: &Id) -> Result<(), HistoryError> {
    let lease = history.lease().await?;
    match history.act(&owner, Act::Claim { response: id.clone(), lease }).await {
        Ok(_) => {}
        Err(HistoryError::Refused(Refusal::Ended(_) | Refusal::NotFound(_) | Refusal::Owned)) => return Ok(()),
        Err(error) => return Err(error),
    }
    let Some(found) = claimed(gateway, history, &owner, id, lease).await? else { return Ok(()) };
    let record = Record {
        gateway: Arc::clone(gateway),
        history: history.clone(),
        owner,
        id: id.clone(),
        lease,
        attempt: found.attempt,
    };
    let metrics = gateway.metrics.history();
    let place = found.again.and_then(|again| Some((again, Place::take(gateway).ok()?)));
    if let Some((again, place)) = place {
        tracing::info!(response = %id, "a response in the background was taken over, and is made here");
        metrics.taken_over(Takeover::Run);
        let Again { principal, chat, routing_key } = again;
        Job { record, body: found.body, chat, principal, routing_key, place }.start();
    } else {
        tracing::info!(response = %id, "a response whose node is gone was marked as failed");
        metrics.taken_over(Takeover::Failed);
        record.fail_as_committed(NODE_LOST, "the node that made it is gone").await;
    }
    Ok(())
}

/// One that was claimed.
struct Claimed {
    attempt: u32,
    body: crate::dialects::responses::Body,
    again: Option<Again>,
}

/// What it takes to make it again.
struct Again {
    principal: Arc<Principal>,
    chat: Bytes,
    routing_key: Option<HeaderValue>,
}

async fn claimed(
    gateway: &Gateway,
    history: &Handle,
    owner: &Owner,
    id: &Id,
    lease: Lease,
) -> Result<Option<Claimed>, HistoryError> {
    let bytes_max = gateway.intake.body_len_max() as u64;
    let (owner, id) = (owner.clone(), id.clone());
    let read = move |rows: &dyn Rows| -> Result<Option<Claimed>, HistoryError> {
        let Stored { row, body, ask, .. } = Stored::read(rows, &owner, &id)?;
        let Some(job) = row.job.filter(|it| it.lease == lease) else { return Ok(None) };
        let again = ask.filter(|_| has_not_begun(&row)).and_then(|ask| again(rows, &owner, &id, &ask, bytes_max));
        Ok(Some(Claimed { attempt: job.attempt, body, again }))
    };
    match history.read(read).await? {
        Err(HistoryError::Missing(Missing::NotFound(_))) => Ok(None),
        read => read,
    }
}

fn has_not_begun(row: &history::Response) -> bool {
    row.is_background && row.status == Status::Queued && row.events == 0
}

/// The request again, as it is asked of a worker. `None`: what it needs is gone.
fn again(rows: &dyn Rows, owner: &Owner, id: &Id, ask: &Ask, bytes_max: u64) -> Option<Again> {
    let create = Create::read(ask.create.clone()).ok()?;
    let names = Names::read(&create).ok()?;
    let mut items = context::context(rows, owner, &names, bytes_max).ok()?;
    items.extend(stored::objects(&read::items(rows, owner, id, Of::Input).ok()?).ok()?);
    let chat = request(&create, &items).ok()?;
    let principal = Principal {
        name: ask.principal.as_str().into(),
        tenant: TenantId::parse(&ask.tenant).ok()?,
        role: Role::User,
        id: ask.key.as_deref().and_then(KeyId::parse),
    };
    Some(Again {
        principal: Arc::new(principal),
        chat: serde_json::to_vec(&chat).ok()?.into(),
        routing_key: ask.routing_key.as_deref().and_then(|it| HeaderValue::from_str(it).ok()),
    })
}
