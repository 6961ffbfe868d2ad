//! Edits made here, and their way to every member: reliably, once, and answered when they are safe.
//!
//! An edit is in force here at once and goes out at once; it is answered when this disk has it and one other member says the same of
//! its own (with no other member: this disk alone), with the names of those that have not. A member repeats nothing: what it sees for
//! the first time it stores, passes on to a few others (a cut may be between them and the writer) and then acknowledges.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Content;
use super::Core;
use super::Edit;
use super::EditError;
use super::Effect;
use super::Settled;
use super::Table;
use super::disk;
use crate::base::ids::NodeId;
use crate::replication::Now;
use crate::replication::admin::Change;
use crate::replication::admin::Entry;
use crate::replication::admin::Key;
use crate::replication::dots::Dots;
use crate::replication::faults::Fault;
use crate::replication::faults::planted;
use crate::replication::messages::Message;
use crate::replication::store::Batch;
use crate::replication::tables::TableId;
use crate::transport::lanes::Lane;

/// Pause before a push is repeated to who has not acknowledged it.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How often. Then anti-entropy carries it: a member that took 10 s to answer has other worries.
const TRIES_MAX: u32 = 40;
/// An edit that nobody else acknowledged is answered after this, and said to be on this node only.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Edits under way. Beyond it new ones are refused.
const PUSHING_MAX: usize = 4096;
/// Members that an edit is passed on to at first sight.
const PASSED_ON_MAX: usize = 8;

/// What is due when a batch is durable.
#[derive(Clone, Debug)]
pub(super) enum Owed {
    /// An acknowledgement of that push.
    Ack(NodeId, u64),
    /// Our own push is on our disk.
    Own(u64),
}

/// How a table was before an edit that others follow.
struct Undo {
    table: TableId,
    context: Dots,
    key: Key,
    old: Option<Entry>,
}

/// An edit on its way.
pub(super) struct Pushing {
    request: u64,
    message: Message,
    lacking: BTreeSet<NodeId>,
    has_ack: bool,
    is_stored: bool,
    is_answered: bool,
    tries: u32,
    made_at: Duration,
    again_at: Duration,
    answer_at: Duration,
}

impl Core {
    pub(super) fn edit(&mut self, now: Now, request: u64, edits: Vec<Edit>, effects: &mut Vec<Effect>) {
        let made = if self.has_failed {
            Err(EditError::DiskFailed)
        } else if self.pushing.len() >= PUSHING_MAX {
            Err(EditError::Busy)
        } else {
            self.make(now, edits)
        };
        let changes = match made {
            Ok(changes) => changes,
            Err(error) => return effects.push(Effect::Answer(request, Err(error))),
        };
        self.pushes += 1;
        let push = self.pushes;
        let batch = self.batch(&changes, effects);
        let message = Message::Push { push, changes };
        let lacking: BTreeSet<NodeId> = self.members.keys().cloned().collect();
        lacking.iter().for_each(|node| self.send_push(node, &message, effects));
        let pushing = Pushing {
            request,
            message,
            lacking,
            has_ack: false,
            is_stored: false,
            is_answered: false,
            tries: 1,
            made_at: now.mono,
            again_at: now.mono + AGAIN_AFTER,
            answer_at: now.mono + ANSWER_WITHIN,
        };
        self.pushing.insert(push, pushing);
        self.store(batch, vec![Owed::Own(push)], effects);
    }

