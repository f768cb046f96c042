//! What a query gives back: the job together with its dispatch.

use std::fmt;
use std::ops::Deref;

use windlass_core::JobRef;

use super::snapshot::Entry;

/// A dispatch that a query found. It derefs to the job.
pub struct Found<J> {
    entry: Entry,
    job: J,
}

impl<J> Found<J> {
    pub(crate) fn new(entry: Entry, job: J) -> Self {
        Self { entry, job }
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &J {
        &self.job
    }

    /// The job, by value.
    #[must_use]
    pub fn into_job(self) -> J {
        self.job
    }

    /// The dispatch: its queue, due time, state and body.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its address, to cancel it, or to find its record.
    #[must_use]
    pub fn job_ref(&self) -> JobRef {
        self.entry.body().job()
    }
}

impl<J> Deref for Found<J> {
    type Target = J;

    fn deref(&self) -> &J {
        &self.job
    }
}

impl<J> fmt::Debug for Found<J> {
    /// Leaves the payload out: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("entry", &self.entry).finish_non_exhaustive()
    }
}
