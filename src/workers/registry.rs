//! The workers of this node: edits on one side, an immutable view on the other that readers take without waiting.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::address::InvalidUrl;
use super::address::Origin;
use super::detect::Engine;
use super::detect::ServedModel;
use super::health::Breaker;
use super::health::Health;
use super::health::Outcome;
use super::health::Rules;
use super::health::State;
use super::http::Dialer;
use super::http::HttpWorker;
use super::load::Load;
use super::metrics::Metrics;
use super::worker::Worker;
use crate::base::clock::Instant;
use crate::base::entropy::Entropy;
use crate::base::ids::ModelId;
use crate::base::ids::WorkerId;
use crate::base::limits::WORKERS_MAX;
use crate::base::secret::Secret;

/// What an operator says of a worker.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its URL in canonical form.
    pub url: String,
    /// Its key.
    pub api_key: Option<Secret>,
    /// The models it serves; empty: ask it.
    pub models: Vec<ModelId>,
}

/// What was found out about a worker.
#[derive(Clone, Debug, Default)]
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
    /// As found.
    pub facts: Facts,
    /// Whether it is being drained.
    pub is_draining: bool,
    /// How it is spoken to.
    pub worker: Arc<dyn Worker>,
    /// What it has to do.
    pub load: Arc<Load>,
    health: Arc<Mutex<Health>>,
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
        if self.is_draining { State::Draining } else { self.state(now) }
    }

    /// Its circuit breaker.
    #[must_use]
    pub fn breaker(&self, now: Instant) -> Breaker {
        self.health.lock().breaker(now)
    }

    /// Whether it may be given a request.
    #[must_use]
    pub fn is_available(&self, now: Instant) -> bool {
        !self.is_draining && matches!(self.state(now), State::Ready | State::Pending)
    }

    /// A request goes there.
    pub fn sent(&self, now: Instant) {
        let mut health = self.health.lock();
        health.sent(now);
        self.tell(health.breaker_change(now));
    }

    /// A request ended there.
    pub fn ended(&self, now: Instant, outcome: Outcome) {
        let mut health = self.health.lock();
        health.ended(now, outcome);
        self.tell(health.breaker_change(now));
    }

    fn tell(&self, change: Option<(Breaker, Breaker)>) {
        if let Some((from, to)) = change {
            self.metrics.breaker_changed(from, to);
        }
    }

    /// The health core, for the prober.
    #[must_use]
    pub fn health(&self) -> &Mutex<Health> {
        &self.health
    }

    fn with(&self, facts: Facts, is_draining: bool) -> Arc<Self> {
        Arc::new(Self {
            id: self.id,
            spec: self.spec.clone(),
            facts,
            is_draining,
            worker: Arc::clone(&self.worker),
            load: Arc::clone(&self.load),
            health: Arc::clone(&self.health),
            metrics: self.metrics.clone(),
        })
    }
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
}

/// The registry.
pub struct Registry {
    fleet: ArcSwap<Fleet>,
    edits: Mutex<BTreeMap<WorkerId, Arc<Entry>>>,
    entropy: Entropy,
    rules: Rules,
    dialer: Dialer,
}

impl Registry {
    /// No workers yet.
    #[must_use]
    pub fn new(rules: Rules, dialer: Dialer, entropy: Entropy) -> Self {
        Self { fleet: ArcSwap::default(), edits: Mutex::default(), entropy, rules, dialer }
    }

    /// The view.
    #[must_use]
    pub fn fleet(&self) -> arc_swap::Guard<Arc<Fleet>> {
        self.fleet.load()
    }

    /// Adds a worker; the same URL again updates what is there and keeps its id, load and health.
    pub fn add(&self, url: &str, api_key: Option<Secret>, models: Vec<ModelId>) -> Result<WorkerId, EditError> {
        let origin = Origin::parse(url)?;
        let url = origin.url();
        let mut edits = self.edits.lock();
        let known = edits.values().find(|it| it.spec.url == url).cloned();
        if known.is_none() && edits.len() >= WORKERS_MAX {
            return Err(EditError::TooMany);
        }
        let worker: Arc<dyn Worker> = Arc::new(HttpWorker::new(origin, api_key.as_ref(), self.dialer.clone()));
        let id = known.as_ref().map_or_else(|| WorkerId(self.entropy.next_u64()), |it| it.id);
        let facts = match &known {
            Some(entry) if models.is_empty() => entry.facts.clone(),
            _ => Facts {
                engine: Engine::default(),
                models: models.iter().map(|id| ServedModel { id: id.clone(), context_len: None }).collect(),
            },
        };
        let load = known.as_ref().map_or_else(Arc::default, |it| Arc::clone(&it.load));
        let health = known.map_or_else(|| Arc::new(Mutex::new(Health::new(self.rules))), |it| Arc::clone(&it.health));
        let spec = Spec { url, api_key, models };
        let metrics = self.dialer.metrics.clone();
        edits.insert(id, Arc::new(Entry { id, spec, facts, is_draining: false, worker, load, health, metrics }));
        self.publish(&edits);
        Ok(id)
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
        if entry.facts.engine == facts.engine && entry.facts.models == facts.models {
            return;
        }
        let entry = entry.with(facts, entry.is_draining);
        edits.insert(id, entry);
        self.publish(&edits);
    }

    /// Gives a worker no new requests, or lets it have them again.
    pub fn set_draining(&self, id: WorkerId, is_draining: bool) -> Result<Arc<Entry>, EditError> {
        let mut edits = self.edits.lock();
        let entry = edits.get(&id).ok_or(EditError::Unknown(id))?;
        let entry = entry.with(entry.facts.clone(), is_draining);
        edits.insert(id, Arc::clone(&entry));
        self.publish(&edits);
        Ok(entry)
    }

    /// Takes a worker out; what is in flight there finishes.
    pub fn remove(&self, id: WorkerId) -> Result<Arc<Entry>, EditError> {
        let mut edits = self.edits.lock();
        let entry = edits.remove(&id).ok_or(EditError::Unknown(id))?;
        self.publish(&edits);
        Ok(entry)
    }

    fn publish(&self, edits: &BTreeMap<WorkerId, Arc<Entry>>) {
        let mut by_model: HashMap<ModelId, Vec<Arc<Entry>>> = HashMap::new();
        for entry in edits.values() {
            for model in &entry.facts.models {
                by_model.entry(model.id.clone()).or_default().push(Arc::clone(entry));
            }
        }
        let generation = self.fleet.load().generation + 1;
        let by_model = by_model.into_iter().map(|(model, entries)| (model, entries.into())).collect();
        self.fleet.store(Arc::new(Fleet { generation, all: edits.values().cloned().collect(), by_model }));
    }
}
