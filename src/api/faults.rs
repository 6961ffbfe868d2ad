//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Whoever chooses is not told which workers were tried.
    TheTriedAreAskedAgain,
    /// A stream that its worker cut off ends as one that is whole.
    CutStreamsEndWell,
    /// A request whose client left is made to its end.
    LeftRequestsGoOn,
}

crate::base::planted::planted!();
