//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A worker that has no room is taken at its word, and so is its answer.
    BusyIsPassedOn,
    /// What is no answer at all is taken for the answer that every worker would give.
    GarbageIsPassedOn,
}

crate::base::planted::planted!();
