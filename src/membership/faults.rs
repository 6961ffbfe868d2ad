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

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Plants one for this thread, or none.
#[cfg(test)]
pub(crate) fn plant(fault: Option<Fault>) {
    PLANTED.with(|it| it.set(fault));
}

/// Whether this bug is planted.
#[cfg(test)]
pub(crate) fn planted(fault: Fault) -> bool {
    PLANTED.with(|it| it.get() == Some(fault))
}

/// Never.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn planted(_fault: Fault) -> bool {
    false
}
