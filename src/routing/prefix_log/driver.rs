//! The one task of the prefix log: the outbox, the replicated table and the clock become events; effects become rows and writes to the map.
//!
//! Nothing is urgent: a map that is five seconds old finds as much as a fresh one (ROUTING.md 4.2), so what is said waits half a second for
//! more, and what arrives waits a quarter. *Absent on purpose:* decisions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep_until;

use super::Outbox;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Heard;
use super::core::Setting;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::tasks::OnEnd;
use crate::base::tasks::Stage;
use crate::base::tasks::Stop;
use crate::base::tasks::Task;
use crate::base::tasks::Tasks;
use crate::replication;
use crate::replication::NewRow;
use crate::replication::tables::PREFIXES;
use crate::routing::Router;
use crate::workers::registry::Registry;

const TASK: Task = Task { name: "prefix-log", stage: Stage::Decide, on_end: OnEnd::Log };
/// How long what was said waits for more. Longer makes fewer and larger rows, and an older map.
const GATHER: Duration = Duration::from_millis(500);
/// Between two looks at the table: one for the rows of many nodes. What comes after a pause is looked at at once, so that a node that has just got all
/// rows knows them before it is asked.
const LISTEN: Duration = Duration::from_millis(250);
/// How often rows go that are past their time, and how long a worker that is new here waits for what was said of it.
const TICK: Duration = Duration::from_secs(2);
/// Effects between two pauses, some hundred microseconds, so that a whole table read again does not hold its thread up.
const STRETCH: usize = 4096;

/// What the task stands on.
pub struct Sharing {
    /// Whose map it is.
    pub router: Arc<Router>,
    /// What its decisions leave.
    pub outbox: Arc<Outbox>,
    /// Where rows are.
    pub tables: replication::Handle,
    /// Who is known here.
    pub registry: Arc<Registry>,
}

/// Starts it.
pub fn start(sharing: Sharing, tasks: &Tasks) {
    let setting = Setting {
        me: sharing.tables.storage(),
        key: sharing.router.key.fingerprint(),
        ttl: sharing.router.config.cache_ttl,
        tick: sharing.router.tick(),
    };
    let driver = Driver {
        core: Core::new(setting),
        seen: BTreeMap::new(),
        generation: None,
        unsaid: None,
        reads_again: false,
        flush_at: None,
        read_at: Some(Clock.now()),
        looked_at: Clock.now(),
        tick_at: Clock.now() + TICK,
        sharing,
    };
    tasks.spawn(TASK, |stop| driver.run(stop));
}

struct Driver {
    sharing: Sharing,
    core: Core,
    seen: BTreeMap<StorageId, (u64, u64)>,
    /// Of the workers that the core knows.
    generation: Option<u64>,
    /// Rows that replication had no room for. Nothing more is taken from the outbox, which has a bound, until they are written.
    unsaid: Option<Vec<NewRow>>,
    /// Asked for by the core: at the next wake, once more for each life of a worker that is found on the way.
    reads_again: bool,
    flush_at: Option<Instant>,
    read_at: Option<Instant>,
    looked_at: Instant,
    tick_at: Instant,
}

impl Driver {
    async fn run(mut self, stop: Stop) {
        let mut changes = self.sharing.tables.changes(PREFIXES);
        let mut is_followed = true;
        let outbox = Arc::clone(&self.sharing.outbox);
        loop {
            let next = [self.flush_at, self.read_at, Some(self.tick_at)].into_iter().flatten().min();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = sleep_until(next.unwrap_or(self.tick_at)) => self.due().await,
                () = outbox.rung(), if self.flush_at.is_none() => self.flush_at = Some(Clock.now() + GATHER),
                changed = changes.changed(), if is_followed && self.read_at.is_none() => {
                    is_followed = changed.is_ok();
                    self.read_at = Some(Clock.now().max(self.looked_at + LISTEN));
                }
            }
        }
    }

    async fn due(&mut self) {
        let now = Clock.now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.know_workers().await;
        if is_due(self.flush_at) {
            self.flush().await;
        }
        if is_due(self.read_at) || self.reads_again {
            (self.read_at, self.looked_at) = (None, now);
            let mut seen = std::mem::take(&mut self.seen);
            let rows = self.news(&mut seen);
            self.seen = seen;
            self.step(Event::Heard { rows, is_again: false }).await;
        }
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.step(Event::Tick).await;
        }
        if std::mem::take(&mut self.reads_again) {
            let rows = self.news(&mut BTreeMap::new());
            self.step(Event::Heard { rows, is_again: true }).await;
        }
    }

    async fn flush(&mut self) {
        self.flush_at = None;
        if let Some(rows) = self.unsaid.take() {
            self.publish(rows);
        }
        if self.unsaid.is_some() {
            self.flush_at = Some(Clock.now() + GATHER);
            return;
        }
        let said = self.sharing.outbox.take();
        self.step(Event::Said(said)).await;
    }

    async fn know_workers(&mut self) {
        let fleet = Arc::clone(&self.sharing.registry.fleet());
        if self.generation != Some(fleet.generation) {
            self.generation = Some(fleet.generation);
            self.step(Event::Workers(fleet.all.iter().map(|it| it.id).collect())).await;
        }
    }

    fn news(&self, seen: &mut BTreeMap<StorageId, (u64, u64)>) -> Vec<Heard> {
        self.sharing.tables.owned(PREFIXES, |now, table| {
            let news = table.news(now, seen).into_iter();
            news.map(|it| Heard { owner: it.owner, age: it.age, value: it.bytes.map(<[u8]>::to_vec) }).collect()
        })
    }

    async fn step(&mut self, event: Event) {
        let (now, before) = (Clock.now(), self.core.counts());
        let mut effects = Vec::new();
        self.core.step(self.sharing.router.since_start(now), event, &mut effects);
        self.sharing.router.metrics.shared(before, self.core.counts());
        for stretch in effects.chunks_mut(STRETCH) {
            self.sharing.router.hear(now, stretch);
            for effect in stretch {
                match effect {
                    Effect::Publish(rows) => self.publish(std::mem::take(rows)),
                    Effect::ReadAgain => self.reads_again = true,
                    Effect::Put(..) | Effect::Withdraw(..) | Effect::Forget(_) | Effect::Learn(..) => {}
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn publish(&mut self, rows: Vec<NewRow>) {
        if !self.sharing.tables.publish(PREFIXES, rows.clone()) {
            let unsaid = self.unsaid.get_or_insert_default();
            unsaid.extend(rows);
            self.flush_at = Some(Clock.now() + GATHER);
        }
    }
}
