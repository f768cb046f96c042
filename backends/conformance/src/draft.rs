//! A short way to write the job that a property needs.

use std::time::Duration;

use windlass_core::{
    Body, ConcurrencyLimit, Due, JobId, JobRef, Kind, NewJob, OnConflict, ParentFailure, Priority, QueueName,
    Timestamp, Unique, Until,
};

/// A job being written: of kind `greet` in the named queue `mail`, with three attempts, due at once.
#[derive(Clone, Debug)]
pub struct Draft {
    body: Body,
    due: Due,
}

/// A job with a fresh id.
#[must_use]
pub fn draft() -> Draft {
    let mut body = Body::new(JobId::fresh(), crate::mail(), Kind::from_static("greet"), *b"{\"to\":\"ada\"}");
    body.max_attempts = 3;
    Draft { body, due: Due::Now }
}

impl Draft {
    /// Changes any part of the body.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Body)) -> Self {
        change(&mut self.body);
        self
    }

    /// With this id.
    #[must_use]
    pub fn id(self, id: JobId) -> Self {
        self.with(|body| body.id = id)
    }

    /// In this named queue.
    #[must_use]
    pub fn queue(self, queue: &'static str) -> Self {
        self.with(|body| body.queue = QueueName::from_static(queue))
    }

    /// Of this kind.
    #[must_use]
    pub fn kind(self, kind: &'static str) -> Self {
        self.with(|body| body.kind = Kind::from_static(kind))
    }

    /// Of this version of the payload, and readable by none older.
    #[must_use]
    pub fn min_reader(self, version: u16) -> Self {
        self.with(|body| (body.version, body.min_reader) = (version, version))
    }

    /// With this priority.
    #[must_use]
    pub fn priority(self, level: u8) -> Self {
        self.with(|body| body.priority = Priority::level(level))
    }

    /// With a unique key.
    #[must_use]
    pub fn unique(self, key: &str, on_conflict: OnConflict, until: Until) -> Self {
        let unique = Unique { key: key.to_owned(), on_conflict, until };
        self.with(|body| body.extras_mut().unique = Some(unique))
    }

    /// With a concurrency limit.
    #[must_use]
    pub fn limit(self, key: &str, at_most: u32) -> Self {
        let limit = ConcurrencyLimit { key: key.to_owned(), at_most };
        self.with(|body| body.extras_mut().limit = Some(limit))
    }

    /// With these parents.
    #[must_use]
    pub fn parents(self, parents: &[JobRef]) -> Self {
        self.with(|body| body.extras_mut().parents = parents.to_vec())
    }

    /// With this policy for a parent's failure.
    #[must_use]
    pub fn on_failure(self, policy: ParentFailure) -> Self {
        self.with(|body| body.extras_mut().on_parent_failure = policy)
    }

    /// With this tag.
    #[must_use]
    pub fn tag(self, tag: &str) -> Self {
        self.with(|body| body.extras_mut().tags.push(tag.to_owned()))
    }

    /// Due so long after it is taken in.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.due = Due::After(delay);
        self
    }

    /// Due at this instant.
    #[must_use]
    pub fn due_at(mut self, instant: Timestamp) -> Self {
        self.due = Due::At(instant);
        self
    }

    /// Where it will be.
    #[must_use]
    pub fn job(&self) -> JobRef {
        self.body.job()
    }

    /// The job, ready to push.
    #[must_use]
    pub fn build(self) -> NewJob {
        NewJob::new(self.body).due(self.due)
    }
}

impl From<Draft> for NewJob {
    fn from(draft: Draft) -> Self {
        draft.build()
    }
}
