//! Assertions about several kinds of jobs at once: their order, and which waits for which.

use windlass_core::JobRef;

use super::failure::AssertionError;
use super::query::{named, raise};
use super::snapshot::{Entry, Snapshot};
use crate::job::Job;

/// A list of jobs: a tuple of up to eight job types, such as `(SignUp, SendEmail, SignUp)`.
pub trait JobList {
    #[doc(hidden)]
    fn names() -> Vec<Names>;
}

/// What a job type is stored as.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Names {
    name: &'static str,
    aliases: &'static [&'static str],
}

impl Names {
    pub(crate) fn of<J: Job>() -> Self {
        Self { name: J::NAME, aliases: J::ALIASES }
    }

    pub(crate) fn all(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    fn is(self, entry: &Entry) -> bool {
        named(entry, self.name, self.aliases)
    }
}

macro_rules! tuples {
    ($($job:ident)*) => {
        impl<$($job: Job),*> JobList for ($($job,)*) {
            fn names() -> Vec<Names> {
                vec![$(Names::of::<$job>()),*]
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

impl Snapshot {
    /// Exactly these jobs were dispatched, in this order, and no others.
    ///
    /// # Panics
    /// When others were; the message names the first that differs.
    #[track_caller]
    pub fn assert_sequence<L: JobList>(&self) {
        raise(self.check_sequence::<L>());
    }

    /// [`assert_sequence`](Self::assert_sequence) without the panic.
    ///
    /// # Errors
    /// When the sequence is another one.
    pub fn check_sequence<L: JobList>(&self) -> Result<(), AssertionError> {
        let wanted = L::names();
        let first = (0..wanted.len().max(self.entries.len()))
            .find(|at| !matches!((wanted.get(*at), self.entries.get(*at)), (Some(name), Some(entry)) if name.is(entry)));
        let Some(at) = first else { return Ok(()) };
        let expected = wanted.get(at).map_or("nothing more".to_owned(), |name| format!("`{}`", name.name));
        let found = self
            .entries
            .get(at)
            .map_or("nothing more".to_owned(), |entry| format!("#{} `{}`", entry.number(), entry.kind()));
        Err(AssertionError::new(format!(
            "expected the sequence {}, but place {} differs: expected {expected}, found {found}\n{}",
            arrows(wanted.iter().map(|name| name.name)),
            at + 1,
            Self::listing(&self.entries, "dispatched")
        )))
    }

    /// Somewhere among the dispatches there is such a chain: the second job waits for the first, the third for the second
    /// (dispatched with `.after(..)`).
    ///
    /// # Panics
    /// When there is none; the message says where it breaks.
    #[track_caller]
    pub fn assert_chained<L: JobList>(&self) {
        raise(self.check_chained::<L>());
    }

    /// [`assert_chained`](Self::assert_chained) without the panic.
    ///
    /// # Errors
    /// When there is no such chain.
    pub fn check_chained<L: JobList>(&self) -> Result<(), AssertionError> {
        let wanted = L::names();
        let is = |name: Names| self.entries.iter().filter(move |entry| name.is(entry));
        let mut ends: Vec<&Entry> = is(wanted[0]).collect();
        let mut broken = ends.is_empty().then(|| format!("no `{}` was dispatched", wanted[0].name));
        for pair in wanted.windows(2) {
            if broken.is_some() {
                break;
            }
            let (before, after) = (pair[0].name, pair[1].name);
            let parents: Vec<JobRef> = ends.iter().map(|entry| entry.body().job()).collect();
            let waits = |entry: &&Entry| entry.body().parents().iter().any(|parent| parents.contains(parent));
            ends = is(pair[1]).filter(waits).collect();
            if ends.is_empty() {
                broken = Some(format!("no `{after}` waits for a `{before}`"));
            }
        }
        let Some(broken) = broken else { return Ok(()) };
        Err(AssertionError::new(format!(
            "expected the chain {}, each waiting for the one before, but {broken}\n{}{}",
            arrows(wanted.iter().map(|name| name.name)),
            Self::listing(&self.entries, "dispatched"),
            self.parents()
        )))
    }

    fn parents(&self) -> String {
        let number = |parent: &JobRef| {
            let found = self.entries.iter().find(|entry| entry.body().job() == *parent);
            found.map_or_else(|| parent.to_string(), |entry| format!("#{}", entry.number()))
        };
        let waiting = self.entries.iter().filter(|entry| !entry.body().parents().is_empty());
        let lines = waiting.map(|entry| {
            let parents: Vec<String> = entry.body().parents().iter().map(number).collect();
            format!("\n    #{} waits for {}", entry.number(), parents.join(", "))
        });
        let lines: String = lines.collect();
        if lines.is_empty() { "\n\n  none waits for another".to_owned() } else { format!("\n{lines}") }
    }
}

fn arrows<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" -> ")
}
