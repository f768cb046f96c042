//! Dispatching: from a job to a stored one. The builder collects what differs from the job's defaults, and sends when it
//! is awaited.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::time::Duration;

use futures::future::BoxFuture;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{
    Backend, ConcurrencyLimit, Due, Effect, Error, ErrorKind, JobId, JobRef, NewJob, ParentFailure, Priority,
    Pushed, QueueName, Result, Timestamp,
};

use crate::envelope::{Draft, Envelope, Raw};
use crate::job::UniqueBy;
use crate::queue::Queue;

/// A dispatch that is being put together; await it to send it.
#[must_use = "a dispatch does nothing until it is awaited"]
pub struct Dispatch<'q, J, B: Backend> {
    queue: &'q Queue<B>,
    draft: Result<Envelope<Raw, Draft>>,
    job: PhantomData<fn() -> J>,
}

/// Many dispatches that are being put together; await it to send them.
#[must_use = "a dispatch does nothing until it is awaited"]
pub struct DispatchAll<'q, J, B: Backend> {
    queue: &'q Queue<B>,
    drafts: Result<Vec<Envelope<Raw, Draft>>>,
    job: PhantomData<fn() -> J>,
}

/// A draft taken out of a builder's hands for a moment.
type Change<'a> = &'a mut dyn FnMut(&mut Envelope<Raw, Draft>) -> Result<()>;

impl<'q, J, B: Backend> Dispatch<'q, J, B> {
    pub(crate) fn new(queue: &'q Queue<B>, draft: Result<Envelope<Raw, Draft>>) -> Self {
        Self { queue, draft, job: PhantomData }
    }

    fn each(mut self, change: Change<'_>) -> Self {
        if let Ok(draft) = &mut self.draft
            && let Err(error) = change(draft)
        {
            self.draft = Err(error);
        }
        self
    }

    /// Gives the job this id instead of a fresh one. Dispatching the same id again changes nothing while the job is stored.
    pub fn id(self, id: JobId) -> Self {
        self.each(&mut |draft| {
            draft.set_id(id);
            Ok(())
        })
    }

    /// The draft as it stands, without sending it: for a batch of several kinds, see [`Queue::push`].
    ///
    /// # Errors
    /// Whatever was wrong with the job or the options so far.
    pub fn into_draft(self) -> Result<Envelope<Raw, Draft>> {
        self.draft
    }

    /// The draft after the hooks, ready to be sent.
    pub(crate) fn prepare(self) -> Result<(&'q Queue<B>, Envelope<Raw, Draft>), DispatchError> {
        let mut draft = self.draft?;
        self.queue.hook(&mut draft)?;
        Ok((self.queue, draft))
    }
}

impl<'q, J, B: Backend> DispatchAll<'q, J, B> {
    pub(crate) fn new(queue: &'q Queue<B>, drafts: Result<Vec<Envelope<Raw, Draft>>>) -> Self {
        Self { queue, drafts, job: PhantomData }
    }

    fn each(mut self, change: Change<'_>) -> Self {
        if let Ok(drafts) = &mut self.drafts
            && let Err(error) = drafts.iter_mut().try_for_each(change)
        {
            self.drafts = Err(error);
        }
        self
    }
}

