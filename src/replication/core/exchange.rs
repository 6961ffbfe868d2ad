//! Anti-entropy: each second one member at random; whoever finds a difference asks for what it lacks.
//!
//! ```text
//! A ──digest──▶ B      B answers with its own digest, and pulls what differs; A does the same on the answer
//! A ◀──pull────  B     known context, where to begin
//! A ──slice───▶ B      … until the last one; only then does B's context take in what A knew when the first one left
//! ```
//!
//! The side that answers keeps nothing, so a slice costs it no memory and a joiner's snapshot is nothing but a pull with an empty
//! context. Slices of another life of the peer, of an older question or out of order are ignored: the pull is asked again,
//! then dropped, and the next round begins anew.

use std::time::Duration;

use super::Content;
use super::Core;
use super::Effect;
use super::JOINING_LOOK;
use super::Table;
use super::disk;
use crate::base::ids::NodeId;
use crate::replication::Now;
use crate::replication::admin::Change;
use crate::replication::admin::Key;
use crate::replication::admin::Slice;
use crate::replication::dots::Actor;
use crate::replication::dots::Dots;
use crate::replication::faults::Fault;
use crate::replication::faults::planted;
use crate::replication::messages::Message;
use crate::replication::owned::Head;
use crate::replication::owned::PartDelta;
use crate::replication::owned::Refusal;
use crate::replication::tables::TableId;
use crate::transport::lanes::Lane;

/// Bytes of a slice, about. More delays what is behind it on a slow link; less costs round trips.
pub(super) const SLICE_BYTES: usize = 64 << 10;
/// A pull that is not answered is asked again after this, so often.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
const ASKS_MAX: u32 = 4;

/// A question under way. One for each table.
pub(super) struct Pull {
    from: NodeId,
    life: Actor,
    nonce: u64,
    after: Option<Key>,
    theirs: Dots,
    refused: Dots,
    asks: u32,
    asked_at: Duration,
}

impl Core {
    /// Compares with one member at random.
    pub(super) fn round(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.members.is_empty() {
            // Alone, what is on disk is in force.
            self.tables.values_mut().for_each(|table| (table.is_in_force, table.rounds_silent) = (true, 0));
            return;
        }
        self.tables.values_mut().for_each(|table| table.rounds_silent = table.rounds_silent.saturating_add(1));
        self.compare(now, effects);
    }

    /// Tells one member at random how the tables stand here.
    pub(super) fn compare(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.next_look = now.mono + JOINING_LOOK;
        let chosen = self.entropy.below(self.members.len().max(1));
        if let Some(node) = self.members.keys().nth(chosen).cloned() {
            let digest = self.digest(now, false);
            self.send(&node, Lane::Deltas, &digest, effects);
        }
    }

    fn digest(&self, now: Now, is_answer: bool) -> Message {
        let digest = |(id, table): (&TableId, &Table)| match &table.content {
            Content::Admin(admin) => (*id, admin.digest()),
            Content::Owned(owned) => (*id, owned.digest()),
        };
        Message::Digest { is_answer, wall: now.wall, tables: self.tables.iter().map(digest).collect() }
    }

    pub(super) fn compared(
        &mut self,
        now: Now,
        from: &NodeId,
        is_answer: bool,
        theirs: &[(TableId, u128)],
        effects: &mut Vec<Effect>,
    ) {
        let own = self.digest(now, true);
        let Message::Digest { tables: ours, .. } = &own else { return };
        for (id, digest) in theirs {
            match ours.iter().find(|it| it.0 == *id) {
                None => self.counts.unknown_tables += 1,
                Some((_, ours)) if ours == digest => self.exchanged(*id),
                Some(_) => self.ask(now, *id, from, effects),
            }
        }
        if !is_answer {
            self.send(from, Lane::Deltas, &own, effects);
        }
    }

    fn ask(&mut self, now: Now, id: TableId, from: &NodeId, effects: &mut Vec<Effect>) {
        let (nonce, life) = (self.entropy.next_u64(), self.members[from]);
        let Some(table) = self.tables.get_mut(&id) else { return };
        match &table.content {
            Content::Admin(_) if table.pull.is_none() => {
                let (theirs, refused) = (Dots::default(), Dots::default());
                table.pull = Some(Pull {
                    from: from.clone(),
                    life,
                    nonce,
                    after: None,
                    theirs,
                    refused,
                    asks: 0,
                    asked_at: now.mono,
                });
                self.ask_next(now, id, effects);
            }
            Content::Admin(_) => {}
            Content::Owned(owned) => {
                let message = Message::PullParts { table: id, heads: owned.heads_asked() };
                self.send(from, Lane::Sync, &message, effects);
            }
        }
    }

