//! The first state: not pushed yet, and the only one that can be changed.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use windlass_core::{
    Body, ConcurrencyLimit, Due, JobId, JobRef, Kind, NewJob, ParentFailure, Priority, QueueName, Result,
    Unique,
};

use super::{Envelope, Raw};
use crate::codec::Codec;
use crate::job::{Job, UniqueBy};

/// Not pushed yet.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    pub(crate) due: Due,
    /// Whether the dispatch hooks have seen it: a draft that is sent again is not stamped again.
    pub(crate) hooked: bool,
}

/// The namespace of the digests that stand for payloads in unique keys (UUIDv5, RFC 9562 section 5.5). Never change it:
/// keys of running systems depend on it.
const PAYLOAD_KEYS: Uuid = Uuid::from_u128(0x5bd0_9d8e_7f55_4c1e_9a43_6a1b_0d4c_77e2);

impl Envelope<Raw, Draft> {
    /// Encodes a job with the defaults of its type.
    pub(crate) fn of<J: Job>(job: &J, codec: Codec, id: JobId) -> Result<Self> {
        // A bad name in a hand-written impl is a compile error where the job is used.
        let kind = const { Kind::from_static(J::NAME) };
        let queue = const { QueueName::from_static(J::QUEUE) };
        let payload = codec.encode(J::NAME, job)?;
        let mut body = Body::new(id, queue, kind, payload);
        body.codec = codec.id();
        body.version = J::VERSION;
        body.min_reader = J::MIN_READER;
        body.priority = J::PRIORITY;
        body.max_attempts = J::MAX_ATTEMPTS;
        body.timeout = J::TIMEOUT.into();
        let tags = job.tags();
        if !tags.is_empty() {
            body.extras_mut().tags = tags;
        }
        if let Some(limit) = job.limit() {
            body.extras_mut().limit = Some(limit);
        }
        let mut draft = Self { job: Raw, body: Arc::new(body), state: Draft::default() };
        if let Some(unique) = job.unique() {
            draft.set_unique(unique);
        }
        Ok(draft)
    }

    /// The draft that an engine refused or may have refused.
    pub(crate) fn from_new_job(job: NewJob) -> Self {
        Self { job: Raw, body: job.body, state: Draft { due: job.due, hooked: true } }
    }

    /// What an engine takes in.
    pub(crate) fn into_new_job(self) -> NewJob {
        NewJob { body: self.body, due: self.state.due }
    }
}

/// Setters. Limits are checked when the draft is pushed.
impl<J> Envelope<J, Draft> {
    fn change(&mut self) -> &mut Body {
        // Not shared before it is pushed, so nothing is copied.
        Arc::make_mut(&mut self.body)
    }

    /// When it is due.
    pub fn due(&self) -> Due {
        self.state.due
    }

    /// Sends it to this named queue.
    pub fn set_queue(&mut self, queue: QueueName) {
        self.change().queue = queue;
    }

    /// Makes it due at `due`.
    pub fn set_due(&mut self, due: Due) {
        self.state.due = due;
    }

    /// Gives it a priority.
    pub fn set_priority(&mut self, priority: Priority) {
        self.change().priority = priority;
    }

    /// Adds a tag.
    pub fn add_tag(&mut self, tag: impl Into<String>) {
        self.change().extras_mut().tags.push(tag.into());
    }

    /// Sets a value that travels with the job.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.change().extras_mut().metadata.insert(key.into(), value.into());
    }

    /// Gives it an id.
    pub fn set_id(&mut self, id: JobId) {
        self.change().id = id;
    }

    /// Gives it so many attempts.
    pub fn set_max_attempts(&mut self, attempts: u16) {
        self.change().max_attempts = attempts;
    }

    /// Limits each attempt.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.change().timeout = timeout.into();
    }

    /// Makes it unique among its kind in its named queue.
    pub fn set_unique(&mut self, by: UniqueBy) {
        let body = self.change();
        let key = match by.key {
            Some(key) => format!("{}/{key}", body.kind),
            None => format!("{}/{}", body.kind, Uuid::new_v5(&PAYLOAD_KEYS, &body.payload)),
        };
        body.extras_mut().unique = Some(Unique { key, on_conflict: by.on_conflict, until: by.until });
    }

    /// Limits how many of a key are Ready or Running at once.
    pub fn set_limit(&mut self, limit: ConcurrencyLimit) {
        self.change().extras_mut().limit = Some(limit);
    }

    /// Blocks it until this job has completed.
    pub fn add_parent(&mut self, parent: JobRef) {
        self.change().extras_mut().parents.push(parent);
    }

    /// What a parent's failure does.
    pub fn set_on_parent_failure(&mut self, policy: ParentFailure) {
        self.change().extras_mut().on_parent_failure = policy;
    }

    /// After this it is not started any more.
    pub fn set_deadline(&mut self, deadline: Due) {
        self.change().extras_mut().deadline = Some(deadline);
    }
}
