//! How a performed job ended, and the assertions on it.

use std::error::Error as StdError;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::{Ruling, StateKind};

use super::query::Query;
use super::snapshot::Snapshot;
use super::text::short;
use crate::executor::Ran;
use crate::handler::{BoxError, FailureCause};
use crate::job::Job;

/// What came of one run of a `J`, from [`perform`](super::perform).
#[derive(Debug)]
#[must_use = "a run asserts nothing by itself"]
pub struct Performed<J> {
    pub(crate) ran: Ran,
    pub(crate) ruling: Option<Ruling>,
    pub(crate) failure: Option<(FailureCause, String)>,
    pub(crate) error: Option<Arc<BoxError>>,
    pub(crate) attempt: u16,
    pub(crate) max_attempts: u16,
    pub(crate) codec: u8,
    pub(crate) state: Option<StateKind>,
    pub(crate) dispatched: Snapshot,
    pub(crate) then: Snapshot,
    pub(crate) of: PhantomData<fn() -> J>,
}

impl<J: Job> Performed<J> {
    /// It completed; gives its output.
    ///
    /// # Panics
    /// When it ended otherwise, or the output cannot be read back.
    #[track_caller]
    pub fn assert_completed(&self) -> J::Output {
        // A run that was settled in a transaction has offered a retry, which the fence refused.
        self.expect("to complete", self.state == Some(StateKind::Completed));
        let output = match &self.ruling {
            Some(Ruling::Complete { output }) => output.as_deref(),
            _ => None,
        };
        match crate::envelope::decode_output::<J>(output, self.codec) {
            Ok(output) => output,
            Err(error) => panic!("`{}` completed, but {error}", J::NAME),
        }
    }

    /// It failed and is tried again; gives the back-off.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn assert_retried(&self) -> Duration {
        match &self.ruling {
            Some(Ruling::Retry { after, .. }) if self.ran == Ran::Retried => *after,
            _ => self.wrong("to be tried again"),
        }
    }

    /// It failed and is tried again after exactly this back-off.
    ///
    /// # Panics
    /// When it ended otherwise, or backs off for another time.
    #[track_caller]
    pub fn assert_retries_after(&self, after: Duration) {
        let wanted = format!("to be tried again after {}", short(after));
        let holds = self.ran == Ran::Retried
            && matches!(&self.ruling, Some(Ruling::Retry { after: found, .. }) if *found == after);
        self.expect(&wanted, holds);
    }

    /// It snoozed for exactly so long.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn assert_snoozed(&self, wait: Duration) {
        let holds = matches!(&self.ruling, Some(Ruling::Snooze { after }) if *after == wait);
        self.expect(&format!("to snooze for {}", short(wait)), holds);
    }

    /// It was called off for this reason.
    ///
    /// # Panics
    /// When it ended otherwise, or for another reason.
    #[track_caller]
    pub fn assert_cancelled(&self, reason: &str) {
        let holds = matches!(&self.ruling, Some(Ruling::Cancel { reason: found }) if found == reason);
        self.expect(&format!("to be cancelled because \"{reason}\""), holds);
    }

    /// It failed for good.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn assert_dead(&self) {
        self.expect("to be dead", self.state == Some(StateKind::Dead));
    }

    /// Its handler failed with an `E` that `accepts` takes, be it in a [`Fault`](crate::Fault) or among the sources of the
    /// error. An `anyhow::Error` hides the type of what it was made from; only its sources can be seen.
    ///
    /// # Panics
    /// When it did not fail, with another error, or with one that is not accepted.
    #[track_caller]
    pub fn assert_failed_with<E: StdError + 'static>(&self, accepts: impl FnOnce(&E) -> bool) {
        let wanted = format!("to fail with a `{}`", std::any::type_name::<E>());
        let Some(error) = &self.error else { self.wrong(&wanted) };
        let error: &(dyn StdError + 'static) = &***error;
        match find::<E>(error) {
            Some(found) => self.expect(&format!("{wanted} that the predicate accepts"), accepts(found)),
            None => self.wrong(&wanted),
        }
    }

    /// Its handler panicked with a message that contains `text`.
    ///
    /// # Panics
    /// When it did not, or with another message.
    #[track_caller]
    pub fn assert_panicked(&self, text: &str) {
        let holds = matches!(&self.failure, Some((FailureCause::Panic, found)) if found.contains(text));
        self.expect(&format!("to panic with \"{text}\""), holds);
    }

    /// It took longer than its timeout or its deadline allows.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn assert_timed_out(&self) {
        self.expect("to time out", matches!(&self.failure, Some((FailureCause::Timeout, _))));
    }

    /// What its handler dispatched at once, whatever became of the run.
    pub fn dispatched<K: Job>(&self) -> Query<K> {
        self.dispatched.dispatched()
    }

    /// The jobs that exist because the run was recorded: those of [`Context::then`](crate::Context::then).
    pub fn then<K: Job>(&self) -> Query<K> {
        self.then.dispatched()
    }

    /// Everything its handler dispatched at once.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.dispatched
    }

    /// The state the job is in now.
    #[must_use]
    pub fn state(&self) -> Option<StateKind> {
        self.state
    }

    /// The error as it would be recorded.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.failure.as_ref().map(|(_, text)| text.as_str())
    }

    #[track_caller]
    fn expect(&self, wanted: &str, holds: bool) {
        if !holds {
            self.wrong(wanted);
        }
    }

    #[track_caller]
    fn wrong(&self, wanted: &str) -> ! {
        let attempt = format!("attempt {} of {}", self.attempt, self.max_attempts);
        let error = self.failure.as_ref().map_or_else(String::new, |(cause, text)| {
            let how = match cause {
                FailureCause::Panic => "panicked",
                FailureCause::Timeout => "timed out",
                FailureCause::Codec => "could not be decoded or encoded",
                _ => "error",
            };
            format!(", {how}: {text}")
        });
        panic!("expected `{}` {wanted}, but it {}\n\n  {attempt}{error}", J::NAME, self.end());
    }

    fn end(&self) -> String {
        match &self.ruling {
            _ if self.state == Some(StateKind::Completed) => "completed".to_owned(),
            Some(Ruling::Complete { .. }) => "completed".to_owned(),
            Some(Ruling::Retry { after, .. }) => format!("failed and is tried again after {}", short(*after)),
            Some(Ruling::Snooze { after }) => format!("snoozed for {}", short(*after)),
            Some(Ruling::Cancel { reason }) => format!("was cancelled because \"{reason}\""),
            Some(Ruling::Bury { .. }) => "is dead".to_owned(),
            Some(Ruling::Release) => "was released".to_owned(),
            None => "was abandoned, since its lease was lost".to_owned(),
        }
    }
}

/// An `E` in the chain of an error and its sources; a fault on its way through a box is looked into.
fn find<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        if let Some(within) = crate::handler::within_fault(error)
            && let Some(found) = within.downcast_ref::<E>()
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}
