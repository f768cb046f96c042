//! What a handler knows about its run, and what it can do beside returning.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use windlass_core::{
    Backend, Body, JobId, JobRef, Kind, NewJob, Note, Progress, QueueName, Result, Timestamp, Verdict,
};

use crate::any::AnyBackend;
use crate::dispatch::Dispatch;
use crate::envelope::{Envelope, Raw, Running};
use crate::job::Job;
use crate::queue::Queue;
use crate::transaction::Ticket;

/// A run from the inside: which job and attempt it is, whether it should stop, and ways to dispatch, report and settle.
pub struct Context {
    pub(crate) envelope: Envelope<Raw, Running>,
    pub(crate) queue: Queue<AnyBackend>,
    pub(crate) control: Arc<Control>,
    then: Vec<NewJob>,
    /// How many jobs rode with this run so far, over all calls of `then`: the ordinal of the next derived id.
    derived: u32,
    note: Option<Note>,
}

impl Context {
    pub(crate) fn new(
        envelope: Envelope<Raw, Running>,
        queue: Queue<AnyBackend>,
        control: Arc<Control>,
    ) -> Self {
        Self { envelope, queue, control, then: Vec::new(), derived: 0, note: None }
    }

    pub(crate) fn body(&self) -> &Body {
        self.envelope.body()
    }

    /// Ends the context: the envelope, and the jobs that ride with its verdict.
    pub(crate) fn finish(self) -> (Envelope<Raw, Running>, Vec<NewJob>) {
        (self.envelope, self.then)
    }

    /// The identity of the job.
    #[must_use]
    pub fn id(&self) -> JobId {
        self.envelope.id()
    }

    /// The named queue and the id of the job.
    #[must_use]
    pub fn job_ref(&self) -> JobRef {
        self.envelope.job_ref()
    }

    /// The named queue it came from.
    #[must_use]
    pub fn queue_name(&self) -> &QueueName {
        self.envelope.queue()
    }

    /// The name it was stored under: the job's own, or an alias.
    #[must_use]
    pub fn kind(&self) -> &Kind {
        self.envelope.kind()
    }

    /// Which attempt this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u16 {
        self.envelope.state().attempt()
    }

    /// How many attempts it has.
    #[must_use]
    pub fn max_attempts(&self) -> u16 {
        self.envelope.max_attempts()
    }

    /// Whether a failure of this attempt would be the last.
    #[must_use]
    pub fn is_last_attempt(&self) -> bool {
        self.attempt() >= self.max_attempts()
    }

    /// How many leases it lost before: its worker died or froze.
    #[must_use]
    pub fn lost_leases(&self) -> u16 {
        self.envelope.state().lost_leases()
    }

    /// When it was dispatched.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.envelope.state().created_at()
    }

    /// When it is no longer wanted.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.envelope.state().deadline()
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        self.envelope.tags()
    }

    /// The metadata value of `key`.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.envelope.metadata(key)
    }

    /// The encoded payload, for middleware.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.envelope.payload()
    }

    /// The same for every attempt of this job: hand it to services that absorb repeats. It is the job's id.
    #[must_use]
    pub fn idempotency_key(&self) -> JobId {
        self.id()
    }

    /// A number that rises with every claim of this job: hand it to services that refuse what is older than they have seen.
    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence { id: self.id(), epoch: self.envelope.state().lease().epoch }
    }

    /// The right to complete this job within a transaction, together with the jobs it wants `then` so far. Each call takes
    /// those jobs along; see [`Queue::complete_within`].
    pub fn ticket(&mut self) -> Ticket {
        let verdict = Verdict {
            lease: self.envelope.state().lease().clone(),
            ruling: windlass_core::Ruling::Complete { output: None },
            then: std::mem::take(&mut self.then),
        };
        Ticket { verdict, codec: self.body().codec }
    }

    /// Whether the handler should stop: somebody cancelled the job, the worker is shutting down and out of patience, or the
    /// lease is lost.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.control.order().is_some()
    }

    /// Resolves when the handler should stop. After a grace its future is dropped at the next await point: 5 s after a
    /// cancellation, unless the worker was told otherwise.
    pub async fn cancelled(&self) {
        self.control.token().cancelled().await;
    }

    /// The same as a token, to pass on to tasks of the handler's own.
    #[must_use]
    pub fn cancellation_token(&self) -> CancellationToken {
        self.control.token().clone()
    }

    /// Why the handler should stop.
    #[must_use]
    pub fn stop_reason(&self) -> Option<Stop> {
        self.control.reason()
    }

    /// The queue this job came from, without the type of its engine.
    #[must_use]
    pub fn queue(&self) -> &Queue<AnyBackend> {
        &self.queue
    }

    /// Dispatches a job at once, whatever becomes of this run. A run that is repeated dispatches again; see
    /// [`then`](Self::then) for jobs that exist only if this run is recorded.
    pub fn dispatch<J: Job>(&self, job: J) -> Dispatch<'_, J, AnyBackend> {
        self.queue.dispatch(job)
    }

    /// Lets a job exist if and only if this run ends well *and* that is recorded: it rides with the verdict. A run that
    /// fails, panics or loses its lease leaves nothing behind.
    ///
    /// # Errors
    /// Those of a dispatch that break a limit or cannot be encoded; nothing has been sent yet.
    pub fn then<J: Job>(&mut self, job: J) -> Result<JobId> {
        self.then_with(job, |dispatch| dispatch)
    }

    /// [`then`](Self::then) with options: `cx.then_with(Report { .. }, |d| d.on("reports").delay(hours(1)))?`. Ids are derived
    /// from this run; an id given here is kept.
    ///
    /// # Errors
    /// As `then`.
    pub fn then_with<J: Job>(
        &mut self,
        job: J,
        options: impl FnOnce(Dispatch<'_, J, AnyBackend>) -> Dispatch<'_, J, AnyBackend>,
    ) -> Result<JobId> {
        // Derived from this claim: it settles at most once, so the id cannot come up twice, and an outbox that sends twice
        // is absorbed.
        let epoch = self.envelope.state().lease().epoch;
        let id = JobId::derived(self.id(), epoch, self.derived);
        let (_, draft) = options(self.queue.dispatch(job).id(id)).prepare()?;
        let job = draft.into_new_job();
        job.validate()?;
        self.derived += 1;
        let id = job.body.id;
        self.then.push(job);
        Ok(id)
    }

    /// Records how far the run has come, for people, along with the lines logged so far. Costs a round trip.
    ///
    /// # Errors
    /// Those of the engine. A lost lease is no error here: the run is told to stop.
    pub async fn progress(&mut self, percent: u8, note: &str) -> Result<()> {
        self.note().progress = Some(Progress::new(percent, note));
        self.flush_notes().await
    }

    /// Writes a line for people into the job's own log: at most 1 KiB, the last hundred are kept. It is sent with the next
    /// progress, with the twentieth line, or at the end.
    ///
    /// # Errors
    /// Those of the engine, when it is sent now.
    pub async fn log(&mut self, line: impl AsRef<str>) -> Result<()> {
        let note = self.note();
        note.push_line(line.as_ref());
        if note.log.len() < 20 {
            return Ok(());
        }
        self.flush_notes().await
    }

    fn note(&mut self) -> &mut Note {
        let lease = self.envelope.state().lease();
        self.note.get_or_insert_with(|| Note::new(lease.clone()))
    }

    pub(crate) fn has_notes(&self) -> bool {
        self.note.is_some()
    }

    pub(crate) async fn flush_notes(&mut self) -> Result<()> {
        let Some(note) = self.note.take() else { return Ok(()) };
        let taken = self.queue.backend().annotate(&[note], self.queue.at()).await?;
        if taken.first() == Some(&false) {
            self.control.stop(Stop::LeaseLost, Duration::ZERO);
        }
        Ok(())
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("envelope", &self.envelope).finish_non_exhaustive()
    }
}

