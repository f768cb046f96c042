//! The composable question behind every assertion: which of these dispatches are of type `J`, on that queue, due then?
//!
//! Every step looks at every candidate, also at those that an earlier step has dropped: so a failure can say which
//! candidate came closest and in which field.

use std::fmt;
use std::ops::RangeBounds;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::{Priority, StateKind, Timestamp};

use super::diff::Diff;
use super::failure::{AssertionError, Count, Trail};
use super::found::Found;
use super::snapshot::{Entry, Snapshot};
use super::text;
use crate::codec::Codec;
use crate::job::Job;
use crate::upgrade;

/// A question about the dispatches of `J`: narrow it down, then assert or [`get`](Self::get). It is a plain value; asking
/// does no I/O.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// # #[derive(Serialize, Deserialize, Job)]
/// # #[job(name = "send_email")]
/// # struct SendEmail { to: String }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windlass::Result<()> {
/// let queue = Queue::<MemoryBackend>::fake();
/// queue.dispatch(SendEmail { to: "ada@example.com".into() }).on("mail").delay(hours(1)).await?;
///
/// let email = queue.dispatched::<SendEmail>().on("mail").delayed_by(hours(1)).assert_once();
/// assert_eq!(email.to, "ada@example.com");
/// # Ok(())
/// # }
/// ```
#[must_use = "a query asserts nothing by itself: end it with `assert_once()` or `get()`"]
pub struct Query<J> {
    pub(crate) all: Arc<[Entry]>,
    pub(crate) candidates: Vec<Candidate<J>>,
    pub(crate) steps: Vec<Step>,
    pub(crate) unreadable: Option<String>,
}

/// A dispatch of the right type, and what each step had against it.
pub(crate) struct Candidate<J> {
    pub(crate) entry: Entry,
    pub(crate) job: J,
    pub(crate) misses: Vec<Option<Miss>>,
}

/// A step of the chain.
pub(crate) struct Step {
    /// How it reads after the job's name.
    pub(crate) label: String,
    pub(crate) field: Field,
}

/// What a step looks at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Queue,
    Predicate,
    Payload,
    DueExactly,
    DueWithin,
    Priority,
    UniqueKey,
    Tags,
    State,
    Attempts,
}

/// Why a step dropped a candidate.
pub(crate) struct Miss {
    pub(crate) expected: String,
    pub(crate) found: String,
    pub(crate) diff: Option<Diff>,
}

impl<J: Job> Query<J> {
    pub(crate) fn new(all: Arc<[Entry]>) -> Self {
        let mut query = Self { candidates: Vec::new(), steps: Vec::new(), unreadable: None, all };
        for entry in query.all.iter().filter(|entry| is::<J>(entry)) {
            let body = entry.body();
            let read = Codec::from_id(body.codec)
                .and_then(|codec| upgrade::decode(codec, body.version, &body.payload));
            match read {
                Ok(job) => query.candidates.push(Candidate { entry: entry.clone(), job, misses: Vec::new() }),
                Err(error) => {
                    let text = format!(
                        "`{}` was dispatched as #{}, but its payload cannot be read back: {error}",
                        J::NAME,
                        entry.number()
                    );
                    query.unreadable.get_or_insert(text);
                }
            }
        }
        query
    }

    fn step(mut self, field: Field, label: String, look: impl Fn(&Candidate<J>) -> Option<Miss>) -> Self {
        for candidate in &mut self.candidates {
            let miss = look(candidate);
            candidate.misses.push(miss);
        }
        self.steps.push(Step { label, field });
        self
    }

    fn equals<T: PartialEq>(
        self,
        field: Field,
        label: String,
        wanted: &T,
        of: impl Fn(&Entry) -> T,
        show: impl Fn(&T) -> String,
    ) -> Self {
        self.step(field, label, |candidate| {
            let found = of(&candidate.entry);
            (found != *wanted).then(|| Miss { expected: show(wanted), found: show(&found), diff: None })
        })
    }

    /// Sent to this named queue.
    pub fn on(self, queue: impl AsRef<str>) -> Self {
        let wanted = queue.as_ref().to_owned();
        let label = format!("on \"{wanted}\"");
        self.equals(
            Field::Queue,
            label,
            &wanted,
            |entry| entry.queue().to_string(),
            |name| format!("\"{name}\""),
        )
    }

