//! The decisions of replication: events and time in, messages and writes out.
//!
//! `edits.rs` takes edits here and pushes them, `exchange.rs` compares tables with one member at a time and fetches what is missing,
//! `disk.rs` says what to write and reads it back. Ground state are the tables; pushes under way, pulls under way and budgets are
//! derived and may be lost: the next round finds what they missed. Messages of whoever is not a member are ignored and
//! counted. Duplicates, old messages and any order change nothing, because merging does not.

mod budget;
mod disk;
mod edits;
mod event;
mod exchange;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use self::budget::Budget;
pub use self::disk::LoadError;
use self::edits::Owed;
use self::edits::Pushing;
pub use self::event::Colour;
pub use self::event::Counts;
pub use self::event::Edit;
pub use self::event::EditError;
pub use self::event::Effect;
pub use self::event::Event;
pub use self::event::Member;
pub use self::event::Settled;
use self::exchange::Pull;
use super::Now;
use super::admin::Admin;
use super::admin::Refusal;
use super::dots::Actor;
use super::faults::Fault;
use super::faults::planted;
use super::hlc::Hlc;
use super::messages::Message;
use super::owned;
use super::owned::Owned;
use super::store::Batch;
use super::tables::Kind;
use super::tables::Spec;
use super::tables::TableId;
use crate::base::entropy::Entropy;
use crate::base::ids::NodeId;
use crate::base::ids::StorageId;
use crate::transport::lanes::Lane;

/// A round: each table is compared with one member. Longer heals later, shorter costs bytes.
pub const ROUND: Duration = Duration::from_secs(1);
/// Between two comparisons while this node has not got all tables yet: it is not ready until then.
const JOINING_LOOK: Duration = Duration::from_millis(200);
/// Rounds without an exchange after which a table is red.
pub const RED_AFTER: u32 = 3;
/// Storages that were forgotten, remembered. More are told by whoever agrees on them.
const FORGOTTEN_MAX: usize = 4096;

enum Content {
    Admin(Admin),
    Owned(Owned),
}

struct Table {
    spec: Spec,
    content: Content,
    budget: Budget,
    pull: Option<Pull>,
    rounds_silent: u32,
    is_in_force: bool,
    bytes_sent: u64,
}

/// See the file's header.
pub struct Core {
    me: Member,
    entropy: Entropy,
    hlc: Hlc,
    members: BTreeMap<NodeId, Actor>,
    forgotten: BTreeSet<StorageId>,
    tables: BTreeMap<TableId, Table>,
    next_round: Duration,
    next_look: Duration,
    tokens: u64,
    pushes: u64,
    pushing: BTreeMap<u64, Pushing>,
    owed: BTreeMap<u64, Vec<Owed>>,
    has_failed: bool,
    counts: Counts,
}

impl Core {
    /// Starts with what is on disk. `me.actor.boot` is one more than in any life before.
    pub fn new(mut me: Member, specs: &[Spec], entropy: Entropy, rows: Batch) -> Result<Self, LoadError> {
        if planted(Fault::ActorWithoutBoot) {
            me.actor.boot = 1;
        }
        let table = |spec: &Spec| {
            let content = match spec.kind {
                Kind::Admin(bounds) => Content::Admin(Admin::new(bounds)),
                Kind::Owned(rule, share) => Content::Owned(Owned::new(rule, share)),
            };
            let budget = Budget::new(spec.bytes_per_s);
            let table =
                Table { spec: *spec, content, budget, pull: None, rounds_silent: 0, is_in_force: false, bytes_sent: 0 };
            (spec.id, table)
        };
        let mut core = Self {
            me,
            hlc: Hlc::default(),
            members: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            tables: specs.iter().map(table).collect(),
            next_round: Duration::ZERO,
            next_look: Duration::ZERO,
            tokens: 0,
            // Not from 1 in each life: a late acknowledgement of the last life's push would count for one of this.
            pushes: entropy.next_u64() >> 1,
            entropy,
            pushing: BTreeMap::new(),
            owed: BTreeMap::new(),
            has_failed: false,
            counts: Counts::default(),
        };
        core.load(rows)?;
        Ok(core)
    }

