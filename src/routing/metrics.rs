//! What routing shows of itself.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;
use crate::routing::prefix_log::core::Counts;
use crate::routing::prefix_map::table::Table;
use crate::routing::retry::Class;
use crate::routing::retry::GiveUp;
use crate::routing::route::Reason;
use crate::routing::route::RouteError;

/// The decision time's buckets: the aim is 20 us, a millisecond would be felt.
fn decision_seconds() -> Histogram {
    Histogram::new([2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2])
}

label! {
    /// [`RouteError`] without what it carries.
    enum Refusal {
        NoWorkers = "no_workers",
        AllTried = "all_tried",
        TargetUnknown = "target_unknown",
        TargetUnavailable = "target_unavailable",
    }
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Metrics {
    decisions: Family<[(&'static str, &'static str); 2], Counter>,
    refusals: Each<Refusal, Counter>,
    decision_seconds: Histogram,
    expected_cached_tokens: Counter,
    reported_cached_tokens: Counter,
    map_entries: Gauge,
    map_bytes: Gauge,
    map_evictions: Counter,
    manual_keys: Gauge,
    retries: Retries,
    shared: Shared,
}

label! {
    /// Why something was not told to, or not taken from, other nodes.
    pub enum Lost {
        /// More was placed at once than the outbox holds.
        Outbox = "outbox",
        /// More than a batch holds.
        Batch = "batch",
        /// A row went before its time, for a newer one.
        Share = "share",
        /// A row that could not be read.
        Garbage = "garbage",
        /// A row hashed under another key.
        ForeignKey = "foreign_key",
        /// A binding of a routing key: too many waited, or the table refused it.
        Binding = "binding",
    }
}

/// What nodes tell each other of placements.
#[derive(Clone, Debug)]
struct Shared {
    sent: Counter,
    received: Counter,
    retractions_sent: Counter,
    retractions_received: Counter,
    batch_bytes: Counter,
    lost: Each<Lost, Counter>,
    bindings: Gauge,
}

impl Shared {
    #[rustfmt::skip]
    fn register(registry: &mut Registry) -> Self {
        Self {
            sent: registry.counter("smg_routing_prefix_hints_sent", "Prefixes that this node told other nodes a worker got"),
            received: registry.counter("smg_routing_prefix_hints_received", "Prefixes that other nodes told, for workers that are known here. 0 while others send: look at `smg_routing_sharing_lost_total` and at the `prefixes` table"),
            retractions_sent: registry.counter("smg_routing_prefix_retractions_sent", "What this node told other nodes to believe no longer: attempts that failed, caches that turned out to remember less or more, workers that began anew"),
            retractions_received: registry.counter("smg_routing_prefix_retractions_received", "The same, as told by other nodes"),
            batch_bytes: registry.counter("smg_routing_prefix_batch_bytes", "Bytes of this node's rows about placements; each goes to every other node"),
            lost: registry.counters("smg_routing_sharing_lost", "What was not told to or not taken from other nodes, by reason: cache misses at most. `outbox`, `batch`, `share`: more placements than are shared; `foreign_key`: nodes have different mesh secrets first, normal while one is replaced; `garbage`: another release; `binding`: a routing key may be with two workers until its next turn", "reason"),
            bindings: registry.gauge("smg_manual_policy_shared_bindings", "Routing keys that are bound at every node"),
        }
    }
}

/// Attempts after the first.
#[derive(Clone, Debug)]
struct Retries {
    made: Each<Class, Counter>,
    withheld: Each<GiveUp, Counter>,
    backoff: Histogram,
    budget: Gauge,
}

impl Retries {
    #[rustfmt::skip]
    fn register(registry: &mut Registry) -> Self {
        Self {
            made: registry.counters("smg_worker_retries", "Attempts repeated at another worker, by what failed", "reason"),
            withheld: registry.counters("smg_routing_retries_withheld", "Failed attempts that were not repeated, so that the client saw the failure. `budget_spent`: too many retries for the load, mend the workers first; `no_worker_left`: too few workers", "reason"),
            backoff: registry.histogram("smg_worker_retry_backoff_seconds", "Seconds of pause before an attempt was repeated", own_seconds),
            budget: registry.gauge("smg_routing_retry_budget", "Retries that may be made at once. At 0 failures go to the clients unrepeated"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl Metrics {
    /// Makes them and lists them in `registry`.
    #[rustfmt::skip]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            decisions: registry.family("smg_worker_selection", "Workers chosen, by policy and reason. `prefix`: for its cache. Much `last_resort`: every worker was out; `ring_spill`, `band_spill`: the preferred ones were full or out"),
            refusals: registry.counters("smg_routing_refusals", "Decisions that found no worker, by reason. `all_tried` beside a worker's trouble; `target_...`: the caller insisted on one", "reason"),
            decision_seconds: registry.histogram("smg_routing_decision_seconds", "Seconds of one decision, prompt rendering and hashing included. Above 1 ms: look at prompt sizes and CPU", decision_seconds),
            expected_cached_tokens: registry.counter("smg_routing_expected_cached_tokens", "Prompt tokens predicted to be in the chosen worker's cache, of answers that say what was. Far above `..._reported_...`: workers evict sooner than believed, lower `--cache-ttl`"),
            reported_cached_tokens: registry.counter("smg_routing_reported_cached_tokens", "Prompt tokens that workers reported as cached. Over the input tokens: the hit rate"),
            map_entries: registry.gauge("smg_routing_prefix_map_entries", "Entries of the prefix map, expired ones included"),
            map_bytes: registry.gauge("smg_routing_prefix_map_bytes", "Bytes allocated by the prefix map; never above `--cache-map-bytes`"),
            map_evictions: registry.counter("smg_routing_prefix_map_evictions", "Entries of the prefix map that went for newer ones. A high rate: raise `--cache-map-bytes`"),
            retries: Retries::register(registry),
            shared: Shared::register(registry),
            manual_keys: registry.gauge("smg_manual_policy_cache_entries", "Routing keys bound to a worker by the manual policy"),
        }
    }

    /// A worker was chosen.
    pub fn decided(&self, policy: &'static str, reason: Reason) {
        self.decisions.get_or_create(&[("policy", policy), ("reason", reason.as_str())]).inc();
    }

    /// No worker could be chosen.
    pub fn refused(&self, error: RouteError) {
        let reason = match error {
            RouteError::NoWorkers => Refusal::NoWorkers,
            RouteError::AllTried => Refusal::AllTried,
            RouteError::TargetUnknown(_) => Refusal::TargetUnknown,
            RouteError::TargetUnavailable(_) => Refusal::TargetUnavailable,
        };
        self.refusals.of(reason).inc();
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

    /// What the prefix log told, heard and gave up in one step.
    pub fn shared(&self, before: Counts, after: Counts) {
        self.shared.sent.inc_by(after.sent - before.sent);
        self.shared.received.inc_by(after.received - before.received);
        self.shared.retractions_sent.inc_by(after.retractions_sent - before.retractions_sent);
        self.shared.retractions_received.inc_by(after.retractions_received - before.retractions_received);
        self.shared.batch_bytes.inc_by(after.batch_bytes - before.batch_bytes);
        self.shared.lost.of(Lost::Batch).inc_by(after.over_batch - before.over_batch);
        self.shared.lost.of(Lost::Share).inc_by(after.over_share - before.over_share);
        self.shared.lost.of(Lost::Garbage).inc_by(after.garbage - before.garbage);
        self.shared.lost.of(Lost::ForeignKey).inc_by(after.foreign_keys - before.foreign_keys);
    }

    /// So many keys are bound at every node.
    pub fn bindings_shared(&self, count: usize) {
        self.shared.bindings.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many were not told.
    pub fn bindings_lost(&self, count: usize) {
        self.shared.lost.of(Lost::Binding).inc_by(count as u64);
    }

    /// Where a full queue of bindings counts.
    #[must_use]
    pub fn bindings_full(&self) -> Counter {
        self.shared.lost.of(Lost::Binding).clone()
    }

    /// Where a full outbox counts.
    #[must_use]
    pub fn outbox_full(&self) -> Counter {
        self.shared.lost.of(Lost::Outbox).clone()
    }

    /// Routing keys were bound or forgotten.
    pub fn keys_grew(&self, by: i64) {
        self.manual_keys.inc_by(by);
    }

    /// An attempt is repeated elsewhere, after this pause.
    pub fn retried(&self, class: Class, after: Duration) {
        self.retries.made.of(class).inc();
        self.retries.backoff.observe(after.as_secs_f64());
    }

    /// A failed attempt is passed on.
    pub fn retry_withheld(&self, why: GiveUp) {
        self.retries.withheld.of(why).inc();
    }

    /// What is left to retry with.
    pub fn retry_budget(&self, left: u64) {
        self.retries.budget.set(i64::try_from(left).unwrap_or(i64::MAX));
    }
}
