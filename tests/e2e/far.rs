//! An engine that is far away: slow, or silent.

use windlass::StateKind;
use windlass::prelude::*;
use windlass::testing::Verb;

use super::engine::FOR_EVER;
use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_verdict_that_is_on_its_way_at_the_shutdown_is_waited_for() {
    let world = World::new();
    let (far, worker) = world.far();
    far.settles_take(milliseconds(600));
    let job = world.dispatch(finish("job")).await;
    let working = start(worker.shutdown_deadline(seconds(10)));
    world.pass(milliseconds(100)).await;
    let stopped = working.signal();
    world.pass(seconds(12)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!((report.started, report.completed, report.lost, report.released), (1, 1, 0, 0));
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Completed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_takes_no_longer_than_the_call_that_is_under_way() {
    let world = World::new();
    let (far, worker) = world.far();
    far.settles_take(milliseconds(600));
    world.dispatch(finish("job")).await;
    let working = start(worker.shutdown_deadline(seconds(10)));
    world.pass(milliseconds(100)).await;
    let stopped = working.signal();
    world.pass(seconds(1)).await;
    assert!(stopped.is_finished(), "nothing is left to wait for");
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_claim_that_is_on_its_way_at_the_shutdown_are_handed_back() {
    let world = World::new();
    let (far, worker) = world.far();
    far.claims_take(milliseconds(600));
    let job = world.dispatch(finish("job")).await;
    let working = start(worker);
    world.pass(milliseconds(100)).await;
    let stopped = working.signal();
    world.pass(seconds(2)).await;
    stopped.await.unwrap().unwrap();
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().lost_leases), (StateKind::Ready, 0));
    assert!(world.journal.lines().is_empty(), "it was told to stop before the job came");
}

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

#[tokio::test(start_paused = true)]
async fn a_verdict_is_settled_although_the_deadline_of_the_shutdown_is_over() {
    let world = World::new();
    let (far, worker) = world.far();
    far.settles_take(milliseconds(100));
    let job = world.dispatch(act("job", Do::SleepDeaf(seconds(1)))).await;
    let working = start(worker.shutdown_deadline(milliseconds(950)));
    world.pass(milliseconds(100)).await;
    // It ends as the deadline does, with nothing else running then.
    let stopped = working.signal();
    world.pass(seconds(2)).await;
    stopped.await.unwrap().unwrap();
    assert_eq!(world.state(&job).await, StateKind::Completed);
}

#[tokio::test(start_paused = true)]
async fn handlers_are_stopped_in_time_although_the_engine_does_not_answer_the_beats() {
    let world = World::new();
    let (far, worker) = world.far();
    far.extends_take(FOR_EVER);
    world.dispatch(act("polite", Do::Sleep(hours(1)))).await;
    world.dispatch(act("deaf", Do::SleepDeaf(hours(1)))).await;
    let working = start(worker.sweep_every(hours(1)));
    // The beat at 10 s was not answered within the time of another.
    world.pass(seconds(21)).await;
    world.dispatch(finish("late")).await;
    world.pass(milliseconds(5_500)).await;
    assert_eq!(world.journal.lines(), ["polite", "deaf"]);
    world.pass(milliseconds(1_500)).await;
    assert_eq!(world.journal.count("polite told to stop: Some(LeaseLost)"), 1, "told at 27 s");
    assert_eq!(world.journal.count("deaf dropped"), 0);
    world.pass(milliseconds(2_500)).await;
    assert_eq!(world.journal.count("deaf dropped"), 1, "dropped at 30 s");
    assert_eq!(world.journal.count("late"), 0, "it does not trust itself to claim");
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_lease_ended_before_its_claim_was_answered_is_not_started() {
    let world = World::new();
    let (far, worker) = world.far();
    // The answer comes between two looks at the leases.
    far.claims_take(milliseconds(4_050));
    far.settles_take(milliseconds(4_050));
    world.dispatch(finish("job")).await;
    let working = start(worker.lease(seconds(1)).sweep_every(hours(1)));
    world.pass(milliseconds(4_500)).await;
    assert!(world.journal.lines().is_empty(), "another worker may run it");
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn it_polls_although_a_wait_is_never_answered() {
    let world = World::new();
    let (far, worker) = world.far();
    far.waits_take(FOR_EVER);
    let working = start(worker);
    world.pass(seconds(1)).await;
    world.dispatch(finish("job")).await;
    world.pass(seconds(5)).await;
    assert_eq!(world.journal.lines(), ["job"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_failed_is_tried_again_soon_however_rarely_it_polls() {
    let world = World::new();
    world.queue.backend().faults().fail_next(Verb::Wait, 3);
    let working = start(world.worker().poll(hours(1)));
    world.pass(seconds(1)).await;
    world.dispatch(finish("job")).await;
    world.pass(seconds(5)).await;
    assert_eq!(world.journal.lines(), ["job"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_ends_although_its_last_notes_are_not_taken() {
    let world = World::new();
    let (far, worker) = world.far();
    far.notes_take(FOR_EVER);
    let talker = world.dispatch(act("talker", Do::Log(1))).await;
    let next = world.dispatch(finish("next")).await;
    let working = start(worker.concurrency(1));
    world.pass(seconds(15)).await;
    assert_eq!(world.state(&talker).await, StateKind::Completed);
    assert_eq!(world.state(&next).await, StateKind::Completed);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_verdict_keeps_its_lease_until_it_is_settled() {
    let world = World::new();
    let (far, worker) = world.far();
    // It arrives when the lease would have ended.
    far.settles_take(seconds(80));
    let job = world.dispatch(finish("job")).await;
    let working = start(worker);
    world.pass(seconds(1)).await;
    let other = start(world.worker());
    world.pass(seconds(90)).await;
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().epoch), (StateKind::Completed, 1));
    assert_eq!(world.journal.lines(), ["job"]);
    other.stop().await;
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_the_shutdown_could_not_wait_for_is_sent_again() {
    let world = World::new();
    let (far, worker) = world.far();
    far.settles_take(milliseconds(400));
    world.dispatch(finish("job")).await;
    let working = start(worker.shutdown_deadline(milliseconds(100)));
    world.pass(milliseconds(100)).await;
    let stopped = working.signal();
    world.pass(seconds(2)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!((report.completed, report.lost), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_claim_is_followed_by_another_without_a_hint() {
    let world = World::new();
    let (far, worker) = world.far();
    far.waits_take(FOR_EVER);
    let sleepers = (0..1_500).map(|n| act(&n.to_string(), Do::SleepDeaf(hours(1))));
    world.queue.dispatch_all(sleepers).await.unwrap();
    let working = start(worker.concurrency(2_000).poll(hours(1)));
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines().len(), 1_500, "a claim brings a thousand at most");
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_deadline_passed_while_its_claim_was_under_way_is_not_started() {
    let world = World::new();
    let (far, worker) = world.far();
    far.claims_take(seconds(4));
    let late = world.queue.dispatch(finish("late")).deadline(seconds(3)).await.unwrap();
    let soon = world.queue.dispatch(finish("soon")).deadline(seconds(10)).await.unwrap();
    let working = start(worker);
    world.pass(seconds(8)).await;
    assert_eq!(world.journal.lines(), ["soon"]);
    assert_eq!(world.state(&late).await, StateKind::Cancelled);
    assert_eq!(world.state(&soon).await, StateKind::Completed);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_calls_for_control_again_and_again_does_not_make_the_listener_spin() {
    let world = World::new();
    let (far, worker) = world.far();
    // The engine takes no note of a beat, and says again that there is something to hear.
    far.cries_wolf(10_000);
    let working = start(worker);
    world.pass(seconds(1)).await;
    assert!(far.waits() <= 110, "{} waits in a second", far.waits());
    world.dispatch(finish("job")).await;
    world.pass(seconds(2)).await;
    assert_eq!(world.journal.lines(), ["job"], "it polls meanwhile");
    working.kill().await;
}
