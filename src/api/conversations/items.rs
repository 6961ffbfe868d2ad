//! `/v1/conversations/{id}/items`: listed in pages, added, shown, deleted.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use serde_json::Value;

use crate::dialects::responses::Object;
use crate::dialects::responses::Refused as Unfit;
use crate::history::Id;
use crate::history::Item;
use crate::history::Rows;
use crate::history::machine::Act;
use crate::history::machine::Outcome;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::machine::read::Page;

use super::super::gateway::Gateway;
use super::super::responses::asked;
use super::super::responses::items as as_items;
use super::super::responses::objects;
use super::super::responses::query;
use super::Answered;
use super::PLACE;
use super::Sent;
use super::WHAT;
use super::given;
use super::missing;
use super::no_more;
use super::refused;
use super::sent;
use super::shown;

/// Where an item's id is in a path.
const ITEM_PLACE: usize = 4;

/// A page of them.
pub(in crate::api) fn list(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        let page = query::page(request.uri())?;
        let (most, after) = (page.most, page.after.clone());
        let (conversation, asked) = (id.clone(), Page { most: page.most + 1, ..page });
        let read = move |rows: &dyn Rows| -> Result<Vec<Object>, Missing> {
            Ok(objects(&read::conversation_items(rows, &owner, &conversation, &asked)?)?)
        };
        let items = history.read(read).await?.map_err(|error| match &error {
            Missing::NotFound(which) if Some(which) == after.as_ref() => {
                Unfit::invalid("after", "the id of an item of this list").into()
            }
            _ => missing(error, &id),
        })?;
        Ok(super::super::json(&query::list(items, most)))
    })
}

/// Adds some. Answers with what was added.
pub(in crate::api) fn add(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let id = query::id(&request, PLACE, WHAT)?;
        query::none(request.uri())?;
        let Sent { mut fields, key } = sent(&gateway, request, true).await?;
        let items = fields.remove("items").ok_or_else(|| Unfit::invalid("items", "a list of items"))?;
        no_more(&fields)?;
        let items = given(Some(items), &history, key.as_ref())?;
        let act = Act::AddItems { conversation: id.clone(), items: as_items(&items), key };
        let added = history.act(&owner, act).await.map_err(|error| refused(error, &id))?;
        let items = match added {
            // The same items have the same names each time; some may be gone since.
            Outcome::Known(of) => {
                let names: Vec<Id> = as_items(&items).into_iter().map(|it| it.id).collect();
                let found = move |rows: &dyn Rows| -> Result<Vec<Object>, Missing> {
                    read::conversation(rows, &owner, &of)?;
                    let one = |it: &Id| read::conversation_item(rows, &owner, &of, it).ok();
                    Ok(objects(&names.iter().filter_map(one).collect::<Vec<Item>>())?)
                };
                history.read(found).await?.map_err(|error| missing(error, &id))?
            }
            _ => items,
        };
        let most = items.len();
        Ok(super::super::json(&query::list(items, most)))
    })
}

/// One of them.
pub(in crate::api) fn show_item(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let (id, item) = (query::id(&request, PLACE, WHAT)?, query::id(&request, ITEM_PLACE, "item")?);
        query::none(request.uri())?;
        let of = id.clone();
        let read = move |rows: &dyn Rows| -> Result<Vec<Object>, Missing> {
            read::conversation(rows, &owner, &of)?;
            Ok(objects(&[read::conversation_item(rows, &owner, &of, &item)?])?)
        };
        let mut found = history.read(read).await?.map_err(|error| missing(error, &id))?;
        Ok(super::super::json(&Value::Object(found.pop().unwrap_or_default())))
    })
}

/// It goes. Answers with the conversation.
pub(in crate::api) fn delete_item(gateway: Arc<Gateway>, request: Request<Body>) -> Answered {
    Box::pin(async move {
        let (history, owner) = asked(&gateway, &request)?;
        let (id, item) = (query::id(&request, PLACE, WHAT)?, query::id(&request, ITEM_PLACE, "item")?);
        query::none(request.uri())?;
        let act = Act::DeleteItem { conversation: id.clone(), item };
        history.act(&owner, act).await.map_err(|error| refused(error, &id))?;
        shown(&history, owner, id).await
    })
}
