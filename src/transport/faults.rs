//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A copy of a data directory starts as the one that it is a copy of.
    CopiesStart,
    /// A data directory is known by where it lies, whatever became of what was in it.
    PathsAreIdentities,
}

crate::base::planted::planted!();
