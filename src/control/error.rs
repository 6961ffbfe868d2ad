//! How asking the control group, and taking part in it, can fail.

use super::Standing;
use crate::storage::StoreError;

/// Why a command has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// There is no cluster to decide. The operator's to mend, as it says; nothing was changed.
    #[error("{0}")]
    NoCluster(Standing),
    /// The disk of whoever leads is full, and nobody else led in time. The operator's to mend; proposing the same again is safe.
    #[error("the disk of the node that leads the control group is full: make room there, and ask again")]
    NoRoom,
    /// No majority answered in time. Nobody's fault; it may or may not have taken effect, and proposing the same again is safe.
    #[error("no majority of the control group answered in time; it may be asked again")]
    Unanswered,
}

/// A data directory has something of the control group that this release cannot read. The operator's to mend; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "what the data directory has of the control group cannot be read: {0}: use the release that wrote it, or move the directory away to join as a new node"
)]
pub struct Unusable(pub(super) String);

/// Why a node takes part no longer. All but the last are the disk's fault or an older release's, and the process stops.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the control group cannot be kept: {0}")]
    Store(#[from] StoreError),
    #[error("the control group cannot be used: {0}")]
    Start(#[from] crate::raft::StartError),
    #[error("the control group has stopped: {0}")]
    Stopped(String),
}
