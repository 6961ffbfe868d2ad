//! The workers of this node: edits on one side, an immutable view on the other that readers take without waiting.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;
#[cfg(test)]
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::address::InvalidUrl;
use super::address::Origin;
use super::detect::Engine;
use super::detect::ServedModel;
use super::forward::ForwardWorker;
use super::forward::Forwarder;
use super::health::Breaker;
use super::health::Changes;
use super::health::Health;
use super::health::Outcome;
use super::health::Probe;
use super::health::Rules;
use super::health::State;
use super::health::Word;
use super::http::Dialer;
use super::http::HttpWorker;
use super::lifetime::Lifetime;
use super::load::Load;
use super::metrics::Metrics;
use super::rate;
use super::spec::Source;
use super::spec::Spec;
use super::worker::Worker;
use crate::base::clock::Instant;
use crate::base::ids::ModelId;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::base::secret::Secret;
#[cfg(test)]
use crate::base::tasks::Tasks;
use crate::replication::core::EditError as TableError;

/// What was found out about a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub engine: Engine,
    /// What it serves.
    pub models: Vec<ServedModel>,
}

/// One worker in the view.
pub struct Entry {
    /// Its id.
    pub id: WorkerId,
    /// As registered.
    pub spec: Spec,
    /// Who says so.
    pub source: Source,
    /// As found.
    pub facts: Facts,
    /// How it is spoken to.
    pub worker: Arc<dyn Worker>,
    /// The node that this one reaches it through; None: by itself.
    pub through: Option<StorageId>,
    /// What it has to do.
    pub load: Arc<Load>,
    health: Arc<Mutex<Health>>,
    lifetime: Arc<Mutex<Lifetime>>,
    metrics: Metrics,
}

impl Entry {
    /// Health as shown.
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        self.health.lock().state(now)
    }

    /// The same, and whether it is being drained.
    #[must_use]
    pub fn shown_state(&self, now: Instant) -> State {
        if self.spec.is_draining { State::Draining } else { self.state(now) }
    }

    /// Its circuit breaker.
    #[must_use]
    pub fn breaker(&self, now: Instant) -> Breaker {
        self.health.lock().breaker(now)
    }

    /// Whether it may be given a request.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        self.standing(now).0
    }

    /// The same, and whether it should be given one only when no other worker can be.
    #[must_use]
    pub fn standing(&self, now: Instant) -> (bool, bool) {
        let health = self.health.lock();
        let is_available = !self.spec.is_draining && matches!(health.state(now), State::Ready | State::Pending);
        (is_available, health.is_suspect(now))
    }

    /// Whether it has still to tell what it serves: it answers, or was not asked yet.
    #[must_use]
    pub fn is_untold(&self) -> bool {
        self.facts.models.is_empty() && self.health.lock().own().last.is_none_or(|it| it == Probe::Ok)
    }

    /// A request goes there.
    pub fn sent(&self, now: Instant) {
        let mut health = self.health.lock();
        health.sent(now);
        self.tell(health.changes(now));
    }

    /// A request ended there that was sent then.
    pub fn ended(&self, now: Instant, sent: Instant, outcome: Outcome) {
        let mut health = self.health.lock();
        health.ended(now, sent, outcome);
        self.tell(health.changes(now));
    }

    /// A probe ended. Returns whether the worker came back with it.
    pub fn probed(&self, now: Instant, probe: Probe) -> bool {
        let mut health = self.health.lock();
        let came_back = health.probed(now, probe);
        self.tell(health.changes(now));
        came_back
    }

    /// Other nodes say this of it.
    pub fn heard(&self, now: Instant, word: Word) {
        let mut health = self.health.lock();
        health.heard(word);
        self.tell(health.changes(now));
    }

    /// Lines for whoever is on call: a worker changes now and then, requests are many.
    fn tell(&self, changes: Changes) {
        let (worker, url) = (self.id, self.spec.url.as_str());
        if let Some((from, to)) = changes.breaker {
            self.metrics.breaker_changed(from, to);
            match (from, to) {
                (Breaker::Closed, _) => {
                    tracing::warn!(%worker, url, "circuit breaker opened: half of its requests failed")
                }
                (_, Breaker::Closed) => tracing::info!(%worker, url, "circuit breaker closed"),
                // Again and again while a worker stays broken.
                (Breaker::Open | Breaker::HalfOpen, _) => tracing::debug!(%worker, url, ?to, "circuit breaker"),
            }
        }
        if changes.went_away {
            tracing::warn!(%worker, url, "worker is not ready");
        }
    }

    /// The health core, for the prober.
    #[must_use]
    pub fn health(&self) -> &Mutex<Health> {
        &self.health
    }

    /// Which process is behind it, for the prober.
    #[must_use]
    pub fn lifetime(&self) -> &Mutex<Lifetime> {
        &self.lifetime
    }

    fn with(&self, facts: Facts) -> Arc<Self> {
        Arc::new(Self {
            id: self.id,
            spec: self.spec.clone(),
            source: self.source,
            facts,
            worker: Arc::clone(&self.worker),
            through: self.through,
            load: Arc::clone(&self.load),
            health: Arc::clone(&self.health),
            lifetime: Arc::clone(&self.lifetime),
            metrics: self.metrics.clone(),
        })
    }
}

