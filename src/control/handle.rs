//! What areas above hold: propose, read, see how the group is.

use std::sync::Arc;
use std::time::Duration;

use super::Standing;
use super::error::ControlError;
use super::machine::Command;
use super::machine::Outcome;
use super::machine::State;
use super::shared::Shared;
use crate::base::ids::ClusterId;
use crate::base::ids::StorageId;
use crate::raft;

/// See the file's header. Clones are the same one.
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Shared>);

/// How the group is, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How this node stands to it.
    pub standing: Standing,
    /// The cluster it has decided to be.
    pub cluster: Option<ClusterId>,
    /// The level it works at.
    pub level: u32,
    /// Leader, voters, how far it is.
    pub group: raft::Status,
}

impl Handle {
    /// Proposes a command to whoever leads. When this returns an outcome, a majority has it on disk. Proposing the same again is safe.
    pub async fn propose(&self, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        self.0.propose(command, limit).await
    }

    /// Who leads the group, as far as is known here.
    #[must_use]
    pub fn leader(&self) -> Option<StorageId> {
        self.0.group.load().as_ref().and_then(|it| it.status().leader)
    }

    /// The term in which this node leads the group, if it does as far as it knows.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        self.0.leads()
    }

    /// A majority confirms, after this was called, that this node leads in that term. What was decided before that can then be read here.
    pub async fn confirm(&self, term: u64, limit: Duration) -> bool {
        self.0.confirm(term, limit).await
    }

    /// Proposes a command as the leader of that term: nobody else takes it, so that what a leader concluded from what it saw does not outlast its office.
    pub async fn lead(&self, term: u64, command: &Command, limit: Duration) -> Result<Outcome, ControlError> {
        self.0.lead(term, command, limit).await
    }

    /// Reads what is decided, as far as it has come here. None: this node is in no group yet.
    pub fn read<R>(&self, read: impl FnOnce(&State) -> R) -> Option<R> {
        self.0.group.load().as_ref().map(|it| it.read(read))
    }

    /// How the group is.
    #[must_use]
    pub fn status(&self) -> Status {
        let standing = (**self.0.standing.load()).clone();
        let group = self.0.group.load().as_ref().map(|it| it.status()).unwrap_or_default();
        let (cluster, level) = self.read(|it| (it.cluster(), it.level())).unwrap_or_default();
        Status { standing, cluster, level, group }
    }
}
