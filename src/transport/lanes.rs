//! What kinds of traffic there are between two nodes, how each is carried, and how much of it at most.
//!
//! ```text
//! swim     datagram; a stream of its own when larger than one      newest matter: lost is lost
//! deltas   one stream a message, no order between messages         refused when the queue is full
//! sync     one stream a request and its answer
//! ledger   the same as datagrams, message or question and answer; streams when larger than one: a deadline of milliseconds has no time to repeat what is lost
//! forward  one stream of bytes in both directions, no bound but flow control
//! raft     a request and its answer on the main connection: messages of groups, small and frequent
//! limits   datagrams, as swim: units that move between nodes, of use for milliseconds
//! renewals a request and its answer: who may spend how much, from whoever leads the control group
//! bulk     a request and its answer on a second connection, rate capped, so that snapshots never delay heartbeats
//! ```

use std::time::Duration;

use crate::base::clock::Instant;
use crate::observability::labels::label;

/// Bulk data of the whole node, in bytes a second: 200 Mbit/s, a fifth of a common network. A gigabyte takes 40 s.
pub const BULK_BYTES_PER_SECOND: u64 = 25_000_000;

label! {
    /// A kind of traffic.
    pub enum Lane {
        /// Membership.
        Swim = "swim",
        /// Replication: what changed.
        Deltas = "deltas",
        /// Replication: digests and what is missing.
        Sync = "sync",
        /// Load of workers, asked before a prompt is placed.
        Ledger = "ledger",
        /// Requests for a worker that only the other node reaches.
        Forward = "forward",
        /// Snapshots of groups.
        Bulk = "bulk",
        /// What must be agreed.
        Raft = "raft",
        /// Units of limits that move between nodes.
        Limits = "limits",
        /// Shares of limits, from whoever divides them.
        Renewals = "renewals",
    }
}

impl Lane {
    /// The lane that a stream's first byte names.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        use crate::observability::labels::Label as _;
        Self::ALL.iter().copied().find(|lane| lane.byte() == byte)
    }

    /// The first byte of each of its streams. Never changes its meaning.
    #[must_use]
    pub const fn byte(self) -> u8 {
        match self {
            Self::Swim => 1,
            Self::Deltas => 2,
            Self::Sync => 3,
            Self::Ledger => 4,
            Self::Forward => 5,
            Self::Bulk => 6,
            Self::Raft => 7,
            Self::Limits => 8,
            Self::Renewals => 9,
        }
    }

    /// Longest message. A larger bound lets one peer make this node hold more; a smaller one cuts real messages: 1 MiB of deltas is
    /// some thousand rows, 64 MiB a snapshot of every table at its bound.
    #[must_use]
    pub const fn bytes_max(self) -> usize {
        match self {
            Self::Swim | Self::Ledger | Self::Limits => 64 << 10,
            Self::Deltas => 1 << 20,
            Self::Sync | Self::Raft | Self::Renewals => 4 << 20,
            Self::Forward => usize::MAX,
            Self::Bulk => 64 << 20,
        }
    }

    /// Whether a message that fits is a datagram: what is said again soon, or waited for no longer than a lost packet takes to be noticed.
    #[must_use]
    pub(super) const fn is_brief(self) -> bool {
        match self {
            Self::Swim | Self::Ledger | Self::Limits => true,
            Self::Deltas | Self::Sync | Self::Forward | Self::Bulk | Self::Raft | Self::Renewals => false,
        }
    }

    /// Whether it carries membership or tables.
    #[must_use]
    pub const fn is_gossip(self) -> bool {
        match self {
            Self::Swim | Self::Deltas | Self::Sync => true,
            Self::Ledger | Self::Forward | Self::Bulk | Self::Raft | Self::Limits | Self::Renewals => false,
        }
    }

    /// Which connection carries it.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Swim
            | Self::Deltas
            | Self::Sync
            | Self::Ledger
            | Self::Forward
            | Self::Raft
            | Self::Limits
            | Self::Renewals => Class::Main,
            Self::Bulk => Class::Bulk,
        }
    }
}

/// The two kinds of connection between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Class {
    /// What must be quick.
    Main,
    /// What may wait.
    Bulk,
}

impl Class {
    /// For people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Bulk => "bulk",
        }
    }
}

/// Keeps bulk traffic of the whole node below a rate. A sender asks before each piece how long to wait.
#[derive(Debug)]
pub struct Pacer {
    bytes_per_second: u64,
    /// When everything granted so far will have been sent at the rate.
    paid_until: Instant,
}

impl Pacer {
    /// Time that may be saved up while nothing is sent: a burst of this length at most.
    const SLACK: Duration = Duration::from_millis(100);

    /// A cap.
    #[must_use]
    pub fn new(now: Instant, bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_until: now }
    }

    /// How long to wait before sending this many bytes.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Duration {
        let from = self.paid_until.max(now.checked_sub(Self::SLACK).unwrap_or(now));
        self.paid_until = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        from.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::observability::labels::Label as _;

    #[test]
    fn a_lane_is_known_by_its_byte_and_no_other_byte_is_one() {
        for lane in Lane::ALL {
            assert_eq!(Lane::from_byte(lane.byte()), Some(*lane));
        }
        assert_eq!((0..=255).filter(|byte| Lane::from_byte(*byte).is_some()).count(), Lane::ALL.len());
    }

    #[test]
    fn bulk_stays_below_its_rate_and_saves_up_no_more_than_its_slack() {
        let start = Clock.now();
        let mut pacer = Pacer::new(start, 1_000_000);
        let mut now = start + Duration::from_secs(60);
        let begun = now;
        for _ in 0..100 {
            now += pacer.take(now, 100_000);
        }
        let took = (now - begun).as_secs_f64();
        assert!((9.7..=9.9).contains(&took), "10 MB at 1 MB/s less one slack and one piece: {took}");
    }
}
