//! One job in isolation: through the codec, the middleware, the time limit and the panic guard, as in production, on a
//! queue of its own. What comes out is in `performed.rs`.

use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use windlass_core::{Backend, Claim};
use windlass_memory::MemoryBackend;

use super::performed::Performed;
use crate::context::{Context, Control};
use crate::dispatch::Dispatch;
use crate::envelope::Envelope;
use crate::executor::Executor;
use crate::handler::{BoxError, Handler, RunError};
use crate::job::Job;
use crate::middleware::{Ending, Middleware, Next};
use crate::provide::FromContainer;
use crate::queue::Queue;
use crate::registry::{Jobs, Registry};

/// Runs one job by itself; see [`Perform`].
pub fn perform<J: Job>(job: J) -> Perform<J> {
    Perform { job, attempt: 1, options: Box::new(|dispatch| dispatch) }
}

type Options<J> =
    Box<dyn for<'q> FnOnce(Dispatch<'q, J, MemoryBackend>) -> Dispatch<'q, J, MemoryBackend> + Send>;

/// A run of one job that is being put together: say what runs it, and await.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// use windlass::testing::perform;
///
/// #[derive(Serialize, Deserialize, Job)]
/// #[job(name = "greet", max_attempts = 3)]
/// struct Greet;
///
/// impl Handler for Greet {
///     type Deps = ();
///     type Error = Fault;
///
///     async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
///         Err(Fault::retry_after(seconds(8), "nobody there"))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// perform(Greet).with(&()).await.assert_retries_after(seconds(8));
/// perform(Greet).attempt(3).with(&()).await.assert_dead();
/// # }
/// ```
#[must_use = "say what runs it with `with(&app)` or `using(&registry)`, and await that"]
pub struct Perform<J> {
    job: J,
    attempt: u16,
    options: Options<J>,
}

impl<J: Job> Perform<J> {
    /// Makes it this attempt, from 1, which is what it is unless told otherwise.
    pub fn attempt(mut self, attempt: u16) -> Self {
        self.attempt = attempt.max(1);
        self
    }

    /// Dispatches it with options: `.options(|dispatch| dispatch.tag("vip").max_attempts(3))`.
    pub fn options(
        mut self,
        options: impl for<'q> FnOnce(Dispatch<'q, J, MemoryBackend>) -> Dispatch<'q, J, MemoryBackend>
        + Send
        + 'static,
    ) -> Self {
        self.options = Box::new(options);
        self
    }

    /// Runs it by its own handler, with dependencies from a clone of this container.
    pub fn with<C>(self, container: &C) -> Performing<J>
    where
        C: Clone + Send + Sync + 'static,
        J: Handler<J>,
        J::Deps: FromContainer<C>,
    {
        self.using(&Registry::new(container.clone()).register::<J>())
    }

    /// Runs it by what is registered for it, with the registry's middleware around it.
    pub fn using<C: Send + Sync + 'static>(self, jobs: &Registry<C>) -> Performing<J> {
        Performing { perform: self, jobs: jobs.jobs() }
    }
}

impl<J> std::fmt::Debug for Perform<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Perform").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

/// A run of one job; await it to run it.
#[must_use = "a run does nothing until it is awaited"]
pub struct Performing<J> {
    perform: Perform<J>,
    jobs: Jobs,
}

impl<J: Job> IntoFuture for Performing<J> {
    type Output = Performed<J>;
    type IntoFuture = BoxFuture<'static, Performed<J>>;

    /// # Panics
    /// When the job cannot be dispatched (a limit, an encoding that fails), or no handler is registered for it.
    fn into_future(self) -> Self::IntoFuture {
        let Self { perform: Perform { job, attempt, options }, jobs } = self;
        let queue = Queue::<MemoryBackend>::fake();
        // Encoded at once: the job itself need not be shared between threads.
        let draft = options(queue.dispatch(job)).prepare().map(|(_, draft)| draft);
        Box::pin(run(queue, draft, attempt, jobs))
    }
}

impl<J> std::fmt::Debug for Performing<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.perform.fmt(f)
    }
}

async fn run<J: Job>(
    queue: Queue<MemoryBackend>,
    draft: Result<Envelope<crate::envelope::Raw, crate::envelope::Draft>, crate::DispatchError>,
    attempt: u16,
    jobs: Jobs,
) -> Performed<J> {
    let stopped = |error: &dyn std::fmt::Display| -> ! {
        panic!("`{}` could not be performed: {error}", J::NAME);
    };
    let draft = draft.unwrap_or_else(|error| stopped(&error));
    // A delay is a matter of the queue: here it has passed.
    let due = draft.due().resolve(queue.now());
    let sent = queue.push(vec![draft]).await.unwrap_or_else(|error| stopped(&error));
    queue.advance_to(due);
    let seen = Arc::new(Seen::default());
    let jobs = jobs.outermost(Arc::clone(&seen));
    let claim = Claim {
        session: queue.entropy().session(),
        nonce: queue.entropy().nonce(),
        queues: vec![sent[0].job_ref().queue.clone()],
        kinds: jobs.kinds(),
        limit: 1,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    };
    let claimed = queue.backend().claim(&claim, queue.at()).await.unwrap_or_else(|error| stopped(&error));
    let Some(mut job) = claimed.jobs.into_iter().next() else {
        stopped(&"no handler is registered for it, or only one for an older version")
    };
    job.attempts = attempt - 1;
    let max_attempts = job.body.max_attempts;
    let codec = job.body.codec;
    let mark = queue.mark();
    let executor = Executor::new(jobs, queue.erase());
    let envelope = Envelope::claimed(job, claimed.now, tokio::time::Instant::now());
    let finished = executor.run(envelope, Arc::new(Control::default())).await;
    let at_once = queue.since(mark);
    let mark = queue.mark();
    let verdict = finished.verdict.clone();
    if let Some(verdict) = &verdict {
        let settled = queue.backend().settle(std::slice::from_ref(verdict), queue.at()).await;
        settled.unwrap_or_else(|error| stopped(&error));
    }
    let error = seen.error.lock().unwrap_or_else(PoisonError::into_inner).take();
    Performed {
        ran: finished.ran,
        ruling: verdict.map(|verdict| verdict.ruling),
        failure: finished.failure,
        error,
        attempt,
        max_attempts,
        codec,
        state: queue.backend().peek(sent[0].job_ref()).map(|record| record.state.kind()),
        dispatched: at_once,
        then: queue.since(mark),
        of: PhantomData,
    }
}

/// Keeps the error of a run, which the executor turns into text.
#[derive(Default)]
pub(crate) struct Seen {
    error: Mutex<Option<Arc<BoxError>>>,
}

#[async_trait]
impl Middleware for Arc<Seen> {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        match next.run(cx).await {
            Ending::Failed(RunError { error, decision, cause }) => {
                let error = Arc::new(error);
                *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&error));
                Ending::Failed(RunError { error: Box::new(Shared(error)), decision, cause })
            }
            ending => ending,
        }
    }
}

/// The error on its way on: it reads as the one that is kept.
#[derive(Debug)]
struct Shared(Arc<BoxError>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
