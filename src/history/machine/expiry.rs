//! What goes by itself, in the order of when.

use serde::Deserialize;
use serde::Serialize;

use super::CLOCK_STEP_MS;
use super::EXPIRE_MAX;
use super::command::Outcome;
use super::draft::Draft;
use super::keys::Key;
use super::step::Head;
use crate::history::Id;
use crate::history::Owner;
use crate::history::faults::Fault;
use crate::history::faults::planted;
use crate::storage::codec;

/// What goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum What {
    Response(Id),
    Conversation(Id),
    /// The key of an idempotent request.
    Key(String),
    Upload(u128),
}

type Expiring = (Option<Owner>, What);

impl Draft<'_> {
    /// It goes at this time.
    pub(super) fn expires(&mut self, owner: &Owner, what: What, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.note(at_ms, &(Some(owner.clone()), what));
        }
    }

    pub(super) fn expires_unowned(&mut self, what: What, at_ms: u64) {
        self.note(at_ms, &(None, what));
    }

    fn note(&mut self, at_ms: u64, expiring: &Expiring) {
        let name = name(expiring);
        self.put(&Key::Expiry(at_ms, &name), expiring);
    }

    /// It is gone already.
    pub(super) fn never_expires(&mut self, owner: &Owner, what: What, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.delete(&Key::Expiry(at_ms, &name(&(Some(owner.clone()), what))));
        }
    }

    pub(super) fn never_expires_unowned(&mut self, what: What, at_ms: u64) {
        self.delete(&Key::Expiry(at_ms, &name(&(None, what))));
    }

    pub(super) fn expire(&mut self, now_ms: u64) -> Outcome {
        let head = self.head();
        let is_first = head.clock_ms == 0 || planted(Fault::AnyClockIsBelieved);
        let furthest = if is_first { now_ms } else { head.clock_ms.saturating_add(CLOCK_STEP_MS) };
        let clock_ms = now_ms.min(furthest).max(head.clock_ms);
        self.put(&Key::Head, &Head { clock_ms, ..head });
        let (from, to) = (Key::Expiry(0, &[]).encode(), Key::Expiry(clock_ms.saturating_add(1), &[]).encode());
        let due = self.scan_raw(&from, &to, EXPIRE_MAX);
        if due.is_empty() {
            return Outcome::Unchanged;
        }
        for (key, value) in due {
            self.delete_raw(key);
            // One that is gone already has no row here; a refusal would be a record that another command deleted, and changes nothing.
            match self.read::<Expiring>(&value) {
                Some((Some(owner), What::Response(id))) => drop(self.delete_response(&owner, &id)),
                Some((Some(owner), What::Conversation(id))) => drop(self.delete_conversation(&owner, &id)),
                Some((Some(owner), What::Key(key))) => self.delete(&Key::Idempotent(&owner, &key)),
                Some((_, What::Upload(id))) => self.is_overdue(id, clock_ms),
                Some((None, _)) | None => {}
            }
        }
        Outcome::Done
    }
}

fn name(expiring: &Expiring) -> Vec<u8> {
    // Both have an encoding: names and numbers. An empty name would only make two that expire at one moment one.
    codec::encode(expiring).unwrap_or_default()
}
