//! Workers that stop by themselves.

use windlass::StateKind;
use windlass::prelude::*;
use windlass::testing::Verb;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn until_empty_runs_what_is_ready_and_leaves_what_is_due_later() {
    let world = World::new();
    for n in 0..100 {
        world.dispatch(finish(&n.to_string())).await;
    }
    let later = world.queue.dispatch(finish("later")).delay(seconds(1)).await.unwrap();
    let report = world.worker().until_empty().run().await.unwrap();
    assert_eq!(report.completed, 100);
    assert_eq!(world.state(&later).await, StateKind::Scheduled);
    let report = world.worker().until_empty().run().await.unwrap();
    assert_eq!(report.started, 0);
}

#[tokio::test(start_paused = true)]
async fn until_empty_includes_what_the_jobs_themselves_dispatch() {
    let world = World::new();
    let third = Do::Then("third".to_owned(), Box::new(Do::Finish));
    world.dispatch(act("first", Do::Then("second".to_owned(), Box::new(third)))).await;
    let report = world.worker().until_empty().run().await.unwrap();
    assert_eq!(report.completed, 3);
}

#[tokio::test(start_paused = true)]
async fn at_most_jobs_starts_exactly_so_many() {
    let world = World::new();
    for n in 0..100 {
        world.dispatch(finish(&n.to_string())).await;
    }
    for concurrency in [1, 7, 64] {
        let before = world.journal.lines().len();
        let report = world.worker().concurrency(concurrency).at_most_jobs(10).run().await.unwrap();
        assert_eq!(
            (report.started, report.completed, report.released),
            (10, 10, 0),
            "concurrency {concurrency}"
        );
        assert_eq!(world.journal.lines().len() - before, 10);
    }
    let counts = world.queue.queues().await.unwrap()[0].counts;
    assert_eq!((counts.get(StateKind::Ready), counts.get(StateKind::Running)), (70, 0));
}

#[tokio::test(start_paused = true)]
async fn at_most_time_stops_claiming_and_finishes_what_runs() {
    let world = World::new();
    for n in 0..10 {
        world.dispatch(act(&n.to_string(), Do::Sleep(seconds(4)))).await;
    }
    let worker = world.worker().concurrency(1).at_most_time(seconds(10));
    let task = tokio::spawn(worker.run());
    world.pass(seconds(30)).await;
    let report = task.await.unwrap().unwrap();
    assert_eq!((report.started, report.completed), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_burst_finishes_what_it_started_however_long_that_takes() {
    let world = World::new();
    let bounds: [fn(Worker<MemoryBackend>) -> Worker<MemoryBackend>; 2] =
        [|worker| worker.at_most_jobs(1), |worker| worker.at_most_time(seconds(1))];
    for bound in bounds {
        let long = world.dispatch(act("long", Do::Sleep(minutes(5)))).await;
        let task = tokio::spawn(bound(world.worker().shutdown_deadline(seconds(5))).run());
        world.pass(minutes(6)).await;
        let report = task.await.unwrap().unwrap();
        assert_eq!((report.started, report.completed, report.released), (1, 1, 0));
        assert_eq!(world.state(&long).await, StateKind::Completed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_finishes_can_be_told_to_stop() {
    let world = World::new();
    let long = world.dispatch(act("long", Do::SleepDeaf(minutes(5)))).await;
    let working = start(world.worker().at_most_jobs(1).shutdown_deadline(seconds(5)));
    world.pass(seconds(10)).await;
    let stopped = working.signal();
    world.pass(seconds(6)).await;
    assert_eq!(stopped.await.unwrap().unwrap().released, 1);
    assert_eq!(world.state(&long).await, StateKind::Ready);
}

#[tokio::test(start_paused = true)]
async fn until_empty_goes_on_with_what_a_verdict_made_while_it_could_not_claim() {
    let world = World::new();
    let first = Do::Then("second".to_owned(), Box::new(Do::Sleep(seconds(15))));
    world.dispatch(act("first", first)).await;
    // From the beat at 6.7 s on it does not trust itself to claim; the verdict at 15 s is settled all the same.
    world.queue.backend().faults().fail_next(Verb::Extend, 12);
    let task = tokio::spawn(world.worker().lease(seconds(20)).until_empty().run());
    world.pass(seconds(60)).await;
    let report = task.await.unwrap().unwrap();
    assert!(report.storage_errors >= 4, "beats failed until after the verdict: {report:?}");
    assert_eq!(report.completed, 2);
    assert_eq!(world.journal.lines(), ["first", "second"]);
}
