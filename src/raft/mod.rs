//! The spine of every raft group: openraft, on the shared store, over the mesh, around a machine that is given.
//!
//! ```text
//! area ─propose─▶ Group ─▶ openraft ─▶ Log, StateMachine ─▶ storage::Store
//!                   │         │ ▲                 └─▶ Machine (the area's, pure)
//!                 serve    Network ─frames─▶ Mesh ─▶ the same on another node
//! ```
//! Several groups share one store and one lane. A group is its [`Machine`]: commands, outcomes and rows are opaque bytes here, with versions of
//! the machine's own. A node in a group is a data directory ([`StorageId`]), because what must never be forgotten lies there. The store's half is proved by
//! openraft's own storage suite (`tests`). openraft is named in this area and nowhere else.
//!
//! *Invariants.* 1. `save_vote` has fsynced when it returns; `append` calls back only after its fsync. 2. Rows and the
//! position they stand for are written in one batch. 3. A read that fails stops the process: openraft may otherwise act on a
//! log with a hole (openraft issue 1795), and a restart is the only recovery that cannot make it worse. 4. A message that is not for this data directory,
//! this cluster or a life that goes on never reaches a group (whoever serves asks [`frame::Frame`]'s badge first). *Absent on purpose:* who may
//! be in a group, and when: that is the area's.

mod candidacy;
mod content;
mod exchange;
pub(crate) mod faults;
mod flight;
pub mod frame;
mod group;
mod log;
mod network;
mod nobody;
#[cfg(test)]
mod older;
mod purge;
mod receiving;
mod recover;
mod rows;
mod runtime;
#[cfg(test)]
pub(crate) mod sim;
mod state_machine;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use group::Committed;
pub use group::Group;
pub use group::Parts;
pub use group::ProposeError;
pub use group::Serve;
pub use group::StartError;
pub use group::Status;
pub use group::check;
pub use group::clear;
pub use group::voters_on_disk;
pub use network::Asking;
pub use network::Mesh;
pub use network::Papers;
pub use nobody::Nobody;
pub use purge::PurgeError;
pub use recover::RecoverError;
pub use recover::recover;
pub use rows::Rows;
pub use runtime::owned;

use crate::base::ids::StorageId;
use crate::observability::logs;
use crate::storage::StoreError;
use crate::storage::codec;

/// Largest command. An entry of this size, its fsync and its way must fit half a heartbeat; larger content travels in pieces.
pub const COMMAND_BYTES_MAX: usize = 256 << 10;

/// Entries in one message to a follower. More and a burst of writes takes longer than a heartbeat, which costs the leader its office.
const BATCH_ENTRIES_MAX: u64 = 64;

/// Bytes of entries in one message to a follower, unless a single one is larger. The reason is the same.
const BATCH_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(COMMAND_BYTES_MAX < BATCH_BYTES_MAX);

/// What a command does to a machine's rows: key, and the value it has now. None: it is gone.
pub type RowChange = (Vec<u8>, Option<Vec<u8>>);

/// Bytes that this release cannot read: a newer one wrote them, or they are damaged. The machine was not changed; a group must not go on past them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("written by a newer release, or damaged")]
pub struct Unreadable;

/// What goes through a group, or comes out of it, as bytes: a version byte, then the value.
pub trait Coded: Serialize + DeserializeOwned {
    /// As it travels, and as the log has it.
    fn encode(&self) -> Result<Vec<u8>, codec::CodecError> {
        codec::encode(self)
    }

    /// Reads one.
    fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        codec::decode(bytes).map_err(|_damage| Unreadable)
    }
}

/// What a group agrees on. Pure: the same commands in the same order make the same rows and outcomes at every node.
pub trait Machine: Default + Send + 'static {
    /// Whether it keeps nothing beside its rows. Then they are never read back, and a snapshot of them is a file that is made when somebody needs it.
    const IS_ITS_ROWS: bool = false;

    /// Whether somebody who wants this row removed wants its content gone from the disk, too: the group is then to be [purged](Group::purge).
    fn is_record(_key: &[u8]) -> bool {
        false
    }

    /// Takes one row back from disk or from a snapshot.
    fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), Unreadable>;

    /// Takes one command: what it answers, and in `changes` which rows are now otherwise. `rows`: those before it; `index`: its place in the log. Refusing is an answer.
    fn step(
        &mut self,
        rows: &dyn Rows,
        index: u64,
        command: &[u8],
        changes: &mut Vec<RowChange>,
    ) -> Result<Vec<u8>, Unreadable>;
}

/// How patient a group is. Failover takes a lease (nobody votes while the leader may still be there), and a step for each voter that should have stood before and did not.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The leader speaks this often; it is also the time that a follower has for a batch and its fsync.
    pub heartbeat: Duration,
    /// For so long after a leader spoke no member votes for another. Shorter, and a leader that is not run for a moment, or six heartbeats that are lost, cost an election.
    pub lease: Duration,
    /// Between two voters that stand for election. Shorter than a vote takes, and they split the votes.
    pub step: Duration,
}

impl Timing {
    /// Of a group of one: nobody is to be heard from, and nothing wakes an idle node.
    #[must_use]
    pub fn alone() -> Self {
        let day = Duration::from_secs(86_400);
        Self { heartbeat: day, lease: 3 * day, step: day }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            lease: Duration::from_millis(1500),
            step: Duration::from_millis(300),
        }
    }
}

/// Bytes that only a machine reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opaque(#[serde(with = "serde_bytes")] pub Vec<u8>);

openraft::declare_raft_types!(
    /// What every group is made of. Where a node is reached is membership's to know.
    pub TypeConfig:
        D = Opaque,
        R = Opaque,
        NodeId = StorageId,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = content::Content,
        AsyncRuntime = runtime::Runtime,
);

/// What openraft wants to hear when the store fails.
type StorageError = openraft::StorageError<StorageId>;
type LogId = openraft::LogId<StorageId>;

/// A value that was read, or the end of the process (invariant 3).
fn read_or_stop<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            tracing::error!(%error, "the store cannot be read: stopping, so that no wrong state is acted on");
            logs::abort()
        }
    }
}
