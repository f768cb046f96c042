//! Exactly-once effects: a verdict committed together with the handler's own writes.
//!
//! ```
//! # use serde::{Deserialize, Serialize};
//! # use windlass::prelude::*;
//! # #[derive(Serialize, Deserialize, Job)]
//! # #[job(name = "charge")]
//! # struct Charge;
//! impl Handler for Charge {
//!     type Deps = (Queue<MemoryBackend>,);
//!     type Error = Fault;
//!
//!     async fn handle(_: Self, (queue,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
//!         let mut tx = queue.backend().begin();
//!         // ... writes of your own, in the same transaction ...
//!         let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
//!         tx.commit().await?;
//!         Ok(Outcome::Settled(receipt))
//!     }
//! }
//! ```
//!
//! What happens when the two disagree follows from the fence: after `Outcome::Settled` the worker still offers a retry of
//! the same lease. If the transaction committed, the fence refuses it and the job stays Completed. If it was rolled back,
//! the retry is applied and the job runs again. A commit followed by an error leaves the job Completed for the same
//! reason. A ticket that is not used changes nothing.

use windlass_core::{Error, ErrorKind, JobRef, Result, Ruling, Settled, Transactional, Verdict};

use crate::dispatch::{Dispatch, DispatchError, Dispatched};
use crate::job::Job;
use crate::queue::Queue;

/// The right to complete a job within a transaction, from [`Context::ticket`](crate::Context::ticket).
#[derive(Debug)]
#[must_use]
pub struct Ticket {
    pub(crate) verdict: Verdict,
    pub(crate) codec: u8,
}

impl Ticket {
    /// Keeps an output for whoever waits for the job.
    ///
    /// # Errors
    /// [`ErrorKind::Encode`] when it cannot be written, [`ErrorKind::Invalid`] above 1 MiB.
    pub fn output<J: Job>(mut self, output: &J::Output) -> Result<Self> {
        let output = crate::registry::encode_output::<J>(output, self.codec)?;
        self.verdict.ruling = Ruling::Complete { output };
        Ok(self)
    }
}

/// The word of [`Queue::complete_within`] that the completion stands in the caller's transaction.
#[derive(Debug)]
#[must_use = "return it as `Outcome::Settled(receipt)` after the commit"]
pub struct Receipt {
    job: JobRef,
}

impl Receipt {
    /// The job that was completed.
    #[must_use]
    pub fn job(&self) -> &JobRef {
        &self.job
    }
}

impl<B: Transactional> Queue<B> {
    /// Completes the ticket's job, and pushes what its handler wants `then`, within the caller's transaction: both hold if
    /// and only if it commits.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the lease is lost: roll back, another worker has the job.
    pub async fn complete_within(&self, ticket: Ticket, conn: &mut B::Conn) -> Result<Receipt> {
        let job = ticket.verdict.lease.job.clone();
        let settled =
            self.backend().settle_in(conn, std::slice::from_ref(&ticket.verdict), self.at()).await?;
        match settled.first() {
            Some(Settled::Applied(_)) => Ok(Receipt { job }),
            _ => Err(Error::new(
                ErrorKind::Conflict,
                format!("the lease of {job} is lost: roll the transaction back, another worker has the job"),
            )
            .during(B::NAME, "settle")),
        }
    }
}

impl<J: Send, B: Transactional> Dispatch<'_, J, B> {
    /// Sends it within the caller's transaction: the job exists if and only if the transaction commits, and nobody sees
    /// it before.
    ///
    /// # Errors
    /// As a dispatch that is awaited by itself.
    pub async fn within(self, conn: &mut B::Conn) -> Result<Dispatched<J>, DispatchError> {
        let (queue, draft) = self.prepare()?;
        let job = draft.into_new_job();
        let pushed = queue.backend().push_in(conn, std::slice::from_ref(&job), queue.at()).await;
        Dispatched::from_answer(&job, pushed)
    }
}
