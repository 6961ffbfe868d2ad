//! What the API sees of history.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::history::Status;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::GaugeGuard;
use crate::observability::metrics::Registry;

label! {
    /// How a response is made.
    pub enum Mode {
        /// Its client waits.
        Foreground = "foreground",
        /// Its client comes back.
        Background = "background",
    }
}

label! {
    /// How a response ended.
    pub enum Ended {
        /// Well.
        Completed = "completed",
        /// By a fault.
        Failed = "failed",
        /// Early.
        Incomplete = "incomplete",
        /// By its client.
        Cancelled = "cancelled",
    }
}

label! {
    /// What became of a response whose node is gone.
    pub enum Takeover {
        /// Nothing was begun of it: it is made here.
        Run = "run",
        /// It is marked as failed.
        Failed = "failed",
    }
}

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Metrics {
    begun: Each<Mode, Counter>,
    ended: Each<Ended, Counter>,
    unconfirmed: Counter,
    takeovers: Each<Takeover, Counter>,
    background: Gauge,
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    pub(in crate::api) fn register(registry: &mut Registry) -> Self {
        Self {
            begun: registry.counters("smg_history_responses_begun", "Responses that are kept and were begun at this node, by whether their client waits", "mode"),
            ended: registry.counters("smg_history_responses_ended", "Responses that are kept and ended at this node, by how. `failed`: a worker, or a node that is gone. `cancelled`: the client asked for it, or left", "status"),
            unconfirmed: registry.counter("smg_history_storage_unconfirmed", "Responses whose end was not confirmed by history in time: their clients were told `storage_unconfirmed`. Any: history has no majority, or its disk or server is slow"),
            takeovers: registry.counters("smg_history_takeovers", "Responses of nodes that are gone, taken over here, by what became of them", "outcome"),
            background: registry.gauge("smg_history_background_active", "Responses in the background that this node makes now, those that wait for a worker included"),
        }
    }

    pub(super) fn begun(&self, is_background: bool) {
        self.begun.of(if is_background { Mode::Background } else { Mode::Foreground }).inc();
    }

    pub(super) fn ended(&self, status: Status) {
        let ended = match status {
            Status::Completed => Ended::Completed,
            Status::Failed => Ended::Failed,
            Status::Incomplete => Ended::Incomplete,
            Status::Cancelled => Ended::Cancelled,
            Status::Queued | Status::InProgress => return,
        };
        self.ended.of(ended).inc();
    }

    pub(super) fn unconfirmed(&self) {
        self.unconfirmed.inc();
    }

    pub(super) fn taken_over(&self, takeover: Takeover) {
        self.takeovers.of(takeover).inc();
    }

    /// Counts a response in the background until dropped.
    pub(super) fn background(&self) -> GaugeGuard {
        GaugeGuard::new(&self.background)
    }

    /// Responses in the background that are being made.
    pub(super) fn background_active(&self) -> u64 {
        u64::try_from(self.background.get()).unwrap_or(0)
    }
}