/// A fencing token: later claims of a job have a higher epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fence {
    /// The job.
    pub id: JobId,
    /// How often it was claimed.
    pub epoch: u64,
}

/// Why a handler should stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Stop {
    /// Somebody cancelled the job.
    Cancelled,
    /// The worker is shutting down and its deadline is near.
    Shutdown,
    /// The lease is lost, or about to be: another worker may have the job.
    LeaseLost,
}

/// The worker's hand on a run.
#[derive(Debug, Default)]
pub(crate) struct Control {
    order: Mutex<Option<Order>>,
    changed: Notify,
    /// Made when the handler first asks: most never do.
    token: OnceLock<CancellationToken>,
}

/// To stop, and by when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) reason: Stop,
    pub(crate) by: Instant,
}

impl Control {
    /// Tells the run to stop; its future is dropped after `grace`. A later order counts when it is tighter.
    pub(crate) fn stop(&self, reason: Stop, grace: Duration) {
        let by = Instant::now() + grace;
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if order.is_none_or(|order| by < order.by) {
            *order = Some(Order { reason, by });
        }
        drop(order);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
        self.changed.notify_one();
    }

    /// The token that is cancelled when the run is told to stop.
    fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // An order that came before the token was made did not see it.
        if self.order().is_some() {
            token.cancel();
        }
        token
    }

    pub(crate) fn order(&self) -> Option<Order> {
        *self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self) -> Option<Stop> {
        self.order().map(|order| order.reason)
    }

    /// Resolves when the run has been told to stop and its grace is over.
    pub(crate) async fn out_of_patience(&self) -> Stop {
        loop {
            let changed = self.changed.notified();
            match self.order() {
                None => changed.await,
                Some(order) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(order.by) => return order.reason,
                    () = changed => {}
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tighter_of_two_orders_to_stop_counts() {
        let control = Control::default();
        control.stop(Stop::Cancelled, Duration::from_secs(5));
        control.stop(Stop::LeaseLost, Duration::from_secs(1));
        control.stop(Stop::Shutdown, Duration::from_secs(3));
        assert_eq!(control.reason(), Some(Stop::LeaseLost));
        assert!(control.token().is_cancelled(), "also for who asks later");
    }
}
