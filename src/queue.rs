//! `Queue<B>`: a handle on one namespace of one engine.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use windlass_core::limits::DELAY_MAX;
use windlass_core::{
    At, Backend, Cancelling, Connect, Cursor, DeadReason, Failure, Filter, Finished, Inspect, JobId, JobRef,
    Manage, Migrate, Migration, NewJob, Pushed, QueueInfo, QueueName, Result, VirtualClock,
};

use crate::any::{AnyBackend, Engine};
use crate::codec::Codec;
use crate::dispatch::{Dispatch, DispatchAll, Dispatched};
use crate::entropy::Entropy;
use crate::envelope::{Draft, Envelope, Raw, Recorded};
use crate::job::Job;
use crate::middleware::OnDispatch;
use crate::testing::{Harness, TokioHands};

/// A handle on one *namespace* of one engine; a *named queue* ("mail") is a lane within it. Cheap to clone.
///
/// ```
/// use windlass::prelude::*;
/// # #[derive(serde::Serialize, serde::Deserialize, Job)]
/// # #[job(name = "greet")]
/// # struct Greet;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windlass::Result<()> {
/// let queue = Queue::<MemoryBackend>::connect("memory:").await?;
/// let greeting = queue.dispatch(Greet).on("mail").delay(hours(1)).await?;
/// queue.cancel(greeting.job_ref(), "changed my mind").await?;
/// # Ok(())
/// # }
/// ```
pub struct Queue<B: Backend> {
    shared: Arc<Shared<B>>,
}

#[derive(Clone)]
struct Shared<B> {
    backend: B,
    codec: Codec,
    clock: Option<VirtualClock>,
    /// What moves the clock along with tokio's, in tests that want it so.
    tokio_hands: Option<Arc<TokioHands>>,
    /// What a test plans for this queue.
    harness: Option<Arc<Harness>>,
    on_dispatch: Vec<Arc<dyn OnDispatch>>,
    ids: Ids,
    entropy: Arc<Entropy>,
}

/// Where ids come from.
#[derive(Clone)]
enum Ids {
    Fresh,
    /// 1, 2, 3: for tests whose output must not change.
    Sequence(Arc<AtomicU64>),
}

impl<B: Backend> Clone for Queue<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B: Backend> fmt::Debug for Queue<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("backend", &self.shared.backend).finish_non_exhaustive()
    }
}

impl<B: Connect> Queue<B> {
    /// Opens the engine at `url`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](windlass_core::ErrorKind::Config) for a URL that cannot work,
    /// [`ErrorKind::Connection`](windlass_core::ErrorKind::Connection) when the engine cannot be reached. No message holds
    /// a password.
    pub async fn connect(url: &str) -> Result<Self> {
        B::connect(url).await.map(Self::new)
    }
}

impl<B: Backend> Queue<B> {
    /// A queue on an engine that is open already.
    #[must_use]
    pub fn new(backend: B) -> Self {
        let shared = Shared {
            backend,
            codec: Codec::default(),
            clock: None,
            tokio_hands: None,
            harness: None,
            on_dispatch: Vec::new(),
            ids: Ids::Fresh,
            entropy: Arc::new(Entropy::from_os()),
        };
        Self { shared: Arc::new(shared) }
    }

    fn change(mut self, change: impl FnOnce(&mut Shared<B>)) -> Self
    where
        B: Clone,
    {
        change(Arc::make_mut(&mut self.shared));
        self
    }

    /// Encodes the payloads of this handle's dispatches with `codec`. Workers read each job by its own.
    #[must_use]
    pub fn codec(self, codec: Codec) -> Self {
        self.change(|shared| shared.codec = codec)
    }

    /// Goes by this clock instead of the engine's, for tests: the namespace is virtual from then on, for life. Every handle
    /// and worker on it needs the same clock.
    #[must_use]
    pub fn clock(self, clock: VirtualClock) -> Self {
        self.change(|shared| shared.clock = Some(clock))
    }

    /// Lets `hook` see, change or refuse every dispatch of this handle.
    #[must_use]
    pub fn on_dispatch(self, hook: impl OnDispatch) -> Self {
        self.change(|shared| shared.on_dispatch.push(Arc::new(hook)))
    }

    /// Numbers ids 1, 2, 3 and draws random numbers from `seed`, so that runs repeat.
    pub(crate) fn deterministic(self, seed: u64) -> Self {
        self.change(|shared| {
            shared.ids = Ids::Sequence(Arc::new(AtomicU64::new(1)));
            shared.entropy = Arc::new(Entropy::seeded(seed));
        })
    }

    /// The engine.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }

