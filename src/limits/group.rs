//! What limits need of the control group. It is above this area, so that it can check what is minted; whoever puts a node together joins the two.

use std::future::Future;
use std::pin::Pin;

use super::LimitId;
use super::Mint;
use crate::base::ids::StorageId;
use crate::observability::labels::label;

/// What takes a round of the group.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The control group.
pub trait Group: Send + Sync + 'static {
    /// Who leads it, as far as is known here.
    fn leader(&self) -> Option<StorageId>;
    /// The term in which this node leads it, if it does as far as it knows.
    fn leads(&self) -> Option<u64>;
    /// A majority confirms, after this was called, that this node leads in that term. What was decided before is then in [`Group::changes`].
    fn confirm(&self, term: u64) -> Doing<'_, bool>;
    /// What was minted and removed after an entry of the log, as far as it has come here.
    fn changes(&self, after: u64) -> Changes;
    /// Proposes as the leader of that term, and of no other.
    fn propose(&self, term: u64, proposal: Proposal) -> Doing<'_, Proposed>;
}

/// See [`Group::changes`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The last thing done to each limit and by which entry, oldest first.
    pub changes: Vec<(u64, Change)>,
    /// The first mint of a limit has a higher epoch than this.
    pub epoch_dropped: u64,
}

/// What became of one limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This is its last mint.
    Minted(Mint),
    /// There is no such limit any more.
    Gone(LimitId),
}

/// What a leader wants. `seen`: the epoch that it knows; it counts only if that is still the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Another mint. `seen` is 0 where there is none.
    Mint {
        /// See there.
        seen: u64,
        /// The mint.
        mint: Mint,
    },
    /// The limit is to go.
    Drop {
        /// See there.
        seen: u64,
        /// Which.
        limit: LimitId,
    },
}

label! {
    /// What became of a proposal.
    pub enum Proposed {
        /// It is decided.
        Decided = "decided",
        /// The group did not take it: somebody else was first, or it is unsound.
        Refused = "refused",
        /// No majority answered in time, or this node leads no more. It may have been decided.
        Unanswered = "unanswered",
    }
}
