//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A write or an fsync that failed counts as done.
    FailuresAreForgotten,
    /// An fsync that takes long is taken for one that failed.
    SlowDisksAreBroken,
    /// A disk without room is taken for one that failed.
    FullDisksAreBroken,
    /// A log that ends in the middle of a write is one that cannot be read.
    TornLogsAreRefused,
}

crate::base::planted::planted!();
