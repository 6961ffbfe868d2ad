//! What areas above hold: propose, read, see how the group is.

use std::sync::Arc;
use std::time::Duration;

use super::Carried;
use super::Peers;
use super::Standing;
use super::alone::Alone;
use super::core::voters::Patience;
use super::error::ControlError;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::State;
use super::shared::Shared;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft;
use crate::raft::Papers;
use crate::raft::Timing;

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Handle(pub(super) Way);

/// Which kind of group it is.
#[derive(Clone)]
pub(super) enum Way {
    Meshed(Arc<Shared>),
    Alone(Arc<Alone>),
}

/// How the group is, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How this node stands to it.
    pub standing: Standing,
    /// The cluster it has decided to be.
    pub cluster: Option<ClusterId>,
    /// The level it works at.
    pub level: u32,
    /// Whether this node's disk has room for what is decided.
    pub has_room: bool,
    /// Leader, voters, how far it is.
    pub group: raft::Status,
}

impl Handle {
    /// Proposes a command to whoever leads; without a mesh the first one founds this node's own group. When this returns an outcome, a majority has it on disk. Proposing the same again is safe.
    pub async fn propose(&self, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        match &self.0 {
            Way::Meshed(shared) => shared.propose(command, limit).await,
            Way::Alone(alone) => alone.propose(command, limit).await,
        }
    }

    /// Who leads the group, as far as is known here.
    #[must_use]
    pub fn leader(&self) -> Option<StorageId> {
        match &self.0 {
            Way::Meshed(shared) => shared.group.load().as_ref().and_then(|it| it.status().leader),
            Way::Alone(alone) => alone.leads().map(|_| alone.me),
        }
    }

    /// The term in which this node leads the group, if it does as far as it knows. 0 in one that is not founded yet, without a mesh: its first command may be this node's.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        match &self.0 {
            Way::Meshed(shared) => shared.leads(),
            Way::Alone(alone) => alone.leads(),
        }
    }

    /// A majority confirms, after this was called, that this node leads in that term. What was decided before that can then be read here.
    pub async fn confirm(&self, term: u64, limit: Duration) -> bool {
        match &self.0 {
            Way::Meshed(shared) => shared.confirm(term, limit).await,
            Way::Alone(alone) => alone.leads() == Some(term),
        }
    }

    /// Proposes a command as the leader of that term: nobody else takes it, so that what a leader concluded from what it saw does not outlast its office.
    pub async fn lead(&self, term: u64, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        match &self.0 {
            Way::Meshed(shared) => shared.lead(term, command, limit).await,
            Way::Alone(alone) if alone.leads() == Some(term) => alone.propose(command, limit).await,
            Way::Alone(_) => Err(ControlError::Unanswered),
        }
    }

    /// Reads what is decided, as far as it has come here. None: this node is in no group yet.
    pub fn read<R>(&self, read: impl FnOnce(&State) -> R) -> Option<R> {
        match &self.0 {
            Way::Meshed(shared) => shared.group.load().as_ref().map(|it| it.read(read)),
            Way::Alone(alone) => alone.read(read),
        }
    }

    /// This node has another group, too, for as long as somebody holds it. Once; frames and messages for it are heard from now on.
    pub fn carry(&self, carried: &Arc<dyn Carried>) {
        if let Way::Meshed(shared) = &self.0 {
            let _ = shared.carried.set(Arc::downgrade(carried)); // there is one other group
        }
    }

    /// What the members of another group are reached by, and what this node shows them. None: there are no others.
    #[must_use]
    pub fn ways(&self) -> Option<(Arc<dyn Peers>, Arc<dyn Papers>)> {
        match &self.0 {
            Way::Meshed(shared) => Some((Arc::clone(&shared.peers), Arc::clone(shared) as Arc<dyn Papers>)),
            Way::Alone(_) => None,
        }
    }

    /// This data directory.
    #[must_use]
    pub fn me(&self) -> StorageId {
        match &self.0 {
            Way::Meshed(shared) => shared.config.me,
            Way::Alone(alone) => alone.me,
        }
    }

    /// How patient its groups are.
    #[must_use]
    pub fn timing(&self) -> (Timing, Patience) {
        match &self.0 {
            Way::Meshed(shared) => (shared.config.timing, shared.config.patience),
            Way::Alone(_) => (Timing::alone(), Patience::default()),
        }
    }

    /// How the group is.
    #[must_use]
    pub fn status(&self) -> Status {
        let shared = match &self.0 {
            Way::Meshed(shared) => shared,
            Way::Alone(alone) => return alone.status(),
        };
        let standing = (**shared.standing.load()).clone();
        let group = shared.group.load_full();
        let has_room = group.as_ref().is_none_or(|it| it.has_room());
        let group = group.map(|it| it.status()).unwrap_or_default();
        let (cluster, level) = self.read(|it| (it.cluster(), it.level())).unwrap_or_default();
        Status { standing, cluster, level, has_room, group }
    }
}