    /// All edits or none.
    fn make(&mut self, now: Now, edits: Vec<Edit>) -> Result<Vec<(TableId, Change)>, EditError> {
        let (mut changes, mut undo) = (Vec::new(), Vec::new());
        for edit in edits {
            match self.make_one(now, edit, &mut undo) {
                Ok(change) => changes.push(change),
                Err(error) => {
                    // Backwards, because two edits may be of one instance.
                    for Undo { table, context, key, old } in undo.into_iter().rev() {
                        if let Some(Table { content: Content::Admin(admin), .. }) = self.tables.get_mut(&table) {
                            admin.undo(context, key, old);
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(changes)
    }

    fn make_one(&mut self, now: Now, edit: Edit, undo: &mut Vec<Undo>) -> Result<(TableId, Change), EditError> {
        let (actor, stamp) = (self.me.actor, self.hlc.next(now));
        let (Edit::Add(table, id, _, _) | Edit::Set(table, id, _) | Edit::Delete(table, id)) = &edit;
        let (table, id) = (*table, *id);
        let Some(Table { content: Content::Admin(admin), .. }) = self.tables.get_mut(&table) else {
            return Err(EditError::NoTable);
        };
        let (context, old) = (admin.context().clone(), admin.find(id).map(|(key, entry)| (*key, entry.clone())));
        let change = match edit {
            Edit::Add(_, _, kind, fields) => admin.add(id, kind, fields, actor, stamp),
            Edit::Set(_, _, fields) => admin.set(id, fields, actor, stamp),
            Edit::Delete(..) => admin.delete(id, actor),
        }?;
        let (Change::Put(key, _) | Change::Gone(key, _)) = &change;
        let old = old.filter(|(it, _)| it == key).map(|(_, entry)| entry);
        undo.push(Undo { table, context, key: *key, old });
        Ok((table, change))
    }

    pub(super) fn pushed(
        &mut self,
        now: Now,
        from: &NodeId,
        push: u64,
        changes: Vec<(TableId, Change)>,
        effects: &mut Vec<Effect>,
    ) {
        let horizon = self.hlc.horizon(now);
        let (mut news, mut has_all) = (Vec::new(), true);
        for (id, change) in changes {
            let Some(Table { content: Content::Admin(admin), .. }) = self.tables.get_mut(&id) else {
                self.counts.unknown_tables += 1;
                has_all = false;
                continue;
            };
            match admin.apply(change.clone(), horizon) {
                Ok(true) => news.push((id, change)),
                Ok(false) => {}
                Err(refusal) => {
                    self.refused(refusal);
                    has_all = false;
                }
            }
        }
        self.see_stamps(news.iter().map(|(_, change)| change));
        let batch = self.batch(&news, effects);
        if !news.is_empty() {
            self.pass_on(from, news, effects);
        }
        let mut owed = Vec::new();
        if push > 0 && has_all && !self.has_failed {
            owed.push(Owed::Ack(from.clone(), push));
        }
        if planted(Fault::AckBeforeDurable) {
            owed.drain(..).for_each(|it| self.pay(it, effects));
        }
        // Also what is no news may not be durable yet: the acknowledgement waits behind all writes before it.
        self.store(batch, owed, effects);
    }

    pub(super) fn acked(&mut self, now: Now, from: &NodeId, push: u64, effects: &mut Vec<Effect>) {
        if let Some(it) = self.pushing.get_mut(&push) {
            let was_lacking = it.lacking.remove(from);
            it.has_ack |= was_lacking;
            if was_lacking && it.lacking.is_empty() {
                effects.push(Effect::Everywhere(now.mono.saturating_sub(it.made_at)));
            }
            self.answer(push, effects);
        }
    }

    pub(super) fn stored(&mut self, token: u64, effects: &mut Vec<Effect>) {
        if !self.has_failed {
            self.owed.remove(&token).into_iter().flatten().for_each(|owed| self.pay(owed, effects));
        }
    }

    fn pay(&mut self, owed: Owed, effects: &mut Vec<Effect>) {
        match owed {
            Owed::Ack(to, push) => self.send(&to, Lane::Deltas, &Message::Ack { push }, effects),
            Owed::Own(push) => {
                if let Some(it) = self.pushing.get_mut(&push) {
                    it.is_stored = true;
                }
                self.answer(push, effects);
            }
        }
    }

    /// Members left: nobody waits for them.
    pub(super) fn members_changed(&mut self, effects: &mut Vec<Effect>) {
        let pushes: Vec<u64> = self.pushing.keys().copied().collect();
        for push in pushes {
            if let Some(it) = self.pushing.get_mut(&push) {
                it.lacking.retain(|node| self.members.contains_key(node));
            }
            self.answer(push, effects);
        }
    }

    pub(super) fn push_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let due: Vec<u64> =
            self.pushing.iter().filter(|(_, it)| it.again_at <= now.mono).map(|(push, _)| *push).collect();
        for push in due {
            let Some(it) = self.pushing.get_mut(&push) else { continue };
            it.tries += 1;
            it.again_at = now.mono + AGAIN_AFTER;
            let (message, lacking) = (it.message.clone(), it.lacking.clone());
            let is_over = it.tries > TRIES_MAX;
            if it.is_stored && !it.is_answered && it.answer_at <= now.mono {
                it.is_answered = true;
                let settled = Settled { is_safe: false, pending: lacking.iter().cloned().collect() };
                effects.push(Effect::Answer(it.request, Ok(settled)));
            }
            if is_over {
                self.counts.pushes_left += 1;
                self.pushing.remove(&push);
                continue;
            }
            lacking.iter().for_each(|node| self.send_push(node, &message, effects));
        }
    }

    fn answer(&mut self, push: u64, effects: &mut Vec<Effect>) {
        let Some(it) = self.pushing.get_mut(&push) else { return };
        let is_safe = it.has_ack || self.members.is_empty();
        if it.is_stored && is_safe && !it.is_answered {
            it.is_answered = true;
            let pending = it.lacking.iter().cloned().collect();
            effects.push(Effect::Answer(it.request, Ok(Settled { is_safe, pending })));
        }
        if it.is_answered && it.lacking.is_empty() {
            self.pushing.remove(&push);
        }
    }

    fn pass_on(&mut self, from: &NodeId, changes: Vec<(TableId, Change)>, effects: &mut Vec<Effect>) {
        let mut others: Vec<NodeId> = self.members.keys().filter(|node| *node != from).cloned().collect();
        let message = Message::Push { push: 0, changes };
        for _ in 0..PASSED_ON_MAX.min(others.len()) {
            let to = others.swap_remove(self.entropy.below(others.len()));
            self.send_push(&to, &message, effects);
        }
    }

    /// Counted for the table of its first change: an edit has few, nearly always of one table.
    fn send_push(&mut self, to: &NodeId, message: &Message, effects: &mut Vec<Effect>) {
        let (Message::Push { changes, .. }, Ok(frame)) = (message, message.encode()) else { return };
        if let Some(table) = changes.first().and_then(|(id, _)| self.tables.get_mut(id)) {
            table.bytes_sent += frame.len() as u64;
        }
        effects.push(Effect::Send(to.clone(), Lane::Deltas, frame));
    }

    /// The rows of what changed, with the contexts they belong to; tells the views.
    pub(super) fn batch(&mut self, changes: &[(TableId, Change)], effects: &mut Vec<Effect>) -> Batch {
        let mut batch = Batch::new();
        let ids: BTreeSet<TableId> = changes.iter().map(|(id, _)| *id).collect();
        for (id, change) in changes {
            if let Some(admin) = self.admin(*id) {
                batch.push(disk::change_row(*id, admin, change));
                effects.push(Effect::Changed(*id, change.clone()));
            }
        }
        for id in ids {
            batch.extend(self.admin(id).and_then(|admin| disk::context_row(id, admin)));
        }
        batch
    }
}
