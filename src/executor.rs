//! One run of one job: from a claimed envelope to its verdict.
//!
//! Payload, dependencies, middleware, handler; around them a panic guard, the time limit, and the worker's hand that can
//! stop it. Whatever happens inside, exactly one verdict comes out, or none when the lease is lost anyway.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use windlass_core::limits::{DELAY_MAX, TEXT_MAX_BYTES, clip};
use windlass_core::{DeadReason, Failure, NewJob, Ruling, Verdict};

use crate::any::AnyBackend;
use crate::codec::panic_text;
use crate::context::{Context, Control, Stop};
use crate::entropy::Entropy;
use crate::envelope::{Envelope, Raw, Running};
use crate::handler::{Decision, FailureCause, RunError};
use crate::middleware::{Ending, Next};
use crate::queue::Queue;
use crate::registry::Jobs;
use crate::retry::Retry;

/// How long the end of a run waits for its last log lines to be taken.
const NOTES_MOST: Duration = Duration::from_secs(5);

/// What a run came to, for counting. The verdict says what is to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ran {
    Completed,
    /// Settled in a transaction, if it committed.
    Settled,
    Retried,
    Snoozed,
    Cancelled,
    Buried,
    /// Stopped by a shutdown after it had started.
    Released,
    /// Handed back without having been started.
    HandedBack,
    /// Stopped because the lease is lost: nobody would believe a verdict.
    Abandoned,
}

/// The end of a run.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ran: Ran,
    pub(crate) verdict: Option<Verdict>,
    /// Why it failed, when it did.
    pub(crate) failure: Option<(FailureCause, String)>,
}

/// Runs jobs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    jobs: Jobs,
    queue: Queue<AnyBackend>,
    entropy: Arc<Entropy>,
}

impl Executor {
    pub(crate) fn new(jobs: Jobs, queue: Queue<AnyBackend>) -> Self {
        let entropy = Arc::clone(queue.entropy());
        Self { jobs, queue, entropy }
    }

    /// Runs one job to its verdict. Dropping the future drops the handler's and settles nothing.
    pub(crate) async fn run(&self, envelope: Envelope<Raw, Running>, control: Arc<Control>) -> Finished {
        let (lease, attempt) = (envelope.state().lease().clone(), envelope.state().attempt());
        let last = attempt >= envelope.max_attempts();
        // The job's own code also runs outside of its handler: as the handler's future is dropped, in the text of an
        // error, in a policy of its own. A panic there must not cost the runner, nor leave the job Running for ever.
        let run = AssertUnwindSafe(self.run_unguarded(envelope, control)).catch_unwind();
        run.await.unwrap_or_else(|panic| {
            let text = panic_text(&*panic);
            let error = Failure::panic(&text);
            let (ran, ruling) = match Retry::DEFAULT.after(attempt, &self.entropy) {
                Some(after) if !last => (Ran::Retried, Ruling::Retry { after, error }),
                _ => (Ran::Buried, Ruling::Bury { error, reason: DeadReason::AttemptsExhausted }),
            };
            let verdict = Some(Verdict::new(lease, ruling));
            Finished { ran, verdict, failure: Some((FailureCause::Panic, text)) }
        })
    }

