//! Whether what operators decide survives a restart.

use prometheus_client::metrics::gauge::Gauge;

use crate::observability::metrics::Registry;

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    durable: Gauge,
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
            durable: registry.gauge("smg_storage_durable", "1 when changes made through the admin API survive a restart, else 0: `/readiness` and the log say why"),
        }
    }

    /// Whether edits survive a restart.
    pub fn durable(&self, is_durable: bool) {
        self.durable.set(i64::from(is_durable));
    }
}