    /// Accepted by the predicate, whose place a failure names.
    #[track_caller]
    pub fn matching(self, accepts: impl Fn(&J) -> bool) -> Self {
        let at = Location::caller();
        let label = format!("matching the predicate at {}:{}", at.file(), at.line());
        self.step(Field::Predicate, label, |candidate| {
            let miss = || Miss { expected: "true".to_owned(), found: "false".to_owned(), diff: None };
            (!accepts(&candidate.job)).then(miss)
        })
    }

    /// With this payload, compared field by field in its serialised form, so that `J` need not be `PartialEq`. Numbers
    /// beyond 64 bits are compared as floats.
    pub fn equal_to(self, expected: &J) -> Self {
        self.step(Field::Payload, "with the given payload".to_owned(), |candidate| {
            let codec = Codec::from_id(candidate.entry.body().codec).unwrap_or_default();
            let diff = Diff::of(expected, &candidate.job, codec);
            (!diff.differing().is_empty()).then(|| Miss {
                expected: "the given payload".to_owned(),
                found: diff.differing().join(", "),
                diff: Some(diff),
            })
        })
    }

    /// Due exactly so long after its dispatch; zero means at once.
    pub fn delayed_by(self, delay: Duration) -> Self {
        let label = if delay.is_zero() {
            "due at once".to_owned()
        } else {
            format!("delayed by {}", text::short(delay))
        };
        self.equals(Field::DueExactly, label, &delay, Entry::delay, |delay| text::due(*delay))
    }

    /// Due exactly at this instant.
    pub fn due_at(self, instant: impl Into<Timestamp>) -> Self {
        let wanted = instant.into();
        self.equals(Field::DueExactly, format!("due at {wanted}"), &wanted, Entry::due, ToString::to_string)
    }