    /// Takes one event.
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(now, effects),
            Event::Members(members) => self.members_are(now, members, effects),
            Event::Forget(storage) => self.forget(storage, effects),
            Event::Received(from, frame) => self.received(now, &from, &frame, effects),
            Event::Edit(request, edits) => self.edit(now, request, edits, effects),
            Event::Publish(table, rows) => self.publish(now, table, rows, effects),
            Event::Stored(token) => self.stored(token, effects),
            Event::StoreFailed => self.has_failed = true,
        }
    }

    /// An admin table.
    #[must_use]
    pub fn admin(&self, id: TableId) -> Option<&Admin> {
        match &self.tables.get(&id)?.content {
            Content::Admin(admin) => Some(admin),
            Content::Owned(_) => None,
        }
    }

    /// An owned table.
    #[must_use]
    pub fn owned(&self, id: TableId) -> Option<&Owned> {
        match &self.tables.get(&id)?.content {
            Content::Owned(owned) => Some(owned),
            Content::Admin(_) => None,
        }
    }

    /// Every table's colour.
    #[must_use]
    pub fn colours(&self) -> Vec<Colour> {
        let has_peers = !self.members.is_empty();
        let colour = |it: &Table| Colour {
            table: it.spec.id,
            name: it.spec.name,
            is_red: has_peers && it.rounds_silent >= RED_AFTER,
            is_in_force: it.is_in_force,
            entries: match &it.content {
                Content::Admin(admin) => admin.entries().count(),
                Content::Owned(owned) => owned.len(),
            },
            lives: match &it.content {
                Content::Admin(admin) => admin.context().runs(),
                Content::Owned(_) => 0,
            },
            bytes_sent: it.bytes_sent,
        };
        self.tables.values().map(colour).collect()
    }

    /// Whether every table was compared with a member since there are any; true while there are none. Owned ones too: who starts without knowing
    /// what others placed would scatter conversations.
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        self.members.is_empty() || self.tables.values().all(|it| it.is_in_force)
    }

    /// Whether that data directory was forgotten for good.
    #[must_use]
    pub fn is_forgotten(&self, storage: StorageId) -> bool {
        self.forgotten.contains(&storage)
    }

    /// Who writes here.
    #[must_use]
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// The members that are not down, without this node.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, Actor)> {
        self.members.iter().map(|(node, actor)| (node, *actor))
    }

    /// What was refused or given up.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How many other clocks tell the time here.
    #[must_use]
    pub fn clocks_heard(&self) -> usize {
        self.hlc.heard()
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.push_again(now, effects);
        self.pull_again(now, effects);
        if now.mono >= self.next_round {
            self.next_round = now.mono + ROUND;
            self.round(now, effects);
        } else if now.mono >= self.next_look && !self.is_in_force() {
            self.compare(now, effects);
        }
    }

    fn members_are(&mut self, now: Now, members: Vec<Member>, effects: &mut Vec<Effect>) {
        let had_none = self.members.is_empty();
        self.members = members.into_iter().filter(|it| it.node != self.me.node).map(|it| (it.node, it.actor)).collect();
        let lives: BTreeMap<StorageId, u64> =
            self.members.values().chain([&self.me.actor]).map(|it| (it.storage, it.boot)).collect();
        self.hlc.keep(|storage| lives.contains_key(&storage));
        for (id, table) in &mut self.tables {
            if let Content::Owned(owned) = &mut table.content
                && !owned.retain(|owner| lives.get(&owner).copied()).is_empty()
            {
                effects.push(Effect::RowsChanged(*id));
            }
        }
        self.members_changed(effects);
        if had_none && !self.members.is_empty() {
            // Whoever joins is in force as soon as a peer has answered.
            self.tables.values_mut().for_each(|table| table.is_in_force = false);
            self.round(now, effects);
        }
    }

    fn forget(&mut self, storage: StorageId, effects: &mut Vec<Effect>) {
        if self.forgotten.len() < FORGOTTEN_MAX {
            self.forgotten.insert(storage);
        }
        let mut batch = Batch::new();
        for (id, table) in &mut self.tables {
            if let Content::Owned(owned) = &mut table.content {
                owned.forget(storage);
                batch.extend(disk::part_row(&table.spec, owned, storage));
                effects.push(Effect::RowsChanged(*id));
            }
        }
        self.store(batch, Vec::new(), effects);
    }

    fn publish(&mut self, now: Now, id: TableId, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>, effects: &mut Vec<Effect>) {
        let actor = self.me.actor;
        let Some(Table { spec, content: Content::Owned(owned), .. }) = self.tables.get_mut(&id) else { return };
        let Ok(delta) = owned.publish(now.mono, actor.storage, actor.boot, rows) else {
            self.counts.too_much += 1;
            return;
        };
        let batch: Batch = disk::part_row(spec, owned, actor.storage).into_iter().collect();
        effects.push(Effect::RowsChanged(id));
        self.store(batch, Vec::new(), effects);
        let message = Message::Parts { table: id, parts: vec![delta], is_all: true };
        let to: Vec<NodeId> = self.members.keys().cloned().collect();
        for node in to {
            self.send_within(now, id, &node, Lane::Deltas, &message, effects);
        }
    }

    fn received(&mut self, now: Now, from: &NodeId, frame: &[u8], effects: &mut Vec<Effect>) {
        let Some(actor) = self.members.get(from).copied() else {
            self.counts.strangers += 1;
            return;
        };
        let Ok(message) = Message::decode(frame) else {
            self.counts.garbage += 1;
            return;
        };
        match message {
            Message::Digest { is_answer, wall, tables } => {
                self.hlc.hear(now, actor.storage, wall);
                self.compared(now, from, is_answer, &tables, effects);
            }
            Message::Push { push, changes } => self.pushed(now, from, push, changes, effects),
            Message::Ack { push } => self.acked(now, from, push, effects),
            Message::Pull { table, nonce, known, after } => {
                self.pulled(now, from, table, (nonce, known, after), effects)
            }
            Message::Slice { table, nonce, slice } => self.sliced(now, from, table, nonce, slice, effects),
            Message::PullParts { table, heads } => self.parts_asked(now, from, table, &heads, effects),
            Message::Parts { table, parts, is_all } => self.parts_came(now, from, table, parts, is_all, effects),
        }
    }

    fn send(&mut self, to: &NodeId, lane: Lane, message: &Message, effects: &mut Vec<Effect>) {
        // What cannot be written is a bug that the law of the codec excludes; nothing is sent then, and the table turns red.
        if let Ok(frame) = message.encode() {
            effects.push(Effect::Send(to.clone(), lane, frame));
        }
    }

    /// Sends if the table has bytes left for this second.
    fn send_within(
        &mut self,
        now: Now,
        id: TableId,
        to: &NodeId,
        lane: Lane,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(table), Ok(frame)) = (self.tables.get_mut(&id), message.encode()) else { return };
        if table.budget.left(now.mono) == 0 {
            self.counts.deferred += 1;
            return;
        }
        table.budget.spend(frame.len());
        table.bytes_sent += frame.len() as u64;
        effects.push(Effect::Send(to.clone(), lane, frame));
    }

    fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Ahead => self.counts.stamps_ahead += 1,
            Refusal::EntryTooLarge | Refusal::TableFull | Refusal::TooManyLives => self.counts.too_much += 1,
            Refusal::Unknown => {}
        }
    }

    fn refused_rows(&mut self, refusal: owned::Refusal) {
        match refusal {
            owned::Refusal::TooMuch => self.counts.too_much += 1,
            owned::Refusal::NotYours | owned::Refusal::OwnerAbsent => self.counts.not_owner += 1,
            owned::Refusal::NotNext => {} // old, repeated or too early: the next round asks
        }
    }
}

#[cfg(test)]
mod tests;