    /// The clock this handle goes by, when it is not the engine's.
    #[must_use]
    pub fn virtual_clock(&self) -> Option<&VirtualClock> {
        let clock = self.shared.clock.as_ref()?;
        if let Some(hands) = &self.shared.tokio_hands {
            hands.move_along(clock);
        }
        Some(clock)
    }

    /// Lets the virtual clock move along with tokio's from now on.
    pub(crate) fn slaved_to_tokio(self) -> Self
    where
        B: Clone,
    {
        self.change(|shared| shared.tokio_hands = Some(Arc::new(TokioHands::new())))
    }

    pub(crate) fn is_slaved_to_tokio(&self) -> bool {
        self.shared.tokio_hands.is_some()
    }

    /// Puts it under test: crashes can be planned and jobs run inline.
    pub(crate) fn under_test(self) -> Self
    where
        B: Clone,
    {
        self.change(|shared| shared.harness = Some(Arc::default()))
    }

    pub(crate) fn harness(&self) -> Option<&Arc<Harness>> {
        self.shared.harness.as_ref()
    }

    /// Runs what a test wants to be run as soon as it is dispatched.
    async fn run_inline_jobs(&self) {
        if let Some(running) = self.harness().and_then(|harness| harness.inline()) {
            running.run_due().await;
        }
    }

    /// Sends jobs that were checked.
    pub(crate) async fn send(&self, jobs: &[NewJob]) -> Result<Vec<Pushed>> {
        let pushed = self.backend().push(jobs, self.at()).await?;
        self.run_inline_jobs().await;
        Ok(pushed)
    }

    /// What to tell the engine about time.
    pub(crate) fn at(&self) -> At {
        self.virtual_clock().map_or(At::Server, |clock| At::Instant(clock.now()))
    }

    pub(crate) fn entropy(&self) -> &Arc<Entropy> {
        &self.shared.entropy
    }

    fn next_id(&self) -> JobId {
        match &self.shared.ids {
            Ids::Fresh => JobId::fresh(),
            Ids::Sequence(next) => JobId::sequential(next.fetch_add(1, Ordering::Relaxed)),
        }
    }

    pub(crate) fn draft<J: Job>(&self, job: &J) -> Result<Envelope<Raw, Draft>> {
        Envelope::of(job, self.shared.codec, self.next_id())
    }

    /// Runs the dispatch hooks over a draft.
    pub(crate) fn hook(&self, draft: &mut Envelope<Raw, Draft>) -> Result<()> {
        if draft.state().hooked {
            return Ok(());
        }
        self.shared.on_dispatch.iter().try_for_each(|hook| hook.before(draft))
    }

    /// Puts a job in. Nothing is sent until the returned [`Dispatch`] is awaited.
    pub fn dispatch<J: Job>(&self, job: J) -> Dispatch<'_, J, B> {
        Dispatch::new(self, self.draft(&job))
    }

    /// Puts many jobs in, in this order. Nothing is sent until the returned [`DispatchAll`] is awaited.
    pub fn dispatch_all<J: Job>(&self, jobs: impl IntoIterator<Item = J>) -> DispatchAll<'_, J, B> {
        DispatchAll::new(self, jobs.into_iter().map(|job| self.draft(&job)).collect())
    }

    /// Waits until a dispatched job has ended, at most `max_wait` of real time; `None` when it has not by then. Dropping the
    /// future costs nothing.
    ///
    /// # Errors
    /// Those of the engine, and [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) when the output cannot be read.
    pub async fn wait_for<J: Job>(
        &self,
        dispatched: &Dispatched<J>,
        max_wait: Duration,
    ) -> Result<Option<Ended<J::Output>>> {
        self.wait_for_job::<J>(dispatched.job_ref(), max_wait).await
    }

    /// [`wait_for`](Self::wait_for) by address, for whoever did not dispatch it.
    ///
    /// # Errors
    /// As `wait_for`.
    pub async fn wait_for_job<J: Job>(
        &self,
        job: &JobRef,
        max_wait: Duration,
    ) -> Result<Option<Ended<J::Output>>> {
        let max_wait = max_wait.min(DELAY_MAX);
        let found = self.shared.backend.outcomes(std::slice::from_ref(job), max_wait, self.at()).await?;
        Ok(match found.into_iter().next().flatten() {
            None => None,
            Some(Finished::Completed { output, codec }) => {
                Some(Ended::Completed(crate::envelope::decode_output::<J>(output.as_deref(), codec)?))
            }
            Some(Finished::Cancelled { reason }) => Some(Ended::Cancelled { reason }),
            Some(Finished::Dead { reason, error }) => Some(Ended::Dead { reason, error }),
            Some(Finished::Missing) => Some(Ended::Missing),
        })
    }
}

