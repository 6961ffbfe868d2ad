//! Whether what operators decide survives a restart.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    durable: Gauge,
    /// Of the database of the data directory.
    pub(super) fsync: Histogram,
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
            fsync: registry.histogram("smg_storage_fsync_seconds", "Seconds that the data directory's disk took to confirm a write. One covers all writes that waited; everything that must survive waits for it. Above 50 ms at p99: the disk is slow, or shared", own_seconds),
            durable: registry.gauge("smg_storage_durable", "1 when changes made through the admin API survive a restart, else 0: `/readiness` and the log say why"),
        }
    }

    /// Whether edits survive a restart.
    pub fn durable(&self, is_durable: bool) {
        self.durable.set(i64::from(is_durable));
    }
}