    async fn run_unguarded(&self, envelope: Envelope<Raw, Running>, control: Arc<Control>) -> Finished {
        let Some(runner) = self.jobs.runner(envelope.kind()) else {
            // A claim names its kinds, so an engine that hands out others is at fault; somebody else can run it.
            tracing::error!(job = %envelope.job_ref(), kind = %envelope.kind(), "claimed a job of an unknown kind; released");
            return Finished { ran: Ran::HandedBack, verdict: Some(envelope.release()), failure: None };
        };
        let Ok(limit) = time_limit(&envelope) else {
            let verdict = envelope.cancel("its deadline had passed".to_owned());
            return Finished { ran: Ran::Cancelled, verdict: Some(verdict), failure: None };
        };
        let retry = runner.retry();
        let mut cx = Context::new(envelope, self.queue.clone(), Arc::clone(&control));
        let ending = {
            let next = Next { layers: self.jobs.layers(), runner };
            let run = AssertUnwindSafe(next.run(&mut cx)).catch_unwind();
            guarded(run, limit, &control).await
        };
        if cx.has_notes() {
            // Nobody's slot is held up for what is for people to read.
            match tokio::time::timeout(NOTES_MOST, cx.flush_notes()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(job = %cx.job_ref(), %error, "could not record the job's log");
                }
                Err(_) => {
                    tracing::warn!(job = %cx.job_ref(), "the engine did not take the job's log in time");
                }
            }
        }
        self.judge(cx, ending, retry)
    }

    /// From how the run ended to what is to be stored.
    fn judge(&self, cx: Context, ending: Result<Ending, Stop>, retry: Retry) -> Finished {
        let (envelope, then) = cx.finish();
        let ok = |ran, verdict, then: Vec<NewJob>| Finished {
            ran,
            verdict: Some(Verdict { then, ..verdict }),
            failure: None,
        };
        match ending {
            Ok(Ending::Completed(output)) => ok(Ran::Completed, envelope.complete(output), then),
            Ok(Ending::Snoozed(after)) => ok(Ran::Snoozed, envelope.snooze(after.min(DELAY_MAX)), then),
            Ok(Ending::Cancelled(reason)) => {
                ok(Ran::Cancelled, envelope.cancel(clip(&reason, TEXT_MAX_BYTES)), then)
            }
            Ok(Ending::Settled(_)) => {
                // If the transaction committed, the fence refuses this; if it was rolled back, the attempt has failed.
                let error =
                    Failure::new("the handler said it settled in a transaction, but that did not commit");
                let after = retry.after(envelope.state().attempt(), &self.entropy);
                let (_, verdict) = again_or_dead(envelope, after, error, DeadReason::AttemptsExhausted);
                ok(Ran::Settled, verdict, Vec::new())
            }
            Ok(Ending::Failed(error)) => self.judge_failure(envelope, &error, retry),
            Err(Stop::LeaseLost) => Finished { ran: Ran::Abandoned, verdict: None, failure: None },
            Err(Stop::Shutdown) => ok(Ran::Released, envelope.release(), Vec::new()),
            Err(Stop::Cancelled) => {
                // The engine knows of the request and makes a retry a cancellation, with the reason that was given.
                let error = Failure::new("stopped after a cancellation");
                ok(Ran::Cancelled, envelope.retry(Duration::ZERO, error), Vec::new())
            }
        }
    }

    fn judge_failure(&self, envelope: Envelope<Raw, Running>, error: &RunError, retry: Retry) -> Finished {
        let text = error.report();
        let failure = match error.cause {
            FailureCause::Panic => Failure::panic(&text),
            _ => Failure::new(&text),
        };
        let attempt = envelope.state().attempt();
        let after = match &error.decision {
            Decision::Cancel(reason) => {
                let verdict = envelope.cancel(clip(reason, TEXT_MAX_BYTES));
                return Finished {
                    ran: Ran::Cancelled,
                    verdict: Some(verdict),
                    failure: Some((error.cause, text)),
                };
            }
            Decision::Bury => None,
            Decision::RetryAfter(after) => Some((*after).min(DELAY_MAX)),
            Decision::Policy => retry.after(attempt, &self.entropy),
        };
        let reason = match (&error.decision, error.cause) {
            (Decision::Bury, FailureCause::Codec) => DeadReason::Undecodable,
            (Decision::Bury, _) => DeadReason::Buried,
            _ => DeadReason::AttemptsExhausted,
        };
        let (ran, verdict) = again_or_dead(envelope, after, failure, reason);
        Finished { ran, verdict: Some(verdict), failure: Some((error.cause, text)) }
    }
}

/// What a failed attempt leads to: a back-off when there is one and attempts are left.
fn again_or_dead(
    envelope: Envelope<Raw, Running>,
    after: Option<Duration>,
    error: Failure,
    reason: DeadReason,
) -> (Ran, Verdict) {
    match after {
        Some(after) if envelope.state().attempt() < envelope.max_attempts() => {
            (Ran::Retried, envelope.retry(after, error))
        }
        _ => (Ran::Buried, envelope.bury(error, reason)),
    }
}

/// The deadline of a job has passed.
struct TooLate;

/// How long the attempt may take: its timeout, or what is left until its deadline.
fn time_limit(envelope: &Envelope<Raw, Running>) -> Result<Option<Duration>, TooLate> {
    let Some(deadline) = envelope.state().deadline() else { return Ok(envelope.timeout()) };
    // It may have been long under way, and waited here for a slot; in whole milliseconds, as the engine counts. Counted
    // from before the claim was sent, so rather too early than too late.
    let waited = u64::try_from(envelope.state().asked.elapsed().as_millis()).unwrap_or(u64::MAX);
    let left = deadline.since(envelope.state().claimed_at()).saturating_sub(Duration::from_millis(waited));
    if left.is_zero() {
        return Err(TooLate);
    }
    Ok(Some(envelope.timeout().map_or(left, |timeout| timeout.min(left))))
}

/// Polls the run to its end under the panic guard, the time limit and the worker's hand.
async fn guarded(
    run: impl Future<Output = std::thread::Result<Ending>>,
    limit: Option<Duration>,
    control: &Control,
) -> Result<Ending, Stop> {
    let caught = |ended: std::thread::Result<Ending>| {
        ended.unwrap_or_else(|panic| {
            Ending::Failed(RunError::caused(FailureCause::Panic, panic_text(&*panic)))
        })
    };
    let mut run = std::pin::pin!(run);
    // Most short jobs are done at the first poll: then no timer and no waiter was needed.
    if let Poll::Ready(ended) = futures::poll!(run.as_mut()) {
        return Ok(caught(ended));
    }
    let limited = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    // That poll counts for this turn: the run is not polled twice in one.
    let mut polled = true;
    let run =
        std::future::poll_fn(
            |cx| {
                if std::mem::take(&mut polled) { Poll::Pending } else { run.as_mut().poll(cx) }
            },
        );
    tokio::select! {
        biased;
        ended = run => Ok(caught(ended)),
        stop = control.out_of_patience() => Err(stop),
        () = limited => {
            let limit = limit.unwrap_or_default();
            Ok(Ending::Failed(RunError::caused(FailureCause::Timeout, format!("timed out after {limit:?}"))))
        }
    }
}
