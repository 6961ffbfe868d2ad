//! What the edge holds: it asks for the load of candidates, and counts what it begins.
//!
//! Reading the own ledgers takes a lock for less than a microsecond and no hop. Counting is exact because a request is counted and numbered in one step, and reports
//! are numbered and counted in another that excludes it (`gate`): a report has a request whose number is smaller, and none whose number is larger.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use parking_lot::Mutex;
use parking_lot::RwLock;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::InFlight;
use super::core::Core;
use super::core::Effect;
use super::core::Event;
use super::core::Plan;
use super::messages::Answer;
use super::messages::Commit;
use super::messages::PROBE_LEN_MAX;
use super::messages::Said;
use super::metrics::Metrics;
use crate::base::clock::Clock;
use crate::base::clock::Instant;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::observability::labels::label;
use crate::transport;
use crate::transport::Peer;
use crate::transport::lanes::Lane;
use crate::workers::load::LoadGuard;
use crate::workers::registry::Registry;

label! {
    /// Who told a load.
    pub enum Source {
        /// This node keeps the ledger.
        Local = "local",
        /// The node that keeps it.
        Remote = "remote",
        /// The node that keeps it, and it does not know all.
        Unknown = "unknown",
        /// Nobody.
        Missed = "missed",
    }
}

/// What is known of one candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Who told it.
    pub source: Source,
    /// What other nodes have in flight there; at least this much where the source is [`Source::Unknown`].
    pub others: InFlight,
    /// How old the oldest of the reports is that it is made of.
    pub age: Duration,
}

/// One for each worker asked for.
pub type Readings = SmallVec<[Reading; 8]>;

pub(crate) const MISSED: Reading =
    Reading { source: Source::Missed, others: InFlight { requests: 0, queued_tokens: 0 }, age: Duration::ZERO };

impl Reading {
    pub(crate) fn of(said: Said, source: Source) -> Self {
        let source = if said.is_known { source } else { Source::Unknown };
        Self { source, others: said.others, age: Duration::from_millis(u64::from(said.age_ms)) }
    }
}

/// Asks and counts. Clones are the same one.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// What the edge and the driver have in common.
pub(super) struct Shared {
    pub(super) core: Mutex<Core>,
    /// [`Core::is_alone`], read without the lock.
    pub(super) is_alone: AtomicBool,
    pub(super) me: StorageId,
    pub(super) registry: Arc<Registry>,
    pub(super) transport: transport::Handle,
    /// The task is to wake earlier than it meant to.
    pub(super) sooner: Notify,
    pub(super) numbers: AtomicU64,
    pub(super) gate: RwLock<()>,
    pub(super) limit: Duration,
    /// What others told now and then, and when the oldest part of it was so. BOUND: the table's.
    pub(super) gossip: ArcSwap<HashMap<WorkerId, (InFlight, Instant)>>,
    pub(super) metrics: Metrics,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("me", &self.0.me).finish_non_exhaustive()
    }
}

/// The candidates whose ledger one other node keeps: where each stands in the question.
type Group = (Arc<Peer>, SmallVec<[usize; 8]>);

