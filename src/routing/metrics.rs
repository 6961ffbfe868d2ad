//! What routing shows of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::observability::metrics::Registry;
use crate::routing::prefix_map::table::Table;
use crate::routing::retry::Class;
use crate::routing::retry::GiveUp;
use crate::routing::route::Reason;
use crate::routing::route::RouteError;

/// Upper ends of the decision time's buckets: the aim is 20 us, a millisecond would be felt.
const DECISION_SECONDS: [f64; 10] = [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    policy: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Because {
    reason: &'static str,
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: Family<Decided, Counter>,
    refusals: Family<Because, Counter>,
    decision_seconds: Histogram,
    expected_cached_tokens: Counter,
    reported_cached_tokens: Counter,
    map_entries: Gauge,
    map_bytes: Gauge,
    map_evictions: Counter,
    manual_keys: Gauge,
    retries: Family<Because, Counter>,
    retries_withheld: Family<Because, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            decisions: Family::default(),
            refusals: Family::default(),
            decision_seconds: Histogram::new(DECISION_SECONDS),
            expected_cached_tokens: Counter::default(),
            reported_cached_tokens: Counter::default(),
            map_entries: Gauge::default(),
            map_bytes: Gauge::default(),
            map_evictions: Counter::default(),
            manual_keys: Gauge::default(),
            retries: Family::default(),
            retries_withheld: Family::default(),
        }
    }
}

impl Metrics {
    /// Makes them and lists them in `registry`.
    #[rustfmt::skip]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("smg_routing_decisions", "Workers chosen, by policy and reason (band_spill: bucket bands that were out; ring_spill: bounded load)", it.decisions.clone());
        registry.register("smg_routing_refusals", "Requests for which no worker could be chosen", it.refusals.clone());
        registry.register("smg_routing_decision_seconds", "Time of one decision, prompt rendering and hashing included", it.decision_seconds.clone());
        registry.register("smg_routing_expected_cached_tokens", "Prompt tokens expected in the chosen worker's cache, of answers that report cached tokens", it.expected_cached_tokens.clone());
        registry.register("smg_routing_reported_cached_tokens", "Prompt tokens that workers reported as cached", it.reported_cached_tokens.clone());
        registry.register("smg_routing_prefix_map_entries", "Entries of the prefix map, expired ones included", it.map_entries.clone());
        registry.register("smg_routing_prefix_map_bytes", "Bytes allocated by the prefix map", it.map_bytes.clone());
        registry.register("smg_routing_prefix_map_evictions", "Entries of the prefix map that went for newer ones", it.map_evictions.clone());
        registry.register("smg_routing_manual_keys", "Routing keys bound to a worker by the manual policy", it.manual_keys.clone());
        registry.register("smg_routing_retries", "Attempts repeated at another worker, by what failed", it.retries.clone());
        registry.register("smg_routing_retries_withheld", "Failed attempts that were not repeated (budget_spent: the retry budget was exhausted)", it.retries_withheld.clone());
        it
    }

    /// A worker was chosen.
    pub fn decided(&self, policy: &'static str, reason: Reason) {
        self.decisions.get_or_create(&Decided { policy, reason: reason.as_str() }).inc();
    }

    /// No worker could be chosen.
    pub fn refused(&self, error: RouteError) {
        let reason = match error {
            RouteError::NoWorkers => "no_workers",
            RouteError::AllTried => "all_tried",
            RouteError::TargetUnknown(_) => "target_unknown",
            RouteError::TargetUnavailable(_) => "target_unavailable",
        };
        self.refusals.get_or_create(&Because { reason }).inc();
    }

    /// A decision took this long.
    pub fn decision_took(&self, seconds: f64) {
        self.decision_seconds.observe(seconds);
    }

    /// A worker said how much of a prompt it had cached.
    pub fn cache_reported(&self, expected: u64, reported: u64) {
        self.expected_cached_tokens.inc_by(expected);
        self.reported_cached_tokens.inc_by(reported);
    }

    /// The prefix map was written to.
    pub fn map_written(&self, table: &Table, evicted: u64) {
        self.map_entries.set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        self.map_bytes.set(i64::try_from(table.bytes()).unwrap_or(i64::MAX));
        self.map_evictions.inc_by(evicted);
    }

    /// Routing keys were bound or forgotten.
    pub fn keys_grew(&self, by: i64) {
        self.manual_keys.inc_by(by);
    }

    /// An attempt is repeated elsewhere.
    pub fn retried(&self, class: Class) {
        self.retries.get_or_create(&Because { reason: class.as_str() }).inc();
    }

    /// A failed attempt is passed on.
    pub fn retry_withheld(&self, why: GiveUp) {
        self.retries_withheld.get_or_create(&Because { reason: why.as_str() }).inc();
    }
}
