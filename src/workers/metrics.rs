//! What workers did and how they were reached. What they are like at this moment is read when scraped (`fleet`).

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::health::Breaker;
use super::observers::core::Counts;
use super::observers::core::Sighted;
use super::worker::CallError;
use super::worker::ConnectFailure;
use crate::observability::labels::Label as _;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::GaugeGuard;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

label! {
    /// How a probe ended.
    pub enum ProbeResult {
        /// Answered well.
        Ok = "ok",
        /// Answered badly.
        Failed = "failed",
        /// Did not answer.
        TimedOut = "timed_out",
        /// This node did not run meanwhile: says nothing.
        Slept = "slept",
    }
}

label! {
    /// What kept a connection from being made.
    enum NotConnected {
        Refused = "refused",
        NoAddress = "no_address",
        Forbidden = "forbidden",
        Tls = "tls",
        Timeout = "timeout",
        Handshake = "handshake",
        NoWay = "no_way",
    }
}

label! {
    /// A forwarded request as seen from this node.
    pub enum Forwarding {
        /// To a worker of another node.
        Out = "out",
        /// From another node, to a worker of this one.
        In = "in",
    }
}

label! {
    /// Why a request was not forwarded.
    pub enum Turned {
        /// As many as there may be are on their way.
        TooMany = "too_many",
        /// Their bodies are as large as they may be together.
        TooMuch = "too_much",
        /// The node that reaches the worker is not reached, drains, or does not reach it either.
        NoWay = "no_way",
        /// What came could not be read.
        Unreadable = "unreadable",
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    opened: Counter,
    open: Gauge,
    idle: Gauge,
    connect_time: Histogram,
    connect_failures: Each<NotConnected, Counter>,
    stale: Counter,
    probes: Each<ProbeResult, Counter>,
    came_back: Counter,
    restarted: Counter,
    breaker: Family<[(&'static str, &'static str); 2], Counter>,
    observations: Each<Sighted, Gauge>,
    doubted: Gauge,
    forwarded: Each<Forwarding, Counter>,
    forwarding: Each<Forwarding, Gauge>,
    turned_away: Each<Turned, Counter>,
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
            opened: registry.counter("smg_worker_connections_opened", "Connections opened to workers. Nearly as many as requests: workers close them, so each request pays for a new one"),
            open: registry.gauge("smg_worker_connections_active", "Connections to workers that are open"),
            idle: registry.gauge("smg_worker_connections_idle", "Connections to workers that wait for a request"),
            connect_time: registry.histogram("smg_worker_connect_seconds", "Seconds until a connection to a worker was there: name, TCP, TLS. High: the network or the worker's accept queue", own_seconds),
            connect_failures: registry.counters("smg_worker_connect_failures", "Connections that could not be opened, by reason. `refused`: nobody listens; `no_address`: DNS; `forbidden`: an address that workers may not have", "reason"),
            stale: registry.counter("smg_worker_stale_connections", "Idle connections found dead when used; the request went on a fresh one. Many: lower `--pool-idle-timeout` below the workers' own"),
            probes: registry.counters("smg_worker_health_checks", "Health probes, by result", "result"),
            came_back: registry.counter("smg_worker_recoveries", "Workers that became ready by probe. Many: a worker flaps"),
            restarted: registry.counter("smg_worker_restarts", "Workers found to be another process than before; what was believed of their cache is forgotten"),
            breaker: registry.family("smg_worker_cb_transitions", "Changes of workers' circuit breakers, by state before and after. To `open`: a worker failed half of its requests"),
            observations: registry.gauges("smg_worker_observations", "What nodes, this one included, say of workers and counts now: three nodes watch each worker. Fewer than three times the workers: observers are away, or not heard", "sight"),
            doubted: registry.gauge("smg_worker_doubted", "Workers that two nodes or more hold for away. They are the last choice of nodes that reached them lately, and no choice of the others"),
            forwarded: registry.counters("smg_worker_forwards", "Requests and probes that went through another node because only that one reaches the worker, by direction. Their bytes are those of the lane `forward`", "direction"),
            forwarding: registry.gauges("smg_worker_forwards_active", "The same, those that are under way", "direction"),
            turned_away: registry.counters("smg_worker_forwards_refused", "Requests that were not forwarded, by reason. `too_many`, `too_much`: give the worker an address that all nodes reach; `no_way`: the node that reaches it is away", "reason"),
        }
    }

    /// A connection is there.
    pub fn connected(&self, took: Duration) {
        self.opened.inc();
        self.connect_time.observe(took.as_secs_f64());
    }

    /// Counts a connection as open until the guard is dropped.
    #[must_use]
    pub fn open_connection(&self) -> GaugeGuard {
        GaugeGuard::new(&self.open)
    }

    /// So many connections wait for a request.
    pub fn idle_connections(&self, count: usize) {
        self.idle.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A connection could not be opened.
    pub fn connect_failed(&self, error: &CallError) {
        let reason = match error {
            CallError::Connect(ConnectFailure::Refused) => NotConnected::Refused,
            CallError::Connect(ConnectFailure::NoAddress) => NotConnected::NoAddress,
            CallError::Connect(ConnectFailure::Forbidden) => NotConnected::Forbidden,
            CallError::Connect(ConnectFailure::Tls) => NotConnected::Tls,
            CallError::Connect(ConnectFailure::NoWay) => NotConnected::NoWay,
            CallError::ConnectTimeout(_) | CallError::FirstByteTimeout(_) => NotConnected::Timeout,
            CallError::Lost | CallError::Protocol => NotConnected::Handshake,
        };
        self.connect_failures.of(reason).inc();
    }

    /// A kept connection was dead when used.
    pub fn stale_connection(&self) {
        self.stale.inc();
    }

    /// A probe ended.
    pub fn probed(&self, result: ProbeResult) {
        self.probes.of(result).inc();
    }

    /// So much of what nodes say of workers counts.
    pub fn observed(&self, counts: Counts) {
        let set = |gauge: &Gauge, count: usize| gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        for sight in Sighted::ALL {
            set(self.observations.of(*sight), counts.sights[sight.index()]);
        }
        set(&self.doubted, counts.doubted);
    }

    /// A worker came back.
    pub fn recovered(&self) {
        self.came_back.inc();
    }

    /// A worker is another process than before.
    pub fn restarted(&self) {
        self.restarted.inc();
    }

    /// A worker's breaker changed.
    pub fn breaker_changed(&self, from: Breaker, to: Breaker) {
        self.breaker.get_or_create(&[("from", from.as_str()), ("to", to.as_str())]).inc();
    }

    /// Counts a forwarded request, as under way until the guard is dropped.
    #[must_use]
    pub fn forwards(&self, direction: Forwarding) -> GaugeGuard {
        self.forwarded.of(direction).inc();
        GaugeGuard::new(self.forwarding.of(direction))
    }

    /// A request was not forwarded.
    pub fn turned_away(&self, reason: Turned) {
        self.turned_away.of(reason).inc();
    }
}
