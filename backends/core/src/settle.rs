//! Settling: Running to whatever the worker says, if its lease still stands.

use std::time::Duration;

use crate::limits::{BATCH_MAX, DELAY_MAX, PAYLOAD_MAX_BYTES, TEXT_MAX_BYTES, clip};
use crate::{Error, Lease, NewJob, Result, StateKind};

/// An error as it is recorded: clipped to 8 KiB, without NUL characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    message: Box<str>,
    panicked: bool,
}

impl Failure {
    /// The text of an error, clipped.
    #[must_use]
    pub fn new(message: &str) -> Self {
        Self { message: clip(message, TEXT_MAX_BYTES).into(), panicked: false }
    }

    /// The text of a panic, clipped.
    #[must_use]
    pub fn panic(message: &str) -> Self {
        Self { panicked: true, ..Self::new(message) }
    }

    /// The text.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the handler panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panicked
    }
}

/// Why a job is Dead.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DeadReason {
    /// Its attempts are used up.
    AttemptsExhausted,
    /// Its handler said that trying again is of no use.
    Buried,
    /// It lost its lease three times: it probably kills its worker.
    Poison,
    /// Its bytes could not be understood; they are kept.
    Undecodable,
}

/// What a worker says about a job it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ruling {
    /// It is done. Counts an attempt.
    Complete {
        /// The encoded output, when it is kept.
        output: Option<Box<[u8]>>,
    },
    /// It failed and is due again after the back-off. Counts an attempt.
    Retry {
        /// The back-off.
        after: Duration,
        /// What went wrong.
        error: Failure,
    },
    /// It asked to be run again later. Counts no attempt.
    Snooze {
        /// How much later.
        after: Duration,
    },
    /// It is no longer wanted. Counts an attempt.
    Cancel {
        /// Why.
        reason: String,
    },
    /// It failed for good. Counts an attempt.
    Bury {
        /// What went wrong.
        error: Failure,
        /// Why it is not tried again.
        reason: DeadReason,
    },
    /// It was not run, or was stopped by a shutdown: Ready at once at its old place. Counts nothing.
    Release,
}

/// How one run ended, and what it gave rise to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// The right to say so.
    pub lease: Lease,
    /// What is said.
    pub ruling: Ruling,
    /// Jobs that exist if and only if this verdict is applied. Those for another named queue may appear a little
    /// later; on an engine that cannot write two queues at once they go through an outbox.
    pub then: Vec<NewJob>,
}

impl Verdict {
    /// `ruling` on the job of `lease`, giving rise to nothing.
    #[must_use]
    pub fn new(lease: Lease, ruling: Ruling) -> Self {
        Self { lease, ruling, then: Vec::new() }
    }

    /// Checks the verdict; every engine calls it first. One bad verdict refuses the whole batch.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) names the field, the value and the limit.
    pub fn validate(&self) -> Result<()> {
        match &self.ruling {
            Ruling::Complete { output: Some(output) } if output.len() > PAYLOAD_MAX_BYTES => {
                Err(Error::invalid(format!("output has {} bytes: at most {PAYLOAD_MAX_BYTES}", output.len())))
            }
            Ruling::Retry { after, .. } | Ruling::Snooze { after } if *after > DELAY_MAX => {
                Err(Error::invalid(format!("delay of {} s is too long: at most 100 years", after.as_secs())))
            }
            _ if self.then.len() > BATCH_MAX => Err(Error::invalid(format!(
                "{} jobs ride with one verdict: at most {BATCH_MAX}",
                self.then.len()
            ))),
            _ => NewJob::validate_all(&self.then),
        }
    }

    /// [`validate`](Self::validate) for a whole settle, and the limit of a batch.
    ///
    /// # Errors
    /// As `validate`.
    pub fn validate_all(batch: &[Self]) -> Result<()> {
        crate::backend::check_batch("settle", batch.len())?;
        batch.iter().try_for_each(Self::validate)
    }
}

/// What became of one verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It was applied, and the job is now in this state: Cancelled instead of Scheduled or Ready when somebody had
    /// asked for its cancellation.
    Applied(StateKind),
    /// This very lease was settled before and the job has not been claimed since: a repeat after a lost answer. Nothing
    /// was changed. An engine says so as long as it remembers the job.
    AlreadyApplied,
    /// The lease no longer stands: it was reclaimed, or settled and the job forgotten or claimed again. Nothing was changed.
    LeaseLost,
}

/// How a job ended, for whoever waits for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Finished {
    /// With this output, when one was kept.
    Completed {
        /// The encoded output and nothing else.
        output: Option<Box<[u8]>>,
        /// Its codec.
        codec: u8,
    },
    /// It was called off.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// It failed for good.
    Dead {
        /// Why it is not tried again.
        reason: DeadReason,
        /// The last error, when there was one.
        error: Option<Failure>,
    },
    /// No such job is stored: it never was, or its retention has passed.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, JobId, JobRef, Kind, Nonce, QueueName};

    fn verdict(ruling: Ruling) -> Verdict {
        let job = JobRef::new(QueueName::from_static("mail"), JobId::fresh());
        Verdict::new(Lease { job, epoch: 1, nonce: Nonce::random(), handle: 0 }, ruling)
    }

    #[test]
    fn a_failure_is_clipped_and_free_of_nul() {
        let failure = Failure::new(&"x\0".repeat(100_000));
        assert!(failure.message().len() <= TEXT_MAX_BYTES && !failure.message().contains('\0'));
        assert!(!failure.is_panic() && Failure::panic("index out of bounds").is_panic());
    }

    #[test]
    fn bad_verdicts_are_refused() {
        verdict(Ruling::Complete { output: Some(vec![0; PAYLOAD_MAX_BYTES].into()) }).validate().unwrap();
        let big = verdict(Ruling::Complete { output: Some(vec![0; PAYLOAD_MAX_BYTES + 1].into()) });
        assert!(big.validate().unwrap_err().to_string().contains("output has 1048577 bytes"));
        for ruling in [
            Ruling::Snooze { after: Duration::MAX },
            Ruling::Retry { after: Duration::MAX, error: Failure::new("") },
        ] {
            assert!(verdict(ruling).validate().unwrap_err().to_string().contains("delay of"));
        }
        let child = NewJob::new(Body::new(
            JobId::fresh(),
            QueueName::from_static("mail"),
            Kind::from_static("greet"),
            [],
        ));
        let mut crowd = verdict(Ruling::Release);
        crowd.then = vec![child; BATCH_MAX + 1];
        assert!(crowd.validate().unwrap_err().to_string().contains("1001 jobs ride with one verdict"));
        let batch = vec![verdict(Ruling::Release); BATCH_MAX + 1];
        assert!(Verdict::validate_all(&batch).unwrap_err().to_string().contains("1001"));
        Verdict::validate_all(&batch[..2]).unwrap();
    }
}
