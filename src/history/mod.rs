//! What everyone exactly agrees on: a log of commands, the state they make, both on disk.
//!
//! Three parts that do not mix. `machine/` is pure: commands and state make effects. `store/` is the only place that
//! knows RocksDB: several groups share one database, told apart by a key prefix. `raft/` is the adapter that lets openraft
//! run a group on them; [`LocalLog`] writes the same entries to the same store for a group of one, without an election. No group runs yet:
//! what a node keeps today are the rows of replicated tables, which lie in the same store. [`Handle`] is what others hold.
//!
//! *Invariants.* 1. A command is answered only after the entry that carries it was fsynced. 2. The state is what the log
//! made it: nothing else writes it. 3. A failed write or fsync is never retried and then acknowledged; the log refuses
//! every later command. 4. A value that cannot be read back is never skipped: opening fails, and a raft group stops the
//! process. *Absent on purpose:* prompts and completions, and secrets in clear (see [`machine::Command::PutWorker`]).

mod error;
mod handle;
mod local;
pub mod machine;
mod metrics;
pub mod raft;
mod seal;
pub mod store;

pub use error::AppendError;
pub use error::OpenError;
pub use handle::Durability;
pub use handle::Handle;
pub use handle::Place;
pub use local::LocalLog;
pub use metrics::Metrics;

/// One raft group of this store. Several groups share one database and its fsyncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupId(pub u16);

impl GroupId {
    /// What the cluster must agree on to be one: registrations, and on a single node its admin-added workers.
    pub const CONTROL: Self = Self(0);
}
