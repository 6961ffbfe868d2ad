//! Who is here: SWIM between nodes, over the transport's `swim` lane.
//!
//! ```text
//! seeds ─▶ greet ─▶ announce ─▶ alive ⇄ suspect ─▶ down ─▶ forgotten      a restarted node replaces its old self at once
//!                                  └────────────▶ left ─▶ forgotten       and one that was held for dead begins a new life
//! ```
//! *Invariants.* 1. Seeds and lost members are greeted for ever, with a pause of two seconds at most, as long as any is missing: a split of any length heals without
//! help. 2. A node whose own time stood still suspects nobody for it. 3. What a peer says of itself counts only if its certificate names it. 4. The view is published whole: readers
//! see one moment. *Absent on purpose:* agreement. Two nodes may see different members for a while, and nothing that needs to be exact may rest on this.

pub mod about;
pub mod core;
mod driver;
mod faults;
pub mod metrics;
mod view;

pub use driver::Handle;
pub use driver::start;
pub use view::Member;
pub use view::Status;
pub use view::View;

use std::time::Duration;

/// The timing of SWIM. Every node of a cluster should have the same.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Each node probes one other this often. Smaller finds the dead sooner and costs packets.
    pub probe_period: Duration,
    /// A probe that is not answered after this is repeated through others. Below the slowest round trip it only doubles traffic.
    pub probe_rtt: Duration,
    /// How long a suspect may take to refute. Smaller evicts the slow, larger keeps the dead.
    pub suspect_for: Duration,
    /// A member that left or is down is shown, and looked for, this long.
    pub forget_after: Duration,
}

impl Default for Config {
    /// From simulation, see `docs/protocol/membership.md`.
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(250),
            probe_rtt: Duration::from_millis(100),
            suspect_for: Duration::from_millis(1200),
            forget_after: Duration::from_secs(24 * 3600),
        }
    }
}

#[cfg(test)]
mod tests;
