//! What other areas hold: edits, rows of this node, reading.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::select_all;
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
use super::metrics::Metrics;
use super::owned::Owned;
use super::tables::FORGOTTEN;
use super::tables::FORGOTTEN_STORAGE;
use super::tables::TableId;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;

/// Between two looks at what time alone changes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

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
    members: watch::Sender<u64>,
    started: Instant,
    has_peers: bool,
    metrics: Metrics,
    /// Whether there ever was another member in this life.
    has_met: AtomicBool,
    /// Whether the tables were in force once: they are then for good.
    was_in_force: AtomicBool,
}

impl Shared {
    pub(super) fn new(
        core: Core,
        changes: BTreeMap<TableId, watch::Sender<u64>>,
        started: Instant,
        has_peers: bool,
        metrics: Metrics,
    ) -> Self {
        let (core, members, has_met) = (Mutex::new(core), watch::channel(0).0, AtomicBool::new(false));
        let was_in_force = AtomicBool::new(false);
        Self { core, changes, members, started, has_peers, metrics, has_met, was_in_force }
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

    pub(super) fn members_are(&self, are_any: bool) {
        self.has_met.fetch_or(are_any, Ordering::Relaxed);
        self.members.send_modify(|n| *n += 1);
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
        let answer = match self.commands.send(Command::Edit(edits, reply)).await {
            Ok(()) => answered.await.unwrap_or(Err(EditError::Closing)),
            Err(_stopped) => Err(EditError::Closing),
        };
        self.shared.metrics.edited(&answer);
        answer
    }

    /// Forgets a data directory for good, at every node: its rows go and are not taken again, and membership drops its node once that is gone.
    pub async fn forget(&self, storage: StorageId) -> Answer {
        let bytes = storage.0.to_be_bytes().to_vec();
        // Named by the directory, so that forgetting it at two nodes is one entry each, and twice at one node is refused by nobody.
        let is_known = self.admin(FORGOTTEN, |table| table.find(InstanceId(storage.0)).is_some());
        let add = Edit::Add(FORGOTTEN, InstanceId(storage.0), 1, vec![(FORGOTTEN_STORAGE, 1, bytes)]);
        self.edit(if is_known { Vec::new() } else { vec![add] }).await
    }

    /// Writes rows of this node. False: too much waits, say it again later.
    #[must_use]
    pub fn publish(&self, table: TableId, rows: Vec<NewRow>) -> bool {
        self.commands.try_send(Command::Publish(table, rows)).is_ok()
    }

    /// Reads an admin table. Short: replication waits meanwhile. An unknown table is an empty one.
    pub fn admin<T>(&self, table: TableId, read: impl FnOnce(&Admin) -> T) -> T {
        let empty = Admin::new(super::admin::Bounds { entries_max: 0, bytes_max: 0, runs_max: 0 });
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

    /// Runs `apply` now, and again whenever one of the tables is another or members came or went, and now and then for what time alone
    /// changes. Changes that come together are one.
    pub fn follow(&self, tables: &[TableId], task: Task, tasks: &Tasks, apply: impl Fn() + Send + 'static) {
        let mut changes: Vec<_> = tables.iter().map(|it| self.changes(*it)).collect();
        changes.push(self.shared.members.subscribe());
        tasks.spawn(task, |stop| async move {
            loop {
                changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
                apply();
                let changed = changes.iter_mut().map(|it| Box::pin(it.changed()));
                tokio::select! {
                    () = stop.cancelled() => return,
                    (changed, _, _) = select_all(changed) => if changed.is_err() { return },
                    () = Clock.sleep(LOOK_AGAIN) => {}
                }
            }
        });
    }

    /// Whether that data directory's node is a member and not down, or this one.
    #[must_use]
    pub fn is_here(&self, storage: StorageId) -> bool {
        let is_it =
            |core: &Core| core.me().actor.storage == storage || core.members().any(|it| it.1.storage == storage);
        self.shared.read(|core, _| is_it(core))
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

    /// Whether the tables are those of the cluster: compared with a member, or there is no cluster. `patience` ends the wait. Once true,
    /// it stays so: readiness does not fall because others are away.
    #[must_use]
    pub fn is_in_force(&self, patience: Duration) -> bool {
        let Shared { started, has_peers, has_met, was_in_force, .. } = &*self.shared;
        let has_waited = Clock.now().saturating_duration_since(*started) >= patience;
        let may_begin = !has_peers || has_met.load(Ordering::Relaxed);
        let is_in_force = || may_begin && self.shared.read(|core, _| core.is_in_force());
        let is_it = was_in_force.load(Ordering::Relaxed) || has_waited || is_in_force();
        was_in_force.fetch_or(is_it, Ordering::Relaxed);
        is_it
    }
}
