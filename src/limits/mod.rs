//! Limits that hold for the whole cluster: the budget is escrow, and every node spends what it was given.
//!
//! ```text
//!  group 0 ──mint (who may spend how much)──▶ every node ──purse──▶ edge threads take units, a few nanoseconds each
//!                                               │  ▲
//!                                   pull, given ▼  │ told
//!                                             other nodes
//! ```
//! A counter that is gossiped lets each node spend what the others have spent already; one that is asked for costs a round trip a request and stops with its
//! keeper. So the units of a window are divided beforehand, and move between nodes when one needs them and another does not.
//!
//! *Invariants.* 1. A mint is the only source of rights; membership makes none. 2. Rights of a window = share + received - given - spent, and what is given is subtracted
//! before it is sent. 3. No share is used in a window that begins after `hold` has passed since this node *sent* the last renewal that was answered; nothing that was minted
//! is used by another before that. 4. A life that knows nothing of its predecessor's window uses no share in it. 5. Whatever is lost, doubled, late or reordered, no unit is
//! spent twice; what is lost, is lost for its window at most. *Absent on purpose:* agreement, which is `control`'s; what a limit means, which is `tenancy`'s.

pub mod calendar;
pub mod config;
pub mod core;
mod driver;
mod faults;
pub mod group;
mod handle;
mod leader;
pub mod messages;
pub mod metrics;
pub mod mint;
pub mod permits;
pub mod purse;

pub use config::Config;
pub use driver::Others;
pub use driver::Parts;
pub use driver::start;
pub use handle::Handle;
pub use mint::Kind;
pub use mint::Mint;
pub use permits::Permit;
pub use purse::Taken;

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// One limit: what it counts, for whom, in which windows. Whoever defines limits makes the number, and makes another one when the kind or the window of a
/// limit changes. Shown as `l-` and 16 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LimitId(pub u64);

impl fmt::Display for LimitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "l-{:016x}", self.0)
    }
}

impl fmt::Debug for LimitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A limit as an operator has it: who defines limits makes them, the control group's leader divides them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Which.
    pub limit: LimitId,
    /// Which edit of it this is; it grows. A leader that knows a later one does not go back.
    pub revision: u64,
    /// What is counted.
    pub kind: Kind,
    /// Length of a window in milliseconds, [`mint::WINDOW_MS_MIN`] to [`mint::WINDOW_MS_MAX`]. 0 for [`Kind::Streams`].
    pub window_ms: u32,
    /// Units a window, or at a time, at most [`mint::UNITS_MAX`].
    pub units: u64,
}

/// What a node does for a limit of which it holds no share: none was minted for it yet, or its hold has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnIsolation {
    /// It refuses. The limit holds, and this node serves nobody whom it limits.
    #[default]
    Deny,
    /// It admits and does not count.
    Open,
}

/// What is the same for all limits of a cluster.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a share is used after the last renewal that was answered was sent. Shorter, and a short loss of the group's majority refuses requests; longer, and
    /// the share of a dead node is lost to the others for longer.
    pub hold: Duration,
    /// How much longer than `hold` the group's leader waits: clocks of two nodes may drift apart by this much in that time.
    pub drift: Duration,
    /// See [`OnIsolation`].
    pub on_isolation: OnIsolation,
}

impl Default for Settings {
    /// Ten minutes, half a minute, deny.
    fn default() -> Self {
        Self { hold: Duration::from_secs(600), drift: Duration::from_secs(30), on_isolation: OnIsolation::Deny }
    }
}

#[cfg(test)]
mod tests;
