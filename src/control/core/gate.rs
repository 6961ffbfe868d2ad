//! Whether a message of a group is heard. Asked before a group sees it, so that nobody outside raises a term.

use std::collections::BTreeSet;

use super::lives::Life;
use super::lives::Lives;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::control::faults::Fault;
use crate::control::faults::planted;
use crate::control::machine::State;
use crate::raft::frame::Badge;
use crate::raft::frame::Refusal;

/// What this node knows.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    /// Its data directory.
    pub me: StorageId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Starts that it was told of.
    pub lives: &'a Lives,
    /// What the control group has decided, as far as it is applied here.
    pub state: &'a State,
    /// And how far that is.
    pub applied: u64,
    /// Who is in the group, as far as is known here.
    pub members: &'a BTreeSet<StorageId>,
}

impl Gate<'_> {
    /// Whether a message to `to` from `from`, who shows this badge, is heard.
    pub fn admit(&self, to: StorageId, from: StorageId, badge: &Badge) -> Result<(), Refusal> {
        if to != self.me {
            return Err(Refusal::OtherStorage);
        }
        if badge.cluster != self.cluster.0 && !planted(Fault::ClustersAreOne) {
            return Err(Refusal::OtherCluster);
        }
        if self.state.is_forgotten(from) {
            return Err(Refusal::Forgotten);
        }
        let registered = self.state.storages().get(&from).map(|it| Life { boot: it.boot, nonce: it.nonce });
        for known in [registered, self.lives.get(from)].into_iter().flatten() {
            match badge.boot.cmp(&known.boot) {
                _ if planted(Fault::OldLivesAreHeard) => {}
                std::cmp::Ordering::Less => return Err(Refusal::Over),
                std::cmp::Ordering::Equal if badge.nonce != known.nonce => return Err(Refusal::Copy),
                std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => {}
            }
        }
        // Whoever was registered later than what is applied here cannot be known here; refusing it could keep a new leader from an old voter for ever.
        let may_be_new = badge.since > self.applied || self.members.is_empty();
        let is_member = registered.is_some() || self.members.contains(&from);
        if is_member || may_be_new { Ok(()) } else { Err(Refusal::Outsider) }
    }
}
