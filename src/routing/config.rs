//! Options of routing and of retries.

use std::time::Duration;

use crate::base::setting::ByteSize;
use crate::base::setting::Expected;
use crate::base::setting::Setting;
use crate::routing::policies::PolicyName;
use crate::routing::rules::Policies;
use crate::routing::rules::Rule;

crate::config! {
    /// How a worker is chosen, and what follows when it fails.
    pub struct Config in "routing" {
        /// Policy of models that have none of their own: cache_aware, round_robin, random, power_of_two, consistent_hashing, prefix_hash, manual or bucket.
        "policy" => policy: PolicyName = PolicyName::DEFAULT,
        /// Policies of models by name or pattern, e.g. `llama-*:round_robin`; the first that fits counts. In the file also as
        /// `[[routing.policies]]` tables with `model` and `policy`. What `PUT /policies` sets goes before all of these.
        "model-policies" => policies: Vec<Rule> = Vec::new(),
        /// Most memory of the prefix map. Taken piece by piece as prompts arrive, and only under cache_aware; at the limit the prefixes unused for longest go first.
        "cache-map-bytes" => cache_map_bytes: ByteSize = ByteSize(32 << 20),
        /// How long a prefix that was not used again counts as cached by its worker, until the worker's `cached_tokens` teach otherwise: less where it forgets sooner, up to ten times as long where it remembers. 180s is about what a cache of a million tokens keeps at 5,000 uncached tokens a second; for workers that do not report, shorter loses sessions that pause and longer sends them to caches that forgot.
        "cache-ttl" => cache_ttl: Duration = Duration::from_secs(180),
        /// prefix_hash: how many tokens of the prompt's beginning decide (taken as 4 bytes each).
        "prefix-token-count" => prefix_token_count: usize = 256,
        /// prefix_hash and consistent_hashing: a worker may have this many times the mean load before the next on the ring is taken.
        "prefix-hash-load-factor" => prefix_hash_load_factor: f64 = 1.25,
        /// manual: a routing key that was not used for this long is forgotten.
        "max-idle-secs" => manual_idle: Duration = Duration::from_secs(14_400),
        /// manual: routing keys remembered per model; beyond it the ones unused for longest are forgotten.
        "manual-keys-max" => manual_keys_max: usize = 65_536,
        /// manual: how a new routing key gets its worker: random or min_load (the less loaded of two).
        "assignment-mode" => assignment_mode: AssignmentMode = AssignmentMode::Random,
        /// Let nodes of a mesh keep to themselves which worker got which prompt prefix, and which routing key is bound where: each then knows only its own. For comparisons.
        "disable-placement-sharing" => disable_placement_sharing: bool = false,
        /// Attempts per request, the first one included. Each goes to another worker.
        "retry-max-attempts" => retry_max_attempts: u32 = 3,
        /// Pause before the first retry; doubled for each further one, half of it random.
        "retry-initial-backoff" => retry_initial_backoff: Duration = Duration::from_millis(50),
        /// Longest pause before a retry. A worker's Retry-After is waited for only up to this, since the retry goes elsewhere.
        "retry-max-backoff" => retry_max_backoff: Duration = Duration::from_secs(2),
        /// Retries per 100 requests; beyond it failures are passed on, so that retries cannot multiply an overload. About five a second are always allowed, and a hundred at once.
        "retry-budget-percent" => retry_budget_percent: u32 = 10,
        /// Never retry.
        "disable-retries" => disable_retries: bool = false,
    }
}

impl Config {
    /// The policies these options name.
    #[must_use]
    pub fn policies(&self) -> Policies {
        Policies { default: self.policy, models: self.policies.clone() }
    }
}

/// How `manual` finds a worker for a new routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignmentMode {
    /// Any, evenly.
    Random,
    /// The less loaded of two drawn at random: all keys of a burst would otherwise get the one least loaded.
    MinLoad,
}

impl Setting for AssignmentMode {
    const KIND: &'static str = "random or min_load";

    fn parse(text: &str) -> Result<Self, Expected> {
        match text {
            "random" => Ok(Self::Random),
            "min_load" => Ok(Self::MinLoad),
            _ => Err("expected `random` or `min_load`".into()),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Random => "random".to_owned(),
            Self::MinLoad => "min_load".to_owned(),
        }
    }
}

impl Setting for PolicyName {
    const KIND: &'static str = "policy";

    fn parse(text: &str) -> Result<Self, Expected> {
        Self::parse(text).map_err(|error| error.to_string().into())
    }

    fn render(&self) -> String {
        self.as_str().to_owned()
    }
}
