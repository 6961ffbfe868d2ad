//! Whether the server that keeps history is there, and how long its commits take.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::history::Unavailable;
use crate::history::group::metrics::Why;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;

/// Counters of this area. Where both have one, it has the name that it has with `raft`.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    commands: Counter,
    batches: Counter,
    commit: Histogram,
    retries: Counter,
    reads: Counter,
    unavailable: Each<Why, Counter>,
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            commands: registry.counter("smg_history_commands", "Commands of history that the server has committed for this node"),
            batches: registry.counter("smg_history_batches", "Transactions of the server that they went in together: commands over batches is how many writers share a commit"),
            commit: registry.histogram("smg_history_commit_seconds", "From when a group of commands was gathered until the server had committed it, lost connections included", own_seconds),
            retries: registry.counter("smg_history_retries", "Transactions that failed, or that another gateway was before, and that were made again"),
            reads: registry.counter("smg_history_reads", "Reads that the server answered"),
            unavailable: registry.counters("smg_history_unavailable", "Commands and reads that were given up, by reason. `unreached`: no answer in time; `no_room`: the server is full; `busy`: too many waited; `damaged`: rows cannot be read, or a newer release made them", "reason"),
        }
    }

    pub(super) fn committed(&self, commands: usize, took: Duration) {
        self.commands.inc_by(commands as u64);
        self.batches.inc();
        self.commit.observe(took.as_secs_f64());
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn read(&self) {
        self.reads.inc();
    }

    pub(super) fn unavailable(&self, why: Unavailable) {
        self.unavailable.of(why.into()).inc();
    }
}