/// How a job ended, for whoever waited for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended<T> {
    /// With this output.
    Completed(T),
    /// It was called off.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// It failed for good.
    Dead {
        /// Why it is not tried again.
        reason: DeadReason,
        /// The last error.
        error: Option<Failure>,
    },
    /// No such job is stored any more: its retention has passed.
    Missing,
}

impl<T> Ended<T> {
    /// The output, when it completed.
    pub fn completed(self) -> Option<T> {
        match self {
            Self::Completed(output) => Some(output),
            _ => None,
        }
    }
}

impl<B: Inspect> Queue<B> {
    /// A job as it is stored.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn get(&self, job: &JobRef) -> Result<Option<Recorded<Raw>>> {
        Ok(self.shared.backend.get(job, self.at()).await?.map(Recorded::from))
    }

    /// A dispatched job as it is stored, with its payload.
    ///
    /// # Errors
    /// Those of the engine, and [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) when the payload cannot be read.
    pub async fn find<J: Job>(&self, dispatched: &Dispatched<J>) -> Result<Option<Recorded<J>>> {
        self.get(dispatched.job_ref()).await?.map(Recorded::decode).transpose()
    }

    /// One page of the jobs that pass `filter`, by id, and where the next one begins. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// Those of the engine; [`ErrorKind::Invalid`](windlass_core::ErrorKind::Invalid) for a limit out of range or a cursor of
    /// another engine.
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<(Vec<Recorded<Raw>>, Option<Cursor>)> {
        let page = self.shared.backend.list(filter, after, limit, self.at()).await?;
        Ok((page.records.into_iter().map(Recorded::from).collect(), page.next))
    }

    /// All named queues with their counts.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn queues(&self) -> Result<Vec<QueueInfo>> {
        self.shared.backend.queues(self.at()).await
    }
}

/// Steering. The errors are the engine's and those of [`Manage`].
impl<B: Manage> Queue<B> {
    /// Calls a job off: it never starts, or its handler is told.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn cancel(&self, job: &JobRef, reason: &str) -> Result<Cancelling> {
        self.shared.backend.cancel(job, reason, self.at()).await
    }

    /// Makes a dead job Ready again, with all its attempts.
    ///
    /// # Errors
    /// See [`Manage::revive`].
    pub async fn revive(&self, job: &JobRef) -> Result<()> {
        self.shared.backend.revive(job, self.at()).await
    }

    /// Makes a Scheduled job due now.
    ///
    /// # Errors
    /// See [`Manage::run_now`].
    pub async fn run_now(&self, job: &JobRef) -> Result<()> {
        self.shared.backend.run_now(job, self.at()).await
    }

    /// Forgets a finished job.
    ///
    /// # Errors
    /// See [`Manage::delete`].
    pub async fn delete(&self, job: &JobRef) -> Result<()> {
        self.shared.backend.delete(job, self.at()).await
    }

    /// Stops claims from a named queue until [`resume`](Self::resume); what runs goes on.
    ///
    /// # Errors
    /// Those of the engine; [`ErrorKind::Invalid`](windlass_core::ErrorKind::Invalid) for a bad name.
    pub async fn pause(&self, queue: &str) -> Result<()> {
        self.shared.backend.pause(&QueueName::new(queue)?, self.at()).await
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, queue: &str) -> Result<()> {
        self.shared.backend.resume(&QueueName::new(queue)?, self.at()).await
    }
}

impl<B: Migrate> Queue<B> {
    /// What [`migrate`](Self::migrate) would do.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn pending_migrations(&self) -> Result<Vec<Migration>> {
        self.shared.backend.pending().await
    }

    /// Brings the engine's schema up to date. Safe to repeat, and safe from two processes at once.
    ///
    /// # Errors
    /// Those of the engine.
    pub async fn migrate(&self) -> Result<Vec<Migration>> {
        self.shared.backend.migrate().await
    }
}

impl<B: Engine> Queue<B> {
    /// The same queue without the type of its engine, as handlers see it.
    #[must_use]
    pub fn erase(&self) -> Queue<AnyBackend> {
        let Shared { backend, codec, clock, tokio_hands, harness, on_dispatch, ids, entropy } =
            (*self.shared).clone();
        // One that is erased already is not wrapped again.
        let backend = match (&backend as &dyn std::any::Any).downcast_ref::<AnyBackend>() {
            Some(erased) => erased.clone(),
            None => AnyBackend::new(backend),
        };
        Queue {
            shared: Arc::new(Shared {
                backend,
                codec,
                clock,
                tokio_hands,
                harness,
                on_dispatch,
                ids,
                entropy,
            }),
        }
    }
}
