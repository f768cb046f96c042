//! What a worker did.

use windlass_core::{Settled, StateKind};

use crate::executor::{Finished, Ran};
use crate::handler::FailureCause;

/// What a worker did, counted as its verdicts were applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Runs that were started.
    pub started: u64,
    /// Jobs that completed.
    pub completed: u64,
    /// Runs that failed and back off.
    pub retried: u64,
    /// Runs that snoozed.
    pub snoozed: u64,
    /// Jobs that were called off, by themselves or by somebody else.
    pub cancelled: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Jobs that were handed back: not started, or stopped by the shutdown.
    pub released: u64,
    /// Verdicts that were refused because the lease was lost, and runs stopped for that reason.
    pub lost: u64,
    /// Handlers that panicked.
    pub panicked: u64,
    /// Attempts that took too long.
    pub timed_out: u64,
    /// Calls to the engine that failed and were tried again.
    pub storage_errors: u64,
}

impl Report {
    pub(crate) fn count_run(&mut self, finished: &Finished) {
        match finished.failure.as_ref().map(|(cause, _)| *cause) {
            Some(FailureCause::Panic) => self.panicked += 1,
            Some(FailureCause::Timeout) => self.timed_out += 1,
            _ => {}
        }
        if finished.ran == Ran::Abandoned {
            self.lost += 1;
        }
    }

    /// Counts a verdict by what became of it in storage.
    pub(crate) fn count_settled(&mut self, ran: Ran, settled: Settled) {
        match (ran, settled) {
            // The offer of a retry was refused, because the transaction that completed the job committed.
            (Ran::Settled, Settled::AlreadyApplied | Settled::LeaseLost) => self.completed += 1,
            (_, Settled::LeaseLost) => self.lost += 1,
            (ran, Settled::AlreadyApplied) => *self.of(ran) += 1,
            (ran, Settled::Applied(state)) => match (ran, state) {
                (_, StateKind::Cancelled) => self.cancelled += 1,
                (Ran::Settled, StateKind::Dead) => self.dead += 1,
                (Ran::Settled, _) => self.retried += 1,
                (ran, _) => *self.of(ran) += 1,
            },
        }
    }

    fn of(&mut self, ran: Ran) -> &mut u64 {
        match ran {
            Ran::Completed | Ran::Settled => &mut self.completed,
            Ran::Retried => &mut self.retried,
            Ran::Snoozed => &mut self.snoozed,
            Ran::Cancelled => &mut self.cancelled,
            Ran::Buried => &mut self.dead,
            Ran::Released | Ran::HandedBack => &mut self.released,
            Ran::Abandoned => &mut self.lost,
        }
    }
}
