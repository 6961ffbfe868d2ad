//! What the transport carried, dropped and refused.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::lanes::Lane;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

label! {
    /// Why a connection to or from a peer was not made.
    pub enum Refusal {
        /// No authority of ours vouches for its certificate: another secret, or none.
        Untrusted = "untrusted",
        /// Its certificate is not valid now.
        Expired = "expired",
        /// Its certificate names no node of this cluster.
        Unnamed = "unnamed",
        /// It says to be another node than its certificate names.
        Spoofed = "spoofed",
        /// It speaks another version, or what it said could not be read.
        Malformed = "malformed",
        /// It did not finish in time.
        Timeout = "timeout",
        /// Too many are being made already.
        Overload = "overload",
        /// The peer refused us.
        ByPeer = "by_peer",
    }
}

label! {
    /// Why a frame was not carried.
    pub enum Drop {
        /// The queue to the peer, or of its reader here, was full.
        QueueFull = "queue_full",
        /// There is no connection, and one could not be made in time.
        NoLink = "no_link",
        /// It is larger than its lane allows.
        TooLarge = "too_large",
        /// It came on no lane that is known, or that anybody reads here.
        NoReader = "no_reader",
        /// A fault on purpose.
        OnPurpose = "on_purpose",
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    links: Gauge,
    dials: Counter,
    refused: Each<Refusal, Counter>,
    dropped: Each<Drop, Counter>,
    sent: Each<Lane, Counter>,
    received: Each<Lane, Counter>,
    rtt: Histogram,
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
            links: registry.gauge("smg_mesh_links", "Connections to other nodes now. Up to two for each, and one more while bulk data moves"),
            dials: registry.counter("smg_mesh_dials", "Connections that this node began. Rising for minutes: a node that cannot be reached; `smg_mesh_refused_total` says why if it answers"),
            refused: registry.counters("smg_mesh_refused", "Connections from or to other nodes that were not made, by reason. `untrusted`: another mesh secret, or somebody who has none; `by_peer`: it refused this node", "reason"),
            dropped: registry.counters("smg_mesh_dropped", "Frames that were not carried, by reason. What is lost is repaired by the next exchange; rising `queue_full` means more comes than is read", "reason"),
            sent: registry.counters("smg_mesh_sent_bytes", "Bytes of payload sent to other nodes, by lane", "lane"),
            received: registry.counters("smg_mesh_received_bytes", "Bytes of payload received from other nodes, by lane", "lane"),
            rtt: registry.histogram("smg_mesh_rtt_seconds", "Seconds of a round trip to other nodes as QUIC measures it, one sample a link every ten seconds", own_seconds),
        }
    }

    /// A connection was not made.
    pub fn refused(&self, reason: Refusal) {
        self.refused.of(reason).inc();
    }

    /// How many connections were not made, for one reason.
    #[must_use]
    pub fn refusals(&self, reason: Refusal) -> u64 {
        self.refused.of(reason).get()
    }

    /// A frame was not carried.
    pub fn dropped(&self, reason: Drop) {
        self.dropped.of(reason).inc();
    }

    /// How many frames were not carried, for one reason.
    #[must_use]
    pub fn drops(&self, reason: Drop) -> u64 {
        self.dropped.of(reason).get()
    }

    /// A connection was begun.
    pub fn dialled(&self) {
        self.dials.inc();
    }

    /// How many connections there are.
    pub fn links(&self, count: usize) {
        self.links.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Payload left on a lane.
    pub fn sent(&self, lane: Lane, bytes: usize) {
        self.sent.of(lane).inc_by(bytes as u64);
    }

    /// Payload came on a lane.
    pub fn received(&self, lane: Lane, bytes: usize) {
        self.received.of(lane).inc_by(bytes as u64);
    }

    /// A link's round-trip time.
    pub fn rtt(&self, rtt: Duration) {
        self.rtt.observe(rtt.as_secs_f64());
    }
}
