//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An older start of a data directory, or another process of the same, is registered.
    CopiesRegister,
    /// Shares are given out over newer ones.
    MintsOverwrite,
    /// Whatever a leader proposes as shares is taken.
    MintsAreNotChecked,
    /// The level is raised although a member cannot follow.
    LevelsRiseAlone,
    /// A data directory gives its grant to whoever asks.
    GrantsAreGivenTwice,
    /// More than half of the grants found a group.
    AMajorityFounds,
    /// A voter takes part before anybody knows of its start.
    VotersNeedNotRegister,
    /// Earlier starts than the latest are taken for it.
    LivesAreForgotten,
    /// Messages of a start that is over are heard.
    OldLivesAreHeard,
    /// Messages of other clusters are heard.
    ClustersAreOne,
    /// A lost voter goes although nobody comes for it.
    VotersShrink,
    /// A follower votes before it has what was agreed.
    LaggardsVote,
}

crate::base::planted::planted!();