/// A worker as it is to be.
pub struct Wanted {
    /// Its id.
    pub id: WorkerId,
    /// What is said of it.
    pub spec: Spec,
    /// Who says that it is there.
    pub source: Source,
}

/// All workers at one moment.
#[derive(Default)]
pub struct Fleet {
    /// Changes with every edit.
    pub generation: u64,
    /// In ascending id order.
    pub all: Vec<Arc<Entry>>,
    /// Who serves what, each in ascending id order.
    pub by_model: HashMap<ModelId, Arc<[Arc<Entry>]>>,
}

/// Why an edit was refused. The caller's fault; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The URL.
    #[error("`url`: {0}")]
    Url(#[from] InvalidUrl),
    /// As many workers as there may be.
    #[error("there are {WORKERS_MAX} workers already, which is the most")]
    TooMany,
    /// No worker with this id.
    #[error("no worker with this id: {0}")]
    Unknown(WorkerId),
    /// It could not be kept over a restart.
    #[error(transparent)]
    NotKept(#[from] TableError),
}

/// The registry.
pub struct Registry {
    fleet: ArcSwap<Fleet>,
    changes: watch::Sender<u64>,
    edits: Mutex<BTreeMap<WorkerId, Arc<Entry>>>,
    rules: Rules,
    dialer: Dialer,
    forwarder: Forwarder,
    /// Workers of tests: of some no table knows, and nobody has to dial any.
    #[cfg(test)]
    played: Mutex<HashMap<WorkerId, Arc<dyn Worker>>>,
}

impl Registry {
    /// No workers yet.
    #[must_use]
    pub fn new(rules: Rules, dialer: Dialer) -> Self {
        Self {
            fleet: ArcSwap::default(),
            changes: watch::Sender::default(),
            edits: Mutex::default(),
            rules,
            dialer,
            forwarder: Forwarder::default(),
            #[cfg(test)]
            played: Mutex::default(),
        }
    }

    /// The same, with ways to workers that only other nodes reach.
    #[must_use]
    pub fn with_forwarder(self, forwarder: Forwarder) -> Self {
        Self { forwarder, ..self }
    }

    /// The view.
    #[must_use]
    pub fn fleet(&self) -> arc_swap::Guard<Arc<Fleet>> {
        self.fleet.load()
    }

    /// Wakes whenever the view is another.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The worker with this id.
    #[must_use]
    pub fn get(&self, id: WorkerId) -> Option<Arc<Entry>> {
        self.edits.lock().get(&id).cloned()
    }

    /// Whether there is room for a worker with this id.
    pub fn check_room(&self, id: WorkerId) -> Result<(), EditError> {
        let edits = self.edits.lock();
        if edits.len() < WORKERS_MAX || edits.contains_key(&id) { Ok(()) } else { Err(EditError::TooMany) }
    }

    /// Makes the fleet what is wanted: load and health of a worker stay, and connections where place and key do. Returns who went.
    pub fn reconcile(&self, wanted: Vec<Wanted>) -> Vec<WorkerId> {
        let mut edits = self.edits.lock();
        let ids: HashSet<WorkerId> = wanted.iter().map(|it| it.id).collect();
        #[cfg(test)]
        let gone_is_played = |id: &WorkerId| edits.get(id).is_some_and(|it| it.spec.url.starts_with("http://played-"));
        #[cfg(test)]
        let ids = ids.into_iter().chain(edits.keys().copied().filter(gone_is_played)).collect::<HashSet<_>>();
        let gone: Vec<WorkerId> = edits.keys().filter(|id| !ids.contains(id)).copied().collect();
        let mut has_changed = !gone.is_empty();
        for id in &gone {
            if let Some(entry) = edits.remove(id) {
                tracing::info!(worker = %id, url = entry.spec.url, "a worker is no longer in force");
            }
        }
        for Wanted { id, spec, source } in wanted {
            let known = edits.get(&id);
            if known.is_some_and(|it| it.source == source && is_same(&it.spec, &spec)) {
                continue;
            }
            let Ok(origin) = Origin::parse(&spec.url) else { continue };
            if known.is_none() {
                tracing::info!(worker = %id, url = spec.url, "a worker is in force");
            }
            let entry = self.entry(id, &origin, spec, source, known);
            edits.insert(id, entry);
            has_changed = true;
        }
        if has_changed {
            self.publish(&edits);
        }
        gone
    }

    fn entry(
        &self,
        id: WorkerId,
        origin: &Origin,
        spec: Spec,
        source: Source,
        known: Option<&Arc<Entry>>,
    ) -> Arc<Entry> {
        let through = spec.via.filter(|_| self.forwarder.is_elsewhere(spec.via));
        let worker = match known {
            Some(entry) if is_reached_alike(&entry.spec, &spec) => Arc::clone(&entry.worker),
            Some(_) | None => self.worker(id, origin, &spec, through),
        };
        let facts = match known {
            Some(entry) if entry.spec.models == spec.models => entry.facts.clone(),
            Some(_) | None => Facts {
                engine: known.map_or_else(Engine::default, |it| it.facts.engine),
                models: spec.models.iter().map(|id| ServedModel { id: id.clone(), context_len: None }).collect(),
            },
        };
        let load = known.map_or_else(Arc::default, |it| Arc::clone(&it.load));
        let lifetime = known.map_or_else(Arc::default, |it| Arc::clone(&it.lifetime));
        let health = known.map_or_else(|| Arc::new(Mutex::new(Health::new(self.rules))), |it| Arc::clone(&it.health));
        let metrics = self.dialer.metrics.clone();
        Arc::new(Entry { id, spec, source, facts, worker, through, load, health, lifetime, metrics })
    }

    fn worker(&self, id: WorkerId, origin: &Origin, spec: &Spec, through: Option<StorageId>) -> Arc<dyn Worker> {
        #[cfg(test)]
        if let Some(played) = self.played.lock().get(&id) {
            return Arc::clone(played);
        }
        let dialer = self.dialer.clone();
        match through {
            None => Arc::new(HttpWorker::new(origin.clone(), spec.api_key.as_ref(), dialer)),
            Some(owner) => {
                let (timeout, metrics) = (dialer.connect_timeout, dialer.metrics);
                Arc::new(ForwardWorker::new(id, owner, self.forwarder.clone(), timeout, metrics))
            }
        }
    }

    /// Records what a worker was found to be.
    pub fn found(&self, id: WorkerId, mut facts: Facts) {
        let mut edits = self.edits.lock();
        let Some(entry) = edits.get(&id) else { return };
        if !entry.spec.models.is_empty() {
            let lens = std::mem::take(&mut facts.models);
            facts.models = entry
                .spec
                .models
                .iter()
                .map(|id| ServedModel {
                    id: id.clone(),
                    context_len: lens.iter().find(|it| it.id == *id).and_then(|it| it.context_len),
                })
                .collect();
        }
        if entry.facts == facts {
            return;
        }
        let entry = entry.with(facts);
        edits.insert(id, entry);
        self.publish(&edits);
    }

    /// Compares the workers of each model by how fast they read prompts. One that serves several models gets the mean.
    pub fn relate_rates(&self) {
        let fleet = self.fleet.load();
        let mut sums: HashMap<WorkerId, (f32, u16)> = HashMap::new();
        for entries in fleet.by_model.values() {
            let rates: Vec<_> = entries.iter().map(|it| it.load.prefill_rate()).collect();
            for (entry, relative) in entries.iter().zip(rate::relative(&rates)) {
                let (sum, count) = sums.entry(entry.id).or_default();
                *sum += relative;
                *count = count.saturating_add(1);
            }
        }
        for entry in &fleet.all {
            if let Some((sum, count)) = sums.get(&entry.id) {
                entry.load.set_relative_prefill_rate(sum / f32::from(*count));
            }
        }
    }

    fn publish(&self, edits: &BTreeMap<WorkerId, Arc<Entry>>) {
        let mut by_model: HashMap<ModelId, Vec<Arc<Entry>>> = HashMap::new();
        for entry in edits.values() {
            for model in &entry.facts.models {
                let serving = by_model.entry(model.id.clone()).or_default();
                // A worker that lists a model twice is still one worker.
                if serving.last().is_none_or(|it| it.id != entry.id) {
                    serving.push(Arc::clone(entry));
                }
            }
        }
        let generation = self.fleet.load().generation + 1;
        let by_model = by_model.into_iter().map(|(model, entries)| (model, entries.into())).collect();
        self.fleet.store(Arc::new(Fleet { generation, all: edits.values().cloned().collect(), by_model }));
        self.changes.send_replace(generation);
    }
}

fn is_reached_alike(a: &Spec, b: &Spec) -> bool {
    (&a.url, a.via) == (&b.url, b.via) && same(a.api_key.as_ref(), b.api_key.as_ref())
}

/// Whether nothing that can be said of a worker differs.
fn is_same(a: &Spec, b: &Spec) -> bool {
    let parts = |it: &Spec| (it.via, it.priority, it.cost.to_bits(), it.is_draining);
    (&a.url, &a.models, &a.labels, parts(a)) == (&b.url, &b.models, &b.labels, parts(b))
        && same(a.api_key.as_ref(), b.api_key.as_ref())
}

/// Whether two keys are the same one.
fn same(a: Option<&Secret>, b: Option<&Secret>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.matches(b.expose().as_bytes()),
        (a, b) => a.is_none() && b.is_none(),
    }
}

