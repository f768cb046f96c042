//! The state with the rights: a claimed job, whose envelope turns into exactly one verdict.

use std::time::Duration;

use tokio::time::Instant;
use windlass_core::{ClaimedJob, DeadReason, Failure, Lease, NewJob, Ruling, Timestamp, Verdict};

use super::{Envelope, Raw};

/// Held by this worker under a lease. Not `Clone`: there is one right to a verdict.
#[derive(Debug)]
pub struct Running {
    pub(crate) lease: Lease,
    pub(crate) attempts: u16,
    pub(crate) lost_leases: u16,
    pub(crate) generation: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) claimed_at: Timestamp,
    /// By this process's clock, from before the claim was sent: to know how long it was under way and waited here.
    pub(crate) asked: Instant,
    pub(crate) deadline: Option<Timestamp>,
    pub(crate) suspect: bool,
}

impl Running {
    /// The right to say how the run ended.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        self.attempts.saturating_add(1)
    }

    /// How many leases it lost before.
    #[must_use]
    pub fn lost_leases(&self) -> u16 {
        self.lost_leases
    }

    /// How often it was revived.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// When it was dispatched.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When it was claimed, by the engine's clock.
    #[must_use]
    pub fn claimed_at(&self) -> Timestamp {
        self.claimed_at
    }

    /// When it is no longer wanted.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }
}

impl Envelope<Raw, Running> {
    /// The envelope of a job whose claim was sent at `asked` and met the engine at `now`.
    pub(crate) fn claimed(job: ClaimedJob, now: Timestamp, asked: Instant) -> Self {
        Self {
            job: Raw,
            body: job.body,
            state: Running {
                lease: job.lease,
                attempts: job.attempts,
                lost_leases: job.lost_leases,
                generation: job.generation,
                created_at: job.created_at,
                claimed_at: now,
                asked,
                deadline: job.deadline,
                suspect: job.suspect,
            },
        }
    }
}

/// Verdicts. Each consumes the envelope, so a run is settled at most once.
impl<J> Envelope<J, Running> {
    fn rule(self, ruling: Ruling) -> Verdict {
        Verdict::new(self.state.lease, ruling)
    }

    /// Running to Completed, with an encoded output if there is one to keep.
    #[must_use]
    pub fn complete(self, output: Option<Box<[u8]>>) -> Verdict {
        self.rule(Ruling::Complete { output })
    }

    /// Running to Completed, and these jobs exist if and only if that is applied.
    #[must_use]
    pub fn complete_then(self, output: Option<Box<[u8]>>, then: Vec<NewJob>) -> Verdict {
        Verdict { then, ..self.complete(output) }
    }

    /// Running to Scheduled, with a back-off.
    #[must_use]
    pub fn retry(self, after: Duration, error: Failure) -> Verdict {
        self.rule(Ruling::Retry { after, error })
    }

    /// Running to Scheduled, counting no attempt.
    #[must_use]
    pub fn snooze(self, after: Duration) -> Verdict {
        self.rule(Ruling::Snooze { after })
    }

    /// Running to Cancelled.
    #[must_use]
    pub fn cancel(self, reason: String) -> Verdict {
        self.rule(Ruling::Cancel { reason })
    }

    /// Running to Dead.
    #[must_use]
    pub fn bury(self, error: Failure, reason: DeadReason) -> Verdict {
        self.rule(Ruling::Bury { error, reason })
    }

    /// Running to Ready, at its old place, counting nothing.
    #[must_use]
    pub fn release(self) -> Verdict {
        self.rule(Ruling::Release)
    }
}
