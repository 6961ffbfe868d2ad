//! Responses: begun, ended, cancelled, deleted.

use serde::Deserialize;
use serde::Serialize;
use serde_bytes::Bytes;

use super::CHAIN_LEN_MAX;
use super::CONVERSATION_ITEMS_MAX;
use super::ITEMS_MAX;
use super::KEY_LEN_MAX;
use super::command::Begin;
use super::command::Finish;
use super::command::Idempotency;
use super::command::Outcome;
use super::command::Refusal;
use super::command::Room;
use super::draft::Draft;
use super::expiry::What;
use super::jobs::goes_on;
use super::keys::Key;
use super::keys::Side;
use crate::history::Conversation;
use crate::history::Id;
use crate::history::Item;
use crate::history::Job;
use crate::history::Owner;
use crate::history::Response;
use crate::history::Status;
use crate::history::Usage;
use crate::history::faults::Fault;
use crate::history::faults::planted;

/// Bytes of an item's key behind the id of its response: side and place.
pub(super) const ITEM_TAIL: usize = 5;
/// Bytes of an event's key behind the id of its response, and of a conversation's item behind that of the conversation.
pub(super) const PLACE_TAIL: usize = 8;

/// What an idempotent request made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Made {
    id: Id,
    fingerprint: u128,
}

impl Draft<'_> {
    pub(super) fn begin(&mut self, owner: &Owner, room: Room, begin: Begin) -> Result<Outcome, Refusal> {
        let Begin {
            response: id,
            created_ms,
            previous,
            conversation,
            input,
            body,
            lease,
            is_background,
            key,
            expires_ms,
        } = begin;
        if let Some(made) = self.known(owner, key.as_ref())? {
            return Ok(Outcome::Known(made));
        }
        if self.has(&Key::Response(owner, &id)) {
            return Err(Refusal::Exists(id));
        }
        let depth = self.depth(owner, previous.as_ref())?;
        if let Some(conversation) = &conversation {
            let row: Conversation = self
                .get(&Key::Conversation(owner, conversation))
                .ok_or_else(|| Refusal::NotFound(conversation.clone()))?;
            if row.items as usize + input.len() > CONVERSATION_ITEMS_MAX {
                return Err(Refusal::TooMany(CONVERSATION_ITEMS_MAX as u64));
            }
        }
        if let Some(lease) = lease {
            self.take_job(owner, &id, lease)?;
        }
        let bytes =
            self.put_items(owner, &id, Side::Input, &input)? + self.put(&Key::Body(owner, &id), Bytes::new(&body));
        self.keep(owner, room, bytes, |usage| usage.responses += 1)?;
        let status = if is_background { Status::Queued } else { Status::InProgress };
        let row = Response {
            created_ms,
            status,
            previous,
            depth,
            conversation,
            inputs: len(&input),
            outputs: 0,
            events: 0,
            is_background,
            job: lease.map(|lease| Job { attempt: 1, lease }),
            expires_ms,
            bytes,
        };
        self.put(&Key::Response(owner, &id), &row);
        self.expires(owner, What::Response(id.clone()), expires_ms);
        self.made(owner, key, &id);
        Ok(Outcome::Done)
    }

    fn depth(&mut self, owner: &Owner, previous: Option<&Id>) -> Result<u32, Refusal> {
        let Some(previous) = previous else { return Ok(0) };
        let row = self.response(owner, previous)?;
        if !row.status.is_end() {
            return Err(Refusal::Unfinished(previous.clone()));
        }
        if row.depth + 1 >= CHAIN_LEN_MAX { Err(Refusal::TooMany(CHAIN_LEN_MAX.into())) } else { Ok(row.depth + 1) }
    }

    pub(super) fn finish(&mut self, owner: &Owner, finish: Finish) -> Result<Outcome, Refusal> {
        let Finish { response: id, attempt, status, body, output } = finish;
        let mut row = self.response(owner, &id)?;
        goes_on(&row)?;
        self.is_makers(&row, attempt)?;
        let before = self.bytes_len(&Key::Body(owner, &id));
        let added =
            self.put(&Key::Body(owner, &id), Bytes::new(&body)) + self.put_items(owner, &id, Side::Output, &output)?;
        row.outputs = len(&output);
        row.bytes = (row.bytes + added).saturating_sub(before);
        if matches!(status, Status::Completed | Status::Incomplete) {
            self.join(owner, &id, row.conversation.as_ref(), &output);
        }
        self.change_usage(owner, |usage| usage.bytes = (usage.bytes + added).saturating_sub(before));
        self.end(owner, &id, row, status);
        Ok(Outcome::Done)
    }

    /// Its items become items of the conversation, if that is there still.
    fn join(&mut self, owner: &Owner, id: &Id, conversation: Option<&Id>, output: &[Item]) {
        let Some(conversation) = conversation else { return };
        let rows = self.scan(&Key::Item(owner, id, Side::Input, 0), ITEM_TAIL - 1, ITEMS_MAX);
        let input: Vec<Item> = rows.iter().filter_map(|row| self.read(&row.1)).collect();
        self.append(owner, conversation, &[&input, output].concat());
    }

    pub(super) fn cancel(&mut self, owner: &Owner, id: &Id) -> Result<Outcome, Refusal> {
        let row = self.response(owner, id)?;
        if row.status.is_end() {
            return Ok(Outcome::Unchanged);
        }
        self.end(owner, id, row, Status::Cancelled);
        Ok(Outcome::Done)
    }

    fn end(&mut self, owner: &Owner, id: &Id, mut row: Response, status: Status) {
        self.release_job(owner, id, row.job);
        row.status = status;
        self.put(&Key::Response(owner, id), &row);
    }

    pub(super) fn delete_response(&mut self, owner: &Owner, id: &Id) -> Result<Outcome, Refusal> {
        let row = self.response(owner, id)?;
        self.release_job(owner, id, row.job);
        if !planted(Fault::ItemsOutliveTheirResponse) {
            for (key, value) in self.scan(&Key::Item(owner, id, Side::Input, 0), ITEM_TAIL, 2 * ITEMS_MAX) {
                self.delete_raw(key);
                let item: Option<Item> = self.read(&value);
                let belongs = |of: Id| of == *id;
                if let Some(item) = item.filter(|it| self.get(&Key::ItemOf(owner, &it.id)).is_some_and(belongs)) {
                    self.delete(&Key::ItemOf(owner, &item.id));
                }
            }
        }
        for (key, _) in self.scan(&Key::Event(owner, id, 0), PLACE_TAIL, usize::MAX) {
            self.delete_raw(key);
        }
        self.delete(&Key::Body(owner, id));
        self.delete(&Key::Response(owner, id));
        self.never_expires(owner, What::Response(id.clone()), row.expires_ms);
        self.change_usage(owner, |usage| {
            usage.responses = usage.responses.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(row.bytes);
        });
        Ok(Outcome::Done)
    }

    pub(super) fn response(&mut self, owner: &Owner, id: &Id) -> Result<Response, Refusal> {
        self.get(&Key::Response(owner, id)).ok_or_else(|| Refusal::NotFound(id.clone()))
    }

    fn put_items(&mut self, owner: &Owner, id: &Id, side: Side, items: &[Item]) -> Result<u64, Refusal> {
        if items.len() > ITEMS_MAX {
            return Err(Refusal::TooMany(ITEMS_MAX as u64));
        }
        let mut bytes = 0;
        for (at, item) in (0..).zip(items) {
            bytes += self.put(&Key::Item(owner, id, side, at), item);
            self.put(&Key::ItemOf(owner, &item.id), id);
        }
        Ok(bytes)
    }
}

