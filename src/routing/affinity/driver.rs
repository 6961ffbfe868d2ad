//! The one task of shared bindings: what was bound here, the table and the clock become events; effects become edits and a view.
//!
//! An edit is in force at this node at once and safe somewhat later; nobody waits for that but a task that counts how it ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::Bindings;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Row;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::replication;
use crate::replication::core::Edit;
use crate::replication::tables::AFFINITY;
use crate::routing::Metrics;

const TASK: Task = Task { name: "affinity", stage: Stage::Decide, on_end: OnEnd::Log };
/// How long a change of the table, or a new binding, waits for more. A client that changes nodes within it may see another worker.
const GATHER: Duration = Duration::from_millis(50);
/// A look at the table is followed by a pause of so many times what it took: one of 65,536 bindings takes milliseconds.
const PAUSE_FACTOR: u32 = 20;
/// How often idle bindings are looked for and used ones are told.
const TICK: Duration = Duration::from_secs(10);
/// Used bindings told at each tick: all of a full table within a quarter of the default idle time.
const USED_MAX: usize = 256;
/// Edits in one request to replication, which makes all or none.
const EDITS_MAX: usize = 64;
/// Requests under way. Beyond it new bindings wait in the queue.
const REQUESTS_MAX: usize = 16;

/// What the task stands on.
pub struct Sharing {
    /// What decisions read.
    pub bindings: Arc<Bindings>,
    /// Where they are kept.
    pub tables: replication::Handle,
    /// How long a binding outlives its last use.
    pub idle: Duration,
    /// Names instances.
    pub entropy: Entropy,
    /// What is counted.
    pub metrics: Metrics,
}

/// Starts it.
pub fn start(sharing: Sharing, tasks: &Tasks) {
    let now = Clock.now();
    let driver = Driver {
        core: Core::new(sharing.tables.storage(), sharing.idle, sharing.entropy.clone()),
        started: now,
        read_at: Some(now),
        quiet_until: now,
        bind_at: None,
        tick_at: now + TICK,
        requests: JoinSet::new(),
        sharing,
    };
    tasks.spawn(TASK, |stop| driver.run(stop));
}

struct Driver {
    sharing: Sharing,
    core: Core,
    started: Instant,
    read_at: Option<Instant>,
    quiet_until: Instant,
    bind_at: Option<Instant>,
    tick_at: Instant,
    /// Says of each how many new bindings were not made.
    requests: JoinSet<usize>,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        let mut changes = self.sharing.tables.changes(AFFINITY);
        let mut is_followed = true;
        let bindings = Arc::clone(&self.sharing.bindings);
        loop {
            let has_room = self.requests.len() < REQUESTS_MAX;
            let bind_at = self.bind_at.filter(|_| has_room);
            let next = [self.read_at, bind_at, Some(self.tick_at)].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.requests.join_next(), if !self.requests.is_empty() => {
                    self.sharing.metrics.bindings_lost(ended.unwrap_or_default());
                }
                () = sleep_until(next.unwrap_or(self.tick_at)) => self.due(has_room),
                () = bindings.bell.notified(), if self.bind_at.is_none() => self.bind_at = Some(Clock.now() + GATHER),
                changed = changes.changed(), if is_followed && self.read_at.is_none() => {
                    is_followed = changed.is_ok();
                    self.read_at = Some(self.quiet_until.max(Clock.now() + GATHER));
                }
            }
        }
    }

    fn due(&mut self, has_room: bool) {
        let now = Clock.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        // ORDER: the table is seen before new bindings are told, or a key that another node bound meanwhile would get a second instance.
        if is_due(self.read_at) || is_due(self.bind_at) {
            self.read();
        }
        if is_due(self.bind_at) && has_room {
            self.bind_at = None;
            self.step(Event::Bound(self.sharing.bindings.take_made()));
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.step(Event::Used(self.sharing.bindings.take_used(USED_MAX)));
            self.step(Event::Tick);
        }
    }

    fn read(&mut self) {
        let began = Clock.now();
        let rows = self
            .sharing
            .tables
            .admin(AFFINITY, |table| table.entries().filter_map(|(key, entry)| Row::read(key, entry)).collect());
        self.step(Event::Table(rows));
        self.sharing.metrics.bindings_shared(self.sharing.bindings.len());
        let took = Clock.now().saturating_duration_since(began);
        self.read_at = None;
        self.quiet_until = began + took * PAUSE_FACTOR;
    }

    fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.core.step(Clock.now().saturating_duration_since(self.started), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::Bind(key, worker) => self.sharing.bindings.bind(key, worker),
                Effect::Unbind(key) => self.sharing.bindings.unbind(key),
                Effect::Edit(edits) => self.edit(edits),
            }
        }
    }

    fn edit(&mut self, edits: Vec<Edit>) {
        for edits in edits.chunks(EDITS_MAX) {
            // BOUND: new bindings wait while there are REQUESTS_MAX; besides them a tick and a look make a handful.
            let (tables, edits) = (self.sharing.tables.clone(), edits.to_vec());
            self.requests.spawn(async move {
                let made = tables.edit(edits.clone()).await;
                if made.is_ok() {
                    return 0;
                }
                // One that came too late, for an instance that is gone, keeps the others from nothing.
                let mut lost = 0;
                for edit in edits {
                    let is_new = matches!(edit, Edit::Add(..));
                    lost += usize::from(tables.edit(vec![edit]).await.is_err() && is_new);
                }
                lost
            });
        }
    }
}
