//! `POST /v1/responses`: read, put together, and made in the one way or the other.

use std::sync::Arc;

use axum::body::Body as HttpBody;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use serde_json::Value;

use crate::dialects::openai::responses::KEPT;
use crate::dialects::responses::Body;
use crate::dialects::responses::Create;
use crate::dialects::responses::Refused as Unfit;
use crate::dialects::responses::request;
use crate::dialects::responses::shown;
use crate::history::Handle;
use crate::history::Id;
use crate::history::Owner;
use crate::history::Status;
use crate::history::machine::Act;
use crate::history::machine::Begin;
use crate::history::machine::Idempotency;
use crate::history::machine::Outcome;
use crate::history::now_ms;

use super::super::Response;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::super::relay;
use super::super::relay::Taken;
use super::CHAT;
use super::background::Job;
use super::background::Place;
use super::context;
use super::context::Material;
use super::context::Names;
use super::follow;
use super::keys;
use super::making;
use super::making::Making;
use super::record::Record;
use super::stored;
use super::stored::Ask;

/// A request that was understood.
struct Wanted {
    history: Handle,
    owner: Owner,
    create: Create,
    names: Names,
    key: Option<Idempotency>,
    material: Material,
    /// What a worker is asked.
    chat: Bytes,
    /// How it is asked for again; only in the background.
    ask: Option<Ask>,
}

/// Serves one.
pub(in crate::api) async fn create(gateway: Arc<Gateway>, history: Handle, request: Request<HttpBody>) -> Response {
    let mut taken = match Taken::take(Arc::clone(&gateway), &KEPT, request).await {
        Ok(taken) => taken,
        Err(refused) => return refused,
    };
    let wanted = match wanted(&gateway, history, &taken).await {
        Ok(wanted) => wanted,
        Err(error) => return taken.refuse(&error),
    };
    if wanted.create.is_background {
        let routing_key = taken.head.headers.get("x-smg-routing-key").cloned();
        let principal = Arc::clone(&taken.principal);
        return match background(&gateway, wanted, principal, routing_key).await {
            Ok(response) => taken.answer(response),
            Err(error) => taken.refuse(&error),
        };
    }
    // ORDER: what came is given back before what is sent is held: each may be as long as all that a request may hold.
    taken.held.release();
    match gateway.intake.hold(wanted.chat.clone()).await {
        Ok(held) => taken.held = held,
        Err(error) => return taken.refuse(&error.into()),
    }
    taken.head.uri = http::Uri::from_static(CHAT);
    taken.head.headers.remove(keys::HEADER);
    making::serve(wanted.making(gateway), taken).await
}

async fn wanted(gateway: &Gateway, history: Handle, taken: &Taken) -> Result<Wanted, ApiError> {
    let (head, bytes) = (&taken.head, &taken.held.bytes);
    let key = keys::read(&head.headers, &head.method, head.uri.path(), bytes)?;
    crate::dialects::json::parse(bytes)?; // says better what is wrong, and bounds the depth
    let body: Value = serde_json::from_slice(bytes).map_err(|_no_json| Unfit::invalid("body", "JSON"))?;
    let again = body.clone();
    let create = Create::read(body)?;
    check(&create, key.as_ref())?;
    relay::model(gateway, Some(&create.model)).await?;
    let owner = super::owner(&history, &taken.principal)?;
    let names = Names::read(&create)?;
    let bytes_max = gateway.intake.body_len_max() as u64;
    let material = context::gather(&history, &owner, &create, &names, bytes_max).await?;
    let chat = request(&create, &material.all())?;
    let chat = Value::Object(chat).to_string().into();
    let ask = create.is_background.then(|| ask(again, taken));
    Ok(Wanted { history, owner, create, names, key, material, chat, ask })
}

/// What is understood and not done here.
fn check(create: &Create, key: Option<&Idempotency>) -> Result<(), ApiError> {
    if create.may_truncate {
        let instead = "leave it out, and old items where the model cannot read all of them";
        return Err(Unfit::unsupported("truncation", instead).into());
    }
    if key.is_some() && !create.is_stored {
        let instead = "with `store: false` nothing is kept by which a second request could be known";
        return Err(Unfit::unsupported("Idempotency-Key", instead).into());
    }
    Ok(())
}

fn ask(mut create: Value, taken: &Taken) -> Ask {
    if let Some(create) = create.as_object_mut() {
        create.remove("input");
    }
    let routing_key = taken.head.headers.get("x-smg-routing-key");
    Ask {
        create,
        tenant: taken.principal.tenant.to_string(),
        principal: taken.principal.name.to_string(),
        key: taken.principal.id.map(|it| it.to_string()),
        routing_key: routing_key.and_then(|it| it.to_str().ok()).map(ToOwned::to_owned),
    }
}

impl Wanted {
    fn body(&self, id: &Id, created_ms: u64) -> Body {
        Body::new(&self.create, id.as_str(), created_ms / 1000)
    }

    fn begin(&self, id: &Id, body: &Body, created_ms: u64) -> Begin {
        Begin {
            response: id.clone(),
            created_ms,
            previous: self.names.previous.clone(),
            conversation: self.names.conversation.clone(),
            input: stored::items(&self.material.own),
            body: stored::encode(body, self.ask.as_ref()),
            lease: None,
            is_background: self.create.is_background,
            key: self.key.clone(),
            expires_ms: self.history.expires_ms(),
        }
    }

    fn making(self, gateway: Arc<Gateway>) -> Making {
        let (id, created_ms) = (self.history.draw("resp"), now_ms());
        let body = self.body(&id, created_ms);
        let begin = self.create.is_stored.then(|| self.begin(&id, &body, created_ms));
        let Self { history, owner, names, create, .. } = self;
        Making { gateway, history, owner, names, body, begin, id, is_stream: create.is_stream }
    }
}

/// One that its client does not wait for: it has begun once that is kept.
async fn background(
    gateway: &Arc<Gateway>,
    wanted: Wanted,
    principal: Arc<crate::tenancy::keys::Principal>,
    routing_key: Option<HeaderValue>,
) -> Result<Response, ApiError> {
    let place = Place::take(gateway)?;
    let (id, created_ms) = (wanted.history.draw("resp"), now_ms());
    let body = wanted.body(&id, created_ms);
    let lease = wanted.history.lease().await?;
    let begin = Begin { lease: Some(lease), ..wanted.begin(&id, &body, created_ms) };
    let is_stream = wanted.create.is_stream;
    let begun = wanted.history.act(&wanted.owner, Act::Begin(Box::new(begin))).await;
    let Wanted { history, owner, names, chat, .. } = wanted;
    let record = Record { gateway: Arc::clone(gateway), history, owner, id, lease, attempt: 1 };
    match begun {
        Ok(Outcome::Known(id)) => follow::known(gateway, &record.history, &record.owner, id, is_stream).await,
        Ok(_) => {
            gateway.metrics.history().begun(true);
            let (history, owner, id) = (record.history.clone(), record.owner.clone(), record.id.clone());
            let queued = shown(&body, Status::Queued.as_str(), &[]);
            Job { record, body, chat, principal, routing_key, place }.start();
            Ok(match is_stream {
                true => follow::follow(gateway, &history, &owner, id, None),
                false => super::super::json(&queued),
            })
        }
        Err(error) => {
            if matches!(error, crate::history::HistoryError::Unavailable(_)) {
                making::doubt(record, body);
            }
            Err(names.blame(error))
        }
    }
}
