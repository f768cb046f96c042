//! The handle, and the contract's verbs as one locked step each.

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Connect, Cursor, Error, ErrorKind, Filter,
    Finished, Held, Inspect, JobRef, Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed,
    QueueInfo, QueueName, Record, Result, Retention, SessionId, Settled, Sweep, Swept, Timestamp, Verdict,
    Wake,
};

use crate::faults::{Faults, Verb};
use crate::recorder::{Dispatched, Recorder};
use crate::store::Store;

/// Settings of a memory engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryOptions {
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// Whether to remember every dispatch for [`MemoryBackend::recorded`]: for tests, since it grows for ever.
    pub record_dispatches: bool,
}

/// The in-memory engine. Clones share one store; it is gone with the last of them.
#[derive(Clone)]
pub struct MemoryBackend {
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    /// Rung when a named queue may have got work, a session something to hear, or a job its end.
    bell: Notify,
    faults: Faults,
    calls: AtomicU64,
}

impl MemoryBackend {
    /// An empty store with default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(MemoryOptions::default())
    }

    /// An empty store.
    #[must_use]
    pub fn with_options(options: MemoryOptions) -> Self {
        let store = Store::new(options.retention, options.record_dispatches);
        Self {
            shared: Arc::new(Shared {
                store: Mutex::new(store),
                bell: Notify::new(),
                faults: Faults::default(),
                calls: AtomicU64::new(0),
            }),
        }
    }

    /// An empty store with a fault of the protocol in it, for the project's simulator.
    #[cfg(feature = "mutants")]
    #[doc(hidden)]
    #[must_use]
    pub fn with_mutant(options: MemoryOptions, mutant: crate::Mutant) -> Self {
        let backend = Self::with_options(options);
        backend.lock().mutant = Some(mutant);
        backend
    }

    /// The plan of what is to go wrong, for tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Every dispatch that was taken in, oldest first, when [`MemoryOptions::record_dispatches`] is on.
    #[must_use]
    pub fn recorded(&self) -> Vec<Dispatched> {
        self.lock().recorded.as_ref().map(Recorder::log).unwrap_or_default()
    }

    /// How many dispatches were recorded so far, forgotten ones included.
    #[must_use]
    pub fn recorded_so_far(&self) -> usize {
        self.lock().recorded.as_ref().map_or(0, Recorder::taken_in)
    }

    /// Forgets the recorded dispatches. The jobs stay.
    pub fn forget_recorded(&self) {
        if let Some(recorded) = &mut self.lock().recorded {
            recorded.forget();
        }
    }

    /// The record of a job, synchronously: tests look between steps.
    #[must_use]
    pub fn peek(&self, job: &JobRef) -> Option<Record> {
        self.lock().get(job)
    }

    /// How many verbs were called so far: what a server would have been asked.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Store> {
        self.shared.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ring(&self) {
        self.shared.bell.notify_waiters();
    }

    fn deliver(&self, store: &mut Store, claim: &Claim, now: Timestamp) -> Claimed {
        let mut claimed = store.claim(claim, now);
        self.shared.faults.tamper(claim, &mut claimed);
        claimed
    }

    async fn step<T>(
        &self,
        verb: Verb,
        at: At,
        step: impl FnOnce(&mut Store, Timestamp) -> Result<T>,
    ) -> Result<T> {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.shared.faults.lag(verb).await;
        self.shared.faults.around(verb, Some(at), || {
            let mut store = self.lock();
            let now = store.tick(at)?;
            step(&mut store, now)
        })
    }
}

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("jobs", &self.lock().jobs.len()).finish()
    }
}

