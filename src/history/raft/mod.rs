//! The adapter between openraft and the store: one log and one state machine a group, both on a shared [`super::store::Store`].
//!
//! Proved by openraft's own storage suite (`tests` below). openraft is named here and in `super::local`, nowhere else.
//!
//! *Invariants.* 1. `save_vote` has fsynced when it returns; `append` calls back only after its fsync. 2. Rows and the
//! position they stand for are written in one batch. 3. A read that fails stops the process: openraft may otherwise act on a
//! log with a hole (openraft issue 1795), and a restart is the only recovery that cannot make it worse.

mod log;
mod state_machine;
#[cfg(test)]
mod tests;

use std::io::Cursor;

pub use log::Log;
pub use state_machine::StateMachine;
pub(super) use state_machine::read_state;
pub(super) use state_machine::write_effects;

use super::machine::Command;
use super::machine::Outcome;
use super::store::StoreError;

openraft::declare_raft_types!(
    /// What a group is made of. A node in it is a storage id and an address.
    pub TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = openraft::TokioRuntime,
);

/// What openraft wants to hear when the store fails.
type StorageError = openraft::StorageError<u64>;

/// A value that was read, or the end of the process (invariant 3).
fn read_or_stop<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => {
            tracing::error!(%error, "the store cannot be read: stopping, so that no wrong state is acted on");
            std::process::abort()
        }
    }
}

/// Runs what waits for the disk where waiting is allowed.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        // The runtime is going down or the work panicked: either way nothing may be acknowledged.
        Err(_) => Err(StoreError::Failed),
    }
}
