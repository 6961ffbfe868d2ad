//! Conversations and their items.

use super::CONVERSATION_ITEMS_MAX;
use super::ITEMS_MAX;
use super::command::Idempotency;
use super::command::Outcome;
use super::command::Refusal;
use super::command::Room;
use super::draft::Draft;
use super::expiry::What;
use super::keys::Key;
use super::responses::PLACE_TAIL;
use crate::history::Conversation;
use crate::history::Id;
use crate::history::Item;
use crate::history::Owner;

impl Draft<'_> {
    /// `made`: when, its metadata, when it goes by itself.
    pub(super) fn create_conversation(
        &mut self,
        owner: &Owner,
        room: Room,
        id: &Id,
        made: (u64, Vec<u8>, Option<u64>),
        items: &[Item],
        key: Option<&Idempotency>,
    ) -> Result<Outcome, Refusal> {
        if let Some(made) = self.known(owner, key)? {
            return Ok(Outcome::Known(made));
        }
        if self.has(&Key::Conversation(owner, id)) {
            return Err(Refusal::Exists(id.clone()));
        }
        let (created_ms, metadata, expires_ms) = made;
        let bytes = metadata.len() as u64;
        let mut row = Conversation { created_ms, metadata, next: 0, items: 0, expires_ms, bytes };
        self.add(owner, id, &mut row, items)?;
        self.keep(owner, room, row.bytes, |usage| usage.conversations += 1)?;
        self.put(&Key::Conversation(owner, id), &row);
        self.expires(owner, What::Conversation(id.clone()), expires_ms);
        self.made(owner, key.cloned(), id);
        Ok(Outcome::Done)
    }

    pub(super) fn update_conversation(
        &mut self,
        owner: &Owner,
        room: Room,
        id: &Id,
        metadata: Vec<u8>,
    ) -> Result<Outcome, Refusal> {
        let mut row = self.conversation(owner, id)?;
        if row.metadata == metadata {
            return Ok(Outcome::Unchanged);
        }
        let (before, after) = (row.metadata.len() as u64, metadata.len() as u64);
        if after > before {
            self.keep(owner, room, after - before, |_| {})?;
        } else {
            self.change_usage(owner, |usage| usage.bytes = usage.bytes.saturating_sub(before - after));
        }
        row.bytes = (row.bytes + after).saturating_sub(before);
        row.metadata = metadata;
        self.put(&Key::Conversation(owner, id), &row);
        Ok(Outcome::Done)
    }

    pub(super) fn add_items(
        &mut self,
        owner: &Owner,
        room: Room,
        id: &Id,
        items: &[Item],
        key: Option<&Idempotency>,
    ) -> Result<Outcome, Refusal> {
        if let Some(made) = self.known(owner, key)? {
            return Ok(Outcome::Known(made));
        }
        let mut row = self.conversation(owner, id)?;
        let before = row.bytes;
        self.add(owner, id, &mut row, items)?;
        self.keep(owner, room, row.bytes - before, |_| {})?;
        self.put(&Key::Conversation(owner, id), &row);
        self.made(owner, key.cloned(), id);
        Ok(Outcome::Done)
    }

    fn add(&mut self, owner: &Owner, id: &Id, row: &mut Conversation, items: &[Item]) -> Result<(), Refusal> {
        if items.len() > ITEMS_MAX || row.items as usize + items.len() > CONVERSATION_ITEMS_MAX {
            return Err(Refusal::TooMany(CONVERSATION_ITEMS_MAX as u64));
        }
        for item in items {
            if self.has(&Key::Place(owner, id, &item.id)) {
                return Err(Refusal::Exists(item.id.clone()));
            }
            self.add_one(owner, id, row, item);
        }
        Ok(())
    }

    fn add_one(&mut self, owner: &Owner, id: &Id, row: &mut Conversation, item: &Item) {
        row.bytes += self.put(&Key::Entry(owner, id, row.next), item);
        self.put(&Key::Place(owner, id, &item.id), &row.next);
        row.next += 1;
        row.items += 1;
    }

    /// Adds what a response read and made. What the conversation has already, because the client sent it again, is not added twice; of one that is full nothing is added.
    pub(super) fn append(&mut self, owner: &Owner, id: &Id, items: &[Item]) {
        let Ok(mut row) = self.conversation(owner, id) else { return };
        let before = row.bytes;
        for item in items {
            // More than was asked for when it began: as many as may be answered at a time, once.
            let is_full = row.items as usize >= CONVERSATION_ITEMS_MAX + ITEMS_MAX;
            if !is_full && !self.has(&Key::Place(owner, id, &item.id)) {
                self.add_one(owner, id, &mut row, item);
            }
        }
        let added = row.bytes - before;
        self.change_usage(owner, |usage| usage.bytes += added);
        self.put(&Key::Conversation(owner, id), &row);
    }

    pub(super) fn delete_item(&mut self, owner: &Owner, id: &Id, item: &Id) -> Result<Outcome, Refusal> {
        let mut row = self.conversation(owner, id)?;
        let place: u64 = self.get(&Key::Place(owner, id, item)).ok_or_else(|| Refusal::NotFound(item.clone()))?;
        let bytes = self.bytes_len(&Key::Entry(owner, id, place));
        self.delete(&Key::Entry(owner, id, place));
        self.delete(&Key::Place(owner, id, item));
        row.items = row.items.saturating_sub(1);
        row.bytes = row.bytes.saturating_sub(bytes);
        self.change_usage(owner, |usage| usage.bytes = usage.bytes.saturating_sub(bytes));
        self.put(&Key::Conversation(owner, id), &row);
        Ok(Outcome::Done)
    }

    pub(super) fn delete_conversation(&mut self, owner: &Owner, id: &Id) -> Result<Outcome, Refusal> {
        let row = self.conversation(owner, id)?;
        for (key, value) in self.scan(&Key::Entry(owner, id, 0), PLACE_TAIL, usize::MAX) {
            self.delete_raw(key);
            if let Some(item) = self.read::<Item>(&value) {
                self.delete(&Key::Place(owner, id, &item.id));
            }
        }
        self.delete(&Key::Conversation(owner, id));
        self.never_expires(owner, What::Conversation(id.clone()), row.expires_ms);
        self.change_usage(owner, |usage| {
            usage.conversations = usage.conversations.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(row.bytes);
        });
        Ok(Outcome::Done)
    }

    fn conversation(&mut self, owner: &Owner, id: &Id) -> Result<Conversation, Refusal> {
        self.get(&Key::Conversation(owner, id)).ok_or_else(|| Refusal::NotFound(id.clone()))
    }
}