impl Backend for MemoryBackend {
    const NAME: &'static str = "memory";

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: false,
            shared: false,
            atomic_across_queues: true,
            pipelined: false,
            ahead_max: 900,
        }
    }

    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        let pushed = self.step(Verb::Push, at, |store, now| store.push(jobs, now)).await;
        self.ring();
        pushed
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        claim.validate()?;
        self.step(Verb::Claim, at, |store, now| Ok(self.deliver(store, claim, now))).await
    }

    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        let settled = self.step(Verb::Settle, at, |store, now| Ok(store.settle(verdicts, now))).await;
        self.ring();
        settled
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        Verdict::validate_all(verdicts)?;
        claim.validate()?;
        self.shared.faults.lag(Verb::Claim).await;
        let step = self.step(Verb::Settle, at, |store, now| {
            let settled = store.settle(verdicts, now);
            self.shared
                .faults
                .around(Verb::Claim, Some(at), || Ok(self.deliver(store, claim, now)))
                .map(|claimed| (settled, claimed))
                .map_err(Error::effect_unknown)
        });
        let both = step.await;
        self.ring();
        both
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        Claim::validate_lease(lease)?;
        if held.len() > BATCH_MAX {
            return Err(Error::invalid(format!(
                "extend of {} jobs in one call: at most {BATCH_MAX}",
                held.len()
            )));
        }
        self.step(Verb::Extend, at, |store, now| Ok(store.extend(session, held, lease, now))).await
    }

    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> Result<usize> {
        let handed = self.step(Verb::Other, at, |store, now| Ok(store.hand_back(session, nonce, now))).await;
        self.ring();
        handed
    }

    async fn annotate(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        self.step(Verb::Annotate, at, |store, now| Ok(store.annotate(notes, now))).await
    }

    async fn sweep(&self, sweep: &Sweep, at: At) -> Result<Swept> {
        Filter::validate_page(sweep.limit)?;
        let swept = self.step(Verb::Sweep, at, |store, now| Ok(store.sweep(*sweep, now))).await;
        self.ring();
        swept
    }

    async fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Result<Vec<Option<Finished>>> {
        let deadline = tokio::time::Instant::now() + max_wait;
        loop {
            let mut bell = std::pin::pin!(self.shared.bell.notified());
            bell.as_mut().enable();
            let found: Vec<Option<Finished>> = self
                .step(Verb::Other, at, |store, _| Ok(jobs.iter().map(|job| store.finished(job)).collect()))
                .await?;
            let done = found.is_empty() || found.iter().any(Option::is_some);
            if done || tokio::time::timeout_at(deadline, bell).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        self.shared.calls.fetch_add(1, Ordering::Relaxed);
        self.shared.faults.lag(Verb::Wait).await;
        self.shared.faults.around(Verb::Wait, None, || Ok(()))?;
        let deadline = tokio::time::Instant::now() + max;
        loop {
            let mut bell = std::pin::pin!(self.shared.bell.notified());
            bell.as_mut().enable();
            {
                let mut store = self.lock();
                if store.control.remove(&session) {
                    return Ok(Wake::Control);
                }
                let sooner = store.next_due(queues).is_some_and(|next| due.is_none_or(|due| next < due));
                if sooner || store.has_work(queues) {
                    return Ok(Wake::Work);
                }
            }
            if tokio::time::timeout_at(deadline, bell).await.is_err() {
                return Ok(Wake::Nothing);
            }
        }
    }

    async fn now(&self, at: At) -> Result<Timestamp> {
        self.step(Verb::Other, at, |_, now| Ok(now)).await
    }
}

impl Inspect for MemoryBackend {
    async fn get(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        self.step(Verb::Other, at, |store, _| Ok(store.get(job))).await
    }

    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        Filter::validate_page(limit)?;
        self.step(Verb::Other, at, |store, _| store.list(filter, after, limit)).await
    }

    async fn queues(&self, at: At) -> Result<Vec<QueueInfo>> {
        self.step(Verb::Other, at, |store, _| Ok(store.queues())).await
    }
}

impl Manage for MemoryBackend {
    async fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        let cancelled = self.step(Verb::Other, at, |store, now| Ok(store.cancel(job, reason, now))).await;
        self.ring();
        cancelled
    }

    async fn revive(&self, job: &JobRef, at: At) -> Result<()> {
        let revived = self.step(Verb::Other, at, |store, now| store.revive(job, now)).await;
        self.ring();
        revived
    }

    async fn run_now(&self, job: &JobRef, at: At) -> Result<()> {
        let done = self.step(Verb::Other, at, |store, now| store.run_now(job, now)).await;
        self.ring();
        done
    }

    async fn delete(&self, job: &JobRef, at: At) -> Result<()> {
        self.step(Verb::Other, at, |store, now| store.delete(job, now)).await
    }

    async fn pause(&self, queue: &QueueName, at: At) -> Result<()> {
        self.step(Verb::Other, at, |store, _| {
            store.set_paused(queue, true);
            Ok(())
        })
        .await
    }

    async fn resume(&self, queue: &QueueName, at: At) -> Result<()> {
        let resumed = self
            .step(Verb::Other, at, |store, _| {
                store.set_paused(queue, false);
                Ok(())
            })
            .await;
        self.ring();
        resumed
    }
}

impl Connect for MemoryBackend {
    const SCHEMES: &'static [&'static str] = &["memory"];

    /// `memory:` opens an empty store of its own; two calls share nothing.
    fn connect(url: &str) -> impl Future<Output = Result<Self>> + Send {
        let opened = match url {
            "memory:" | "memory://" => Ok(Self::new()),
            _ => Err(Error::new(ErrorKind::Config, "a memory engine has no address: use the URL `memory:`")),
        };
        std::future::ready(opened)
    }
}

impl Migrate for MemoryBackend {
    /// Nothing: memory has no schema.
    async fn pending(&self) -> Result<Vec<Migration>> {
        Ok(Vec::new())
    }

    /// Does nothing: memory has no schema.
    async fn migrate(&self) -> Result<Vec<Migration>> {
        Ok(Vec::new())
    }
}
