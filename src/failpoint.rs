//! Places where the tests break the relay on purpose, to see that they notice: each is one small mistake somebody might
//! make. Only builds with debug assertions have them; in a release nothing is left of this file.
//!
//! A mistake is made on the thread that set it and nowhere else, so tests that run beside it are not touched.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failpoint {
    /// A position is written whatever the row says.
    UnconditionalPosition,
    /// A checkpoint passes what is accepted and not durable.
    CheckpointAheadOfFlush,
    /// What arrives is delivered in the order in which it arrives.
    ArrivalOrder,
    /// A batch that failed is passed by the next one of its root.
    RetryOvertakes,
    /// A lease is taken under the epoch it has.
    EpochNotRaised,
    /// A delivery begins without a look at the fence.
    FenceNotAsked,
    /// A mark is forgotten before all can know that it is gone.
    MarkForgottenAtOnce,
    /// Positions are not loaded: every root begins anew.
    PositionsNotLoaded,
    /// What the stream has lost is told to nobody.
    LossNotTold,
    /// A page without records counts as the end of its shard.
    EmptyPageEnds,
    /// An outage counts as a failure of the event.
    OutageCounts,
    /// A handler's start is not looked at.
    StartNotAsked,
    /// A root that was ordered back goes on at its position.
    RewindIgnored,
    /// A root that was given long ago is given again as it was then.
    StoodNotAsked,
    /// A part that was accepted counts as all of the batch.
    PartCountsAsAll,
    /// A skipped event is not counted.
    SkipNotCounted,
    /// A transactional handler applies what its position covers.
    AppliedNotAsked,
}

#[cfg(debug_assertions)]
thread_local! {
    static SET: std::cell::Cell<Option<Failpoint>> = const { std::cell::Cell::new(None) };
}

/// Makes a mistake on this thread from now on, or none.
#[cfg(debug_assertions)]
pub fn set(failpoint: Option<Failpoint>) {
    SET.set(failpoint);
}

/// Whether this mistake is to be made here.
#[cfg(debug_assertions)]
pub(crate) fn is_set(failpoint: Failpoint) -> bool {
    SET.get() == Some(failpoint)
}

/// Never.
#[cfg(not(debug_assertions))]
pub(crate) const fn is_set(_: Failpoint) -> bool {
    false
}
