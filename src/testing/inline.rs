//! Inline mode: while its guard lives, each dispatch runs what is due at once, before it returns.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use windlass_core::{Kind, Kinds};
use windlass_memory::MemoryBackend;

use super::drain::{Drain, Drained};
use super::sequence::{JobList, Names};
use crate::any::AnyBackend;
use crate::queue::Queue;
use crate::registry::{Jobs, Registry};

/// How deep a job that dispatches a job that dispatches a job may go before it is taken for one that never ends.
const DEEPEST: usize = 64;

/// While it lives, dispatches to the queue run at once; see [`Queue::run_inline`].
#[must_use = "inline mode ends when this guard is dropped: bind it to `_inline`"]
pub struct Inline {
    queue: Queue<MemoryBackend>,
    running: Arc<Running>,
}

/// The jobs that run inline, and what they came to.
pub(crate) struct Running {
    queue: Queue<AnyBackend>,
    jobs: Jobs,
    kinds: Mutex<Kinds>,
    drained: Mutex<Drained>,
    depth: AtomicUsize,
}

impl Queue<MemoryBackend> {
    /// Runs each dispatch of this queue at once, until the guard is dropped: for a test of a whole flow that is not about
    /// time. Whatever is due and `jobs` can run has run when the dispatch returns, also what its handlers dispatch. Delayed
    /// jobs and retries wait for a drain. A handler's error is recorded, not raised.
    ///
    /// Dispatches within a transaction do not run by themselves: they exist only after the commit.
    ///
    /// ```
    /// # use serde::{Deserialize, Serialize};
    /// use windlass::prelude::*;
    /// # #[derive(Serialize, Deserialize, Job)]
    /// # #[job(name = "greet")]
    /// # struct Greet;
    /// # impl Handler for Greet {
    /// #     type Deps = ();
    /// #     type Error = Fault;
    /// #     async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> { Ok(Outcome::Done) }
    /// # }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> windlass::Result<()> {
    /// let queue = Queue::<MemoryBackend>::fake();
    /// let jobs = Registry::new(()).register::<Greet>();
    /// let inline = queue.run_inline(&jobs);
    /// queue.dispatch(Greet).await?;
    /// assert_eq!(inline.so_far().completed, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// When the queue is no [`fake`](Self::fake), or runs inline already.
    #[track_caller]
    pub fn run_inline<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Inline {
        let Some(harness) = self.harness() else { panic!("only a fake queue runs inline") };
        let jobs = jobs.jobs();
        let running = Arc::new(Running {
            queue: self.erase(),
            kinds: Mutex::new(jobs.kinds()),
            jobs,
            drained: Mutex::default(),
            depth: AtomicUsize::new(0),
        });
        let started = harness.start_inline(Arc::clone(&running));
        assert!(started.is_some(), "this queue runs inline already: drop the other guard first");
        Inline { queue: self.clone(), running }
    }
}

impl Inline {
    /// Runs only these kinds; all others are only recorded, as without inline mode.
    pub fn only<L: JobList>(self) -> Self {
        let names: Vec<&'static str> = L::names().into_iter().flat_map(Names::all).collect();
        let all = self.running.jobs.kinds();
        let keep = |kind: &Kind| names.contains(&kind.as_str());
        let kept = all.iter().filter(|(kind, _)| keep(kind)).map(|(kind, version)| (kind.clone(), version));
        *self.running.kinds.lock().unwrap_or_else(PoisonError::into_inner) = kept.collect();
        self
    }

    /// What has run so far.
    #[must_use]
    pub fn so_far(&self) -> Drained {
        self.running.drained.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        if let Some(harness) = self.queue.harness() {
            harness.stop_inline();
        }
    }
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inline").field("so_far", &self.so_far()).finish_non_exhaustive()
    }
}

/// Counts one level of nesting while it lives.
struct Level<'a>(&'a AtomicUsize);

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Running {
    /// Runs what is due. Called after every dispatch, also by the handlers that run here.
    pub(crate) async fn run_due(&self) {
        let depth = self.depth.fetch_add(1, Ordering::Relaxed);
        let _level = Level(&self.depth);
        assert!(
            depth < DEEPEST,
            "inline mode is {DEEPEST} dispatches deep: jobs keep dispatching each other at once; drain them instead"
        );
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let drained = Drain::new(&self.queue, self.jobs.clone()).due().kinds(kinds).await;
        self.drained.lock().unwrap_or_else(PoisonError::into_inner).add(drained);
    }
}
