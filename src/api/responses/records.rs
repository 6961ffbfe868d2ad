//! `/v1/responses/{id}`: shown, followed, cancelled, deleted, and what it was given.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::json;

use crate::history::HistoryError;
use crate::history::Id;
use crate::history::Status;
use crate::history::machine::Act;
use crate::history::machine::Refusal;
use crate::history::machine::read;
use crate::history::machine::read::Of;
use crate::workers::worker::BoxFuture;

use super::super::Response;
use super::super::error::ApiError;
use super::super::gateway::Gateway;
use super::asked;
use super::follow;
use super::query;
use super::stored;

type Answered = BoxFuture<'static, Result<Response, ApiError>>;

/// Where the id is in a path.
const PLACE: usize = 2;
const WHAT: &str = "response";

/// One response, as it is, or its events.
pub(in crate::api) fn show(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        let showing = query::showing(request.uri())?;
        let found = follow::stored(&history, &owner, &id).await?;
        if !showing.is_stream {
            return Ok(super::super::json(&found.shown()));
        }
        if !found.row.is_background {
            return Err(ApiError::NotBackground(id.to_string(), "followed"));
        }
        Ok(follow::follow(&gateway, &history, &owner, id, showing.after))
    })
}

/// Ends one in the background.
pub(in crate::api) fn cancel(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        let found = follow::stored(&history, &owner, &id).await?;
        if !found.row.is_background {
            return Err(ApiError::NotBackground(id.to_string(), "cancelled"));
        }
        if !found.row.status.is_end() {
            history.act(&owner, Act::Cancel { response: id.clone() }).await.map_err(|error| missing(error, &id))?;
        }
        let found = follow::stored(&history, &owner, &id).await?;
        // It may have ended between the look and the act.
        if found.row.status != Status::Cancelled {
            return Err(ApiError::HasEnded(id.to_string(), found.row.status.as_str()));
        }
        Ok(super::super::json(&found.shown()))
    })
}

/// It goes.
pub(in crate::api) fn delete(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        let deleted = history.act(&owner, Act::DeleteResponse { response: id.clone() }).await;
        deleted.map_err(|error| missing(error, &id))?;
        Ok(super::super::json(&json!({"id": id.as_str(), "object": "response", "deleted": true})))
    })
}

/// What it was given itself.
pub(in crate::api) fn input_items(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        let page = query::page(request.uri())?;
        let wanted = id.clone();
        let items = history.read(move |rows| {
            read::response(rows, &owner, &wanted)?;
            let items = read::items(rows, &owner, &wanted, Of::Input)?;
            Ok(stored::objects(&items)?)
        });
        let items = items.await?.map_err(|error| follow::missing(error, &id))?;
        Ok(super::super::json(&query::paged(items, &page)?))
    })
}

fn missing(error: HistoryError, id: &Id) -> ApiError {
    match error {
        HistoryError::Refused(Refusal::NotFound(_)) => {
            ApiError::NoRecord { what: WHAT, id: id.to_string(), param: None }
        }
        error => error.into(),
    }
}
