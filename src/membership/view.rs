//! What others see of membership: one moment, whole.

use std::sync::Arc;

use crate::base::ids::NodeId;
use crate::observability::labels::label;
use crate::transport::Peer;

label! {
    /// How a member is.
    pub enum Status {
        /// It answers.
        Alive = "alive",
        /// It did not answer somebody and may still refute.
        Suspect = "suspect",
        /// It said goodbye.
        Left = "left",
        /// It did not refute.
        Down = "down",
    }
}

impl Status {
    /// Whether it should be spoken to: suspects are innocent.
    #[must_use]
    pub fn is_active(self) -> bool {
        match self {
            Self::Alive | Self::Suspect => true,
            Self::Left | Self::Down => false,
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who, in its last life.
    pub peer: Arc<Peer>,
    /// How it is.
    pub status: Status,
    /// How often it has refuted in this life.
    pub incarnation: u16,
}

/// All members at one moment, this node included, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who.
    pub members: Vec<Member>,
}

impl View {
    /// Members to speak to, this node not included.
    pub fn others<'a>(&'a self, me: &'a NodeId) -> impl Iterator<Item = &'a Arc<Peer>> {
        self.members.iter().filter(|it| it.status.is_active() && it.peer.node != *me).map(|it| &it.peer)
    }

    /// One member.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.binary_search_by(|it| it.peer.node.cmp(node)).ok().map(|at| &self.members[at])
    }

    /// How many are in this status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.members.iter().filter(|it| it.status == status).count()
    }
}
