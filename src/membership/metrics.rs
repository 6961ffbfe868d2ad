//! What membership saw.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use super::core::Change;
use super::core::Effect;
use super::view::Status;
use super::view::View;
use crate::observability::labels::Label as _;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    members: Each<Status, Gauge>,
    changes: Each<Status, Counter>,
    refuted: Counter,
    renewed: Counter,
    slept: Counter,
    ignored: Counter,
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
            members: registry.gauges("smg_membership_members", "Members of the cluster as this node sees them now, itself included, by status", "status"),
            changes: registry.counters("smg_membership_changes", "Changes of a member to this status, as this node saw them. `down` of nodes that run: the network or the machines are overloaded", "status"),
            refuted: registry.counter("smg_membership_refuted", "Suspects that turned out to be alive. Rising: packets are lost, or nodes stall for seconds"),
            renewed: registry.counter("smg_membership_renewed", "Times that other nodes held this one for dead and it came back. Each means that it stalled, or was cut off"),
            slept: registry.counter("smg_membership_slept", "Times that this node did not run for more than half a second. It suspects nobody for it, but others may suspect it"),
            ignored: registry.counter("smg_membership_ignored", "Packets that could not be read, or whose sender is not whom its certificate names"),
        }
    }

    /// The core said this.
    pub fn observe(&self, effect: &Effect) {
        match effect {
            Effect::Changed(Change { from, to, .. }) => {
                self.changes.of(*to).inc();
                if (*from, *to) == (Some(Status::Suspect), Status::Alive) {
                    self.refuted.inc();
                }
            }
            Effect::Renewed(_) => drop(self.renewed.inc()),
            Effect::Slept(_) => drop(self.slept.inc()),
            Effect::Ignored => drop(self.ignored.inc()),
            Effect::Greet(_) | Effect::LookUp | Effect::Send(..) | Effect::Evict(_) | Effect::Forgotten => {}
        }
    }

    /// These are the members now.
    pub fn members(&self, view: &View) {
        for status in Status::ALL {
            self.members.of(*status).set(i64::try_from(view.count(*status)).unwrap_or(i64::MAX));
        }
    }
}
