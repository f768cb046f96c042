//! How a job runs: its dependencies, its work, and what its errors mean.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::context::Context;
use crate::job::Job;
use crate::transaction::Receipt;

/// A boxed error, as handlers' errors are passed on.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// How to run a job `J`.
///
/// Implement it on the job itself, or, when the payload lives in a crate that producers share, on a type of the worker's
/// crate: `impl Handler<Resize> for ResizeWorker`, registered with
/// [`Registry::register_with`](crate::Registry::register_with).
///
/// A handler may run more than once: its worker may die after the work and before the verdict. Make its effects
/// idempotent with [`Context::idempotency_key`], or commit them together with the verdict
/// ([`Queue::complete_within`](crate::Queue::complete_within)).
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// # #[derive(Clone)] struct Mailer;
/// # impl Mailer { async fn send(&self, _to: &str) -> std::io::Result<()> { Ok(()) } }
///
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(name = "greet")]
/// struct Greet {
///     to: String,
/// }
///
/// impl Handler for Greet {
///     type Deps = (Mailer,);
///     type Error = std::io::Error;
///
///     async fn handle(Self { to }: Self, (mailer,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Self::Error> {
///         mailer.send(&to).await?;
///         Ok(Outcome::Done)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no handler for the job `{J}`",
    label = "`Handler<{J}>` is not implemented for `{Self}`",
    note = "write `impl Handler for {J} {{ type Deps = (..); type Error = ..; async fn handle(..) .. }}`, or register a worker type with `register_with::<Worker, {J}>()`"
)]
pub trait Handler<J: Job = Self>: 'static {
    /// What it needs: a tuple, or a struct with `#[derive(Deps)]`.
    type Deps: Send;

    /// What its failures are: `anyhow::Error`, [`Fault`], or an error type of your own.
    type Error: Into<BoxError> + Send;

    /// Does the work. The future is dropped at an await point when the attempt times out, its lease is lost, or it
    /// ignores a cancellation or a shutdown beyond the grace; see [`Context::cancelled`].
    fn handle(
        job: J,
        deps: Self::Deps,
        cx: &mut Context,
    ) -> impl Future<Output = Result<Outcome<J::Output>, Self::Error>> + Send;

    /// What one of its errors means for the job. The job's policy decides unless this says otherwise.
    fn decide(error: &Self::Error) -> Decision {
        let _ = error;
        Decision::Policy
    }
}

/// How a run ended well.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome<T = ()> {
    /// It is done, and this is what it gives back.
    Value(T),
    /// It was settled within the handler's own transaction; see [`Queue::complete_within`](crate::Queue::complete_within).
    Settled(Receipt),
    /// Run me again so much later. Counts no attempt.
    Snooze(Duration),
    /// The job is no longer wanted, for this reason.
    Cancel(String),
}

impl Outcome {
    /// It is done, and there is nothing to give back.
    #[allow(non_upper_case_globals, reason = "it reads like the variants beside it")]
    pub const Done: Self = Self::Value(());
}

/// What an error means for a job.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// The job's [`Retry`](crate::Retry) policy and its `max_attempts` decide.
    Policy,
    /// Try again after this back-off, if attempts are left.
    RetryAfter(Duration),
    /// The job is no longer wanted, for this reason.
    Cancel(String),
    /// Trying again is of no use: Dead, until somebody revives it.
    Bury,
}

/// An error that says what it means for the job: use it as [`Handler::Error`], or box it into yours.
///
/// Any error turns into one with `?` and leaves the decision to the policy.
///
/// ```
/// use windlass::prelude::*;
///
/// fn parse(text: &str) -> Result<u32, Fault> {
///     text.parse().map_err(|error| Fault::bury(error)) // no retry will make it a number
/// }
///
/// fn read() -> Result<String, Fault> {
///     Ok(std::fs::read_to_string("/nonexistent")?) // retried by policy
/// }
/// # assert!(parse("x").is_err() && read().is_err());
/// ```
pub struct Fault {
    error: BoxError,
    decision: Decision,
}

