//! What admission and authentication did.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::metrics::Registry;

/// Why admission said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refusal {
    /// The queue was full.
    QueueFull,
    /// The wait was too long.
    QueueTimeout,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: Refusal,
}

/// Counters and gauges of this area.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    admitted: Counter,
    refused: Family<RefusalLabels, Counter>,
    queue_len: Gauge,
    auth_failures: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("smg_tenancy_admitted", "Requests admitted", it.admitted.clone());
        registry.register("smg_tenancy_refused", "Requests not admitted, by reason", it.refused.clone());
        registry.register("smg_tenancy_queue_requests", "Requests waiting for a slot", it.queue_len.clone());
        registry.register("smg_tenancy_auth_failures", "Requests refused for their key", it.auth_failures.clone());
        it
    }

    /// One was admitted.
    pub fn admitted(&self) {
        self.admitted.inc();
    }

    /// One was not.
    pub fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// How many wait now.
    pub fn queue_len(&self, waiting: usize) {
        self.queue_len.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// A key was missing, unknown or not allowed.
    pub fn auth_failed(&self) {
        self.auth_failures.inc();
    }
}
