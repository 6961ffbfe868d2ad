//! `manual`: a routing key stays with its worker until that one is gone, out, or has failed the request; then it is bound
//! to another for good, since the session's cache is there from then on.
//!
//! Where nodes share their bindings, what they agreed on goes before what is remembered here.
//!
//! Keys live in two generations of hash maps. When the young one has half of the bound, it becomes the old one and the
//! old one is dropped whole: no pass over the entries, and a key in use is carried over.

use std::time::Duration;

use hashbrown::HashMap;

use super::Ask;
use super::Choice;
use super::Remembering;
use crate::base::clock::Instant;
use crate::base::ids::WorkerId;
use crate::routing::config::AssignmentMode;
use crate::routing::config::Config;
use crate::routing::draw::Draw;
use crate::routing::route::Reason;

#[derive(Clone, Copy)]
struct Bound {
    worker: WorkerId,
    used: Instant,
}

#[derive(Clone)]
pub(super) struct Manual {
    mode: AssignmentMode,
    idle_max: Duration,
    generation_max: usize,
    young: HashMap<u64, Bound>,
    old: HashMap<u64, Bound>,
    turned: Option<Instant>,
}

impl Manual {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            mode: config.assignment_mode,
            idle_max: config.manual_idle,
            generation_max: (config.manual_keys_max / 2).max(1),
            young: HashMap::new(),
            old: HashMap::new(),
            turned: None,
        }
    }

    fn assign(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<usize> {
        match self.mode {
            AssignmentMode::Random => ask.draw_usable(draw).map(|(index, _)| index),
            AssignmentMode::MinLoad => ask.better_of_two_in(0, ask.candidates.len(), draw),
        }
    }

    fn bind(&mut self, key: u64, worker: WorkerId, now: Instant) {
        let is_due = self.turned.is_some_and(|at| now.saturating_duration_since(at) >= self.idle_max);
        if is_due || (self.young.len() >= self.generation_max && !self.young.contains_key(&key)) {
            self.old = std::mem::take(&mut self.young);
            self.turned = Some(now);
        }
        self.turned.get_or_insert(now);
        self.old.remove(&key);
        self.young.insert(key, Bound { worker, used: now });
    }

    fn bound(&self, key: u64, now: Instant) -> Option<WorkerId> {
        let bound = self.young.get(&key).or_else(|| self.old.get(&key))?;
        (now.saturating_duration_since(bound.used) < self.idle_max).then_some(bound.worker)
    }
}

impl Remembering for Manual {
    fn choose(&mut self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        let Some(key) = ask.routing_key() else {
            return self.assign(ask, draw).map(|index| Choice { index, reason: Reason::Assigned });
        };
        let place = ask.bound.or_else(|| self.bound(key, ask.now)).and_then(|worker| ask.candidates.position(worker));
        let (index, reason) = match place.filter(|index| ask.usable(*index).is_some()) {
            Some(index) => (index, Reason::Bound),
            None => (self.assign(ask, draw)?, Reason::Assigned),
        };
        self.bind(key, ask.candidates.id(index), ask.now);
        Some(Choice { index, reason })
    }

    fn rehearsal(&self) -> Box<dyn Remembering> {
        Box::new(self.clone())
    }

    fn keys(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
