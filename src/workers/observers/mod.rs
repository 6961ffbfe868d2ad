//! The health of workers as a cluster sees it: three nodes probe each worker, all hear what they saw.
//!
//! ```text
//! prober ──saw──▶ driver ──rows──▶ table `health` ──▶ every node's driver ──▶ core ──word──▶ registry: health, facts, restarts
//! ```
//! What other nodes see is a hint (`core.rs` says what it takes, `health` what it does); this node's own evidence comes first. *Invariants:* rows are
//! published for workers that are this node's to watch, and taken back when they are no longer; a node alone watches everything itself.

pub mod core;
mod driver;
mod row;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::core::Core;
use self::core::Seen;
use super::registry::Entry;
use crate::base::clock::Clock;
use crate::base::ids::StorageId;
use crate::base::ids::WorkerId;

pub use self::core::memory;
pub use self::driver::Setup;
pub use self::driver::start;

/// Who watches which worker, and what they see. Cheap to clone.
#[derive(Clone)]
pub struct Observers(Arc<Inner>);

struct Inner {
    core: Mutex<Core>,
    /// Workers that were probed and are to be told of. BOUND: those of the registry.
    saw: Mutex<BTreeSet<WorkerId>>,
    wake: Notify,
}

impl Observers {
    /// A node that hears nobody and tells nobody, until [`start`] drives it. `away_max`: how long nobody may reach a worker before it is dead.
    #[must_use]
    pub fn alone(me: StorageId, away_max: Duration) -> Self {
        let core = Mutex::new(Core::new(me, away_max));
        Self(Arc::new(Inner { core, saw: Mutex::default(), wake: Notify::new() }))
    }

    /// Whether this node is to probe a worker.
    #[must_use]
    pub fn is_mine(&self, entry: &Entry) -> bool {
        self.0.core.lock().is_mine(entry.id, entry.spec.via)
    }

    /// This node has probed a worker.
    pub fn saw(&self, worker: WorkerId) {
        self.0.saw.lock().insert(worker);
        self.0.wake.notify_one();
    }

    /// What is seen of a worker, by whom.
    #[must_use]
    pub fn seen(&self, worker: WorkerId) -> Vec<Seen> {
        self.0.core.lock().seen(Clock.now(), worker)
    }

    /// Whether nobody has reached the worker at this canonical URL (`via`: of that node) for longer than a worker may be away. One that was never heard of counts
    /// from the first time this is asked.
    #[must_use]
    pub fn is_dead(&self, url: &str, via: Option<StorageId>) -> bool {
        self.0.core.lock().is_dead(Clock.now(), WorkerId::of(url, via))
    }
}
