//! What workers did and how they were reached.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::metrics::Registry;

/// How a probe ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ProbeResult {
    /// Answered well.
    Ok,
    /// Answered badly.
    Failed,
    /// Did not answer.
    TimedOut,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    result: ProbeResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// One open connection, as counted.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    connected: Counter,
    open: Gauge,
    idle: Gauge,
    connect_failures: Counter,
    stale: Counter,
    probes: Family<ProbeLabels, Counter>,
    workers: Family<StateLabels, Gauge>,
    came_back: Counter,
    restarted: Counter,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        registry.register("smg_workers_connections", "Connections opened to workers", it.connected.clone());
        registry.register("smg_workers_connections_open", "Connections to workers that are open", it.open.clone());
        registry.register("smg_workers_connections_idle", "Connections to workers without a request", it.idle.clone());
        registry.register("smg_workers_connect_failures", "Connections that failed", it.connect_failures.clone());
        registry.register("smg_workers_stale_connections", "Idle connections found dead when used", it.stale.clone());
        registry.register("smg_workers_probes", "Health probes, by result", it.probes.clone());
        registry.register("smg_workers_registered", "Workers, by state", it.workers.clone());
        registry.register("smg_workers_recoveries", "Workers that came back by probe", it.came_back.clone());
        let help = "Workers found to be another process than before";
        registry.register("smg_workers_restarts", help, it.restarted.clone());
        it
    }

    /// A connection was opened.
    pub fn connected(&self) {
        self.connected.inc();
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn open_connection(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// So many connections wait for a request.
    pub fn idle_connections(&self, count: usize) {
        self.idle.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A connection could not be opened.
    pub fn connect_failed(&self) {
        self.connect_failures.inc();
    }

    /// A kept connection was dead when used.
    pub fn stale_connection(&self) {
        self.stale.inc();
    }

    /// A probe ended.
    pub fn probed(&self, result: ProbeResult) {
        self.probes.get_or_create(&ProbeLabels { result }).inc();
    }

    /// A worker came back.
    pub fn recovered(&self) {
        self.came_back.inc();
    }

    /// A worker is another process than before.
    pub fn restarted(&self) {
        self.restarted.inc();
    }

    /// So many workers are in that state.
    pub fn workers_in(&self, state: &'static str, count: usize) {
        self.workers.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
