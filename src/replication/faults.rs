//! Planted bugs: what the simulation must find. In shipped code every question is answered `false` at compile time.
//!
//! A proof that never fails proves nothing, so each line below breaks one rule of the protocol where the rule is kept, and a
//! test runs the simulation's seeds until it is found.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// DELETE forgets that the instance ever was.
    DeleteForgetsTheBirth,
    /// A later edit brings a deleted instance back.
    EditRevives,
    /// The dots of refused entries count as known.
    RefusedCountsAsKnown,
    /// Another member's edit is acknowledged before it is on disk.
    AckBeforeDurable,
    /// What a pull will bring counts as known from its first slice on.
    ContextBeforeTheEnd,
    /// A slice names only those instances as alive that it carries.
    AliveOnlyIfSent,
    /// An event counts as proof that all earlier ones of its writer are known.
    PushClaimsAll,
    /// A restarted node numbers its edits from one again under the same name.
    ActorWithoutBoot,
    /// Stamps are the wall clock, whatever was seen.
    StampsFollowTheWallClock,
    /// DELETE is not an event of its own and digests are of events, so they do not show it.
    DeleteIsNotCounted,
    /// Rows are written without the context they belong to.
    ContextIsNotWritten,
    /// Owned rows are compared by version, whichever life of the owner wrote them.
    OwnedIgnoresBoot,
    /// A part of an owner's rows counts as the whole.
    OwnedTakesParts,
    /// An owner does not tell which rows it removed.
    RemovalsAreNotSent,
    /// The edit that arrives last wins.
    MergeTakesTheLast,
}

/// All of them.
#[cfg(test)]
pub(crate) const ALL: &[Fault] = &[
    Fault::DeleteForgetsTheBirth,
    Fault::EditRevives,
    Fault::RefusedCountsAsKnown,
    Fault::AckBeforeDurable,
    Fault::ContextBeforeTheEnd,
    Fault::AliveOnlyIfSent,
    Fault::PushClaimsAll,
    Fault::ActorWithoutBoot,
    Fault::StampsFollowTheWallClock,
    Fault::DeleteIsNotCounted,
    Fault::ContextIsNotWritten,
    Fault::OwnedIgnoresBoot,
    Fault::OwnedTakesParts,
    Fault::RemovalsAreNotSent,
    Fault::MergeTakesTheLast,
];

crate::base::planted::planted!();
