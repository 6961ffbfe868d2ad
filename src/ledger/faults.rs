//! Planted bugs: what the simulation must find. In shipped code every question is answered `false` at compile time.
//!
//! A proof that never fails proves nothing, so each line below breaks one rule where the rule is kept, and a test runs the simulation's seeds until
//! it is found.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A report that was overtaken replaces the later one.
    LateReportsCount,
    /// A commit that a report counts already is added to it.
    LateCommitsCount,
    /// Commits stay beside the report that counts them.
    ReportsDoNotAbsorb,
    /// A report is believed for ever.
    OldReportsCount,
    /// A report that was made for other owners says that what it does not list is nothing.
    UnlistedIsZero,
    /// A new owner answers before it has heard anybody.
    UnknownIsKnown,
    /// What a member said before it was down still counts.
    TheDeadCount,
    /// What a node said before it was started anew still counts.
    LivesAreOne,
    /// What waited in the socket while this node did not run is taken for news.
    SleepIsNotNoticed,
}

/// All of them.
#[cfg(test)]
pub(crate) const ALL: &[Fault] = &[
    Fault::LateReportsCount,
    Fault::LateCommitsCount,
    Fault::ReportsDoNotAbsorb,
    Fault::OldReportsCount,
    Fault::UnlistedIsZero,
    Fault::UnknownIsKnown,
    Fault::TheDeadCount,
    Fault::LivesAreOne,
    Fault::SleepIsNotNoticed,
];

crate::base::planted::planted!();
