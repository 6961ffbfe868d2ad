//! Whether what operators decide survives a restart, and what became of each decision.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::base::journal::Kept;
use crate::base::journal::NotKept;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

label! {
    /// What became of an edit.
    enum EditResult {
        Durable = "durable",
        UntilRestart = "until_restart",
        Refused = "refused",
        Failed = "failed",
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    durable: Gauge,
    edits: Each<EditResult, Counter>,
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
            durable: registry.gauge("smg_history_durable", "1 when changes made through the admin API survive a restart, else 0: `/readiness` and the log say why"),
            edits: registry.counters("smg_history_edits", "Changes made through the admin API. `until_restart`: not on disk; `failed`: the disk failed and they were not made", "result"),
        }
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
        self.edits.of(result).inc();
    }
}