impl Handle {
    /// Whether there is nobody to ask: own counts are all there is.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.0.is_alone.load(Ordering::Relaxed)
    }

    /// Counts a request that begins at a worker, and tells the owners of its ledger.
    pub fn started(&self, worker: WorkerId, tokens: u64, count: impl FnOnce() -> LoadGuard) -> LoadGuard {
        if self.is_alone() {
            return count();
        }
        let shared = self.0.gate.read();
        let guard = count();
        let number = self.0.next_number();
        drop(shared);
        self.0.begun(Commit { number, worker: worker.0, tokens });
        guard
    }

    /// What other nodes have in flight at these workers, and how that is known. Waits for one deadline at most, and not at all where
    /// this node keeps the ledgers. Of more workers than fit one question the rest count as missed.
    pub async fn probe(&self, workers: &[WorkerId]) -> Readings {
        let mut readings: Readings = smallvec::smallvec![MISSED; workers.len()];
        let groups = self.plan(&workers[..workers.len().min(PROBE_LEN_MAX)], &mut readings);
        if !groups.is_empty() {
            let since = Clock.now();
            let asked =
                groups.iter().map(|(owner, places)| self.ask(since, owner, places.iter().map(|it| workers[*it])));
            for (said, (_, places)) in join_all(asked).await.into_iter().zip(&groups) {
                for (said, place) in said.into_iter().flatten().zip(places) {
                    readings[*place] = Reading::of(said, Source::Remote);
                }
            }
            self.0.metrics.waited(Clock.now().saturating_duration_since(since));
        }
        readings.iter().for_each(|it| self.0.metrics.probed(it.source));
        readings
    }

    /// What other nodes told of a worker now and then, and how old that is at most.
    #[must_use]
    pub fn gossiped(&self, worker: WorkerId) -> (InFlight, Duration) {
        self.0
            .gossip
            .load()
            .get(&worker)
            .map_or_else(Default::default, |it| (it.0, Clock.now().saturating_duration_since(it.1)))
    }

    /// Reads what is here, and groups the rest by owner.
    fn plan(&self, workers: &[WorkerId], readings: &mut Readings) -> SmallVec<[Group; 4]> {
        let mut groups: SmallVec<[Group; 4]> = SmallVec::new();
        let (mut core, now) = (self.0.core.lock(), Clock.now());
        for (place, worker) in workers.iter().enumerate() {
            match core.plan(now, *worker) {
                Plan::Here(said) => readings[place] = Reading::of(said, Source::Local),
                Plan::Ask(owner) => match groups.iter_mut().find(|it| it.0.storage == owner.storage) {
                    Some(group) => group.1.push(place),
                    None => groups.push((owner, smallvec::smallvec![place])),
                },
                Plan::Nobody => {}
            }
        }
        groups
    }

    async fn ask(&self, since: Instant, owner: &Peer, workers: impl Iterator<Item = WorkerId>) -> Option<Vec<Said>> {
        let workers: Vec<u64> = workers.map(|it| it.0).collect();
        let len = workers.len();
        let question = self.0.core.lock().question(owner.storage, workers).encode().ok()?;
        let answer = self.0.transport.request(owner, Lane::Ledger, &question, self.0.limit).await;
        let said = answer.ok().and_then(|it| Answer::loads(&it, len));
        let mut core = self.0.core.lock();
        match &said {
            Some(_) => core.answered(owner.storage),
            None => {
                if core.missed(Clock.now(), owner.storage, since, self.0.limit) {
                    self.0.metrics.skipped();
                }
            }
        }
        said
    }
}

impl Shared {
    /// Counts it here at once. The task is woken only if it sleeps for longer than this may wait.
    fn begun(&self, commit: Commit) {
        let mut effects = Vec::new();
        let is_sooner = {
            let mut core = self.core.lock();
            let before = core.next_wake();
            core.step(Clock.now(), Event::Started(commit), &mut effects);
            core.next_wake() < before
        };
        for effect in effects {
            match effect {
                Effect::Ignored(why) => self.metrics.ignored(why), // the next report counts it
                Effect::Send(..) => {}                             // beginnings are sent by time and with questions
            }
        }
        if is_sooner {
            self.sooner.notify_one();
        }
    }

    fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// All that this node has in flight, and the number that says what is in it.
    pub(super) fn look(&self) -> (u64, Vec<(WorkerId, InFlight)>) {
        let fleet = Arc::clone(&*self.registry.fleet());
        let now = Clock.now();
        let alone = self.gate.write();
        let number = self.next_number();
        let load = |it: &crate::workers::load::Load| InFlight {
            requests: u32::try_from(it.requests()).unwrap_or(u32::MAX),
            queued_tokens: it.queued_prefill_tokens(now),
        };
        let loads = fleet.all.iter().map(|it| (it.id, load(&it.load))).collect();
        drop(alone);
        (number, loads)
    }
}
