//! Crashing a worker on purpose: at which step, and how the run is cut off there.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use windlass_memory::MemoryBackend;

use crate::context::Context;
use crate::executor::Finished;
use crate::middleware::{Ending, Middleware, Next};
use crate::queue::Queue;

/// Where a worker crashes. Nothing is handed back: its leases stay until they run out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Step {
    /// After the claim, before the handler starts.
    BeforeHandler,
    /// When the handler first waits for something; one that never waits crashes when it is done.
    DuringHandler,
    /// When the handler waits for the so-manieth time, from 1.
    AtWait(u32),
    /// When the handler is done and nothing is settled yet: the step that makes handlers run twice.
    AfterHandler,
    /// When the verdict is settled, before anything else.
    AfterSettle,
}

impl Queue<MemoryBackend> {
    /// Crashes the worker of a drain at this step of its next run; planned once more, of the run after that. The drain goes
    /// on as a new worker, which gets the job when the crashed one's lease of 30 s has run out, in virtual time.
    ///
    /// # Panics
    /// When the queue is no [`fake`](Self::fake).
    #[track_caller]
    pub fn crash_worker(&self, step: Step) {
        let Some(harness) = self.harness() else { panic!("only the worker of a fake queue can be crashed") };
        harness.plan_crash(step);
    }
}

/// How a run went that may be cut off.
pub(crate) enum Interrupted {
    /// While the handler waited, or not.
    Crashed {
        waiting: bool,
    },
    Finished(Finished),
}

/// Runs up to the step at which it is to crash. `AfterSettle` is left to the caller.
pub(crate) async fn interrupt(
    run: impl Future<Output = Finished>,
    crash: Option<Step>,
    breaker: &Breaker,
) -> Interrupted {
    let waits = match crash {
        Some(Step::BeforeHandler) => return Interrupted::Crashed { waiting: false },
        Some(Step::DuringHandler) => 1,
        Some(Step::AtWait(wait)) => wait.max(1),
        Some(Step::AfterHandler) => {
            run.await;
            return Interrupted::Crashed { waiting: false };
        }
        Some(Step::AfterSettle) | None => return Interrupted::Finished(run.await),
    };
    breaker.waits_left.store(waits, Ordering::Relaxed);
    let mut run = std::pin::pin!(run);
    // Whether it was cut off or done by then: nothing is settled.
    let waiting = std::future::poll_fn(|cx| match run.as_mut().poll(cx) {
        Poll::Pending if !breaker.is_broken() => Poll::Pending,
        polled => Poll::Ready(polled.is_pending()),
    })
    .await;
    breaker.waits_left.store(NEVER, Ordering::Relaxed);
    Interrupted::Crashed { waiting }
}

/// The innermost layer of every drain: counts how often a handler waits, and says when it is enough. The executor polls a
/// run as it likes, so it cannot be counted further out.
pub(crate) struct Breaker {
    waits_left: AtomicU32,
}

const NEVER: u32 = u32::MAX;

impl Default for Breaker {
    fn default() -> Self {
        Self { waits_left: AtomicU32::new(NEVER) }
    }
}

impl Breaker {
    fn is_broken(&self) -> bool {
        self.waits_left.load(Ordering::Relaxed) == 0
    }

    fn count_wait(&self) {
        let left = self.waits_left.load(Ordering::Relaxed);
        if left != NEVER && left > 0 {
            self.waits_left.store(left - 1, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl Middleware for Arc<Breaker> {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        let mut run = std::pin::pin!(next.run(cx));
        std::future::poll_fn(|cx| {
            if self.is_broken() {
                return Poll::Pending;
            }
            let polled = run.as_mut().poll(cx);
            if polled.is_pending() {
                self.count_wait();
            }
            polled
        })
        .await
    }
}
