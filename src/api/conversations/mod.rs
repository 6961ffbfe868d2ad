//! `/v1/conversations`: made, shown, noted on, deleted; `items` is what is in them.

mod items;

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::Value;
use serde_json::json;

use crate::base::entropy::Entropy;
use crate::dialects::responses::Given;
use crate::dialects::responses::Object;
use crate::dialects::responses::Refused as Unfit;
use crate::dialects::responses::is_metadata;
use crate::dialects::responses::items as read_items;
use crate::history::Conversation;
use crate::history::Handle;
use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Owner;
use crate::history::machine::Act;
use crate::history::machine::Idempotency;
use crate::history::machine::Outcome;
use crate::history::machine::Refusal;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::now_ms;
use crate::storage::GroupId;
use crate::workers::worker::BoxFuture;

use super::Response;
use super::error::ApiError;
use super::gateway::Gateway;
use super::relay;
use super::responses::asked;
use super::responses::items as as_items;
use super::responses::keys;
use super::responses::query;

pub(super) use items::add;
pub(super) use items::delete_item;
pub(super) use items::list;
pub(super) use items::show_item;

type Answered = BoxFuture<'static, Result<Response, ApiError>>;

/// Where the ids are in a path.
const PLACE: usize = 2;
const WHAT: &str = "conversation";
const METADATA: &str = "an object of at most 16 texts: names up to 64 characters, values up to 512";

/// Makes one.
pub(super) fn create(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        query::none(request.uri())?;
        let Sent { mut fields, key } = sent(&gateway, request, true).await?;
        let metadata = metadata(fields.remove("metadata"))?;
        let items = given(fields.remove("items"), &history, key.as_ref())?;
        no_more(&fields)?;
        let conversation = history.draw("conv");
        let act = Act::CreateConversation {
            conversation: conversation.clone(),
            created_ms: now_ms(),
            metadata: metadata.to_string().into_bytes(),
            items: as_items(&items),
            key,
            expires_ms: history.expires_ms(),
        };
        let made = history.act(&owner, act).await?;
        let id = if let Outcome::Known(id) = made { id } else { conversation };
        shown(&history, owner, id).await
    })
}

/// One of them.
pub(super) fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        shown(&history, owner, id).await
    })
}

/// Its metadata are others.
pub(super) fn update(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        let mut fields = sent(&gateway, request, false).await?.fields;
        let metadata = metadata(fields.remove("metadata"))?.to_string().into_bytes();
        no_more(&fields)?;
        let act = Act::UpdateConversation { conversation: id.clone(), metadata };
        history.act(&owner, act).await.map_err(|error| refused(error, &id))?;
        shown(&history, owner, id).await
    })
}

/// It goes, with its items.
pub(super) fn delete(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        let act = Act::DeleteConversation { conversation: id.clone() };
        history.act(&owner, act).await.map_err(|error| refused(error, &id))?;
        Ok(super::json(&json!({"id": id.as_str(), "object": "conversation.deleted", "deleted": true})))
    })
}

async fn shown(history: &Handle, owner: Owner, id: Id) -> Result<Response, ApiError> {
    let wanted = id.clone();
    let found = history.read(move |rows| read::conversation(rows, &owner, &wanted)).await?;
    let Conversation { created_ms, metadata, .. } = found.map_err(|error| missing(error, &id))?;
    let metadata: Value = serde_json::from_slice(&metadata).unwrap_or_else(|_damage| json!({})); // written here, checked before
    Ok(super::json(&json!({"id": id.as_str(), "object": WHAT, "created_at": created_ms / 1000, "metadata": metadata})))
}

/// A request's body, and its key.
struct Sent {
    fields: Object,
    key: Option<Idempotency>,
}

async fn sent(gateway: &Gateway, request: Request<Body>, has_key: bool) -> Result<Sent, ApiError> {
    let (head, body) = request.into_parts();
    let held = relay::read(gateway, &head, body).await?;
    let key = match has_key {
        true => keys::read(&head.headers, &head.method, head.uri.path(), &held.bytes)?,
        false => None, // it does the same however often it is done
    };
    if held.bytes.is_empty() {
        return Ok(Sent { fields: Object::new(), key });
    }
    crate::dialects::json::parse(&held.bytes)?; // says better what is wrong, and bounds the depth
    let body = serde_json::from_slice(&held.bytes).map_err(|_no_json| Unfit::invalid("body", "JSON"))?;
    let Value::Object(mut fields) = body else { return Err(Unfit::invalid("body", "an object").into()) };
    fields.retain(|_, value| !value.is_null());
    Ok(Sent { fields, key })
}

fn metadata(given: Option<Value>) -> Result<Value, ApiError> {
    match given {
        None => Ok(json!({})),
        Some(metadata) if is_metadata(&metadata) => Ok(metadata),
        Some(_) => Err(Unfit::invalid("metadata", METADATA).into()),
    }
}

/// Items that a client gives, with names. Those of a request with a key are the same each time it is sent.
fn given(items: Option<Value>, history: &Handle, key: Option<&Idempotency>) -> Result<Vec<Object>, ApiError> {
    if items.as_ref().is_some_and(|it| !it.is_array()) {
        return Err(Unfit::invalid("items", "a list of items").into());
    }
    let drawn = key.map(|it| {
        let seed = xxhash_rust::xxh3::xxh3_64_with_seed(it.key.as_bytes(), (it.fingerprint >> 64) as u64);
        Entropy::seeded(seed ^ it.fingerprint as u64)
    });
    let mut all = Vec::new();
    for (at, item) in read_items(items, "items")?.into_iter().enumerate() {
        let Given::Item(item) = item else {
            let instead = "send the item itself: a conversation has its own";
            return Err(Unfit::unsupported(format!("items[{at}].type"), instead).into());
        };
        let field = format!("items[{at}].id");
        all.push(super::responses::name(item, &field, &mut |prefix| match &drawn {
            Some(entropy) => Id::draw(prefix, GroupId::HISTORY, entropy),
            None => history.draw(prefix),
        })?);
    }
    Ok(all)
}

fn no_more(fields: &Object) -> Result<(), ApiError> {
    match fields.keys().next() {
        Some(field) => Err(Unfit::unsupported(field.chars().take(64).collect::<String>(), "leave it out").into()),
        None => Ok(()),
    }
}

fn missing(error: Missing, id: &Id) -> ApiError {
    match error {
        Missing::NotFound(which) => none_such(&which, id),
        error => HistoryError::from(error).into(),
    }
}

fn refused(error: HistoryError, id: &Id) -> ApiError {
    match error {
        HistoryError::Refused(Refusal::NotFound(which)) => none_such(&which, id),
        error => error.into(),
    }
}

/// Neither says whether it ever was.
fn none_such(which: &Id, conversation: &Id) -> ApiError {
    let what = if which == conversation { WHAT } else { "item" };
    ApiError::NoRecord { what, id: which.to_string(), param: None }
}
