//! What admission and authentication did.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::keys::AuthError;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::GaugeGuard;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

label! {
    /// What admission answered.
    pub enum Admitted {
        /// Yes, at once or after a wait.
        Admitted = "admitted",
        /// No: the queue was full.
        QueueFull = "queue_full",
        /// No: the wait was too long.
        QueueTimeout = "queue_timeout",
        /// The client left while it waited.
        ClientGone = "client_gone",
    }
}

label! {
    /// What was wrong with a key.
    enum BadKey {
        Missing = "missing",
        Unknown = "unknown",
        Disabled = "disabled",
        TenantDisabled = "tenant_disabled",
        TenantGone = "tenant_gone",
        NotAdmin = "not_admin",
        NotLoopback = "not_loopback",
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    outcomes: Each<Admitted, Counter>,
    queue_len: Gauge,
    queue_limit: Gauge,
    queue_wait: Histogram,
    bad_keys: Each<BadKey, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::register(&mut Registry::default())
    }
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            outcomes: registry.counters("smg_scheduler_admit", "Requests that asked for one of the `--max-concurrent-requests` slots, by outcome. `queue_full` and `queue_timeout` were answered 429: raise the limit if the workers have room, else add workers", "outcome"),
            queue_len: registry.gauge("smg_scheduler_queue_depth", "Requests waiting for a slot now. Above 0 for minutes: more comes than is served"),
            queue_limit: registry.gauge("smg_scheduler_queue_size_limit", "Requests that may wait (`--queue-size`); beyond it the answer is 429"),
            queue_wait: registry.histogram("smg_scheduler_queue_wait_seconds", "Seconds that a request waited for a slot, of those that had to wait. It is part of their time to first token", own_seconds),
            bad_keys: registry.counters("smg_tenancy_auth_failures", "Requests refused for their key, by reason. A burst of `unknown`: a rotated key still in use, or somebody guessing", "reason"),
        }
    }

    /// Admission said this.
    pub fn answered(&self, outcome: Admitted) {
        self.outcomes.of(outcome).inc();
    }

    /// One waits until this is dropped.
    #[must_use]
    pub fn queued(&self) -> GaugeGuard {
        GaugeGuard::new(&self.queue_len)
    }

    /// How many may wait.
    pub fn queue_limit(&self, limit: usize) {
        self.queue_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// One has waited.
    pub fn waited(&self, time: Duration) {
        self.queue_wait.observe(time.as_secs_f64());
    }

    /// A key was missing, unknown or not allowed.
    pub fn auth_failed(&self, error: &AuthError) {
        let reason = match error {
            AuthError::Missing => BadKey::Missing,
            AuthError::Unknown | AuthError::Repeated => BadKey::Unknown,
            AuthError::Disabled => BadKey::Disabled,
            AuthError::TenantDisabled(_) => BadKey::TenantDisabled,
            AuthError::TenantGone(_) => BadKey::TenantGone,
            AuthError::NotAdmin => BadKey::NotAdmin,
            AuthError::NotLoopback => BadKey::NotLoopback,
        };
        self.bad_keys.of(reason).inc();
    }
}
