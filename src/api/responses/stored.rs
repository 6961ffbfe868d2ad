//! A response as history has it: what is shown, what another node needs to make it, and what was made.
//!
//! The body in history is JSON, opaque to the machine: what is shown, and until the response has ended, under a name that no client sees, how to ask for it again. Everything here runs over the rows of one moment.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::dialects::responses::Body;
use crate::dialects::responses::Object;
use crate::dialects::responses::Translator;
use crate::dialects::responses::shown;
use crate::history;
use crate::history::Id;
use crate::history::Item;
use crate::history::Owner;
use crate::history::Rows;
use crate::history::Status;
use crate::history::Unreadable;
use crate::history::machine::read;
use crate::history::machine::read::Missing;
use crate::history::machine::read::Of;

/// Where the body has what is never shown.
const HIDDEN: &str = "_smg";

/// How a response in the background is asked for, at whichever node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    /// The request, without its input: that is rows of its own.
    pub create: Value,
    /// Whose limits it counts towards.
    pub tenant: String,
    /// The key's name.
    pub principal: String,
    /// The key's id, where it has one.
    pub key: Option<String>,
    /// `x-smg-routing-key`, where it was sent.
    pub routing_key: Option<String>,
}

/// A body as history keeps it.
pub(super) fn encode(body: &Body, ask: Option<&Ask>) -> Vec<u8> {
    let mut whole = body.0.clone();
    if let Some(ask) = ask.and_then(|it| serde_json::to_value(it).ok()) {
        whole.insert(HIDDEN.to_owned(), ask);
    }
    Value::Object(whole).to_string().into_bytes()
}

fn decode(bytes: &[u8]) -> Result<(Body, Option<Ask>), Unreadable> {
    let mut whole: Object = serde_json::from_slice(bytes).map_err(|_damage| Unreadable)?;
    let ask = whole.remove(HIDDEN).map(serde_json::from_value).transpose().map_err(|_damage| Unreadable)?;
    Ok((Body(whole), ask))
}

/// See the file's header.
pub(super) struct Stored {
    pub row: history::Response,
    pub body: Body,
    pub ask: Option<Ask>,
    pub output: Vec<Object>,
}

impl Stored {
    /// Reads one.
    pub(super) fn read(rows: &dyn Rows, owner: &Owner, id: &Id) -> Result<Self, Missing> {
        let (row, body) = read::response(rows, owner, id)?;
        let (body, ask) = decode(&body)?;
        // Whoever cancels has no part in what was made: that is in the events.
        let output = if row.status == Status::Cancelled && row.outputs == 0 && row.events > 0 {
            prefix(rows, owner, id)?.1
        } else {
            objects(&read::items(rows, owner, id, Of::Output)?)?
        };
        Ok(Self { row, body, ask, output })
    }

    /// As clients see it.
    pub(super) fn shown(&self) -> Value {
        shown(&self.body, self.row.status.as_str(), &self.output)
    }
}

/// What was committed of a response in the background: the number of events, and the items that they make when nothing follows.
pub(super) fn prefix(rows: &dyn Rows, owner: &Owner, id: &Id) -> Result<(u64, Vec<Object>), Missing> {
    let mut translator = Translator::default();
    let events = read::events(rows, owner, id, 0, usize::MAX)?;
    for event in &events {
        translator.seen(&serde_json::from_slice(event).map_err(|_damage| Unreadable)?);
    }
    translator.fail("cut_short", "it ended here");
    let _closing = translator.end(); // followers make these events by themselves
    Ok((events.len() as u64, translator.items().to_vec()))
}

/// Items as JSON objects.
pub(in crate::api) fn objects(items: &[Item]) -> Result<Vec<Object>, Unreadable> {
    items.iter().map(|it| serde_json::from_slice(&it.json).map_err(|_damage| Unreadable)).collect()
}

/// Objects as items. Each has an id.
pub(in crate::api) fn items(objects: &[Object]) -> Vec<Item> {
    let id = |it: &Object| Id::parse(it.get("id").and_then(Value::as_str).unwrap_or_default()).ok();
    let item = |it: &Object| Some(Item { id: id(it)?, json: serde_json::to_vec(it).ok()? });
    objects.iter().filter_map(item).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_hidden_comes_back_and_is_not_shown() {
        let body = Body(json!({"id": "resp_1"}).as_object().cloned().unwrap());
        let ask = Ask {
            create: json!({"model": "m"}),
            tenant: "t".to_owned(),
            principal: "p".to_owned(),
            key: None,
            routing_key: Some("r".to_owned()),
        };
        let (again, asked) = decode(&encode(&body, Some(&ask))).unwrap();
        assert_eq!((again, asked.unwrap().create), (body.clone(), json!({"model": "m"})));
        assert_eq!(encode(&body, None), br#"{"id":"resp_1"}"#);
        assert!(decode(b"[").is_err());
    }
}
