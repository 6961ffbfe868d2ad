//! Whether history is there, how long its commits take, and who leads it.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::history::Unavailable;
use crate::observability::labels::label;
use crate::observability::metrics::Each;
use crate::observability::metrics::Registry;
use crate::observability::metrics::own_seconds;
use crate::raft;

label! {
    /// [`Unavailable`].
    pub(in crate::history) enum Why {
        Unreached = "unreached",
        NoRoom = "no_room",
        Busy = "busy",
        Damaged = "damaged",
    }
}

impl From<Unavailable> for Why {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::Unreached => Self::Unreached,
            Unavailable::NoRoom => Self::NoRoom,
            Unavailable::Busy => Self::Busy,
            Unavailable::Damaged => Self::Damaged,
        }
    }
}

label! {
    /// How an attempt ended to take off the disk what was deleted.
    pub(in crate::history) enum Purge {
        Done = "done",
        Failed = "failed",
    }
}

/// Counters and gauges of this area.
#[derive(Clone, Debug)]
pub struct Metrics {
    has_leader: Gauge,
    is_leader: Gauge,
    term: Gauge,
    voters: Gauge,
    applied: Gauge,
    lag: Gauge,
    snapshot_sent: Gauge,
    purges: Each<Purge, Counter>,
    commands: Counter,
    batches: Counter,
    commit: Histogram,
    retries: Counter,
    reads: Counter,
    index: Histogram,
    unavailable: Each<Why, Counter>,
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
            has_leader: registry.gauge("smg_history_has_leader", "1 when this node knows a leader of the history group, else 0. 0 while nothing was ever kept; alert when it falls to 0 for ten seconds: responses are not stored then, and requests for them get 503"),
            is_leader: registry.gauge("smg_history_is_leader", "1 when this node leads the history group. The sum over a cluster is 1, or 0 while nothing was ever kept"),
            term: registry.gauge("smg_history_term", "Term of the history group. Each election raises it; more than a few an hour: a disk or a network is slow"),
            voters: registry.gauge("smg_history_voters", "Voters of the history group as this node knows it"),
            applied: registry.gauge("smg_history_applied", "Last entry of the history group's log that has taken effect at this node"),
            lag: registry.gauge("smg_history_lag_entries", "Entries that the member that is furthest behind lacks, at the leader; 0 elsewhere. Alert when it grows for minutes: that member is gone, or its disk is slow"),
            snapshot_sent: registry.gauge("smg_history_snapshot_sent_bytes", "Bytes that members have got of the snapshots that they are being sent, at the leader; 0 elsewhere, and when each has all. A member that lacks more of the log than is kept is sent one, at 25 MB/s at most; alert when it stands still above 0 for a minute"),
            purges: registry.counters("smg_history_purges", "Attempts of this node to take off its disk what was deleted or had expired, by result. Rising `failed`: the disk is full, or somebody exports for long; what was deleted then lies in files for longer than `--purge-within`", "result"),
            commands: registry.counter("smg_history_commands", "Commands of history that were answered to this node's clients and to nodes that had it decide"),
            batches: registry.counter("smg_history_batches", "Groups of commands that went together into one entry of the log: commands over batches is how many writers share an fsync"),
            commit: registry.histogram("smg_history_commit_seconds", "Seconds from when a group of commands was gathered until a majority had it on disk and it had taken effect", own_seconds),
            retries: registry.counter("smg_history_retries", "Attempts to bring commands to the leader that failed and were made again"),
            reads: registry.counter("smg_history_reads", "Reads that waited until they had what anybody was told before"),
            index: registry.histogram("smg_history_read_index_seconds", "Seconds that the leader took to say how far a read must have come, a majority's word that it leads included", own_seconds),
            unavailable: registry.counters("smg_history_unavailable", "Commands and reads that were given up, by reason. `unreached`: no leader in time; `no_room`: the leader's disk is full; `busy`: too many waited; `damaged`: rows cannot be read", "reason"),
        }
    }

    pub(super) fn stands(&self, is_leader: bool, status: &raft::Status) {
        let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        self.has_leader.set(i64::from(status.leader.is_some()));
        self.is_leader.set(i64::from(is_leader));
        self.term.set(number(status.term));
        self.voters.set(number(status.voters.len() as u64));
        self.applied.set(number(status.applied));
        let behind = status.matched.values().map(|it| status.last.saturating_sub(*it)).max().unwrap_or(0);
        self.lag.set(number(if is_leader { behind } else { 0 }));
        self.snapshot_sent.set(number(status.sending.values().sum()));
    }

    pub(super) fn committed(&self, commands: usize, took: Duration) {
        self.commands.inc_by(commands as u64);
        self.batches.inc();
        self.commit.observe(took.as_secs_f64());
    }

    pub(super) fn purged(&self, is_done: bool) {
        self.purges.of(if is_done { Purge::Done } else { Purge::Failed }).inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }

    pub(super) fn indexed(&self, reads: usize, took: Duration) {
        self.reads.inc_by(reads as u64);
        self.index.observe(took.as_secs_f64());
    }

    pub(super) fn unavailable(&self, why: Unavailable) {
        self.unavailable.of(why.into()).inc();
    }
}
