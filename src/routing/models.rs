//! What routing keeps per model: the policy at work and the learned size of a token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::base::ids::ModelId;
use crate::routing::config::Config;
use crate::routing::draw::Draw;
use crate::routing::policies::Ask;
use crate::routing::policies::Choice;
use crate::routing::policies::Instance;
use crate::routing::policies::Policy;
use crate::routing::policies::PolicyName;
use crate::routing::policies::Remembering;
use crate::routing::rules::Policies;

/// Models with a state of their own; later ones share one. Models come from the fleet, not from clients, so this is
/// reached only by a mistake.
const MODELS_MAX: usize = 1024;
/// English text in common vocabularies; used until usage was reported.
const BYTES_PER_TOKEN_FIRST: f32 = 4.0;
/// Smallest prompt that teaches the ratio: in shorter ones the chat template weighs more than the text.
const LESSON_BYTES_MIN: u64 = 256;

/// One model's state.
pub struct Model {
    /// The policy at work.
    pub policy: PolicyName,
    instance: Kept,
    /// Bits of an `f32`. Two threads that learn at once may lose one lesson.
    bytes_per_token: AtomicU32,
}

enum Kept {
    Plain(Box<dyn Policy>),
    /// Held for one decision of this model: well under a microsecond but for a ring that is made again.
    Remembering(Mutex<Box<dyn Remembering>>),
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Model {
    fn new(policy: PolicyName, config: &Config, bytes_per_token: f32) -> Self {
        let instance = match (policy.entry().make)(config) {
            Instance::Plain(it) => Kept::Plain(it),
            Instance::Remembering(it) => Kept::Remembering(Mutex::new(it)),
        };
        Self { policy, instance, bytes_per_token: AtomicU32::new(bytes_per_token.to_bits()) }
    }

    /// Asks the policy; also says by how much the keys it remembers grew.
    pub fn choose(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> (Option<Choice>, i64) {
        match &self.instance {
            Kept::Plain(policy) => (policy.choose(ask, draw), 0),
            Kept::Remembering(policy) => {
                let mut policy = policy.lock();
                let before = policy.keys() as i64;
                let choice = policy.choose(ask, draw);
                (choice, policy.keys() as i64 - before)
            }
        }
    }

    /// Asks a copy of the policy, so that nothing is remembered.
    pub fn rehearse(&self, ask: &Ask<'_, '_>, draw: &mut Draw) -> Option<Choice> {
        match &self.instance {
            Kept::Plain(policy) => policy.choose(ask, draw),
            Kept::Remembering(policy) => {
                let mut copy = policy.lock().rehearsal();
                copy.choose(ask, draw)
            }
        }
    }

    /// Keys its policy remembers.
    pub fn keys(&self) -> i64 {
        match &self.instance {
            Kept::Plain(_) => 0,
            Kept::Remembering(policy) => policy.lock().keys() as i64,
        }
    }

    /// Bytes of a rendering that make a token.
    pub fn bytes_per_token(&self) -> f32 {
        f32::from_bits(self.bytes_per_token.load(Relaxed))
    }

    /// One more prompt's size, in bytes and tokens. Images and the like, whose bytes say nothing of their tokens, are
    /// left out by the bound on what is believed.
    pub fn learn(&self, bytes: u64, tokens: u64) {
        let sample = bytes as f32 / tokens.max(1) as f32;
        if bytes < LESSON_BYTES_MIN || !(0.5..=32.0).contains(&sample) {
            return;
        }
        let known = self.bytes_per_token();
        let learned = (known + (sample - known) / 16.0).clamp(1.0, 16.0);
        self.bytes_per_token.store(learned.to_bits(), Relaxed);
    }
}

/// All models. Read without a lock; changed rarely, by copy.
#[derive(Debug)]
pub struct Models {
    config: Config,
    states: ArcSwap<States>,
    changing: Mutex<()>,
}

#[derive(Clone, Debug)]
struct States {
    policies: Arc<Policies>,
    models: HashMap<ModelId, Arc<Model>>,
    other: Arc<Model>,
}

impl Models {
    pub fn new(config: &Config) -> Self {
        let other = Arc::new(Model::new(config.policy, config, BYTES_PER_TOKEN_FIRST));
        let states = States { policies: Arc::new(config.policies()), models: HashMap::new(), other };
        Self { config: config.clone(), states: ArcSwap::from_pointee(states), changing: Mutex::new(()) }
    }

    /// The state of a model, made on first use.
    pub fn get(&self, id: &ModelId) -> Arc<Model> {
        let states = self.states.load();
        if let Some(model) = states.models.get(id) {
            return Arc::clone(model);
        }
        if states.models.len() >= MODELS_MAX {
            return Arc::clone(&states.other);
        }
        drop(states);
        self.change(|states, config| {
            let policy = states.policies.of(id);
            let fresh = || Arc::new(Model::new(policy, config, BYTES_PER_TOKEN_FIRST));
            Arc::clone(states.models.entry(id.clone()).or_insert_with(fresh))
        })
    }

    /// Which model has which policy.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.states.load().policies)
    }

    /// Puts other policies in force. Returns the keys that were forgotten with the old ones.
    pub fn set(&self, policies: Policies) -> i64 {
        self.change(|states, config| {
            states.policies = Arc::new(policies);
            states.renew(config)
        })
    }

    fn change<T>(&self, edit: impl FnOnce(&mut States, &Config) -> T) -> T {
        let _changing = self.changing.lock();
        let mut states = States::clone(&self.states.load());
        let result = edit(&mut states, &self.config);
        self.states.store(Arc::new(states));
        result
    }
}

impl States {
    /// Replaces the policies that are not what they should be; what was learned of the models stays.
    fn renew(&mut self, config: &Config) -> i64 {
        let mut forgotten = 0;
        let policies = &self.policies;
        let known = self.models.iter_mut().map(|(id, model)| (policies.of(id), model));
        for (policy, model) in known.chain([(policies.default, &mut self.other)]) {
            if model.policy != policy {
                forgotten += model.keys();
                *model = Arc::new(Model::new(policy, config, model.bytes_per_token()));
            }
        }
        forgotten
    }
}
