//! What the node itself did.

use prometheus_client::metrics::counter::Counter;

use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

label! {
    /// What became of a reload.
    pub enum Reload {
        /// Taken over.
        Applied = "applied",
        /// Refused whole: the configuration had an error.
        Refused = "refused",
    }
}

/// Counters of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    reloads: Each<Reload, Counter>,
}

impl Metrics {
    /// Registers them.
    #[rustfmt::skip]
    #[must_use]
    pub fn register(registry: &mut Registry) -> Self {
        Self {
            reloads: registry.counters("smg_config_reloads", "Times that SIGHUP made the configuration be read again. `refused`: the old one is in force, the log names the key", "result"),
        }
    }

    /// The configuration was read again.
    pub fn reloaded(&self, result: Reload) {
        self.reloads.of(result).inc();
    }
}
