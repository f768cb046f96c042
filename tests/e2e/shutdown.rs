//! Stopping: gracefully, at the deadline, and with jobs that were not started.

use std::time::Duration;

use windlass::StateKind;
use windlass::prelude::*;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn running_jobs_finish_and_nothing_new_starts() {
    let world = World::new();
    let running = world.dispatch(act("running", Do::Sleep(seconds(10)))).await;
    let working = start(world.worker().concurrency(1));
    world.pass(seconds(1)).await;
    let waiting = world.dispatch(finish("waiting")).await;
    let stopped = working.signal();
    world.pass(seconds(20)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!((report.completed, report.released), (1, 0));
    assert_eq!(world.state(&running).await, StateKind::Completed);
    let waiting = world.find(&waiting).await;
    assert_eq!((waiting.state(), waiting.history().epoch), (StateKind::Ready, 0), "never claimed");
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_what_still_runs_is_told_dropped_and_released() {
    let world = World::new();
    let polite = world.dispatch(act("polite", Do::Sleep(hours(1)))).await;
    let deaf = world.dispatch(act("deaf", Do::SleepDeaf(hours(1)))).await;
    let working = start(world.worker().shutdown_deadline(seconds(5)));
    world.pass(seconds(1)).await;
    let begun = tokio::time::Instant::now();
    let stopped = working.signal();
    world.pass(seconds(7)).await;
    let report = stopped.await.unwrap().unwrap();
    assert!(begun.elapsed() <= seconds(8));
    assert_eq!(report.lost, 0);
    let lines = world.journal.lines();
    assert!(lines.contains(&"polite told to stop: Some(Shutdown)".to_owned()), "{lines:?}");
    assert!(lines.contains(&"deaf dropped".to_owned()), "{lines:?}");
    // The polite one returned an error of its own accord: a failed attempt. The deaf one was released, uncounted.
    let polite = world.find(&polite).await;
    assert_eq!((polite.state(), polite.history().attempts), (StateKind::Scheduled, 1));
    let deaf = world.find(&deaf).await;
    assert_eq!((deaf.state(), deaf.history().attempts, deaf.history().lost_leases), (StateKind::Ready, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn jobs_claimed_ahead_are_handed_back_at_once_uncounted_and_in_order() {
    let world = World::new();
    // Short jobs first, so that the worker looks ahead; then one that holds the only slot.
    for n in 0..50 {
        world.dispatch(finish(&format!("{n}"))).await;
    }
    let working = start(world.worker().concurrency(1).shutdown_deadline(seconds(1)));
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines().len(), 50);
    world.dispatch(act("holds", Do::SleepDeaf(hours(1)))).await;
    let mut ahead = Vec::new();
    for n in 0..5 {
        ahead.push(world.dispatch(finish(&format!("ahead {n}"))).await);
    }
    world.pass(seconds(1)).await;
    let stopped = working.signal();
    world.pass(seconds(3)).await;
    stopped.await.unwrap().unwrap();
    for job in &ahead {
        let recorded = world.find(job).await;
        assert_eq!(
            (recorded.state(), recorded.history().attempts, recorded.history().lost_leases),
            (StateKind::Ready, 0, 0)
        );
    }
    world.worker().concurrency(1).at_most_jobs(6).shutdown_deadline(Duration::ZERO).run().await.unwrap();
    let lines = world.journal.lines();
    let again: Vec<_> = lines.iter().filter(|line| line.starts_with("ahead")).collect();
    assert!(again.is_sorted(), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stopped_worker_leaves_no_lease_behind() {
    let world = World::new();
    for n in 0..20 {
        world.dispatch(act(&format!("{n}"), Do::SleepDeaf(hours(1)))).await;
    }
    let working = start(world.worker().shutdown_deadline(Duration::ZERO));
    world.pass(seconds(1)).await;
    let stopped = working.signal();
    world.pass(seconds(2)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!(report.released, 20);
    let counts = world.queue.queues().await.unwrap()[0].counts;
    assert_eq!((counts.get(StateKind::Running), counts.get(StateKind::Ready)), (0, 20));
}

#[tokio::test(start_paused = true)]
async fn more_than_a_thousand_leases_are_handed_back_although_no_verdict_gets_through() {
    let world = World::new();
    world.queue.dispatch_all((0..2_100).map(|n| act(&n.to_string(), Do::SleepDeaf(hours(1))))).await.unwrap();
    let working = start(world.worker().concurrency(2_100).shutdown_deadline(Duration::ZERO));
    world.pass(seconds(1)).await;
    world.queue.backend().faults().fail_next(windlass::testing::Verb::Settle, 100);
    let stopped = working.signal();
    world.pass(seconds(2)).await;
    stopped.await.unwrap().unwrap();
    let counts = world.queue.queues().await.unwrap()[0].counts;
    assert_eq!((counts.get(StateKind::Running), counts.get(StateKind::Ready)), (0, 2_100));
}
