//! Planted bugs of membership: what its simulation must find. In shipped code every question is answered `false` at compile time, see
//! `replication/faults.rs`.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node that slept finds every probe unanswered and blames the others.
    SleepCounts,
    /// A suspicion runs on while its holder sleeps.
    SuspicionsRunOn,
    /// What a member says in the name of another is believed.
    AnySenderIsBelieved,
    /// Who says goodbye is found dead a little later.
    GoodbyesAreNotHeard,
}

/// All of them.
#[cfg(test)]
pub(crate) const ALL: &[Fault] =
    &[Fault::SleepCounts, Fault::SuspicionsRunOn, Fault::AnySenderIsBelieved, Fault::GoodbyesAreNotHeard];

crate::base::planted::planted!();
