//! What can be wrong on purpose: one variant a fault, as it is asked for, shown and counted.

use serde::Deserialize;
use serde::Serialize;

use crate::observability::labels::label;

/// Every node, or every worker.
pub const ALL: &str = "*";
/// Nodes that one fault may name. More than a cluster has, and few enough to look through for each message.
const NODES_MAX: usize = 64;
/// Longest that a message, a request or an fsync is made to wait. Longer is a partition, a refusal or a failure.
const DELAY_MS_MAX: u64 = 60_000;
/// A year: what clocks are off by when they are off.
const OFFSET_SECONDS_MAX: i64 = 366 * 86_400;

/// Which messages between two nodes it hits, as the node sees it that has the fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Those that come and those that go.
    #[default]
    Both,
    /// Those that come.
    In,
    /// Those that go.
    Out,
}

/// Which raft groups it hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Groups {
    /// All of them.
    #[default]
    Both,
    /// The one that the cluster agrees in to be one.
    Control,
    /// The one that keeps responses and conversations.
    History,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Nothing passes between this node and those.
    Partition {
        /// Node ids, or [`ALL`].
        nodes: Vec<String>,
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// Some of what passes is lost.
    Loss {
        /// Node ids, or [`ALL`].
        nodes: Vec<String>,
        /// Which way.
        #[serde(default)]
        direction: Direction,
        /// How much of it, of 1.
        ratio: f64,
    },
    /// What passes is late.
    Delay {
        /// Node ids, or [`ALL`].
        nodes: Vec<String>,
        /// Which way.
        #[serde(default)]
        direction: Direction,
        /// By how many milliseconds.
        ms: u64,
        /// And by up to so many more, drawn for each message.
        #[serde(default)]
        jitter_ms: u64,
    },
    /// Membership and tables neither speak nor listen.
    Gossip {},
    /// Raft groups neither speak nor listen.
    Raft {
        /// Which.
        #[serde(default)]
        group: Groups,
    },
    /// Connections to a worker are refused.
    WorkerRefuse {
        /// Its URL, or [`ALL`].
        worker: String,
    },
    /// Requests reach a worker late.
    WorkerDelay {
        /// Its URL, or [`ALL`].
        worker: String,
        /// By how many milliseconds.
        ms: u64,
    },
    /// A worker answers with a status that says it failed.
    WorkerStatus {
        /// Its URL, or [`ALL`].
        worker: String,
        /// Which.
        status: u16,
    },
    /// A worker's answer breaks off.
    WorkerReset {
        /// Its URL, or [`ALL`].
        worker: String,
        /// After so many bytes of its body.
        after_bytes: u64,
    },
    /// The wall clock is off.
    Clock {
        /// By so many seconds; below zero: it is slow.
        offset_seconds: i64,
    },
    /// Writes and fsyncs fail.
    DiskFail {},
    /// Fsyncs take longer.
    DiskSlow {
        /// By how many milliseconds.
        ms: u64,
    },
    /// There is no room.
    DiskFull {},
}

label! {
    /// A [`Fault`] without what it carries. The words are those of `kind`.
    pub enum Kind {
        /// [`Fault::Partition`].
        Partition = "partition",
        /// [`Fault::Loss`].
        Loss = "loss",
        /// [`Fault::Delay`].
        Delay = "delay",
        /// [`Fault::Gossip`].
        Gossip = "gossip",
        /// [`Fault::Raft`].
        Raft = "raft",
        /// [`Fault::WorkerRefuse`].
        WorkerRefuse = "worker_refuse",
        /// [`Fault::WorkerDelay`].
        WorkerDelay = "worker_delay",
        /// [`Fault::WorkerStatus`].
        WorkerStatus = "worker_status",
        /// [`Fault::WorkerReset`].
        WorkerReset = "worker_reset",
        /// [`Fault::Clock`].
        Clock = "clock",
        /// [`Fault::DiskFail`].
        DiskFail = "disk_fail",
        /// [`Fault::DiskSlow`].
        DiskSlow = "disk_slow",
        /// [`Fault::DiskFull`].
        DiskFull = "disk_full",
    }
}

/// Why a fault is none. Whoever asked for it is to mend it; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It names nobody, or too many.
    #[error("`nodes`: name from 1 to {NODES_MAX} nodes, or `*` for all")]
    Nodes,
    /// It is no share.
    #[error("`ratio`: a number above 0 and up to 1")]
    Ratio,
    /// It is no wait.
    #[error("milliseconds: a whole number from 1 to {DELAY_MS_MAX}; `jitter_ms` may be 0")]
    Milliseconds,
    /// It says no failure.
    #[error("`status`: from 400 to 599")]
    Status,
    /// No clock is so wrong.
    #[error("`offset_seconds`: up to {OFFSET_SECONDS_MAX}, in either direction, and not 0")]
    Offset,
}

