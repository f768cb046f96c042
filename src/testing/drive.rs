//! The hand behind every drain: a worker in slow motion. It claims, runs one job, settles, and when nothing is due moves
//! the clock. Where its worker is crashed it goes on as a new one, and the leases left behind run out in virtual time.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::{
    Claim, Claimed, ClaimedJob, Error, Filter, QueueName, RecordState, SessionId, Settled, StateKind, Sweep,
    Timestamp, Verdict, VirtualClock,
};

use super::crash::{Breaker, Interrupted, Step, interrupt};
use super::cycle;
use super::drain::{Drained, Options, Stepped, Until};
use crate::any::Engine;
use crate::context::Control;
use crate::envelope::Envelope;
use crate::executor::{Executor, Finished};
use crate::queue::Queue;
use crate::registry::Jobs;

/// As a worker's own default.
const LEASE: Duration = Duration::from_secs(30);
/// How many jobs a shuffled drain has in hand to choose from.
const IN_HAND: usize = 8;
/// How often in a row the engine may fail before that is taken for its state.
const MOST_ERRORS: u32 = 1_000;

/// Calls the engine until it answers.
macro_rules! ask {
    ($drive:ident, $call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => {
                    $drive.errors_in_a_row = 0;
                    break answer;
                }
                Err(error) => $drive.bear(&error).await,
            }
        }
    };
}

pub(crate) struct Drive<'q, B: Engine> {
    queue: &'q Queue<B>,
    executor: Executor,
    breaker: Arc<Breaker>,
    options: Options,
    session: SessionId,
    start: Timestamp,
    drained: Drained,
    /// The kinds that ran, in order.
    ran: Vec<String>,
    /// Jobs that were claimed and not run yet: more than one only when shuffled.
    hand: Vec<(ClaimedJob, Timestamp)>,
    dice: fastrand::Rng,
    errors_in_a_row: u32,
    /// Jobs that were Running when the named queues were last looked at.
    running: u64,
}

impl<'q, B: Engine> Drive<'q, B> {
    pub(crate) fn new(queue: &'q Queue<B>, jobs: Jobs, options: Options) -> Self {
        let Some(clock) = queue.virtual_clock() else {
            panic!("only a fake queue can be drained: its clock must be moved; run a Worker on this one");
        };
        let breaker = Arc::new(Breaker::default());
        Self {
            start: clock.now(),
            executor: Executor::new(jobs.innermost(Arc::clone(&breaker)), queue.erase()),
            breaker,
            session: queue.entropy().session(),
            drained: Drained::default(),
            ran: Vec::new(),
            hand: Vec::new(),
            dice: fastrand::Rng::with_seed(options.shuffled.unwrap_or_default()),
            queue,
            options,
            errors_in_a_row: 0,
            running: 0,
        }
    }

    pub(crate) async fn run(mut self) -> Drained {
        while self.next().await.is_some() {
            self.give_up_if_endless();
        }
        if let Until::Instant(instant) = self.options.until {
            self.pass_until(instant).await;
        }
        self.drained.elapsed = self.clock().now().since(self.start);
        let queues = ask!(self, self.queue.backend().queues(self.queue.at()));
        self.drained.left = queues.iter().map(|queue| queue.counts.live()).sum();
        self.drained
    }

