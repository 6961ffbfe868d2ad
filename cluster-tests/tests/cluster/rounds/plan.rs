//! Scenarios as values: what is done, to whom, for how long, and which promises it tries.
//!
//! A new one is a line of [`PLANS`]. What is drawn (who, how long, in which order) comes from the seed of the cluster's life.

use std::time::Duration;

use cluster_tests::net::Fault as Link;

/// Whom it happens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Who leads history.
    Leader,
    /// Another.
    Follower,
    /// Whoever is drawn.
    Any,
    /// Everybody at once.
    All,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fault {
    /// `kill -9`; started again at the end.
    Kill(Whom),
    /// SIGSTOP, at the end SIGCONT.
    Pause(Whom),
    /// SIGTERM; started again when it has ended.
    Drain(Whom),
    /// All of them, one after the other, each drained and started again.
    Roll,
    /// Alone, cut off from all other nodes.
    Alone(Whom),
    /// What it sends to others is lost; what they send arrives.
    Mute(Whom),
    /// What others send to it is lost; what it sends arrives.
    Deaf(Whom),
    /// Two sides, and one in the middle that hears both.
    Bridge,
    /// Each hears its two neighbours.
    Ring,
    /// Everybody is alone.
    Apart,
    /// All links between nodes are like this.
    Links(Link),
    /// The power of its disk fails, and the process goes; both are back at the end.
    Power(Whom),
    /// The leader is cut off, and two others on slow disks elect another; the moment that one leads, the power of all fails. Back at the end.
    PowerAfterVote,
    /// Flushes of its disk fail; the process is started again on a disk that works at the end.
    FlushesFail(Whom),
    /// Flushes of its disk take so many milliseconds.
    SlowDisk(Whom, u64),
    /// Its disk is full.
    FullDisk(Whom),
    /// Killed, its data directory emptied, started again: another data directory takes its place.
    Wipe(Whom),
    /// Started on a copy of its data directory that is older than its last start: it must not take part. At the end it has its own again.
    Backup(Whom),
    /// Killed in the middle of a write to its log, started again at the end.
    Torn(Whom),
    /// Killed, its data directory emptied, and killed again while it is sent a snapshot over a narrow link.
    SnapshotCut(Whom),
    /// Its wall clock is off by so many seconds.
    Clock(Whom, i64),
    /// Everybody's wall clock runs at a pace of its own, from half to twice the real one.
    Drift,
    /// One of two workers has this fault (JSON, as the simulated worker takes it); what it does not serve, the other one can.
    Worker(&'static str),
    /// One of two workers is killed and started again at the end.
    WorkerDies,
    /// So many times the usual requests.
    Overload(u32),
}

impl Fault {
    /// Whether a node loses its data directory.
    pub(super) fn takes_data(self) -> bool {
        matches!(self, Self::Wipe(_) | Self::SnapshotCut(_))
    }

    /// Whether a request that it strikes at a worker is over, rather than late.
    pub(super) fn ends_requests(self) -> bool {
        matches!(self, Self::Worker(rule) if !rule.contains("slow-start"))
    }
}

/// What the nodes stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Ground {
    /// A directory of this machine.
    Plain,
    /// A disk whose power can be cut, each.
    Disks,
    /// A small disk each.
    Small,
    /// A directory, and a wall clock that can be set.
    Clocks,
}

/// One scenario.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) promises: &'static [&'static str],
    pub(super) nodes: usize,
    pub(super) ground: Ground,
    pub(super) fault: Fault,
    /// How long it lasts: drawn between these, in milliseconds.
    lasts: (u64, u64),
}

impl Plan {
    const fn new(
        name: &'static str,
        promises: &'static [&'static str],
        nodes: usize,
        ground: Ground,
        fault: Fault,
        lasts: (u64, u64),
    ) -> Self {
        Self { name, promises, nodes, ground, fault, lasts }
    }

    pub(super) fn lasts(&self, draw: usize) -> Duration {
        let (from, to) = self.lasts;
        Duration::from_millis(from + draw as u64 % (to - from + 1))
    }
}

const FLAKY: Link = Link {
    is_cut: false,
    loss: 0.2,
    delay: Duration::from_millis(20),
    jitter: Duration::from_millis(80),
    duplication: 0.1,
    reordering: 0.1,
    bytes_per_second: None,
};
const FAR: Link = Link {
    is_cut: false,
    loss: 0.0,
    delay: Duration::from_millis(100),
    jitter: Duration::ZERO,
    duplication: 0.0,
    reordering: 0.0,
    bytes_per_second: None,
};
pub(super) const NARROW: Link = Link {
    is_cut: false,
    loss: 0.0,
    delay: Duration::ZERO,
    jitter: Duration::ZERO,
    duplication: 0.0,
    reordering: 0.0,
    bytes_per_second: Some(60_000),
};

use Fault as F;
use Ground::Clocks;
use Ground::Disks;
use Ground::Plain;
use Ground::Small;
use Whom::All;
use Whom::Any;
use Whom::Follower;
use Whom::Leader;