impl Fault {
    /// Whether its numbers make sense.
    pub fn check(&self) -> Result<(), Unfit> {
        let is_delay = |ms: u64| if (1..=DELAY_MS_MAX).contains(&ms) { Ok(()) } else { Err(Unfit::Milliseconds) };
        if self.nodes().is_some_and(|it| it.is_empty() || it.len() > NODES_MAX) {
            return Err(Unfit::Nodes);
        }
        match self {
            Self::Loss { ratio, .. } if !(*ratio > 0.0 && *ratio <= 1.0) => Err(Unfit::Ratio),
            Self::Delay { ms, jitter_ms, .. } if *jitter_ms <= DELAY_MS_MAX => is_delay(*ms),
            Self::Delay { .. } => Err(Unfit::Milliseconds),
            Self::WorkerDelay { ms, .. } | Self::DiskSlow { ms } => is_delay(*ms),
            Self::WorkerStatus { status, .. } if !(400..=599).contains(status) => Err(Unfit::Status),
            Self::Clock { offset_seconds: it } if *it == 0 || it.unsigned_abs() > OFFSET_SECONDS_MAX.unsigned_abs() => {
                Err(Unfit::Offset)
            }
            Self::Partition { .. }
            | Self::Loss { .. }
            | Self::Gossip {}
            | Self::Raft { .. }
            | Self::WorkerRefuse { .. }
            | Self::WorkerStatus { .. }
            | Self::WorkerReset { .. }
            | Self::Clock { .. }
            | Self::DiskFail {}
            | Self::DiskFull {} => Ok(()),
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Partition { .. } => Kind::Partition,
            Self::Loss { .. } => Kind::Loss,
            Self::Delay { .. } => Kind::Delay,
            Self::Gossip {} => Kind::Gossip,
            Self::Raft { .. } => Kind::Raft,
            Self::WorkerRefuse { .. } => Kind::WorkerRefuse,
            Self::WorkerDelay { .. } => Kind::WorkerDelay,
            Self::WorkerStatus { .. } => Kind::WorkerStatus,
            Self::WorkerReset { .. } => Kind::WorkerReset,
            Self::Clock { .. } => Kind::Clock,
            Self::DiskFail {} => Kind::DiskFail,
            Self::DiskSlow { .. } => Kind::DiskSlow,
            Self::DiskFull {} => Kind::DiskFull,
        }
    }

    /// The nodes that it names, where it names any.
    #[must_use]
    pub fn nodes(&self) -> Option<&[String]> {
        match self {
            Self::Partition { nodes, .. } | Self::Loss { nodes, .. } | Self::Delay { nodes, .. } => Some(nodes),
            _ => None,
        }
    }

    /// Puts what the nodes are known by in the place of what they were called.
    pub fn name_nodes<E>(&mut self, mut known_by: impl FnMut(&str) -> Result<String, E>) -> Result<(), E> {
        if let Self::Partition { nodes, .. } | Self::Loss { nodes, .. } | Self::Delay { nodes, .. } = self {
            for node in nodes.iter_mut().filter(|it| *it != ALL) {
                *node = known_by(node)?;
            }
        }
        Ok(())
    }

    /// The same of the worker.
    pub fn name_worker<E>(&mut self, known_by: impl FnOnce(&str) -> Result<String, E>) -> Result<(), E> {
        match self {
            Self::WorkerRefuse { worker }
            | Self::WorkerDelay { worker, .. }
            | Self::WorkerStatus { worker, .. }
            | Self::WorkerReset { worker, .. }
                if worker != ALL =>
            {
                *worker = known_by(worker)?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observability::labels::Label as _;

    fn read(text: &str) -> Result<Fault, String> {
        let fault: Fault = serde_json::from_str(text).map_err(|it| it.to_string())?;
        fault.check().map(|()| fault).map_err(|it| it.to_string())
    }

    #[test]
    fn faults_are_read_from_words_and_shown_in_the_same() {
        let all = [
            r#"{"kind":"partition","nodes":["n-1"],"direction":"both"}"#,
            r#"{"kind":"loss","nodes":["*"],"direction":"in","ratio":0.5}"#,
            r#"{"kind":"delay","nodes":["n-1","n-2"],"direction":"out","ms":100,"jitter_ms":20}"#,
            r#"{"kind":"gossip"}"#,
            r#"{"kind":"raft","group":"history"}"#,
            r#"{"kind":"worker_refuse","worker":"http://w:1"}"#,
            r#"{"kind":"worker_delay","worker":"*","ms":5}"#,
            r#"{"kind":"worker_status","worker":"*","status":503}"#,
            r#"{"kind":"worker_reset","worker":"*","after_bytes":0}"#,
            r#"{"kind":"clock","offset_seconds":-90}"#,
            r#"{"kind":"disk_fail"}"#,
            r#"{"kind":"disk_slow","ms":40}"#,
            r#"{"kind":"disk_full"}"#,
        ];
        for (text, kind) in all.iter().zip(Kind::ALL) {
            let fault = read(text).unwrap();
            assert_eq!(serde_json::to_string(&fault).unwrap(), *text);
            assert_eq!(fault.kind(), *kind);
            assert!(text.contains(&format!("\"kind\":\"{}\"", kind.as_str())));
        }
        assert_eq!(all.len(), Kind::ALL.len());
        let short = read(r#"{"kind":"partition","nodes":["n-1"]}"#).unwrap();
        assert_eq!(short, Fault::Partition { nodes: vec!["n-1".to_owned()], direction: Direction::Both });
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused_in_words() {
        for (text, says) in [
            (r#"{"kind":"partition","nodes":[]}"#, "`nodes`"),
            (r#"{"kind":"loss","nodes":["*"],"ratio":0}"#, "`ratio`"),
            (r#"{"kind":"loss","nodes":["*"],"ratio":1.1}"#, "`ratio`"),
            (r#"{"kind":"delay","nodes":["*"],"ms":0}"#, "milliseconds"),
            (r#"{"kind":"delay","nodes":["*"],"ms":1,"jitter_ms":60001}"#, "milliseconds"),
            (r#"{"kind":"worker_status","worker":"*","status":200}"#, "`status`"),
            (r#"{"kind":"clock","offset_seconds":0}"#, "`offset_seconds`"),
            (r#"{"kind":"clock","offset_seconds":-9223372036854775808}"#, "`offset_seconds`"),
            (r#"{"kind":"disk_slow","ms":60001}"#, "milliseconds"),
            (r#"{"kind":"disk_fail","ms":1}"#, "unknown field"),
            (r#"{"kind":"earthquake"}"#, "unknown variant"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
