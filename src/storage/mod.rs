//! The data directory: one database for all that a node must still know after a restart, and the key that seals secrets beside it.
//!
//! [`Store`] is the only place that knows RocksDB: rows of replicated tables, and the logs and rows of several raft groups, share one database and its
//! fsyncs, told apart by their keys. [`Handle`] is what others hold.
//!
//! *Invariants.* 1. What a durable write returned for was fsynced. 2. A failed write or fsync is never retried and then acknowledged. 3. A value that
//! cannot be read back is never skipped. 4. A disk that fills up is told before it is full: what grows is refused while there is room for what must not be. *Absent on purpose:* what values mean, prompts and completions, and secrets in clear.

pub mod codec;
mod engine;
mod error;
mod faults;
pub mod frames;
mod handle;
pub mod keys;
#[cfg(test)]
pub(crate) mod memory;
mod metrics;
mod rewrite;
mod rows;
mod seal;
mod store;
mod torn;

pub use error::OpenError;
pub use handle::Durability;
pub use handle::Handle;
pub use handle::Place;
pub use metrics::Metrics;
pub use rewrite::Part;
pub use rows::GroupRow;
pub use rows::GroupView;
pub use rows::Row;
pub use store::Batch;
pub use store::ROOM_MIN;
pub use store::Store;
pub use store::StoreError;

use serde::Deserialize;
use serde::Serialize;

/// One raft group of this store. Several groups share one database and its fsyncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u16);

impl GroupId {
    /// What the cluster must agree on to be one: registrations, mints, the feature level.
    pub const CONTROL: Self = Self(0);
    /// Responses and conversations.
    pub const HISTORY: Self = Self(1);
}
