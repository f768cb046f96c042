//! A runner: one task that runs one job at a time and lives while there is something to run.
//!
//! Starting a task per job costs more than running a short one, so a runner takes the next job as it hands in a verdict.
//! A panic in a handler is caught by the executor; the runner goes on.

use std::sync::Arc;

use tokio::time::Instant;

use super::drive::Shared;
use super::hand::Given;
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
        // The clock is read once a job: the end of one is the beginning of the next.
        let ended = Instant::now();
        given = match hand_in(&shared, job.place, finished, begun, ended) {
            Next::Begins(next) => {
                begun = ended;
                next
            }
            Next::Waits => {
                // The woken drive stands next in line on this thread, where nobody else can take it: make way. Without a
                // job: whoever stood still meanwhile would start it on a lease that is over.
                tokio::task::yield_now().await;
                begun = Instant::now();
                shared.hand().next(shared.must_last_until(begun))
            }
        };
    }
    shared.bell.notify_one();
}

/// What a runner does after a job.
enum Next {
    /// It runs this one; without one it retires.
    Begins(Option<Given>),
    /// It lets the drive go first.
    Waits,
}

/// Hands in the end of a run and, unless the drive is due, takes the next job under the same lock.
fn hand_in<B: Engine>(
    shared: &Shared<B>,
    place: usize,
    finished: Finished,
    begun: Instant,
    ended: Instant,
) -> Next {
    let mut hand = shared.hand();
    if hand.finished(place, finished, ended - begun) {
        drop(hand);
        shared.bell.notify_one();
        return Next::Waits;
    }
    Next::Begins(hand.next(shared.must_last_until(ended)))
}