    fn ask_next(&mut self, now: Now, id: TableId, effects: &mut Vec<Effect>) {
        let Some(Table { content: Content::Admin(admin), pull: Some(pull), .. }) = self.tables.get_mut(&id) else {
            return;
        };
        (pull.asks, pull.asked_at) = (pull.asks + 1, now.mono);
        let message = Message::Pull { table: id, nonce: pull.nonce, known: admin.context().clone(), after: pull.after };
        let to = pull.from.clone();
        self.send(&to, Lane::Sync, &message, effects);
    }

    pub(super) fn pull_again(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut again = Vec::new();
        for (id, table) in &mut self.tables {
            let Some(pull) = &table.pull else { continue };
            let is_here = self.members.get(&pull.from) == Some(&pull.life);
            if !is_here || (pull.asks >= ASKS_MAX && pull.asked_at + ASK_AGAIN_AFTER <= now.mono) {
                table.pull = None;
            } else if pull.asked_at + ASK_AGAIN_AFTER <= now.mono {
                again.push(*id);
            }
        }
        again.into_iter().for_each(|id| self.ask_next(now, id, effects));
    }

    pub(super) fn pulled(
        &mut self,
        now: Now,
        from: &NodeId,
        id: TableId,
        (nonce, known, after): (u64, Dots, Option<Key>),
        effects: &mut Vec<Effect>,
    ) {
        let me = self.me.actor;
        let Some(table) = self.tables.get_mut(&id) else { return };
        let left = table.budget.left(now.mono).min(SLICE_BYTES);
        let Content::Admin(admin) = &table.content else { return };
        if admin.context().next(me).count < known.next(me).count {
            self.counts.impostors += 1;
        }
        if left == 0 {
            self.counts.deferred += 1;
            return;
        }
        let message = Message::Slice { table: id, nonce, slice: admin.slice(&known, after, left) };
        self.send_within(now, id, from, Lane::Sync, &message, effects);
    }

    pub(super) fn sliced(
        &mut self,
        now: Now,
        from: &NodeId,
        id: TableId,
        nonce: u64,
        slice: Slice,
        effects: &mut Vec<Effect>,
    ) {
        let horizon = self.hlc.horizon(now);
        let life = self.members.get(from).copied();
        let Some(Table { content: Content::Admin(admin), pull, .. }) = self.tables.get_mut(&id) else { return };
        let is_answer =
            |it: &Pull| it.nonce == nonce && it.after == slice.after && Some(it.life) == life && it.from == *from;
        let Some(mut asked) = pull.take_if(|it| is_answer(it)) else { return };
        if let Some(context) = &slice.context {
            if let Err(refusal) = admin.has_room_for(context) {
                return self.refused(refusal);
            }
            asked.theirs = context.clone();
            if planted(Fault::ContextBeforeTheEnd) {
                admin.finish(context.clone(), &Dots::default());
            }
        }
        let upto = slice.upto;
        let (refused, changes) = admin.absorb(slice, &asked.theirs, horizon);
        if !refused.is_empty() {
            self.counts.stamps_ahead += 1;
        }
        asked.refused.union(&refused);
        if upto.is_none() {
            let refused =
                if planted(Fault::RefusedCountsAsKnown) { Dots::default() } else { std::mem::take(&mut asked.refused) };
            admin.finish(std::mem::take(&mut asked.theirs), &refused);
        }
        let mut rows: Vec<_> = changes.iter().map(|change| disk::change_row(id, admin, change)).collect();
        rows.extend(disk::context_row(id, admin));
        self.see_stamps(changes.iter());
        effects.extend(changes.into_iter().map(|change| Effect::Changed(id, change)));
        self.store(rows, Vec::new(), effects);
        match upto {
            None => self.exchanged(id),
            Some(_) => {
                (asked.after, asked.asks) = (upto, 0);
                if let Some(table) = self.tables.get_mut(&id) {
                    table.pull = Some(asked);
                }
                self.ask_next(now, id, effects);
            }
        }
    }

