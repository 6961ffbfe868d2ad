//! History on a raft group of the cluster's nodes: durable at a majority, readable at each.
//!
//! ```text
//!                    commands of many                       one entry, one fsync
//!  propose ──▶ committer ──▶ here, if this node leads ─▶ raft::Group<History> ──▶ disks of all
//!                  └───────▶ else the leader's committer
//!  read ────▶ reader: how far has the leader come? (one question for all who wait) ──▶ wait until here, too ──▶ rows
//!
//!  driver: founds it once, joins it, stands for election, changes who is in it, hands over
//!  purge: what was deleted goes off the disk of this node
//! ```
//! The members are the control group's, who votes is decided by the same rules ([`Patience`](crate::control::core::voters::Patience)), and frames pass the same gate. The group begins with the first use: a
//! cluster that keeps nothing pays for no second group. Where it begins is decided in the control group's log, once.
//!
//! *Invariants.* 1. An outcome is told only for a command that a majority has on disk. 2. A read has what anybody was told before it began. 3. A group of one takes no command in a cluster of several: it would be lost
//! with one disk. 4. Nothing waits for ever: every command and read has a deadline, and asks the next leader until then.

mod committer;
mod driver;
mod messages;
pub mod metrics;
#[cfg(test)]
mod older;
mod purge;
mod reader;
mod shared;
#[cfg(test)]
mod sim;

use crate::base::ids::StorageId;
use crate::history::machine::History;
use crate::raft;
use crate::storage::Batch;
use crate::storage::GroupId;
use crate::storage::Store;

pub use driver::Driver;
pub use driver::Ground;
pub use driver::start;
pub use shared::Replicated;
pub use shared::Status;

/// Whether this release can read what a data directory has of the group. Blocks on the disk.
pub fn check(store: &Store) -> Result<(), raft::StartError> {
    raft::check::<History>(store, GroupId::HISTORY)
}

/// Makes a stopped member's group one of this node alone, with what it has: for when a majority of the voters is lost for good. False: there is no group. Blocks on the disk.
pub fn recover(store: &Store, me: StorageId) -> Result<bool, raft::RecoverError> {
    if raft::voters_on_disk(store, GroupId::HISTORY)?.is_empty() {
        return Ok(false);
    }
    raft::recover::<History>(store, GroupId::HISTORY, me, Batch::default(), |_, _| {})?;
    Ok(true)
}
