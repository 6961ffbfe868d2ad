//! How replication stands with each table, what it refused, and how long edits take to be everywhere.
//!
//! What is true at a moment is read from the core when scraped: no step pays for it.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::core::Colour;
use super::core::Counts;
use super::handle::Handle;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

type Description = (&'static str, &'static str, MetricType);

const ENTRIES: Description =
    ("smg_replication_entries", "Entries of each replicated table, as this node has it", MetricType::Gauge);
const RED: Description = (
    "smg_replication_red",
    "1 when the table was not exchanged with any member in three rounds although there are members. Alert on it: edits made elsewhere may be missing here",
    MetricType::Gauge,
);
const SENT: Description =
    ("smg_replication_sent_bytes", "Bytes of frames sent for each table, digests not counted", MetricType::Counter);
const REFUSED: Description = (
    "smg_replication_refused",
    "What replication refused, put off or gave up, by reason. `stamps_ahead`: a member's clock is more than a minute ahead; `impostors`: a data directory was copied",
    MetricType::Counter,
);

/// The reasons of [`REFUSED`].
const REASONS: [(&str, fn(&Counts) -> u64); 10] = [
    ("strangers", |it| it.strangers),
    ("garbage", |it| it.garbage),
    ("unknown_tables", |it| it.unknown_tables),
    ("stamps_ahead", |it| it.stamps_ahead),
    ("too_much", |it| it.too_much),
    ("not_owner", |it| it.not_owner),
    ("refuted", |it| it.refuted),
    ("deferred", |it| it.deferred),
    ("pushes_left", |it| it.pushes_left),
    ("impostors", |it| it.impostors),
];

/// What is measured as it happens.
#[derive(Clone, Debug)]
pub struct Metrics {
    everywhere: Histogram,
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
            everywhere: registry.histogram("smg_replication_everywhere_seconds", "Time until an edit made here was on the disk of every member that is not down. Up: a member's disk, or the network to it", own_seconds),
        }
    }

    /// An edit is on the disk of every member, this long after it was made.
    pub(super) fn everywhere(&self, after: Duration) {
        self.everywhere.observe(after.as_secs_f64());
    }
}

/// Shows the tables of `handle`.
pub fn register(registry: &mut Registry, handle: Handle) {
    registry.register_collector(&[ENTRIES, RED, SENT, REFUSED], Tables(handle));
}

#[derive(Debug)]
struct Tables(Handle);

impl Collector for Tables {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (colours, counts) = (self.0.colours(), self.0.counts());
        let gauges: [(Description, fn(&Colour) -> i64); 2] =
            [(ENTRIES, |it| i64::try_from(it.entries).unwrap_or(i64::MAX)), (RED, |it| i64::from(it.is_red))];
        for ((name, help, kind), read) in gauges {
            let mut series = encoder.encode_descriptor(name, help, None, kind)?;
            for colour in &colours {
                ConstGauge::<i64>::new(read(colour)).encode(series.encode_family(&[("table", colour.name)])?)?;
            }
        }
        let (name, help, kind) = SENT;
        let mut series = encoder.encode_descriptor(name, help, None, kind)?;
        for colour in &colours {
            ConstCounter::<u64>::new(colour.bytes_sent).encode(series.encode_family(&[("table", colour.name)])?)?;
        }
        let (name, help, kind) = REFUSED;
        let mut series = encoder.encode_descriptor(name, help, None, kind)?;
        for (reason, read) in REASONS {
            ConstCounter::<u64>::new(read(&counts)).encode(series.encode_family(&[("reason", reason)])?)?;
        }
        Ok(())
    }
}
