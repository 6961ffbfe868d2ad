//! Whether what operators decide survives a restart, and what became of each decision.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::EncodeLabelValue;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::base::journal::Kept;
use crate::base::journal::NotKept;
use crate::observability::metrics::Registry;

/// What became of an edit, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum EditResult {
    Durable,
    UntilRestart,
    Refused,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EditLabels {
    result: EditResult,
}

/// Counters and gauges of this area.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    durable: Gauge,
    edits: Family<EditLabels, Counter>,
}

impl Metrics {
    /// Registers them.
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        let it = Self::default();
        let help = "1 when what the admin API changes survives a restart, else 0";
        registry.register("smg_history_durable", help, it.durable.clone());
        registry.register("smg_history_edits", "Changes made through the admin API, by result", it.edits.clone());
        it
    }

    /// Whether edits survive a restart.
    pub fn durable(&self, is_durable: bool) {
        self.durable.set(i64::from(is_durable));
    }

    /// An edit ended.
    pub fn edited(&self, result: Result<Kept, NotKept>) {
        let result = match result {
            Ok(Kept::Durably) => EditResult::Durable,
            Ok(Kept::UntilRestart) => EditResult::UntilRestart,
            Err(NotKept::Full | NotKept::TooLong) => EditResult::Refused,
            Err(NotKept::Failed | NotKept::Closing) => EditResult::Failed,
        };
        self.edits.get_or_create(&EditLabels { result }).inc();
    }
}
