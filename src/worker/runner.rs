//! A runner: one task that runs one job at a time and lives while there is something to run.
//!
//! Starting a task per job costs more than running a short one, so a runner takes the next job as it hands in a verdict.
//! A panic in a handler is caught by the executor; the runner goes on.

use std::sync::Arc;

use tokio::time::Instant;

use super::drive::Shared;
use crate::any::Engine;
use crate::executor::Finished;

pub(crate) async fn run<B: Engine>(shared: Arc<Shared<B>>) {
    let mut begun = Instant::now();
    let mut given = shared.hand().next(shared.must_last_until(begun));
    while let Some(job) = given {
        let (id, kind) = (job.envelope.id(), job.envelope.kind().clone());
        let finished = shared.executor.run(job.envelope, job.control).await;
        if let Some((cause, text)) = &finished.failure {
            tracing::warn!(%id, %kind, ?cause, ran = ?finished.ran, error = %text, "a job failed");
        }
        let drive_is_due;
        // The clock is read once a job: the end of one is the beginning of the next.
        let ended = Instant::now();
        (given, drive_is_due) = hand_in(&shared, job.place, finished, begun, ended);
        begun = ended;
        if drive_is_due {
            // The woken drive stands next in line on this thread, where nobody else can take it: make way.
            tokio::task::yield_now().await;
            begun = Instant::now();
        }
    }
    shared.bell.notify_one();
}

/// Hands in the end of a run and takes the next job, under one lock.
fn hand_in<B: Engine>(
    shared: &Shared<B>,
    place: usize,
    finished: Finished,
    begun: Instant,
    ended: Instant,
) -> (Option<super::hand::Given>, bool) {
    let mut hand = shared.hand();
    let drive_is_due = hand.finished(place, finished, ended - begun);
    let next = hand.next(shared.must_last_until(ended));
    drop(hand);
    if drive_is_due {
        shared.bell.notify_one();
    }
    (next, drive_is_due)
}
