//! What a node is told at its start about its part in the control group.

use super::core::lives::Life;
use super::core::voters::Patience;
use super::machine::Register;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft::Timing;

/// See the file's header.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its data directory.
    pub me: StorageId,
    /// This start of it.
    pub life: Life,
    /// Its node id.
    pub node: String,
    /// Where it stands; empty: it does not say.
    pub zone: String,
    /// The highest feature level that it can work at.
    pub level_max: u32,
    /// How many grants it needs to found a group: [`expect`](super::core::bootstrap::expect).
    pub expect: usize,
    /// The id of the cluster, should this node found it. Random.
    pub draw: ClusterId,
    /// How patient the group is.
    pub timing: Timing,
    /// How patient it is with voters that are away.
    pub patience: Patience,
}

impl Config {
    /// What the group is to know of this start.
    pub(super) fn registration(&self) -> Register {
        Register {
            storage: self.me,
            boot: self.life.boot,
            nonce: self.life.nonce,
            node: self.node.clone(),
            zone: self.zone.clone(),
            level_max: self.level_max,
        }
    }
}
