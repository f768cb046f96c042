//! Draining: runs what is queued through the real executor, one job at a time, jumping the clock from one due time to the
//! next.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::{Backend, Claim, Inspect, Result, Settled, StateKind};
use windlass_memory::MemoryBackend;

use crate::context::Control;
use crate::envelope::Envelope;
use crate::executor::{Executor, Ran};
use crate::queue::Queue;
use crate::registry::Registry;

/// Runs after which a drain gives up: jobs that keep dispatching each other would never end.
const MOST_RUNS: u64 = 10_000;

/// What a drain did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Jobs that completed.
    pub completed: u64,
    /// Runs that failed and were tried again.
    pub retried: u64,
    /// Runs that snoozed.
    pub snoozed: u64,
    /// Jobs that were called off.
    pub cancelled: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Runs whose verdict was refused, since the lease was lost.
    pub lost: u64,
    /// How far the clock moved.
    pub elapsed: Duration,
    /// What failed, in order: the kind and the error.
    pub failures: Vec<(String, String)>,
    /// Jobs that are left: blocked, paused, or of kinds the registry does not know.
    pub left: u64,
}

impl Drained {
    /// Everything ended well: nothing is dead, called off, lost or left.
    ///
    /// # Panics
    /// When something is; the message says what.
    #[track_caller]
    pub fn assert_clean(&self) {
        let Self { dead, cancelled, lost, left, .. } = self;
        assert!(
            dead + cancelled + lost + left == 0,
            "expected a clean drain, but {dead} jobs are dead, {cancelled} cancelled, {lost} lost, {left} left\n  failures: {:#?}",
            self.failures
        );
    }
}

impl Queue<MemoryBackend> {
    /// Runs jobs until none is left that can run, moving the clock to each due time: retries, delays and snoozes included. One
    /// at a time, by the real executor with codec, middleware, limits and panic guard; what a handler awaits takes real
    /// time. A handler's error is recorded, not raised.
    ///
    /// # Panics
    /// After 10,000 runs, naming the kinds that keep going; and when the queue is no [`fake`](Self::fake), whose clock could
    /// not be moved.
    pub async fn drain<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Drained {
        self.try_drain(jobs)
            .await
            .unwrap_or_else(|error| panic!("the drain met an error of the engine: {error}"))
    }

    async fn try_drain<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Result<Drained> {
        let Some(clock) = self.virtual_clock().cloned() else {
            panic!("only a fake queue can be drained: its clock must be moved; run a Worker on this one");
        };
        let start = clock.now();
        let kinds = jobs.jobs().kinds();
        let executor = Executor::new(jobs.jobs(), self.erase());
        let session = self.entropy().session();
        let mut drained = Drained::default();
        let mut recent: Vec<String> = Vec::new();
        loop {
            let queues =
                self.backend().queues(self.at()).await?.into_iter().map(|queue| queue.name).collect();
            let claim = Claim {
                session,
                nonce: self.entropy().nonce(),
                queues,
                kinds: kinds.clone(),
                limit: 1,
                ahead: 0,
                suspects: true,
                lease: Duration::from_secs(24 * 60 * 60),
            };
            let claimed = self.backend().claim(&claim, self.at()).await?;
            let now = claimed.now;
            let Some(job) = claimed.jobs.into_iter().next() else {
                match claimed.wake_at {
                    _ if claimed.more => continue,
                    Some(due) => {
                        clock.advance_to(due);
                        continue;
                    }
                    None => break,
                }
            };
            recent.push(job.body.kind.to_string());
            assert!(
                (recent.len() as u64) < MOST_RUNS,
                "drain stopped after {MOST_RUNS} runs without becoming empty\n\n  the last jobs were: {}\n  virtual time now: {} (started {start})",
                recent[recent.len() - 12..].join(" -> "),
                clock.now()
            );
            let kind = job.body.kind.to_string();
            let finished = executor.run(Envelope::claimed(job, now), Arc::new(Control::default())).await;
            if let Some((_, text)) = finished.failure {
                drained.failures.push((kind, text));
            }
            if let Some(verdict) = finished.verdict {
                let settled = self.backend().settle(&[verdict], self.at()).await?;
                drained.count(finished.ran, settled.first().copied().unwrap_or(Settled::LeaseLost));
            }
        }
        drained.elapsed = clock.now().since(start);
        drained.left = self.backend().queues(self.at()).await?.iter().map(|queue| queue.counts.live()).sum();
        Ok(drained)
    }
}

impl Drained {
    fn count(&mut self, ran: Ran, settled: Settled) {
        let count = match (ran, settled) {
            (Ran::Settled, Settled::AlreadyApplied | Settled::LeaseLost)
            | (_, Settled::Applied(StateKind::Completed)) => &mut self.completed,
            (_, Settled::LeaseLost | Settled::AlreadyApplied) => &mut self.lost,
            (_, Settled::Applied(StateKind::Cancelled)) => &mut self.cancelled,
            (_, Settled::Applied(StateKind::Dead)) => &mut self.dead,
            (Ran::Snoozed, Settled::Applied(_)) => &mut self.snoozed,
            (_, Settled::Applied(_)) => &mut self.retried,
        };
        *count += 1;
    }
}
