//! The worker's side of the simulator: its tasks can be frozen, and it can have a fault on purpose.
//!
//! Without the cargo feature `mutants` all of this is empty: `hold` gives its future back and `is` is the constant
//! `false`.

#[cfg(not(feature = "mutants"))]
pub(crate) use self::off::Simulated;
#[cfg(feature = "mutants")]
pub use self::on::Freezer;
#[cfg(feature = "mutants")]
pub(crate) use self::on::Simulated;

/// A fault of the worker's side of the protocol. A worker has at most one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "mutants"), expect(unreachable_pub, reason = "exported with the feature"))]
pub enum Mutant {
    /// Every worker has the same session.
    SessionReused,
    /// Leases are counted from the reply, not from before the request.
    LeaseFromReply,
    /// Runs are not stopped when their leases are about to end.
    NeverFences,
    /// Runs are not stopped while an extend is under way.
    BeatBlocksFence,
    /// It claims on while it cannot extend.
    ClaimsUntrusted,
    /// It asks for suspects while it has one.
    SuspectsAlways,
    /// A claim whose answer was lost is not handed back.
    KeepsUnknownClaims,
    /// Verdicts of a failed call are forgotten.
    VerdictsForgotten,
    /// A beat does not name verdicts that are still on their way.
    BeatForgetsVerdicts,
    /// A cancellation is not passed on to the handler.
    CancelUnheard,
    /// The first named queue always goes first, whatever the weights.
    WeightsIgnored,
    /// One job more runs at once than was asked for.
    RunsTooMany,
    /// A beat calls everything in hand started.
    NamesAllStarted,
    /// Jobs are started although their leases are over.
    StartsOldLeases,
    /// The time that a claim was under way does not count towards a job's deadline.
    DeadlineFromReply,
    /// A shutdown waits for what runs, however long that takes.
    StopsLate,
    /// Both calls that are under way ask for suspects.
    SuspectsAtOnce,
    /// Of two claims whose answers were lost only the last is handed back.
    OneUnknownClaim,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::SessionReused,
        Self::LeaseFromReply,
        Self::NeverFences,
        Self::BeatBlocksFence,
        Self::ClaimsUntrusted,
        Self::SuspectsAlways,
        Self::KeepsUnknownClaims,
        Self::VerdictsForgotten,
        Self::BeatForgetsVerdicts,
        Self::CancelUnheard,
        Self::WeightsIgnored,
        Self::RunsTooMany,
        Self::NamesAllStarted,
        Self::StartsOldLeases,
        Self::DeadlineFromReply,
        Self::StopsLate,
        Self::SuspectsAtOnce,
        Self::OneUnknownClaim,
    ];
}

#[cfg(not(feature = "mutants"))]
mod off {
    use super::super::hand::FLUSH_AT;
    use super::Mutant;

    #[derive(Clone, Default, Debug)]
    pub(crate) struct Simulated {}

    #[expect(clippy::unused_self, reason = "the same calls with the feature")]
    impl Simulated {
        pub(crate) const fn is(&self, _: Mutant) -> bool {
            false
        }

        pub(crate) fn hold<F>(&self, future: F) -> F {
            future
        }

        pub(crate) const fn flush_at(&self) -> usize {
            FLUSH_AT
        }

        pub(crate) const fn beats(&self, _: bool) {}

        pub(crate) const fn is_beating(&self) -> bool {
            false
        }
    }
}

#[cfg(feature = "mutants")]
mod on {
    use std::future::{Future, poll_fn};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::task::{Poll, Waker};

    use super::super::hand::FLUSH_AT;
    use super::Mutant;

    #[derive(Clone, Default, Debug)]
    pub(crate) struct Simulated {
        pub(crate) flush_at: Option<usize>,
        pub(crate) freezer: Freezer,
        pub(crate) mutant: Option<Mutant>,
        beating: Arc<AtomicBool>,
    }

    impl Simulated {
        pub(crate) fn is(&self, mutant: Mutant) -> bool {
            self.mutant == Some(mutant)
        }

        /// How many verdicts are worth a call of their own: a history has too few jobs for the usual number.
        pub(crate) fn flush_at(&self) -> usize {
            self.flush_at.unwrap_or(FLUSH_AT)
        }

        pub(crate) fn hold<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
            self.freezer.clone().hold(future)
        }

        /// Notes that a beat is under way, or over.
        pub(crate) fn beats(&self, under_way: bool) {
            self.beating.store(under_way, Ordering::Release);
        }

        /// Whether a beat is under way.
        pub(crate) fn is_beating(&self) -> bool {
            self.beating.load(Ordering::Acquire)
        }
    }

    /// Stops whole workers: while it is frozen none of their futures is polled, and time goes on.
    #[derive(Clone, Default, Debug)]
    pub struct Freezer(Arc<Inner>);

    #[derive(Default, Debug)]
    struct Inner {
        frozen: AtomicBool,
        waiting: Mutex<Vec<Waker>>,
    }

    impl Freezer {
        /// Stops.
        pub fn freeze(&self) {
            self.0.frozen.store(true, Ordering::Release);
        }

        /// Goes on.
        pub fn thaw(&self) {
            self.0.frozen.store(false, Ordering::Release);
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }

        /// Whether it stands still.
        #[must_use]
        pub fn is_frozen(&self) -> bool {
            self.0.frozen.load(Ordering::Acquire)
        }

        /// The future, polled only while nothing is frozen.
        pub async fn hold<F: Future>(self, future: F) -> F::Output {
            let mut future = std::pin::pin!(future);
            poll_fn(move |cx| {
                if self.is_frozen() {
                    let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                    if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                future.as_mut().poll(cx)
            })
            .await
        }
    }
}