// === what all records have in common ===

impl Draft<'_> {
    /// What this key made before.
    pub(super) fn known(&mut self, owner: &Owner, key: Option<&Idempotency>) -> Result<Option<Id>, Refusal> {
        let Some(Idempotency { key, fingerprint, .. }) = key else { return Ok(None) };
        if key.len() > KEY_LEN_MAX {
            return Err(Refusal::TooMany(KEY_LEN_MAX as u64));
        }
        match self.get::<Made>(&Key::Idempotent(owner, key)) {
            Some(made) if made.fingerprint == *fingerprint => Ok(Some(made.id)),
            Some(_) => Err(Refusal::KeyReused),
            None => Ok(None),
        }
    }

    pub(super) fn made(&mut self, owner: &Owner, key: Option<Idempotency>, id: &Id) {
        let Some(Idempotency { key, fingerprint, expires_ms }) = key else { return };
        self.put(&Key::Idempotent(owner, &key), &Made { id: id.clone(), fingerprint });
        self.expires(owner, What::Key(key), Some(expires_ms));
    }

    /// Counts what an owner keeps; refuses what is too much.
    pub(super) fn keep(
        &mut self,
        owner: &Owner,
        room: Room,
        bytes: u64,
        count: impl FnOnce(&mut Usage),
    ) -> Result<(), Refusal> {
        let mut usage: Usage = self.get(&Key::Usage(owner)).unwrap_or_default();
        usage.bytes += bytes;
        if usage.bytes > room.bytes_max {
            return Err(Refusal::Full(room.bytes_max));
        }
        count(&mut usage);
        self.put(&Key::Usage(owner), &usage);
        Ok(())
    }

    /// Counts what an owner keeps, whatever it is.
    pub(super) fn change_usage(&mut self, owner: &Owner, change: impl FnOnce(&mut Usage)) {
        let mut usage: Usage = self.get(&Key::Usage(owner)).unwrap_or_default();
        change(&mut usage);
        if usage == Usage::default() {
            self.delete(&Key::Usage(owner));
        } else {
            self.put(&Key::Usage(owner), &usage);
        }
    }
}

pub(super) fn len(items: &[Item]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}