/// The options that one dispatch and many have in common.
macro_rules! options {
    ($builder:ident) => {
        impl<'q, J, B: Backend> $builder<'q, J, B> {
            /// Sends it to this named queue instead of the job's own.
            pub fn on(self, queue: impl TryInto<QueueName, Error: Into<Error>>) -> Self {
                let mut queue = Some(queue.try_into().map_err(Into::into));
                let mut name = None;
                self.each(&mut |draft| {
                    if let Some(queue) = queue.take() {
                        name = Some(queue?);
                    }
                    if let Some(name) = &name {
                        draft.set_queue(name.clone());
                    }
                    Ok(())
                })
            }

            /// Makes it due so much later, by the engine's clock; at most a hundred years.
            pub fn delay(self, delay: Duration) -> Self {
                self.set(|draft| draft.set_due(Due::After(delay)))
            }

            /// Makes it due at this instant; one that has passed means at once.
            pub fn at(self, instant: impl Into<Timestamp>) -> Self {
                let instant = instant.into();
                self.set(|draft| draft.set_due(Due::At(instant)))
            }

            /// Gives it a priority instead of the job's own.
            pub fn priority(self, priority: Priority) -> Self {
                self.set(|draft| draft.set_priority(priority))
            }

            /// Adds a label for people and filters; at most 32 of 128 bytes.
            pub fn tag(self, tag: impl Into<String>) -> Self {
                let tag = tag.into();
                self.set(|draft| draft.add_tag(tag.clone()))
            }

            /// Adds labels.
            pub fn tags<T: Into<String>>(self, tags: impl IntoIterator<Item = T>) -> Self {
                let tags: Vec<String> = tags.into_iter().map(Into::into).collect();
                self.set(|draft| tags.iter().for_each(|tag| draft.add_tag(tag.clone())))
            }

            /// Sets a value that travels with the job, such as a trace id; at most 8 KiB in all.
            pub fn metadata(self, key: impl Into<String>, value: impl Into<String>) -> Self {
                let (key, value) = (key.into(), value.into());
                self.set(|draft| draft.set_metadata(key.clone(), value.clone()))
            }

            /// Gives it so many attempts instead of the job's own, 1 to 10,000.
            pub fn max_attempts(self, attempts: u16) -> Self {
                self.set(|draft| draft.set_max_attempts(attempts))
            }

            /// Limits each attempt instead of the job's own limit; at most thirty days.
            pub fn timeout(self, timeout: Duration) -> Self {
                self.set(|draft| draft.set_timeout(Some(timeout)))
            }

            /// Does not start it any more after so long.
            pub fn deadline(self, within: Duration) -> Self {
                self.set(|draft| draft.set_deadline(Due::After(within)))
            }

            /// Makes it unique among its kind in its named queue.
            pub fn unique(self, by: UniqueBy) -> Self {
                self.set(|draft| draft.set_unique(by.clone()))
            }

            /// Skips it if a job of its kind with the same payload was dispatched to its named queue within `window`.
            pub fn unique_for(self, window: Duration) -> Self {
                self.unique(UniqueBy::payload().window(window))
            }

            /// Lets at most `at_most` jobs of this key be Ready or Running in their named queue; the rest are Blocked.
            pub fn limit(self, key: impl Into<String>, at_most: u32) -> Self {
                let limit = ConcurrencyLimit { key: key.into(), at_most };
                self.set(|draft| draft.set_limit(limit.clone()))
            }

            /// Blocks it until this job has completed.
            pub fn after(self, parent: &JobRef) -> Self {
                self.set(|draft| draft.add_parent(parent.clone()))
            }

            /// What a parent's failure does; cancels it unless told otherwise.
            pub fn on_parent_failure(self, policy: ParentFailure) -> Self {
                self.set(|draft| draft.set_on_parent_failure(policy))
            }

            fn set(self, mut set: impl FnMut(&mut Envelope<Raw, Draft>)) -> Self {
                self.each(&mut |draft| {
                    set(draft);
                    Ok(())
                })
            }
        }
    };
}

options!(Dispatch);
options!(DispatchAll);

impl<'q, J: Send + 'q, B: Backend> IntoFuture for Dispatch<'q, J, B> {
    type Output = Result<Dispatched<J>, DispatchError>;
    type IntoFuture = BoxFuture<'q, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (queue, draft) = self.prepare()?;
            let job = draft.into_new_job();
            let pushed = queue.send(std::slice::from_ref(&job)).await;
            Dispatched::from_answer(&job, pushed)
        })
    }
}

impl<'q, J: Send + 'q, B: Backend> IntoFuture for DispatchAll<'q, J, B> {
    type Output = Result<Vec<Dispatched<J>>, DispatchAllError<J>>;
    type IntoFuture = BoxFuture<'q, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let drafts = self.drafts.map_err(DispatchAllError::before_all)?;
            self.queue
                .push(drafts)
                .await
                .map_err(DispatchAllError::typed)
                .map(|sent| sent.into_iter().map(Dispatched::typed).collect())
        })
    }
}

impl<B: Backend> Queue<B> {
    /// Sends drafts, of any kinds, in this order: also those that a failed dispatch handed back, whose ids stay what they
    /// were.
    ///
    /// All are checked against the limits before any is sent. They are sent a thousand at a time, and each thousand is
    /// stored as a whole or not at all.
    ///
    /// # Errors
    /// [`DispatchAllError`] says what was sent and hands back the rest.
    pub async fn push(
        &self,
        drafts: Vec<Envelope<Raw, Draft>>,
    ) -> Result<Vec<Dispatched<Raw>>, DispatchAllError<Raw>> {
        let mut jobs = Vec::with_capacity(drafts.len());
        for mut draft in drafts {
            self.hook(&mut draft).map_err(DispatchAllError::before_all)?;
            jobs.push(draft.into_new_job());
        }
        for chunk in jobs.chunks(BATCH_MAX) {
            NewJob::validate_all(chunk).map_err(DispatchAllError::before_all)?;
        }
        let mut sent = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(BATCH_MAX) {
            match self.send(chunk).await {
                Ok(answers) => {
                    sent.extend(chunk.iter().zip(answers).map(|(job, pushed)| Dispatched::new(job, pushed)));
                }
                Err(error) => {
                    let rest = jobs.split_off(sent.len());
                    let unsent = rest.into_iter().map(Envelope::from_new_job).collect();
                    return Err(DispatchAllError { error, sent, unsent });
                }
            }
        }
        Ok(sent)
    }
}

