//! The control group: what a cluster must agree on to be one. Group 0 of `raft`; it carries no traffic, and nothing stateless waits for it.
//!
//! ```text
//!              hello, grant, life, propose                       frames of the group
//! other nodes ◀──────────────────────────▶ driver ─▶ core/ ─▶ raft::Group ◀──────────▶ other nodes
//!                                             ▲                  └─▶ machine/
//! areas above ── Handle: propose, read, status ┘
//! ```
//! Three pure parts and the task that drives them: `machine/` is what is agreed on (registrations of data directories, shares of limits, the feature level);
//! `core/bootstrap` is how the first group comes to be and how a node comes to one; `core/voters` is who votes; `core/lives` and `core/gate` are who is heard.
//!
//! *Invariants.* 1. Of fewer than twice as many fresh nodes as a group takes, one group comes to be at most. 2. A data directory votes in one life: earlier
//! ones, copies and backups are refused and told what to do. 3. Voters become fewer only when a person says so. 4. What is not understood is never skipped:
//! the group stops here instead. 5. A node whose disk fails stops, and acknowledges nothing first. *Absent on purpose:* requests of clients, and readiness:
//! a node without a quorum serves.

mod alone;
mod config;
pub mod core;
mod driver;
mod error;
mod faults;
mod handle;
mod kept;
pub mod machine;
pub mod messages;
pub mod metrics;
#[cfg(test)]
mod older;
mod shared;
#[cfg(test)]
pub(crate) mod sim;
pub mod tenure;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use alone::AloneDriver;
pub use alone::Ground;
pub use alone::alone;
pub use config::Config;
pub use driver::Driver;
pub use driver::Parts;
pub use driver::start;
pub use error::ControlError;
pub use error::Unusable;
pub use handle::Handle;
pub use handle::Status;
pub use kept::check;
pub use kept::recover;
pub use kept::reset;
pub use kept::whose;

use self::core::bootstrap;
use self::machine::Refusal;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft;
use crate::storage::GroupId;

/// The other nodes.
pub trait Peers: raft::Mesh {
    /// Data directories of the members that may be spoken to, this node's not included.
    fn active(&self) -> BTreeSet<StorageId>;
    /// Data directories whose nodes said goodbye.
    fn left(&self) -> BTreeSet<StorageId>;
}

/// Another group of the same members: its frames come on the control group's lane and through its gate, and what its nodes say to each other comes there, too.
pub trait Carried: Send + Sync + 'static {
    /// Which group.
    fn id(&self) -> GroupId;
    /// The group, once this node takes part.
    fn group(&self) -> Option<Arc<dyn raft::Serve>>;
    /// First byte of its messages.
    fn first_byte(&self) -> u8;
    /// Answers such a message of another node. None: it is not answered.
    fn serve(&self, from: StorageId, message: Bytes) -> Serving<'_>;
}

/// An answer in the making.
pub type Serving<'a> = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send + 'a>>;

/// How a node stands to the control group, for people: each says what to do, where there is something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Standing {
    /// It belongs to none yet, or hears of one it does not belong to.
    #[error("{0}")]
    Outside(bootstrap::Standing),
    /// It tells the voters that it has been started.
    #[error(
        "telling the voters of {cluster} that this data directory has been started: {accepted} of {voters} know, a majority must"
    )]
    Registering {
        /// Its cluster.
        cluster: ClusterId,
        /// This one included.
        accepted: usize,
        /// All of them.
        voters: usize,
    },
    /// It takes part.
    #[error("member of {0}")]
    Member(ClusterId),
    /// It may not take part.
    #[error("{0}")]
    Expelled(Refusal),
    /// It has no mesh, and nothing has needed a group yet.
    #[error("no group yet: nothing needs one")]
    Dormant,
    /// It has no mesh and keeps nothing: what is decided holds until the restart.
    #[error("member of {0}, alone and until the restart: nothing is kept")]
    Passing(ClusterId),
    /// It has no mesh, but its data directory belongs with others.
    #[error(
        "this data directory belongs to {0} with others: start the node with --ha-mesh, or give it another --data-dir"
    )]
    NeedsMesh(ClusterId),
    /// It has no mesh, but its data directory counts for a group that others found.
    #[error(
        "this data directory is promised to {0}, which founds a cluster: start the node with --ha-mesh, or take it back with `smg mesh bootstrap --reset`"
    )]
    Promised(StorageId),
}
