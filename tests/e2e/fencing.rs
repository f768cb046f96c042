//! Leases and fences between workers: nothing stale is believed.

use windlass::StateKind;
use windlass::core::Backend as _;
use windlass::core::{At, Sweep};
use windlass::prelude::*;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn the_jobs_of_a_killed_worker_run_again_when_their_leases_end() {
    let world = World::new();
    let job = world.dispatch(act("job", Do::Sleep(seconds(5)))).await;
    let doomed = start(world.worker());
    world.pass(seconds(2)).await;
    doomed.kill().await;
    let heir = start(world.worker());
    world.pass(seconds(20)).await;
    assert_eq!(world.state(&job).await, StateKind::Running, "the dead worker's lease still stands");
    world.pass(seconds(25)).await;
    let recorded = world.find(&job).await;
    assert_eq!(recorded.state(), StateKind::Completed);
    assert_eq!(
        (recorded.history().lost_leases, recorded.history().attempts, recorded.history().epoch),
        (1, 1, 2)
    );
    assert_eq!(world.journal.lines(), ["job", "job"]);
    heir.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_frozen_past_its_lease_changes_nothing_when_it_wakes() {
    let world = World::new();
    let job = world.dispatch(act("job", Do::SleepDeaf(seconds(5)))).await;
    let frozen = start(world.worker());
    world.pass(seconds(1)).await;
    // The queue's time passes, the worker's stands still: as if its process had been stopped.
    world.clock.advance(seconds(60));
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    let heir = start(world.worker());
    world.pass(seconds(30)).await;
    let recorded = world.find(&job).await;
    assert_eq!(
        (recorded.state(), recorded.history().epoch, recorded.history().attempts),
        (StateKind::Completed, 2, 1)
    );
    let (frozen, heir) = (frozen.stop().await, heir.stop().await);
    assert_eq!(frozen.completed + heir.completed, 1, "one outcome");
    assert_eq!(frozen.lost + heir.lost, 1, "and one worker that knows it lost");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_extend_stops_its_handlers_before_the_lease_ends_and_claims_nothing() {
    let world = World::new();
    let job = world.dispatch(act("polite", Do::Sleep(hours(1)))).await;
    world.dispatch(act("deaf", Do::SleepDeaf(hours(1)))).await;
    let working = start(world.worker().lease(seconds(30)));
    world.pass(seconds(2)).await;
    world.queue.backend().faults().fail_next(windlass::testing::Verb::Extend, 10_000);
    // Beats are due at 10 s; from the first failure on nothing is claimed.
    world.pass(seconds(10)).await;
    let late = world.dispatch(finish("late")).await;
    world.pass(seconds(10)).await;
    assert_eq!(world.state(&late).await, StateKind::Ready, "it does not trust itself to claim");
    assert_eq!(world.journal.lines(), ["polite", "deaf"], "the leases still have eight seconds");
    // Told at 27 s, dropped at 30 s, counted from before the claim.
    world.pass(seconds(6)).await;
    assert_eq!(world.journal.count("polite told to stop: Some(LeaseLost)"), 1);
    assert_eq!(world.journal.count("deaf dropped"), 0);
    world.pass(seconds(3)).await;
    assert_eq!(world.journal.count("deaf dropped"), 1);
    // The one that returned in time got its verdict in, which the engine still believes: it had not handed the job on.
    assert_eq!(world.find(&job).await.history().attempts, 1);
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn it_claims_again_when_it_can_extend_again() {
    let world = World::new();
    world.dispatch(act("long", Do::Sleep(minutes(2)))).await;
    let working = start(world.worker());
    world.pass(seconds(2)).await;
    world.queue.backend().faults().fail_next(windlass::testing::Verb::Extend, 2);
    world.pass(seconds(9)).await;
    let late = world.dispatch(finish("late")).await;
    world.pass(seconds(10)).await;
    assert_eq!(world.state(&late).await, StateKind::Completed);
    assert_eq!(world.journal.lines(), ["long", "late"], "the long one kept its lease");
    let report = working.stop().await;
    assert_eq!(report.storage_errors, 2);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_lease_is_lost_is_dropped_with_the_next_beat() {
    let world = World::new();
    world.dispatch(act("job", Do::SleepDeaf(hours(1)))).await;
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    world.clock.advance(seconds(60));
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    world.pass(seconds(11)).await;
    assert_eq!(world.journal.count("job dropped"), 1);
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_goes_on_until_nothing_is_left_to_take_back() {
    let world = World::new();
    let sleepers = (0..1_500).map(|n| act(&n.to_string(), Do::SleepDeaf(hours(1))));
    world.queue.dispatch_all(sleepers).await.unwrap();
    let doomed = start(world.worker().concurrency(1_500));
    world.pass(seconds(1)).await;
    doomed.kill().await;
    world.pass(seconds(31)).await;
    let working = start(world.worker().queues(["other"]).sweep_every(seconds(20)));
    let mut taken_back = 0;
    while taken_back == 0 {
        world.pass(milliseconds(100)).await;
        taken_back = 1_500 - world.queue.queues().await.unwrap()[0].counts.get(StateKind::Running);
    }
    assert_eq!(taken_back, 1_500, "a page is a thousand");
    working.stop().await;
}
