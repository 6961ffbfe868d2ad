//! Planted bugs: what the simulation of the groups above must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A vote is answered before it is on disk.
    VotesAreNotSynced,
    /// Entries are acknowledged before they are on disk.
    EntriesAreNotSynced,
    /// A leader is confirmed by itself.
    LeadersConfirmThemselves,
    /// A message to a follower has as many bytes as there are.
    MessagesHaveNoBound,
    /// Commands are taken where there is no room for them.
    FullDisksTakeCommands,
    /// Entries that a snapshot has go before the snapshot is in place.
    EntriesGoBeforeTheState,
    /// Entries that were not answered in a heartbeat are sent again, as many as before.
    LateIsSentAgain,
    /// Whoever misses a leader stands at once, though all others hear one.
    NobodyIsCanvassed,
    /// Who led when it stopped leads when it starts.
    OfficesOutliveTheProcess,
}

crate::base::planted::planted!();
