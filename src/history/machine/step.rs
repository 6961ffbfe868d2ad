//! One command, whole: whether it was carried out before, what it does, and that it is remembered.

use serde::Deserialize;
use serde::Serialize;

use super::CONTENT_BYTES_MAX;
use super::REMEMBERED;
use super::command::Act;
use super::command::Command;
use super::command::CommandId;
use super::command::Entry;
use super::command::Outcome;
use super::command::Refusal;
use super::command::Room;
use super::draft::Draft;
use super::keys::Key;
use crate::history::Id;
use crate::history::Item;
use crate::history::Owner;
use crate::history::faults::Fault;
use crate::history::faults::planted;
use crate::raft::Coded as _;
use crate::raft::RowChange;
use crate::raft::Rows;
use crate::raft::Unreadable;

/// What there is one of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// How far time has come, for expiry. See [`super::CLOCK_STEP_MS`].
    pub(super) clock_ms: u64,
    /// Bytes that were handed in and wait for their command.
    pub(super) staged: u64,
    /// Commands that were carried out, and remembered for a time.
    pub(super) commands: u64,
    /// Rows of an export that are in, while more are to come.
    pub(super) restored: Option<u64>,
}

/// What is remembered of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    outcome: Outcome,
}

/// Takes one command. Answers what it did, and which rows are now otherwise.
pub fn step(rows: &dyn Rows, command: &[u8]) -> Result<(Outcome, Vec<RowChange>), Unreadable> {
    let Entry { id, seen, command } = Entry::decode(command)?;
    let mut draft = Draft::new(rows);
    let is_remembered = match command {
        Command::Of { .. } | Command::Run { .. } => true,
        Command::Part { .. }
        | Command::Renew { .. }
        | Command::Lapse { .. }
        | Command::Expire { .. }
        | Command::Restore { .. } => false,
    };
    let known = if is_remembered { draft.get::<Done>(&Key::Done(id.0)) } else { None };
    let outcome = match known.filter(|_| !planted(Fault::RetriesCountTwice)) {
        Some(done) => done.outcome,
        None if is_remembered && draft.head().commands.saturating_sub(seen) >= REMEMBERED => {
            Outcome::Refused(Refusal::TooOld)
        }
        None => draft.carry_out(id, command, is_remembered),
    };
    Ok((outcome, draft.changes()?))
}

