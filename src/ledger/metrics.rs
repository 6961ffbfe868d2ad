//! What was asked and told.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::core::Ignored;
use super::handle::Source;
use super::messages::Message;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

label! {
    /// What owners are told.
    enum Told {
        Report = "report",
        Commits = "commits",
    }
}

/// The buckets of a question: a round trip in a rack is 0.2 ms, the deadline 5 ms.
fn probe_seconds() -> Histogram {
    Histogram::new([1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 3e-3, 5e-3, 7.5e-3, 1e-2, 3e-2, 0.1])
}

/// Counters of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    probes: Each<Source, Counter>,
    probe_seconds: Histogram,
    skipped: Counter,
    told: Each<Told, Counter>,
    ignored: Each<Ignored, Counter>,
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
            probes: registry.counters("smg_ledger_probes", "Candidates whose load was asked for before a choice, by outcome. `local`: this node keeps it; `remote`: another said it; the other two fell back on this node's own counts and gossip. `unknown`: its owner has not heard every node; `missed`: no owner answered in time. Above 1 % of all fell back: look at the mesh", "result"),
            probe_seconds: registry.histogram("smg_ledger_probe_seconds", "Seconds that a decision waited for other nodes to tell the load of candidates. Near `--ledger-timeout`: a node is slow or gone", probe_seconds),
            skipped: registry.counter("smg_ledger_owners_skipped", "Times that a node was left alone for a second because it did not answer twice in a row"),
            told: registry.counters("smg_ledger_messages", "Messages to the nodes that keep workers' load, by kind. `report`: all that this node has in flight; `commits`: requests it began", "kind"),
            ignored: registry.counters("smg_ledger_ignored", "What was said of loads and changed nothing, by reason. `late`: overtaken on the way; `stranger`: by a node that is no member or was started anew; `too_many`: requests told so fast that only the next report counts them", "reason"),
        }
    }

    /// A candidate's load was asked for.
    pub fn probed(&self, source: Source) {
        self.probes.of(source).inc();
    }

    /// A decision waited for others.
    pub fn waited(&self, took: Duration) {
        self.probe_seconds.observe(took.as_secs_f64());
    }

    /// An owner is left alone for a while.
    pub fn skipped(&self) {
        self.skipped.inc();
    }

    /// An owner is told something.
    pub fn told(&self, message: &Message) {
        match message {
            Message::Report(_) => drop(self.told.of(Told::Report).inc()),
            Message::Commits(_) => drop(self.told.of(Told::Commits).inc()),
            Message::Probe(_) => {}
        }
    }

    /// Something changed nothing.
    pub fn ignored(&self, why: Ignored) {
        self.ignored.of(why).inc();
    }
}
