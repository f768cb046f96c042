//! An engine that is far away: slow, or silent.

use windlass::StateKind;
use windlass::prelude::*;
use windlass::testing::Verb;

use super::engine::FOR_EVER;
use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_silent_engine_does_not_keep_a_worker_from_stopping() {
    let world = World::new();
    let (far, worker) = world.far();
    far.settles_take(FOR_EVER);
    world.dispatch(finish("job")).await;
    let working = start(worker.shutdown_deadline(seconds(2)));
    world.pass(seconds(1)).await;
    let stopped = working.signal();
    world.pass(milliseconds(3_200)).await;
    assert!(stopped.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_waits_for_a_failing_engine_does_not_outwait_the_shutdown() {
    let world = World::new();
    let (_, worker) = world.far();
    world.queue.backend().faults().fail_next(Verb::Settle, 8);
    let job = world.dispatch(finish("job")).await;
    let working = start(worker.shutdown_deadline(seconds(20)));
    // By now it backs off for seconds.
    world.pass(seconds(9)).await;
    let stopped = working.signal();
    world.pass(seconds(22)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!((report.completed, report.lost), (1, 0));
    assert_eq!(world.state(&job).await, StateKind::Completed);
}