    /// Due within this range after its dispatch: `minutes(55)..=minutes(65)`.
    pub fn due_within(self, range: impl RangeBounds<Duration>) -> Self {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(start) | Excluded(start) => text::short(*start),
            Unbounded => text::short(Duration::ZERO),
        };
        let to = match range.end_bound() {
            Included(end) => format!("to {}", text::short(*end)),
            Excluded(end) => format!("to less than {}", text::short(*end)),
            Unbounded => "or more".to_owned(),
        };
        let label = format!("due within {from} {to}");
        let expected = format!("in {from} {to}");
        self.step(Field::DueWithin, label, |candidate| {
            let found = candidate.entry.delay();
            (!range.contains(&found)).then(|| Miss {
                expected: expected.clone(),
                found: text::due(found),
                diff: None,
            })
        })
    }

    /// With this priority.
    pub fn priority(self, priority: Priority) -> Self {
        let label = format!("with priority {}", priority.get());
        self.equals(
            Field::Priority,
            label,
            &priority.get(),
            |entry| entry.body().priority.get(),
            u8::to_string,
        )
    }

    /// Unique under this key, as it was given to [`UniqueBy::key`](crate::UniqueBy::key).
    pub fn unique_key(self, key: impl AsRef<str>) -> Self {
        let wanted = Some(key.as_ref().to_owned());
        let of = |entry: &Entry| {
            // The kind is put before the key, so that keys of different kinds do not meet.
            let prefix = format!("{}/", entry.kind());
            let unique = entry.body().unique()?;
            Some(unique.key.strip_prefix(&prefix).unwrap_or(&unique.key).to_owned())
        };
        let show =
            |key: &Option<String>| key.as_ref().map_or_else(|| "none".to_owned(), |key| format!("\"{key}\""));
        self.equals(Field::UniqueKey, format!("with the unique key \"{}\"", key.as_ref()), &wanted, of, show)
    }

    /// With this tag among its tags.
    pub fn tagged(self, tag: impl AsRef<str>) -> Self {
        let tag = tag.as_ref();
        self.step(Field::Tags, format!("tagged \"{tag}\""), |candidate| {
            let tags = candidate.entry.body().tags();
            (!tags.iter().any(|one| one == tag)).then(|| Miss {
                expected: format!("\"{tag}\""),
                found: if tags.is_empty() { "none".to_owned() } else { format!("{tags:?}") },
                diff: None,
            })
        })
    }

    /// In this state by now.
    pub fn in_state(self, state: StateKind) -> Self {
        let label = format!("in the state {}", state.as_str());
        let show = |state: &Option<StateKind>| state.map_or("gone", StateKind::as_str).to_owned();
        self.equals(Field::State, label, &Some(state), Entry::state, show)
    }

    /// After so many attempts: handlers that started and gave a verdict.
    pub fn attempts(self, attempts: u16) -> Self {
        let label = format!("after {}", text::count(attempts.into(), "attempt"));
        self.equals(Field::Attempts, label, &attempts, Entry::attempts, u16::to_string)
    }

    /// Those that passed every step, oldest first.
    ///
    /// # Panics
    /// When the payload of a `J` cannot be read back: a worker could not read it either.
    #[must_use]
    #[track_caller]
    pub fn get(self) -> Vec<Found<J>> {
        assert!(self.unreadable.is_none(), "{}", self.unreadable.unwrap_or_default());
        let passed = self.candidates.into_iter().filter(|one| one.misses.iter().all(Option::is_none));
        passed.map(|one| Found::new(one.entry, one.job)).collect()
    }

    /// Asserts without panicking: the failure is a value.
    ///
    /// # Errors
    /// When the number of those that passed is another one than `wanted`, or a payload cannot be read back.
    pub fn check(self, wanted: Count) -> Result<Vec<Found<J>>, AssertionError> {
        if let Some(text) = self.unreadable {
            return Err(AssertionError::new(text));
        }
        let passed = self.candidates.iter().filter(|one| one.misses.iter().all(Option::is_none)).count();
        if wanted.allows(passed) {
            return Ok(self.get());
        }
        Err(Trail::of(&self, wanted).into_error())
    }

    /// At least one passed.
    ///
    /// # Panics
    /// When none did.
    #[track_caller]
    pub fn assert_any(self) -> Vec<Found<J>> {
        raise(self.check(Count::AtLeast(1)))
    }

    /// Exactly one passed; it is given back.
    ///
    /// # Panics
    /// When none did, or more.
    #[track_caller]
    pub fn assert_once(self) -> Found<J> {
        let mut found = raise(self.check(Count::Exactly(1)));
        found.remove(0)
    }

    /// Exactly so many passed.
    ///
    /// # Panics
    /// When fewer or more did.
    #[track_caller]
    pub fn assert_times(self, times: usize) -> Vec<Found<J>> {
        raise(self.check(Count::Exactly(times)))
    }

    /// None passed.
    ///
    /// # Panics
    /// When one did.
    #[track_caller]
    pub fn assert_none(self) {
        raise(self.check(Count::Exactly(0)));
    }
}

/// Turns a failed check into the test's panic, at the caller's line.
#[track_caller]
pub(crate) fn raise<T>(checked: Result<T, AssertionError>) -> T {
    match checked {
        Ok(found) => found,
        Err(error) => panic!("{error}"),
    }
}

/// Whether an entry is a `J`, under its name or an alias.
pub(crate) fn is<J: Job>(entry: &Entry) -> bool {
    named(entry, J::NAME, J::ALIASES)
}

pub(crate) fn named(entry: &Entry, name: &str, aliases: &[&str]) -> bool {
    let kind = entry.kind().as_str();
    kind == name || aliases.contains(&kind)
}

impl<J> fmt::Debug for Query<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<&str> = self.steps.iter().map(|step| step.label.as_str()).collect();
        f.debug_struct("Query").field("candidates", &self.candidates.len()).field("steps", &steps).finish()
    }
}

impl Snapshot {
    /// Nothing at all was dispatched.
    ///
    /// # Panics
    /// When something was; the message lists it.
    #[track_caller]
    pub fn assert_nothing_dispatched(&self) {
        raise(self.check_nothing_dispatched());
    }

    /// [`assert_nothing_dispatched`](Self::assert_nothing_dispatched) without the panic.
    ///
    /// # Errors
    /// When something was dispatched.
    pub fn check_nothing_dispatched(&self) -> Result<(), AssertionError> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let found = text::count(self.entries.len(), "job");
        let listing = Self::listing(&self.entries, "dispatched");
        Err(AssertionError::new(format!("expected nothing to be dispatched, found {found}\n{listing}")))
    }
}
