//! What must be true of a run, kept beside it: what was promised to whom, and what each owner wrote.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::base::ids::StorageId;
use crate::replication::admin::Change;
use crate::replication::admin::InstanceId;
use crate::replication::admin::Key;
use crate::replication::core::Core;
use crate::replication::core::Edit;
use crate::replication::core::EditError;
use crate::replication::core::Settled;
use crate::replication::tables::TableId;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
struct Seen {
    /// Instances that this node saw deleted, durable ones and those of writes under way.
    gone: BTreeSet<Key>,
    fresh: Vec<(Option<u64>, Key)>,
}

/// See the file's header.
#[derive(Default)]
pub(crate) struct Model {
    pub violations: Vec<String>,
    /// The node that may lose its disk.
    pub victim: usize,
    requests: u64,
    /// Edits that are not answered yet, and how often a disk had been lost when they were made.
    asked: BTreeMap<u64, (Edit, u32)>,
    losses: u32,
    /// Instances that somebody tried to delete.
    doomed: BTreeSet<InstanceId>,
    /// Edits that were answered as safe.
    safe: Vec<Edit>,
    /// What each node saw deleted.
    seen: BTreeMap<usize, Seen>,
    written: BTreeMap<(TableId, StorageId, u64, u64), Rows>,
}

impl Model {
    pub(crate) fn asked(&mut self, edit: &Edit) -> u64 {
        if let Edit::Delete(_, id) = edit {
            self.doomed.insert(*id);
        }
        self.requests += 1;
        self.asked.insert(self.requests, (edit.clone(), self.losses));
        self.requests
    }

    pub(crate) fn answered(&mut self, node: usize, request: u64, answer: &Result<Settled, EditError>, is_alone: bool) {
        let Some((edit, _)) = self.asked.remove(&request) else {
            return self.blame(format!("request {request} was answered twice"));
        };
        // What only the victim has may go with its disk.
        if answer.as_ref().is_ok_and(|it| it.is_safe) && !(is_alone && node == self.victim) {
            self.safe.push(edit);
        }
    }

    /// What the request adds, if that must be on the disks that it is said to be on: nobody deletes it, no disk was lost since.
    pub(crate) fn adds(&self, request: u64) -> Option<InstanceId> {
        match self.asked.get(&request) {
            Some((Edit::Add(_, id, ..), losses)) if *losses == self.losses && !self.doomed.contains(id) => Some(*id),
            _ => None,
        }
    }

    pub(crate) fn changed(&mut self, node: usize, table: TableId, change: &Change, core: &Core) {
        let seen = self.seen.entry(node).or_default();
        match change {
            Change::Gone(key, _) => seen.fresh.push((None, *key)),
            Change::Put(key, _) => {
                let is_gone = seen.gone.contains(key) || seen.fresh.iter().any(|it| it.1 == *key);
                let lives = core.admin(table).is_some_and(|it| it.find(key.id).is_some_and(|(it, _)| it == key));
                if is_gone && lives {
                    self.blame(format!("node {node}: {key:?} came back"));
                }
            }
        }
    }

    pub(crate) fn wrote(&mut self, node: usize, token: u64) {
        let fresh = self.seen.entry(node).or_default().fresh.iter_mut();
        fresh.filter(|it| it.0.is_none()).for_each(|it| it.0 = Some(token));
    }

    pub(crate) fn synced(&mut self, node: usize, token: u64) {
        let seen = self.seen.entry(node).or_default();
        let (durable, fresh) = seen.fresh.drain(..).partition(|it| it.0.is_some_and(|it| it <= token));
        seen.fresh = fresh;
        seen.gone.extend(durable.into_iter().map(|(_, key): (Option<u64>, Key)| key));
    }

    pub(crate) fn crashed(&mut self, node: usize) {
        self.seen.entry(node).or_default().fresh.clear();
    }

    /// It lost its disk, or has an older one.
    pub(crate) fn forgot(&mut self, node: usize) {
        self.seen.remove(&node);
        self.losses += 1;
    }

    /// The owner itself has these rows now.
    pub(crate) fn published(&mut self, table: TableId, owner: StorageId, core: &Core) {
        let Some(owned) = core.owned(table) else { return };
        let Some((_, boot, head)) = owned.heads().into_iter().find(|it| it.0 == owner) else { return };
        let rows = rows_of(owned, owner, Duration::ZERO);
        self.written.insert((table, owner, boot, head), rows);
    }

    pub(crate) fn rows_changed(&mut self, table: TableId, now: Duration, core: &Core) {
        let Some(owned) = core.owned(table) else { return };
        for (owner, boot, head) in owned.heads() {
            let written = self.written.get(&(table, owner, boot, head));
            if written.is_some_and(|it| *it != rows_of(owned, owner, now)) {
                self.blame(format!("rows of {owner} at {boot}.{head} of {table:?} are not what it wrote"));
            }
        }
    }

    /// After everything has healed and become quiet: what was promised is there.
    pub(crate) fn verify(&mut self, table: TableId, core: &Core) {
        let Some(admin) = core.admin(table) else { return };
        for edit in std::mem::take(&mut self.safe) {
            match edit {
                Edit::Delete(_, id) if admin.find(id).is_some() => self.blame(format!("{id:?} lives after DELETE")),
                Edit::Add(_, id, ..) if admin.find(id).is_none() && !self.doomed.contains(&id) => {
                    self.blame(format!("{id:?} is lost"));
                }
                // Values count up in virtual time, so a safe one can only be followed by a later one.
                Edit::Set(_, id, fields) if !self.doomed.contains(&id) => {
                    let now = admin.find(id).and_then(|(_, entry)| entry.fields.get(&fields[0].0));
                    let field = now.map(|it| it.bytes.clone());
                    if now.is_none_or(|it| it.dot.count == 0) || field.is_some_and(|it| it.is_empty()) {
                        self.blame(format!("an edit of {id:?} is lost"));
                    }
                }
                Edit::Delete(..) | Edit::Add(..) | Edit::Set(..) => {}
            }
        }
    }

    pub(crate) fn blame(&mut self, what: String) {
        self.violations.push(what);
    }
}

fn rows_of(owned: &crate::replication::owned::Owned, owner: StorageId, now: Duration) -> Rows {
    let own = owned.rows(now).filter(|it| it.0 == owner);
    own.map(|(_, name, bytes)| (name.to_vec(), bytes.to_vec())).collect()
}
