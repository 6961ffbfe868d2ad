//! Whether the control group is there, who leads it, and what was not heard.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::raft::Status;
use crate::raft::frame::Refusal;

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    has_leader: Gauge,
    is_leader: Gauge,
    term: Gauge,
    voters: Gauge,
    applied: Gauge,
    refused: Each<Refusal, Counter>,
    refused_by: Each<Refusal, Counter>,
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
            has_leader: registry.gauge("smg_control_has_leader", "1 when this node knows a leader of the control group, else 0. Alert on 0 for a minute: no limit can be given out anew; requests go on"),
            is_leader: registry.gauge("smg_control_is_leader", "1 when this node leads the control group. The sum over a cluster is 1"),
            term: registry.gauge("smg_control_term", "Term of the control group. Each election raises it; more than a few an hour: a disk or a network is slow"),
            voters: registry.gauge("smg_control_voters", "Voters of the control group as this node knows it"),
            applied: registry.gauge("smg_control_applied", "Last entry of the control group's log that has taken effect at this node"),
            refused: registry.counters("smg_control_refused", "Messages of groups that this node did not hear, by reason. `over`, `copy`: a data directory was copied or its process is an old one; `other_cluster`: two clusters meet; `outsider`, `forgotten`: the sender is not in the group; `absent`: this node is not in it yet; `busy`: too many at a time; `full`: this node's disk has no room", "reason"),
            refused_by: registry.counters("smg_control_refused_by_others", "Messages of groups that another node did not hear from this one, by reason: see `smg_control_refused`", "reason"),
        }
    }

    pub(super) fn stands(&self, is_leader: bool, status: &Status) {
        let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        self.has_leader.set(i64::from(status.leader.is_some()));
        self.is_leader.set(i64::from(is_leader));
        self.term.set(number(status.term));
        self.voters.set(number(status.voters.len() as u64));
        self.applied.set(number(status.applied));
    }

    pub(super) fn refused(&self, why: Refusal) {
        self.refused.of(why).inc();
    }

    pub(super) fn refused_by(&self, why: Refusal) {
        self.refused_by.of(why).inc();
    }

    /// Messages that were not heard here for this reason.
    #[cfg(test)]
    pub(crate) fn refusals(&self, why: Refusal) -> u64 {
        self.refused.of(why).get()
    }
}
