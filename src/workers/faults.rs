//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A stream that ends before its first token stays counted.
    UnansweredStayCounted,
}

crate::base::planted::planted!();