    fn clock(&self) -> &'q VirtualClock {
        self.queue.virtual_clock().expect("checked when the drive was made")
    }

    /// Runs the next job, having moved the clock to it if need be and allowed.
    pub(crate) async fn next(&mut self) -> Option<Stepped> {
        loop {
            let wake_at = self.fill_hand().await;
            if !self.hand.is_empty() {
                let at = if self.options.shuffled.is_some() { self.dice.usize(..self.hand.len()) } else { 0 };
                let (job, claimed_at) = self.hand.swap_remove(at);
                return Some(self.run_one(job, claimed_at).await);
            }
            let lease_end = self.reclaim().await;
            let next = match (wake_at, lease_end) {
                (_, Some(Reclaim::Done)) => continue,
                (wake, Some(Reclaim::At(end))) => wake.map_or(end, |wake| wake.min(end)),
                (wake, None) => wake?,
            };
            let allowed = match self.options.until {
                Until::Empty => true,
                Until::Instant(last) => next <= last,
                Until::Due => next <= self.clock().now(),
            };
            if !allowed {
                return None;
            }
            self.pass_until(next).await;
        }
    }

    /// Lets time pass up to `instant`: tokio's own when the clock is slaved to it.
    async fn pass_until(&self, instant: Timestamp) {
        let wait = instant.since(self.clock().now());
        if self.queue.is_slaved_to_tokio() && !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        self.clock().advance_to(instant);
    }

    /// Claims up to the hand's size; when it stays empty, says when the next job is due.
    async fn fill_hand(&mut self) -> Option<Timestamp> {
        let size = if self.options.shuffled.is_some() { IN_HAND } else { 1 };
        let mut wake_at = None;
        while self.hand.len() < size {
            let queues = ask!(self, self.queue.backend().queues(self.queue.at()));
            self.running = queues.iter().map(|queue| queue.counts.get(StateKind::Running)).sum();
            let mut queues: Vec<QueueName> = queues.into_iter().map(|queue| queue.name).collect();
            if self.options.shuffled.is_some() {
                self.dice.shuffle(&mut queues);
            }
            let claimed = self.claim(queues, size - self.hand.len()).await;
            let (now, none) = (claimed.now, claimed.jobs.is_empty());
            self.hand.extend(claimed.jobs.into_iter().map(|job| (job, now)));
            if none && !claimed.more {
                wake_at = claimed.wake_at;
                break;
            }
        }
        wake_at
    }

    /// As a worker does: what a claim took whose answer was lost is handed back.
    async fn claim(&mut self, queues: Vec<QueueName>, limit: usize) -> Claimed {
        let mut claim = Claim {
            session: self.session,
            nonce: self.queue.entropy().nonce(),
            queues,
            kinds: self.options.kinds.clone(),
            limit,
            ahead: 0,
            suspects: true,
            lease: LEASE,
        };
        loop {
            match self.queue.backend().claim(&claim, self.queue.at()).await {
                Ok(claimed) => {
                    self.errors_in_a_row = 0;
                    return claimed;
                }
                Err(error) => self.bear(&error).await,
            }
            ask!(self, self.queue.backend().hand_back(self.session, Some(claim.nonce), self.queue.at()));
            claim.nonce = self.queue.entropy().nonce();
        }
    }

    async fn run_one(&mut self, job: ClaimedJob, claimed_at: Timestamp) -> Stepped {
        let envelope = Envelope::claimed(job, claimed_at, tokio::time::Instant::now());
        let mut stepped = Stepped {
            job: envelope.job_ref(),
            kind: envelope.kind().to_string(),
            attempt: envelope.state().attempt(),
            state: None,
            error: None,
        };
        self.ran.push(stepped.kind.clone());
        let crash = self.queue.harness().and_then(|harness| harness.next_crash());
        let run = self.executor.run(envelope, Arc::new(Control::default()));
        let finished = match interrupt(run, crash, &self.breaker).await {
            Interrupted::Crashed { waiting } => {
                if waiting && let Some(harness) = self.queue.harness() {
                    harness.note_cut_off();
                }
                self.crash();
                return stepped;
            }
            Interrupted::Finished(finished) => finished,
        };
        let Finished { ran, verdict, failure } = finished;
        stepped.error = failure.map(|(_, text)| text);
        if let Some(error) = &stepped.error {
            let Stepped { kind, attempt, .. } = &stepped;
            assert!(!self.options.strict, "`{kind}` failed in attempt {attempt}: {error}");
            self.drained.failures.push((kind.clone(), error.clone()));
        }
        if let Some(verdict) = verdict {
            let settled = self.settle(verdict).await;
            if let Settled::Applied(state) = settled {
                stepped.state = Some(state);
            }
            self.drained.count(ran, settled);
        }
        if crash == Some(Step::AfterSettle) {
            self.crash();
        }
        stepped
    }

    /// As a worker does: a verdict whose answer was lost is sent again, and what it says then was its own doing.
    async fn settle(&mut self, verdict: Verdict) -> Settled {
        let expected = state_of(&verdict);
        let verdicts = [verdict];
        let errors_before = self.drained.storage_errors;
        let settled = ask!(self, self.queue.backend().settle(&verdicts, self.queue.at()));
        let settled = settled.first().copied().unwrap_or(Settled::LeaseLost);
        let sent_again = self.drained.storage_errors > errors_before;
        if sent_again && settled == Settled::AlreadyApplied { Settled::Applied(expected) } else { settled }
    }

    /// This worker is gone: what it holds lapses, and another one goes on.
    fn crash(&mut self) {
        self.drained.crashed += 1;
        self.hand.clear();
        self.session = self.queue.entropy().session();
    }

    /// Takes back leases that have run out; else says when the next one does.
    async fn reclaim(&mut self) -> Option<Reclaim> {
        if self.running == 0 {
            return None;
        }
        let running = Filter { states: vec![StateKind::Running], ..Filter::default() };
        let page = ask!(
            self,
            self.queue.backend().list(&running, None, windlass_core::limits::PAGE_MAX, self.queue.at())
        );
        let lease_end = |record: &windlass_core::Record| match record.state {
            RecordState::Running { lease_until, .. } => Some(lease_until),
            _ => None,
        };
        let end = page.records.iter().filter_map(lease_end).min()?;
        if end > self.clock().now() {
            return Some(Reclaim::At(end));
        }
        let swept = ask!(self, self.queue.backend().sweep(&Sweep::default(), self.queue.at()));
        (swept.reclaimed + swept.buried + swept.cancelled > 0).then_some(Reclaim::Done)
    }

    /// Waits a second of virtual time after an error that may pass, unless the clock is to stand still.
    async fn bear(&mut self, error: &Error) {
        assert!(error.is_retryable(), "the drain met an error of the engine: {error}");
        self.drained.storage_errors += 1;
        self.errors_in_a_row += 1;
        assert!(
            self.errors_in_a_row < MOST_ERRORS,
            "the engine failed {MOST_ERRORS} times in a row: {error}"
        );
        if self.options.until != Until::Due {
            self.pass_until(self.clock().now().saturating_add(Duration::from_secs(1))).await;
        }
    }

    fn give_up_if_endless(&self) {
        if (self.ran.len() as u64) < self.options.most_runs {
            return;
        }
        panic!(
            "drain stopped after {} runs without becoming empty\n\n  {}\n  virtual time now: {} (started {}), seed {}",
            self.ran.len(),
            cycle::describe(&self.ran),
            self.clock().now(),
            self.start,
            self.queue.entropy().seed().map_or("none".to_owned(), |seed| seed.to_string())
        );
    }
}

enum Reclaim {
    Done,
    At(Timestamp),
}

/// The state that a verdict leads to, as far as the worker can know.
fn state_of(verdict: &Verdict) -> StateKind {
    use windlass_core::Ruling;
    match verdict.ruling {
        Ruling::Complete { .. } => StateKind::Completed,
        Ruling::Cancel { .. } => StateKind::Cancelled,
        Ruling::Retry { .. } | Ruling::Snooze { .. } => StateKind::Scheduled,
        Ruling::Bury { .. } => StateKind::Dead,
        Ruling::Release => StateKind::Ready,
    }
}