impl Draft<'_> {
    fn carry_out(&mut self, id: CommandId, command: Command, is_remembered: bool) -> Outcome {
        let upload = match command {
            Command::Run { upload, .. } => Some(upload),
            _ => None,
        };
        let outcome = self.decide(command).unwrap_or_else(Outcome::Refused);
        if let Outcome::Refused(why) = &outcome {
            self.clear();
            // With a gap it may yet be whole: it is left to expire.
            if let (Some(upload), false) = (upload, matches!(why, Refusal::Gap(_))) {
                self.drop_upload(upload);
            }
        }
        if is_remembered {
            self.remember(id, &outcome);
        }
        outcome
    }

    fn decide(&mut self, command: Command) -> Result<Outcome, Refusal> {
        match command {
            Command::Of { owner, room, act } => self.of(&owner, room, *act),
            Command::Part { upload, at, bytes } => self.part(upload, at, bytes),
            Command::Run { upload, parts } => {
                let whole = self.assembled(upload, parts)?;
                self.drop_upload(upload);
                match crate::storage::codec::decode(&whole) {
                    Ok(Command::Of { owner, room, act }) => self.of(&owner, room, *act),
                    Ok(Command::Restore { at, rows, is_last }) => self.restore(at, &rows, is_last),
                    Ok(_) | Err(_) => Err(Refusal::Unsound),
                }
            }
            Command::Restore { at, rows, is_last } => self.restore(at, &rows, is_last),
            Command::Renew { lease, beat } => self.renew(lease, beat),
            Command::Lapse { lease, beat } => Ok(self.lapse(lease, beat)),
            Command::Expire { now_ms } => Ok(self.expire(now_ms)),
        }
    }

    fn of(&mut self, owner: &Owner, room: Room, act: Act) -> Result<Outcome, Refusal> {
        if !owner.is_sound() || !is_sound(&act) {
            return Err(Refusal::Unsound);
        }
        if let Some(rows) = self.head().restored {
            return Err(Refusal::Restoring(rows));
        }
        match act {
            Act::Begin(begin) => self.begin(owner, room, *begin),
            Act::Finish(finish) => self.finish(owner, finish),
            Act::Cancel { response } => self.cancel(owner, &response),
            Act::DeleteResponse { response } => self.delete_response(owner, &response),
            Act::Events { response, attempt, first, events } => self.events(owner, &response, attempt, first, &events),
            Act::Claim { response, lease } => self.claim(owner, &response, lease),
            Act::CreateConversation { conversation, created_ms, metadata, items, key, expires_ms } => {
                let made = (created_ms, metadata, expires_ms);
                self.create_conversation(owner, room, &conversation, made, &items, key.as_ref())
            }
            Act::UpdateConversation { conversation, metadata } => {
                self.update_conversation(owner, room, &conversation, metadata)
            }
            Act::DeleteConversation { conversation } => self.delete_conversation(owner, &conversation),
            Act::AddItems { conversation, items, key } => {
                self.add_items(owner, room, &conversation, &items, key.as_ref())
            }
            Act::DeleteItem { conversation, item } => self.delete_item(owner, &conversation, &item),
        }
    }

    pub(super) fn head(&mut self) -> Head {
        self.get(&Key::Head).unwrap_or_default()
    }

    /// The oldest memory goes with each new one.
    fn remember(&mut self, id: CommandId, outcome: &Outcome) {
        let head = self.head();
        let number = head.commands + 1;
        self.put(&Key::Done(id.0), &Done { outcome: outcome.clone() });
        self.put(&Key::DoneAt(number), &id);
        self.put(&Key::Head, &Head { commands: number, ..head });
        let oldest = Key::DoneAt(number.saturating_sub(REMEMBERED));
        if let Some(CommandId(id)) = self.get(&oldest) {
            self.delete(&oldest);
            self.delete(&Key::Done(id));
        }
    }
}

/// Whether its names are names. Whoever proposes it is a member, but a damaged command must not make rows that nobody can delete.
fn is_sound(act: &Act) -> bool {
    let is_id = |id: &Id| Id::parse(id.as_str()).is_ok();
    let are_items = |items: &[Item]| items.iter().all(|it| is_id(&it.id));
    let bytes = |items: &[Item]| items.iter().map(|it| it.json.len() as u64).sum::<u64>();
    let (names, lists, content) = match act {
        Act::Begin(it) => {
            let names = is_id(&it.response)
                && it.previous.as_ref().is_none_or(is_id)
                && it.conversation.as_ref().is_none_or(is_id);
            (names, are_items(&it.input), bytes(&it.input) + it.body.len() as u64)
        }
        Act::Finish(it) => {
            (is_id(&it.response) && it.status.is_end(), are_items(&it.output), bytes(&it.output) + it.body.len() as u64)
        }
        Act::Events { response, events, .. } => (is_id(response), true, events.iter().map(|it| it.len() as u64).sum()),
        Act::Cancel { response } | Act::DeleteResponse { response } | Act::Claim { response, .. } => {
            (is_id(response), true, 0)
        }
        Act::CreateConversation { conversation, metadata, items, .. } => {
            (is_id(conversation), are_items(items), bytes(items) + metadata.len() as u64)
        }
        Act::UpdateConversation { conversation, metadata } => (is_id(conversation), true, metadata.len() as u64),
        Act::DeleteConversation { conversation } => (is_id(conversation), true, 0),
        Act::AddItems { conversation, items, .. } => (is_id(conversation), are_items(items), bytes(items)),
        Act::DeleteItem { conversation, item } => (is_id(conversation) && is_id(item), true, 0),
    };
    names && lists && content <= CONTENT_BYTES_MAX
}