#[cfg(test)]
impl Registry {
    /// An empty one for a node that probes each `interval`, and holds a worker for away after two failures.
    pub fn for_tests(interval: Duration, metrics: &Metrics, tasks: &Tasks) -> Self {
        let rules = Rules {
            failure_threshold: 2,
            success_threshold: 1,
            breaker_failures: 10,
            breaker_window: interval,
            breaker_open: interval,
            pause_max: interval,
            memory: super::observers::memory(interval),
        };
        let dialer = Dialer::new(&super::config::Config::default(), tasks.clone(), metrics.clone());
        Self::new(rules, dialer.expect("no files"))
    }

    /// The worker at this address, once there is one, is answered for by `worker`.
    pub fn stub(&self, url: &str, worker: Arc<dyn Worker>) {
        self.played.lock().insert(WorkerId::of(url, None), worker);
    }

    /// Adds a worker that serves `models` and is answered for by `worker`. No table knows it.
    pub fn play(&self, name: &str, models: &[&str], worker: Arc<dyn Worker>) -> WorkerId {
        let models = models.iter().map(|it| ModelId::parse(it).expect("a model")).collect();
        let origin = Origin::parse(&format!("http://played-{name}")).expect("a worker's URL");
        let id = WorkerId(self.fleet().all.len() as u64 + 1);
        self.play_as(id, Spec { models, ..Spec::named(&origin, None) }, worker);
        id
    }

    /// The same under a given id and address.
    pub fn play_as(&self, id: WorkerId, spec: Spec, worker: Arc<dyn Worker>) {
        let origin = Origin::parse(&spec.url).expect("a worker's URL");
        self.played.lock().insert(id, worker);
        let entry = self.entry(id, &origin, spec, Source::Api, None);
        let mut edits = self.edits.lock();
        edits.insert(id, entry);
        self.publish(&edits);
    }
}
