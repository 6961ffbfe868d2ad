//! Planted bugs: what the tests of this area must find. In shipped code every question is answered `false` at compile time.

/// One way to get it wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A command that comes twice is carried out twice.
    RetriesCountTwice,
    /// Rows are looked up without their owner.
    OwnersAreOne,
    /// Deleting leaves the items.
    ItemsOutliveTheirResponse,
    /// An earlier attempt of a job is not told to stop, and may still write.
    OldAttemptsWrite,
    /// Whoever looks for jobs takes one over, though its owner still has it.
    JobsAreStolen,
    /// What expires is counted by the wish alone, however far ahead that is.
    AnyClockIsBelieved,
    /// A response that ended is written on, and may end again.
    EndsChange,
    /// A lease that lapsed is renewed, and what its node had let go of with it is its own again.
    LeasesComeBack,
    /// A lease lapses though it was renewed since.
    RenewalsAreMissed,
    /// A read takes what is here, whatever the leader has.
    ReadsAskNobody,
    /// Where nobody who leads can be asked, a read takes what is here.
    UnheardLeadersAreNotNeeded,
}

crate::base::planted::planted!();
