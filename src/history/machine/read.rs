//! What is read, over the rows of one moment. Nothing here names two owners.

use serde::de::DeserializeOwned;
use serde_bytes::ByteBuf;

use super::CHAIN_LEN_MAX;
use super::ITEMS_MAX;
use super::jobs::Held;
use super::keys;
use super::keys::Key;
use super::keys::Side;
use super::keys::span;
use super::responses::ITEM_TAIL;
use super::responses::PLACE_TAIL;
use super::step::Head;
use crate::history::Conversation;
use crate::history::Id;
use crate::history::Item;
use crate::history::Lease;
use crate::history::Owner;
use crate::history::Response;
use crate::history::Usage;
use crate::history::faults::Fault;
use crate::history::faults::planted;
use crate::raft::Rows;
use crate::raft::Unreadable;
use crate::storage::codec;

/// Why something was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// There is none, or it is another owner's, or it was deleted.
    #[error("there is no `{0}`")]
    NotFound(Id),
    /// A response that it continues was deleted, and what it read is gone.
    #[error("`{of}` continues `{gone}`, which was deleted")]
    Broken {
        /// The one that was asked for.
        of: Id,
        /// The one that is missing.
        gone: Id,
    },
    /// More than the caller takes.
    #[error("it has more bytes than may be read at a time: {0}")]
    TooLarge(u64),
    /// See [`Unreadable`]; or its content is sealed, see [`Keys`](crate::history::Keys).
    #[error("{0}, or sealed with a key that this node was not given")]
    Unreadable(#[from] Unreadable),
}

/// Which items of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// What it was given itself.
    Input,
    /// What it made.
    Output,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// After this item; None: from the beginning.
    pub after: Option<Id>,
    /// Newest first.
    pub is_back: bool,
    /// At most so many.
    pub most: usize,
}

fn get<T: DeserializeOwned>(rows: &dyn Rows, key: &Key<'_>) -> Result<Option<T>, Unreadable> {
    rows.get(&key.encode()).map(|it| decode(&it)).transpose()
}

fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Unreadable> {
    codec::decode(value).map_err(|_damage| Unreadable)
}

fn list<T: DeserializeOwned>(
    rows: &dyn Rows,
    (from, to): (Vec<u8>, Vec<u8>),
    most: usize,
    is_back: bool,
) -> Result<Vec<T>, Unreadable> {
    rows.scan(&from, &to, most, is_back).iter().map(|row| decode(&row.1)).collect()
}

/// A response and its body.
pub fn response(rows: &dyn Rows, owner: &Owner, id: &Id) -> Result<(Response, Vec<u8>), Missing> {
    let row = get(rows, &Key::Response(owner, id))?.ok_or_else(|| Missing::NotFound(id.clone()))?;
    let body: ByteBuf = get(rows, &Key::Body(owner, id))?.unwrap_or_default();
    Ok((row, body.into_vec()))
}

/// Its items, all of one side.
pub fn items(rows: &dyn Rows, owner: &Owner, id: &Id, of: Of) -> Result<Vec<Item>, Missing> {
    let side = match of {
        Of::Input => Side::Input,
        Of::Output => Side::Output,
    };
    Ok(list(rows, span(&Key::Item(owner, id, side, 0), ITEM_TAIL - 1), ITEMS_MAX, false)?)
}

/// What a model must read to continue a response: input and output of all that it continues, and its own, oldest first.
pub fn chain(rows: &dyn Rows, owner: &Owner, id: &Id, bytes_max: u64) -> Result<Vec<Item>, Missing> {
    let mut turns = Vec::new();
    let (mut next, mut bytes) = (Some(id.clone()), 0_u64);
    while let Some(at) = next {
        let row: Option<Response> = get(rows, &Key::Response(owner, &at))?;
        let row = row.ok_or_else(|| {
            if at == *id { Missing::NotFound(at.clone()) } else { Missing::Broken { of: id.clone(), gone: at.clone() } }
        })?;
        bytes = bytes.saturating_add(row.bytes);
        if bytes > bytes_max || turns.len() > CHAIN_LEN_MAX as usize {
            return Err(Missing::TooLarge(bytes_max));
        }
        turns.push(list::<Item>(rows, span(&Key::Item(owner, &at, Side::Input, 0), ITEM_TAIL), 2 * ITEMS_MAX, false)?);
        next = row.previous;
    }
    Ok(turns.into_iter().rev().flatten().collect())
}

