//! How much each worker has to do for the whole cluster, asked at the moment of choice.
//!
//! ```text
//!  every node ──report, 4 a second──▶ owners of a worker's ledger (two of the members, by rendezvous hash)
//!             ──commit, each request─▶        │
//!  a decision ──probe, 5 ms──────────▶ first owner ──▶ what all others have in flight there
//! ```
//! Load that was gossiped is too old to decide by: half a second costs half of the time to first token again (ROUTING.md 4.2), because all nodes send to the
//! worker that was idle. So whoever decides asks, and what it then begins is told at once.
//!
//! *Invariants.* 1. A report is absolute: however messages are lost, doubled and reordered, the next one makes the ledger right, and nothing is ever
//! counted twice. 2. Unknown is never zero: an owner that has not heard every live member lately says so. 3. A node alone asks nobody, and neither does one that keeps
//! the ledger itself. 4. A decision waits for one deadline of milliseconds, whoever does not answer. *Absent on purpose:* agreement, and the choice itself, which is
//! `routing`'s.

pub mod config;
pub mod core;
mod driver;
mod faults;
pub mod gossip;
mod handle;
pub mod messages;
pub mod metrics;

pub use config::Config;
pub use driver::Peers;
pub use driver::start;
pub use handle::Handle;
#[cfg(test)]
pub(crate) use handle::MISSED;
pub use handle::Reading;
pub use handle::Readings;
pub use handle::Source;

use serde::Deserialize;
use serde::Serialize;

/// Work that is under way at a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Requests that are not answered whole.
    pub requests: u32,
    /// Prompt tokens that wait for prefill.
    pub queued_tokens: u64,
}

impl InFlight {
    /// One request with such a prompt.
    #[must_use]
    pub fn one(queued_tokens: u64) -> Self {
        Self { requests: 1, queued_tokens }
    }

    /// Whether it is nothing.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Adds what another has. Nonsense of a member does not wrap around to idleness.
    pub fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.queued_tokens = self.queued_tokens.saturating_add(other.queued_tokens);
    }

    /// The larger of both, number by number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { requests: self.requests.max(other.requests), queued_tokens: self.queued_tokens.max(other.queued_tokens) }
    }
}

#[cfg(test)]
mod tests;
