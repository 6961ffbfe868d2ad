//! Planted bugs: what the simulation must find. In shipped code every question is answered `false` at compile time.
//!
//! A proof that never fails proves nothing, so each line below breaks one rule where the rule is kept, and a test runs the simulation's seeds until
//! it is found.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What a donor has given in all is added up each time it says so.
    TransferCountsAgain,
    /// What is given stays with the donor.
    GivenIsNotSubtracted,
    /// Units for an earlier life are taken by a later one.
    LivesAreOne,
    /// A share is used for ever after the last renewal.
    HoldIsForEver,
    /// The hold counts from when the answer came.
    HoldFromTheAnswer,
    /// A node that was started anew uses its share at once.
    RestartKeepsRights,
    /// A node that was started anew does not expect that it gave away units of the next window before.
    RestartForgetsAhead,
    /// An answer of the leader that comes again is taken, and a mint in it replaces a later one.
    OldEpochCounts,
    /// A new share is used while the others may be using old ones.
    PendingCountsWhole,
    /// A mint is settled though somebody may still hold an old share.
    SettledBeforeHold,
    /// A new leader believes that nobody holds what it did not see renewed.
    OfficeDoesNotCount,
    /// A node says that it goes by a new share in a window of which it has used more already.
    AdoptedInUse,
    /// A request that another limit refused stays counted.
    RejectedBurns,
    /// What was reserved is given back twice.
    SettledTwice,
    /// What was used beyond the reservation is forgotten.
    DebtIsForgotten,
    /// Units that come back are used in a later window.
    RefundCrossesWindows,
    /// A limit is dropped while its shares are in use.
    DroppedInUse,
    /// A leader that does not know the last edit of a limit goes back to an earlier one.
    EditsGoBack,
    /// A confirmation that began before a renewal came counts for it.
    ConfirmedBefore,
    /// What was taken for a client that has left stays taken.
    LeftBehind,
    /// Streams begin as long as the hold lasts, or for ever.
    StreamsBeginAfterTheHold,
    /// A permit comes back twice.
    PermitComesBackTwice,
    /// Who leaves is believed to run no streams any more.
    LeavingIsIdle,
    /// What is spare is taken from nodes that were not heard of lately, too.
    SilentIsIdle,
    /// A mint that is not settled is never followed by another.
    PendingIsWaitedFor,
}

/// Those that the simulation must find. The others are found by the tests of the office and of the driver.
#[cfg(test)]
pub(crate) const ALL: &[Fault] = &[
    Fault::TransferCountsAgain,
    Fault::GivenIsNotSubtracted,
    Fault::LivesAreOne,
    Fault::HoldIsForEver,
    Fault::HoldFromTheAnswer,
    Fault::RestartKeepsRights,
    Fault::RestartForgetsAhead,
    Fault::OldEpochCounts,
    Fault::PendingCountsWhole,
    Fault::SettledBeforeHold,
    Fault::OfficeDoesNotCount,
    Fault::AdoptedInUse,
    Fault::RejectedBurns,
    Fault::SettledTwice,
    Fault::DebtIsForgotten,
    Fault::RefundCrossesWindows,
];

/// Those that the simulation of streams must find.
#[cfg(test)]
pub(crate) const OF_STREAMS: &[Fault] = &[
    Fault::OldEpochCounts,
    Fault::PendingCountsWhole,
    Fault::SettledBeforeHold,
    Fault::OfficeDoesNotCount,
    Fault::AdoptedInUse,
    Fault::StreamsBeginAfterTheHold,
    Fault::PermitComesBackTwice,
    Fault::LeavingIsIdle,
    Fault::SilentIsIdle,
    Fault::PendingIsWaitedFor,
];

crate::base::planted::planted!();