/// The item of this name that a response was given or made.
pub fn item(rows: &dyn Rows, owner: &Owner, item: &Id) -> Result<Item, Missing> {
    let missing = || Missing::NotFound(item.clone());
    let of: Id = get(rows, &Key::ItemOf(owner, item))?.ok_or_else(missing)?;
    let all: Vec<Item> = list(rows, span(&Key::Item(owner, &of, Side::Input, 0), ITEM_TAIL), 2 * ITEMS_MAX, false)?;
    all.into_iter().find(|it| it.id == *item).ok_or_else(missing)
}

/// Events of a response from a number on.
pub fn events(rows: &dyn Rows, owner: &Owner, id: &Id, from: u64, most: usize) -> Result<Vec<Vec<u8>>, Missing> {
    let (_, to) = span(&Key::Event(owner, id, 0), PLACE_TAIL);
    let events: Vec<ByteBuf> = list(rows, (Key::Event(owner, id, from).encode(), to), most, false)?;
    Ok(events.into_iter().map(ByteBuf::into_vec).collect())
}

/// A conversation.
pub fn conversation(rows: &dyn Rows, owner: &Owner, id: &Id) -> Result<Conversation, Missing> {
    get(rows, &Key::Conversation(owner, id))?.ok_or_else(|| Missing::NotFound(id.clone()))
}

/// A page of its items.
pub fn conversation_items(rows: &dyn Rows, owner: &Owner, id: &Id, page: &Page) -> Result<Vec<Item>, Missing> {
    conversation(rows, owner, id)?;
    let (mut from, mut to) = span(&Key::Entry(owner, id, 0), PLACE_TAIL);
    if let Some(after) = &page.after {
        let place: u64 = get(rows, &Key::Place(owner, id, after))?.ok_or_else(|| Missing::NotFound(after.clone()))?;
        if page.is_back {
            to = Key::Entry(owner, id, place).encode();
        } else {
            from = Key::Entry(owner, id, place + 1).encode();
        }
    }
    Ok(list(rows, (from, to), page.most, page.is_back)?)
}

/// One of its items.
pub fn conversation_item(rows: &dyn Rows, owner: &Owner, id: &Id, item: &Id) -> Result<Item, Missing> {
    let missing = || Missing::NotFound(item.clone());
    let place: u64 = get(rows, &Key::Place(owner, id, item))?.ok_or_else(missing)?;
    get(rows, &Key::Entry(owner, id, place))?.ok_or_else(missing)
}

/// What an owner keeps.
pub fn usage(rows: &dyn Rows, owner: &Owner) -> Result<Usage, Unreadable> {
    Ok(get(rows, &Key::Usage(owner))?.unwrap_or_default())
}

/// The leases that are held, and their last beats.
pub fn leases(rows: &dyn Rows) -> Result<Vec<(Lease, u64)>, Unreadable> {
    let all: Vec<Held> = list(rows, keys::leases(), usize::MAX, false)?;
    Ok(all.into_iter().filter(|it| !it.has_lapsed).map(|it| (it.lease, it.beat)).collect())
}

/// Responses that nobody makes any more, at most so many.
pub fn orphans(rows: &dyn Rows, most: usize) -> Result<Vec<(Owner, Id)>, Unreadable> {
    let mut orphans = Vec::new();
    for held in list::<Held>(rows, keys::leases(), usize::MAX, false)? {
        let is_held = !held.has_lapsed && !planted(Fault::JobsAreStolen);
        let span = keys::jobs(held.lease.storage, Some(held.lease).filter(|_| is_held));
        orphans.extend(list::<(Owner, Id)>(rows, span, most - orphans.len(), false)?);
    }
    Ok(orphans)
}

/// How many commands have been carried out. For [`super::Entry::seen`].
pub fn commands(rows: &dyn Rows) -> Result<u64, Unreadable> {
    Ok(get::<Head>(rows, &Key::Head)?.unwrap_or_default().commands)
}

/// How far time has come, for expiry, and when the next thing goes. 0: it never moved. Milliseconds since 1970.
pub fn expiry(rows: &dyn Rows) -> Result<(u64, Option<u64>), Unreadable> {
    let clock = get::<Head>(rows, &Key::Head)?.unwrap_or_default().clock_ms;
    let (from, to) = keys::expiries();
    let first = rows.scan(&from, &to, 1, false).into_iter().next();
    let due = first.and_then(|it| it.0.get(from.len()..from.len() + 8)?.try_into().ok()).map(u64::from_be_bytes);
    Ok((clock, due))
}