/// All of them.
#[rustfmt::skip]
pub(super) const PLANS: &[Plan] = &[
    Plan::new("kill", &["P1", "P2", "P3", "P6", "P7"], 3, Plain, F::Kill(Any), (300, 3000)),
    Plan::new("kill_leader", &["P1", "P3"], 3, Plain, F::Kill(Leader), (1500, 4000)),
    Plan::new("kill_all", &["P2", "P3"], 3, Plain, F::Kill(All), (300, 2000)),
    Plan::new("pause_leader", &["P1", "P3"], 3, Plain, F::Pause(Leader), (500, 6000)),
    Plan::new("pause", &["P1", "P4", "P7"], 3, Plain, F::Pause(Any), (500, 6000)),
    Plan::new("drain", &["P1", "P7", "P10"], 3, Plain, F::Drain(Any), (500, 2000)),
    Plan::new("roll", &["P3", "P10"], 3, Plain, F::Roll, (300, 500)),
    Plan::new("cut_leader", &["P1", "P3", "P4"], 3, Plain, F::Alone(Leader), (3000, 7000)),
    Plan::new("cut_follower", &["P1", "P2", "P3", "P4", "P7"], 3, Plain, F::Alone(Follower), (2000, 7000)),
    Plan::new("apart", &["P1", "P2", "P3", "P4"], 3, Plain, F::Apart, (2000, 7000)),
    Plan::new("mute_leader", &["P1", "P3"], 3, Plain, F::Mute(Leader), (3000, 7000)),
    Plan::new("deaf_leader", &["P1", "P3"], 3, Plain, F::Deaf(Leader), (3000, 7000)),
    Plan::new("mute_follower", &["P1", "P3"], 3, Plain, F::Mute(Follower), (3000, 7000)),
    Plan::new("flaky", &["P1", "P2", "P3"], 3, Plain, F::Links(FLAKY), (3000, 7000)),
    Plan::new("far", &["P1", "P2", "P3"], 3, Plain, F::Links(FAR), (3000, 6000)),
    Plan::new("narrow", &["P1", "P2", "P3"], 3, Plain, F::Links(NARROW), (3000, 6000)),
    Plan::new("worker_dies", &["P1", "P6", "P7"], 3, Plain, F::WorkerDies, (1000, 3000)),
    Plan::new("worker_503", &["P1", "P6"], 3, Plain, F::Worker(r#"{"kind":"status","status":503,"path":"/v1/chat/completions"}"#), (1000, 3000)),
    Plan::new("worker_resets", &["P1", "P6", "P7"], 3, Plain, F::Worker(r#"{"kind":"reset-before-head","path":"/v1/chat/completions"}"#), (1000, 3000)),
    Plan::new("worker_cuts", &["P1", "P6"], 3, Plain, F::Worker(r#"{"kind":"cut","after":3,"how":"reset","path":"/v1/chat/completions"}"#), (1000, 3000)),
    Plan::new("worker_stalls", &["P1", "P6", "P7"], 3, Plain, F::Worker(r#"{"kind":"slow-start","ms":800}"#), (2000, 4000)),
    Plan::new("worker_garbage", &["P1", "P6"], 3, Plain, F::Worker(r#"{"kind":"garbage","bytes":200}"#), (1000, 3000)),
    Plan::new("overload", &["P1", "P7", "P8"], 3, Plain, F::Overload(6), (3000, 5000)),
    Plan::new("wipe", &["P2", "P3"], 3, Plain, F::Wipe(Any), (300, 1000)),
    Plan::new("old_backup", &["P2", "P3"], 3, Plain, F::Backup(Any), (2000, 4000)),
    Plan::new("torn_log", &["P2", "P3"], 3, Plain, F::Torn(Any), (300, 1500)),
    Plan::new("snapshot_cut", &["P3"], 3, Plain, F::SnapshotCut(Follower), (200, 1500)),
    Plan::new("bridge", &["P1", "P3"], 5, Plain, F::Bridge, (3000, 7000)),
    Plan::new("ring", &["P1", "P3"], 5, Plain, F::Ring, (3000, 7000)),
    Plan::new("pause_observer", &["P1"], 5, Plain, F::Pause(Follower), (2500, 3500)),
    Plan::new("power_one", &["P2", "P3"], 3, Disks, F::Power(Any), (300, 1500)),
    Plan::new("power_all", &["P2", "P3"], 3, Disks, F::Power(All), (300, 1000)),
    Plan::new("power_vote", &["P3"], 3, Disks, F::PowerAfterVote, (300, 1000)),
    Plan::new("flushes_fail", &["P2", "P3"], 3, Disks, F::FlushesFail(Any), (1500, 3000)),
    Plan::new("slow_disk", &["P1", "P3"], 3, Disks, F::SlowDisk(Any, 300), (2500, 4000)),
    Plan::new("stalled_disk", &["P1", "P3"], 3, Disks, F::SlowDisk(Leader, 5000), (4000, 5000)),
    Plan::new("full_disk", &["P1", "P3"], 3, Small, F::FullDisk(Any), (2000, 4000)),
    Plan::new("full_disks", &["P1", "P3"], 3, Small, F::FullDisk(All), (2000, 4000)),
    Plan::new("clock_ahead", &["P2", "P3", "P4"], 3, Clocks, F::Clock(Any, 3600), (2500, 4000)),
    Plan::new("clock_behind", &["P2", "P3", "P4"], 3, Clocks, F::Clock(Any, -3600), (2500, 4000)),
    Plan::new("clock_of_leader", &["P2", "P3", "P4"], 3, Clocks, F::Clock(Leader, 90), (2500, 4000)),
    Plan::new("clocks_drift", &["P2", "P3", "P4"], 3, Clocks, F::Drift, (4000, 6000)),
];