/// A job that was dispatched: its address, and what became of the dispatch.
pub struct Dispatched<J> {
    job: JobRef,
    pushed: Pushed,
    kind: PhantomData<fn() -> J>,
}

impl<J> Dispatched<J> {
    fn new(job: &NewJob, pushed: Pushed) -> Self {
        let id = match pushed {
            Pushed::Conflict(standing) => standing,
            Pushed::Inserted | Pushed::SameId | Pushed::Superseded(_) => job.body.id,
        };
        Self { job: JobRef::new(job.body.queue.clone(), id), pushed, kind: PhantomData }
    }

    pub(crate) fn from_answer(job: &NewJob, answer: Result<Vec<Pushed>>) -> Result<Self, DispatchError> {
        let pushed = answer.and_then(|answers| {
            answers.first().copied().ok_or_else(|| {
                Error::new(ErrorKind::Unexpected, "the engine answered a push with nothing").effect_unknown()
            })
        });
        match pushed {
            Ok(pushed) => Ok(Self::new(job, pushed)),
            Err(error) => Err(DispatchError { draft: Some(Envelope::from_new_job(job.clone())), error }),
        }
    }

    fn typed<K>(self) -> Dispatched<K> {
        Dispatched { job: self.job, pushed: self.pushed, kind: PhantomData }
    }

    /// The address of the job that now stands: the dispatched one, or the one it conflicted with.
    pub fn job_ref(&self) -> &JobRef {
        &self.job
    }

    /// The id of the job that now stands.
    pub fn id(&self) -> JobId {
        self.job.id
    }

    /// What the engine answered.
    pub fn pushed(&self) -> Pushed {
        self.pushed
    }

    /// Whether a new job was stored.
    pub fn is_new(&self) -> bool {
        matches!(self.pushed, Pushed::Inserted | Pushed::Superseded(_))
    }
}

impl<J> Clone for Dispatched<J> {
    fn clone(&self) -> Self {
        Self { job: self.job.clone(), pushed: self.pushed, kind: PhantomData }
    }
}

impl<J> fmt::Debug for Dispatched<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatched").field("job", &self.job).field("pushed", &self.pushed).finish()
    }
}

/// A dispatch that failed. When it may have been stored all the same ([`Effect::Unknown`]), send the draft again: it keeps
/// its id, so it is stored once.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DispatchError {
    #[source]
    error: Error,
    draft: Option<Envelope<Raw, Draft>>,
}

impl DispatchError {
    /// What went wrong.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }

    /// Whether the job may have been stored all the same.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.error.effect()
    }

    /// The encoded draft, for [`Queue::push`]; `None` when the job could not even be encoded.
    #[must_use]
    pub fn into_draft(self) -> Option<Envelope<Raw, Draft>> {
        self.draft
    }
}

impl From<Error> for DispatchError {
    fn from(error: Error) -> Self {
        Self { error, draft: None }
    }
}

impl From<DispatchError> for Error {
    fn from(error: DispatchError) -> Self {
        error.error
    }
}

/// Many dispatches of which some or all failed.
pub struct DispatchAllError<J> {
    error: Error,
    /// What was stored before the failure, in order.
    pub sent: Vec<Dispatched<J>>,
    /// What was not, in order, for [`Queue::push`]. The first thousand of them may have been stored when the error's effect
    /// is unknown. Empty when the jobs were refused before any was sent.
    pub unsent: Vec<Envelope<Raw, Draft>>,
}

impl<J> DispatchAllError<J> {
    fn before_all(error: Error) -> Self {
        Self { error, sent: Vec::new(), unsent: Vec::new() }
    }

    /// What went wrong.
    pub fn error(&self) -> &Error {
        &self.error
    }
}

impl DispatchAllError<Raw> {
    fn typed<K>(self) -> DispatchAllError<K> {
        let sent = self.sent.into_iter().map(Dispatched::typed).collect();
        DispatchAllError { error: self.error, sent, unsent: self.unsent }
    }
}

impl<J> fmt::Debug for DispatchAllError<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, sent, unsent } = self;
        f.debug_struct("DispatchAllError")
            .field("error", error)
            .field("sent", &sent.len())
            .field("unsent", &unsent.len())
            .finish()
    }
}

impl<J> fmt::Display for DispatchAllError<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} jobs were stored before)", self.error, self.sent.len())
    }
}

impl<J> std::error::Error for DispatchAllError<J> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl<J> From<DispatchAllError<J>> for Error {
    fn from(error: DispatchAllError<J>) -> Self {
        error.error
    }
}
