//! Seeded faults of the protocol, for the simulator: each breaks one promise on purpose, and the simulator must notice.
//!
//! They exist under the cargo feature `mutants` only. Without it [`Store::mutated`](crate::store::Store) is the constant
//! `false`, and nothing of this is left in the program.

/// One fault. The engine has at most one, from its beginning to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "mutants"), expect(unreachable_pub, reason = "exported with the feature"))]
pub enum Mutant {
    /// The fence does not compare epochs.
    NoEpochCheck,
    /// The fence does not compare nonces.
    NoNonceCheck,
    /// The fence looks at the state only.
    NoFence,
    /// A note passes without the fence.
    NoteUnfenced,
    /// A sweep takes back leases that have not expired.
    SweepUnexpired,
    /// A sweep takes back a job that has completed meanwhile.
    SweepCompleted,
    /// A sweep drops what lost its lease instead of lining it up again.
    SweepDrops,
    /// A unique key is free as soon as its holder is claimed.
    KeyFreedEarly,
    /// A unique key stays taken after its holder's end.
    KeyNotFreed,
    /// A superseded job is not cancelled.
    SupersededLives,
    /// Jobs that ride with a verdict are pushed before the fence is asked.
    ThenBeforeFence,
    /// Jobs that ride with a verdict are forgotten.
    ThenForgotten,
    /// A repeated verdict counts once more.
    AppliedTwice,
    /// A release counts an attempt.
    ReleaseCounts,
    /// A snooze counts an attempt.
    SnoozeCounts,
    /// A lost lease is not counted.
    LossNotCounted,
    /// A lease that was taken ahead and never started counts as lost.
    AheadCounts,
    /// One claim gives any number of suspects.
    SuspectsUnlimited,
    /// A job that lost its lease three times goes on.
    PoisonIgnored,
    /// A paused queue gives jobs.
    PauseIgnored,
    /// A concurrency limit holds nobody back.
    LimitIgnored,
    /// A place under a limit is not given back.
    PlaceLeaked,
    /// A place under a limit is given back although its holder keeps it.
    PlaceFreedEarly,
    /// A cancellation of a running job is forgotten as it comes back.
    CancelIgnored,
    /// A waiting job that was cancelled stays in line.
    CancelledRuns,
    /// A beat revives a lease that was lost.
    ExtendRevives,
    /// A beat says nothing of a cancellation.
    CancelUntold,
    /// A session hands back what others hold.
    HandsBackOthers,
    /// A back-off is not waited for.
    RetryAtOnce,
    /// Scheduled jobs start before they are due.
    EarlyPromotion,
    /// Due jobs enter last first.
    PromotionReversed,
    /// Priorities are ignored.
    PriorityIgnored,
    /// A child starts when the first of its parents has completed.
    ChildTooEarly,
    /// A child waits for ever.
    ChildForgotten,
    /// A claim returns a job that runs already.
    ClaimsRunning,
    /// A claim does not raise the epoch.
    EpochStands,
    /// A revival starts the epoch anew.
    EpochReset,
    /// A revival keeps the attempts of the last generation.
    AttemptsKept,
    /// The same id again replaces the job's payload.
    SameIdReplaces,
    /// The counts of a queue miss those that ended.
    CountsDrift,
    /// A job that was moved aside is not found again.
    ParkedLost,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::NoEpochCheck,
        Self::NoNonceCheck,
        Self::NoFence,
        Self::NoteUnfenced,
        Self::SweepUnexpired,
        Self::SweepCompleted,
        Self::SweepDrops,
        Self::KeyFreedEarly,
        Self::KeyNotFreed,
        Self::SupersededLives,
        Self::ThenBeforeFence,
        Self::ThenForgotten,
        Self::AppliedTwice,
        Self::ReleaseCounts,
        Self::SnoozeCounts,
        Self::LossNotCounted,
        Self::AheadCounts,
        Self::SuspectsUnlimited,
        Self::PoisonIgnored,
        Self::PauseIgnored,
        Self::LimitIgnored,
        Self::PlaceLeaked,
        Self::PlaceFreedEarly,
        Self::CancelIgnored,
        Self::CancelledRuns,
        Self::ExtendRevives,
        Self::CancelUntold,
        Self::HandsBackOthers,
        Self::RetryAtOnce,
        Self::EarlyPromotion,
        Self::PromotionReversed,
        Self::PriorityIgnored,
        Self::ChildTooEarly,
        Self::ChildForgotten,
        Self::ClaimsRunning,
        Self::EpochStands,
        Self::EpochReset,
        Self::AttemptsKept,
        Self::SameIdReplaces,
        Self::CountsDrift,
        Self::ParkedLost,
    ];
}
