//! What other areas hold: edits, rows of this node, reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::Now;
use super::admin::Admin;
use super::admin::InstanceId;
use super::core::Colour;
use super::core::Core;
use super::core::Counts;
use super::core::Edit;
use super::core::EditError;
use super::core::Effect;
use super::core::Event;
use super::core::Settled;
use super::owned::Owned;
use super::tables::FORGOTTEN;
use super::tables::FORGOTTEN_STORAGE;
use super::tables::TableId;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;

pub(super) type Answer = Result<Settled, EditError>;
/// A row to publish: its name, and its value; None removes it.
pub type NewRow = (Vec<u8>, Option<Vec<u8>>);

pub(super) enum Command {
    Edit(Vec<Edit>, oneshot::Sender<Answer>),
    Publish(TableId, Vec<NewRow>),
}

/// What the driver and all handles share.
pub(super) struct Shared {
    core: Mutex<Core>,
    changes: BTreeMap<TableId, watch::Sender<u64>>,
    started: Instant,
    has_peers: bool,
    /// Whether there ever was another member in this life.
    has_met: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        core: Core,
        changes: BTreeMap<TableId, watch::Sender<u64>>,
        started: Instant,
        has_peers: bool,
    ) -> Self {
        Self { core: Mutex::new(core), changes, started, has_peers, has_met: AtomicBool::new(false) }
    }

    pub(super) fn step(&self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        self.core.lock().step(now, event, effects);
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Core, Duration) -> T) -> T {
        let now = Clock.now().saturating_duration_since(self.started);
        read(&self.core.lock(), now)
    }

    pub(super) fn changed(&self, table: TableId) {
        if let Some(changes) = self.changes.get(&table) {
            changes.send_modify(|n| *n += 1);
        }
    }

    pub(super) fn has_met(&self) {
        self.has_met.store(true, Ordering::Relaxed);
    }
}

/// The tables of this node. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("replication::Handle")
    }
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, shared: Arc<Shared>) -> Self {
        Self { commands, shared }
    }

    /// Makes edits of admin tables, all or none. They are in force here at once; this resolves when they are safe, or after two
    /// seconds, and says how far they are.
    pub async fn edit(&self, edits: Vec<Edit>) -> Answer {
        let (reply, answered) = oneshot::channel();
        self.commands.send(Command::Edit(edits, reply)).await.map_err(|_stopped| EditError::Closing)?;
        answered.await.unwrap_or(Err(EditError::Closing))
    }

    /// Forgets a data directory, everywhere and for good: its rows go and are not taken again. Twice is once.
    pub async fn forget(&self, storage: StorageId) -> Answer {
        let named = (FORGOTTEN_STORAGE, 0, storage.0.to_be_bytes().to_vec());
        // The storage's own random id: whoever forgets it again, anywhere, says the same.
        let id = InstanceId(storage.0);
        let is_known = self.admin(FORGOTTEN, |it| it.find(id).is_some());
        let fields = vec![named];
        let edit = if is_known { Edit::Set(FORGOTTEN, id, fields) } else { Edit::Add(FORGOTTEN, id, 0, fields) };
        self.edit(vec![edit]).await
    }

    /// Writes rows of this node. False: too much waits, say it again later.
    #[must_use]
    pub fn publish(&self, table: TableId, rows: Vec<NewRow>) -> bool {
        self.commands.try_send(Command::Publish(table, rows)).is_ok()
    }

    /// Reads an admin table. Short: replication waits meanwhile. An unknown table is an empty one.
    pub fn admin<T>(&self, table: TableId, read: impl FnOnce(&Admin) -> T) -> T {
        let empty = Admin::new(super::admin::Bounds { entries_max: 0, bytes_max: 0 });
        self.shared.read(|core, _| read(core.admin(table).unwrap_or(&empty)))
    }

    /// Reads an owned table at a moment of the core's clock. Short: replication waits meanwhile. An unknown table is an empty one.
    pub fn owned<T>(&self, table: TableId, read: impl FnOnce(Duration, &Owned) -> T) -> T {
        let empty = Owned::new(super::owned::Rule::Drop, super::owned::Share { rows_max: 0, bytes_max: 0 });
        self.shared.read(|core, now| read(now, core.owned(table).unwrap_or(&empty)))
    }

    /// Wakes whenever the table is another, whoever changed it.
    #[must_use]
    pub fn changes(&self, table: TableId) -> watch::Receiver<u64> {
        let none = || watch::channel(0).1;
        self.shared.changes.get(&table).map_or_else(none, watch::Sender::subscribe)
    }

    /// How every table stands.
    #[must_use]
    pub fn colours(&self) -> Vec<Colour> {
        self.shared.read(|core, _| core.colours())
    }

    /// What was refused or given up.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.read(|core, _| core.counts())
    }

    /// The data directory that this node writes under.
    #[must_use]
    pub fn storage(&self) -> StorageId {
        self.shared.read(|core, _| core.me().actor.storage)
    }

    /// Whether that data directory was forgotten for good.
    #[must_use]
    pub fn is_forgotten(&self, storage: StorageId) -> bool {
        self.shared.read(|core, _| core.is_forgotten(storage))
    }

    /// Whether the admin tables are those of the cluster: compared with a member, or there is no cluster. `patience` ends the wait for a
    /// first member.
    #[must_use]
    pub fn is_in_force(&self, patience: Duration) -> bool {
        let has_waited = Clock.now().saturating_duration_since(self.shared.started) >= patience;
        let may_begin = !self.shared.has_peers || self.shared.has_met.load(Ordering::Relaxed);
        has_waited || (may_begin && self.shared.read(|core, _| core.is_in_force()))
    }
}
