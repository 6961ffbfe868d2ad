//! How replication stands with each table, what it refused, and how long edits take to be everywhere.
//!
//! What is true at a moment is read from the core when scraped: no step pays for it.

use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::EncodeMetric as _;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;

use super::core::Colour;
use super::core::Counts;
use super::core::EditError;
use super::core::Settled;
use super::handle::Handle;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

type Description = (&'static str, &'static str, MetricType);

const ENTRIES: Description =
    ("smg_replication_entries", "Entries of each replicated table, as this node has it", MetricType::Gauge);
const LIVES: Description = (
    "smg_replication_lives",
    "Starts of nodes that ever edited each admin table, as far as this node tells them apart. At 16384 only nodes that have edited since their start may edit",
    MetricType::Gauge,
);
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

/// One reason, and how often it was one.
type Reason = (&'static str, fn(&Counts) -> u64);
/// What is read of a table.
type Read = fn(&Colour) -> i64;

/// The reasons of [`REFUSED`].
const REASONS: [Reason; 10] = [
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

label! {
    /// What became of an edit.
    enum EditResult {
        /// On this disk and another member's, or on the only one.
        Safe = "safe",
        /// On this disk; nobody else had answered in time.
        Here = "here",
        /// Refused; nothing was changed.
        Refused = "refused",
        /// The disk failed, or the node stopped.
        Failed = "failed",
    }
}

/// What is measured as it happens.
#[derive(Clone, Debug)]
pub struct Metrics {
    edits: Each<EditResult, Counter>,
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
            edits: registry.counters("smg_replication_edits", "Changes made through the admin API of this node. `here`: no other member had it on disk after two seconds; `failed`: this disk failed", "result"),
            everywhere: registry.histogram("smg_replication_everywhere_seconds", "Seconds until an edit made here was on the disk of every member that is not down. Up: a member's disk, or the network to it", own_seconds),
        }
    }

    /// An edit was answered.
    pub(super) fn edited(&self, answer: &Result<Settled, EditError>) {
        let result = match answer {
            Ok(Settled { is_safe: true, .. }) => EditResult::Safe,
            Ok(Settled { is_safe: false, .. }) => EditResult::Here,
            Err(EditError::Refused(_) | EditError::NoTable | EditError::Busy) => EditResult::Refused,
            Err(EditError::DiskFailed | EditError::Closing) => EditResult::Failed,
        };
        self.edits.of(result).inc();
    }

    /// An edit is on the disk of every member, this long after it was made.
    pub(super) fn everywhere(&self, after: Duration) {
        self.everywhere.observe(after.as_secs_f64());
    }
}

/// Shows the tables of `handle`.
pub fn register(registry: &mut Registry, handle: Handle) {
    registry.register_collector(&[ENTRIES, LIVES, RED, SENT, REFUSED], Tables(handle));
}

#[derive(Debug)]
struct Tables(Handle);

impl Collector for Tables {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (colours, counts) = (self.0.colours(), self.0.counts());
        let gauges: [(Description, Read); 3] = [
            (ENTRIES, |it| i64::try_from(it.entries).unwrap_or(i64::MAX)),
            (LIVES, |it| i64::try_from(it.lives).unwrap_or(i64::MAX)),
            (RED, |it| i64::from(it.is_red)),
        ];
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