impl Fault {
    /// Tried again by the job's policy.
    pub fn retry(error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), decision: Decision::Policy }
    }

    /// Tried again after `delay`, if attempts are left.
    pub fn retry_after(delay: Duration, error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), decision: Decision::RetryAfter(delay) }
    }

    /// Never tried again: Dead, until somebody revives it.
    pub fn bury(error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), decision: Decision::Bury }
    }

    /// The job is no longer wanted; the error's text is the reason.
    pub fn cancel(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        Self { decision: Decision::Cancel(error.to_string()), error }
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

impl From<Fault> for BoxError {
    fn from(fault: Fault) -> Self {
        Box::new(Decided(fault))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("error", &self.error).field("decision", &self.decision).finish()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// A [`Fault`] on its way through a box: `Fault` itself is no `Error`, so that every error can become one by `?`.
#[derive(Debug)]
struct Decided(Fault);

impl fmt::Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl StdError for Decided {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.source()
    }
}

/// What a [`Fault`] in a box was made from; for tests that ask for its type.
pub(crate) fn within_fault<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    let Decided(fault) = error.downcast_ref::<Decided>()?;
    Some(&*fault.error)
}

/// A failed run, as middleware and the executor see it.
#[derive(Debug)]
pub struct RunError {
    /// What went wrong.
    pub error: BoxError,
    /// What it means for the job.
    pub decision: Decision,
    /// How it failed.
    pub cause: FailureCause,
}

/// How a run failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FailureCause {
    /// The handler returned an error.
    Error,
    /// The handler panicked.
    Panic,
    /// The attempt took too long.
    Timeout,
    /// The payload could not be read, or the output not be written.
    Codec,
}

impl RunError {
    /// A failure for the job's policy to decide.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self { error: error.into(), decision: Decision::Policy, cause: FailureCause::Error }
    }

    pub(crate) fn caused(cause: FailureCause, error: impl Into<BoxError>) -> Self {
        Self { cause, ..Self::new(error) }
    }

    pub(crate) fn decided(error: BoxError, decision: Decision) -> Self {
        // What a handler decided stands; else a `Fault` in the box speaks for itself.
        let decision = match (decision, error.downcast_ref::<Decided>()) {
            (Decision::Policy, Some(decided)) => decided.0.decision.clone(),
            (decision, _) => decision,
        };
        Self { error, decision, cause: FailureCause::Error }
    }

    /// The error and its sources, in one line.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.error.to_string();
        let mut source = self.error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("reading the amount")
        }
    }
    impl StdError for Outer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    fn bad_number() -> std::num::ParseIntError {
        "x".parse::<u8>().unwrap_err()
    }

    #[test]
    fn a_fault_carries_its_decision_through_the_box() {
        let cases = [
            (Fault::from(bad_number()), Decision::Policy),
            (
                Fault::retry_after(Duration::from_secs(9), "busy"),
                Decision::RetryAfter(Duration::from_secs(9)),
            ),
            (Fault::bury("no such user"), Decision::Bury),
            (Fault::cancel("unsubscribed"), Decision::Cancel("unsubscribed".to_owned())),
        ];
        for (fault, decision) in cases {
            let text = fault.to_string();
            assert!(format!("{fault:?}").contains("decision"));
            let error = RunError::decided(fault.into(), Decision::Policy);
            assert_eq!(error.decision, decision);
            assert_eq!(error.report(), text);
        }
        let overruled = RunError::decided(Fault::bury("x").into(), Decision::RetryAfter(Duration::ZERO));
        assert_eq!(overruled.decision, Decision::RetryAfter(Duration::ZERO), "the handler's word goes first");
    }

    #[test]
    fn a_report_tells_the_sources_once() {
        assert_eq!(
            RunError::new(Outer(bad_number())).report(),
            "reading the amount: invalid digit found in string"
        );
        assert_eq!(
            RunError::new(Fault::retry(Outer(bad_number()))).report(),
            "reading the amount: invalid digit found in string"
        );
        assert_eq!(RunError::new("plain").report(), "plain");
    }
}
