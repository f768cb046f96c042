//! Operators' verbs: cancel, revive, run now, delete, pause, resume.

use std::future::Future;

use crate::{At, Backend, JobRef, QueueName, Result, StateKind};

/// What became of a cancellation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelling {
    /// It was waiting and is Cancelled: it never starts.
    Cancelled,
    /// It is running: its worker is told at its next beat or wake-up, and exactly one of the cancellation and its own
    /// outcome wins.
    Requested,
    /// It had ended in this state; nothing was changed.
    AlreadyEnded(StateKind),
    /// No such job is stored.
    Missing,
}

/// Steering an engine.
pub trait Manage: Backend {
    /// Calls a job off.
    fn cancel(&self, job: &JobRef, reason: &str, at: At) -> impl Future<Output = Result<Cancelling>> + Send;

    /// Dead to Ready: a new generation under the same id, with its attempts and lost leases at zero and its epoch going
    /// on. It takes its unique key again.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such job,
    /// [`ErrorKind::WrongState`](crate::ErrorKind::WrongState) when it is not dead,
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) when another job holds its unique key.
    fn revive(&self, job: &JobRef, at: At) -> impl Future<Output = Result<()>> + Send;

    /// Makes a Scheduled job due now.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such job,
    /// [`ErrorKind::WrongState`](crate::ErrorKind::WrongState) when it is not scheduled.
    fn run_now(&self, job: &JobRef, at: At) -> impl Future<Output = Result<()>> + Send;

    /// Forgets a finished job.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) when there is no such job,
    /// [`ErrorKind::WrongState`](crate::ErrorKind::WrongState) when it has not finished: cancel it first.
    fn delete(&self, job: &JobRef, at: At) -> impl Future<Output = Result<()>> + Send;

    /// Stops claims from a named queue: none that begins after this returned takes a job from it. What runs goes on.
    /// A queue that does not exist yet is paused from its first job on.
    fn pause(&self, queue: &QueueName, at: At) -> impl Future<Output = Result<()>> + Send;

    /// Ends a pause.
    fn resume(&self, queue: &QueueName, at: At) -> impl Future<Output = Result<()>> + Send;
}