    pub(super) fn parts_asked(
        &mut self,
        now: Now,
        from: &NodeId,
        id: TableId,
        heads: &[Head],
        effects: &mut Vec<Effect>,
    ) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let left = table.budget.left(now.mono).min(SLICE_BYTES);
        let Content::Owned(owned) = &table.content else { return };
        if left == 0 {
            self.counts.deferred += 1;
            return;
        }
        let (parts, is_all) = owned.deltas(now.mono, heads, left);
        self.send_within(now, id, from, Lane::Sync, &Message::Parts { table: id, parts, is_all }, effects);
        self.refute(id, heads, effects);
    }

    pub(super) fn parts_came(
        &mut self,
        now: Now,
        from: &NodeId,
        id: TableId,
        parts: Vec<PartDelta>,
        is_all: bool,
        effects: &mut Vec<Effect>,
    ) {
        let (mut has_changed, mut has_moved, mut lacks_owner) = (false, false, false);
        for part in parts {
            let owner = part.owner;
            match self.take_part(now, id, part) {
                Ok(is_whole) => {
                    (has_moved, has_changed) = (true, has_changed | is_whole);
                    let rows = self.tables.get(&id).and_then(|it| match &it.content {
                        Content::Owned(owned) if is_whole => disk::part_row(&it.spec, owned, owner),
                        Content::Owned(_) | Content::Admin(_) => None,
                    });
                    self.store(rows.into_iter().collect(), Vec::new(), effects);
                }
                Err(refusal) => {
                    lacks_owner |= refusal == Refusal::OwnerAbsent && !self.forgotten.contains(&owner);
                    self.refused_rows(refusal);
                }
            }
        }
        if has_changed {
            effects.push(Effect::RowsChanged(id));
        }
        if is_all {
            let was_in_force = self.tables.get(&id).is_some_and(|it| it.is_in_force);
            self.exchanged(id);
            // A joiner that hears of rows before it hears of their owner has not got them: it is not there yet.
            if let Some(table) = self.tables.get_mut(&id).filter(|_| lacks_owner && !was_in_force) {
                table.is_in_force = false;
            }
        } else if has_moved {
            // Only who moves on asks on, so a peer that refuses to end cannot keep two nodes busy.
            self.ask(now, id, from, effects);
        }
    }

    fn take_part(&mut self, now: Now, id: TableId, part: PartDelta) -> Result<bool, Refusal> {
        let (me, owner) = (self.me.actor, part.owner);
        if owner == me.storage && part.boot >= me.boot {
            return Err(Refusal::NotYours);
        }
        let life = self.members.values().chain([&me]).find(|it| it.storage == owner).map(|it| it.boot);
        let is_forgotten = self.forgotten.contains(&owner);
        let Some(Table { content: Content::Owned(owned), .. }) = self.tables.get_mut(&id) else {
            return Err(Refusal::NotYours);
        };
        if is_forgotten || !owned.takes(part.boot, life) {
            return Err(Refusal::OwnerAbsent);
        }
        owned.apply(now.mono, part)
    }

    /// A member believes that this node wrote more than it did.
    fn refute(&mut self, id: TableId, heads: &[Head], effects: &mut Vec<Effect>) {
        let me = self.me.actor;
        let Some(claimed) = heads.iter().find(|it| it.0 == me.storage && it.1 == me.boot) else { return };
        let Some(Table { spec, content: Content::Owned(owned), .. }) = self.tables.get_mut(&id) else { return };
        if owned.refute(me.storage, me.boot, claimed.2) {
            self.counts.refuted += 1;
            let rows = disk::part_row(spec, owned, me.storage).into_iter().collect();
            self.store(rows, Vec::new(), effects);
        }
    }

    /// What was accepted counts as seen: the next edit here is later.
    pub(super) fn see_stamps<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) {
        for change in changes {
            if let Change::Put(_, entry) = change {
                self.hlc.saw(entry.latest());
            }
        }
    }

    fn exchanged(&mut self, id: TableId) {
        if let Some(table) = self.tables.get_mut(&id) {
            (table.rounds_silent, table.is_in_force) = (0, true);
        }
    }
}
