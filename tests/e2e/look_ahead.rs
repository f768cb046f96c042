//! Jobs claimed ahead: held, not started, and still everybody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use windlass::core::{At, Backend as _, Claim, Kind, Nonce, QueueName, SessionId, Sweep};
use windlass::prelude::*;
use windlass::{Dispatched, StateKind};

use super::engine::{FOR_EVER, Far};
use super::support::*;

/// A worker with one slot, busy with a job called "holds", which has claimed the given jobs ahead.
async fn holding(
    world: &World,
    holds: Duration,
    ahead: impl IntoIterator<Item = Act>,
) -> (Working, Dispatched<Act>, Vec<Dispatched<Act>>) {
    let (far, worker) = world.far();
    holding_with(world, &far, short_of(worker), holds, ahead).await
}

/// The same, with a worker of one slot over `far`.
async fn holding_with(
    world: &World,
    far: &Far,
    worker: Worker<Far>,
    holds: Duration,
    ahead: impl IntoIterator<Item = Act>,
) -> (Working, Dispatched<Act>, Vec<Dispatched<Act>>) {
    far.claims_take(milliseconds(20));
    far.settles_take(milliseconds(20));
    // Short jobs first, and an engine that is far away: it is worth looking ahead.
    world.queue.dispatch_all((0..50).map(|n| finish(&format!("short {n}")))).await.unwrap();
    let working = start(worker);
    world.pass(seconds(2)).await;
    assert_eq!(world.journal.lines().len(), 50);
    let holds = world.dispatch(act("holds", Do::SleepDeaf(holds))).await;
    let mut jobs = Vec::new();
    for job in ahead {
        jobs.push(world.dispatch(job).await);
    }
    world.pass(milliseconds(400)).await;
    for job in &jobs {
        assert_eq!(world.state(job).await, StateKind::Running, "it is claimed");
    }
    assert_eq!(world.journal.lines().last().unwrap(), "holds", "and not started");
    (working, holds, jobs)
}

fn short_of(worker: Worker<Far>) -> Worker<Far> {
    worker.concurrency(1).shutdown_deadline(seconds(1))
}

fn names(count: usize) -> Vec<Act> {
    (0..count).map(|n| finish(&format!("ahead {n}"))).collect()
}

#[tokio::test(start_paused = true)]
async fn they_are_handed_back_at_the_shutdown_uncounted_and_in_order() {
    let world = World::new();
    let (working, _, ahead) = holding(&world, hours(1), names(5)).await;
    let stopped = working.signal();
    world.pass(milliseconds(500)).await;
    for job in &ahead {
        assert_eq!(world.state(job).await, StateKind::Ready, "at once, not at the deadline");
    }
    world.pass(seconds(3)).await;
    stopped.await.unwrap().unwrap();
    for job in &ahead {
        let recorded = world.find(job).await;
        let history = recorded.history();
        assert_eq!(
            (recorded.state(), history.attempts, history.lost_leases, history.epoch),
            (StateKind::Ready, 0, 0, 1)
        );
    }
    world.worker().concurrency(1).at_most_jobs(6).run().await.unwrap();
    let lines = world.journal.lines();
    let again = &lines[lines.len() - 7..];
    assert_eq!(again, ["holds", "holds woke", "ahead 0", "ahead 1", "ahead 2", "ahead 3", "ahead 4"]);
}

#[tokio::test(start_paused = true)]
async fn they_keep_their_leases_for_as_long_as_they_wait() {
    let world = World::new();
    let (working, _, ahead) = holding(&world, minutes(3), names(3)).await;
    let other = start(world.worker().concurrency(4));
    world.pass(minutes(4)).await;
    for job in &ahead {
        let recorded = world.find(job).await;
        assert_eq!((recorded.state(), recorded.history().epoch), (StateKind::Completed, 1));
    }
    working.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_death_of_their_worker_counts_no_lost_lease_for_them() {
    let world = World::new();
    let (working, holds, ahead) = holding(&world, hours(1), names(3)).await;
    // Long enough for a beat to name them.
    world.pass(seconds(15)).await;
    working.kill().await;
    world.pass(seconds(31)).await;
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    assert_eq!(world.find(&holds).await.history().lost_leases, 1);
    for job in &ahead {
        let recorded = world.find(job).await;
        assert_eq!((recorded.state(), recorded.history().lost_leases), (StateKind::Ready, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_death_of_their_worker_counts_no_lost_lease_for_them_while_they_are_being_handed_back() {
    let world = World::new();
    let (far, worker) = world.far();
    let worker = worker.concurrency(1).shutdown_deadline(hours(1));
    let (working, holds, ahead) = holding_with(&world, &far, worker, hours(1), names(3)).await;
    // What hands them back never arrives, and the beats meanwhile name them.
    far.settles_take(FOR_EVER);
    let stopping = working.signal();
    world.pass(seconds(15)).await;
    stopping.abort();
    world.pass(seconds(31)).await;
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    assert_eq!(world.find(&holds).await.history().lost_leases, 1);
    for job in &ahead {
        let recorded = world.find(job).await;
        assert_eq!((recorded.state(), recorded.history().lost_leases), (StateKind::Ready, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_never_starts() {
    let world = World::new();
    let (working, _, ahead) = holding(&world, seconds(20), names(5)).await;
    world.queue.cancel(ahead[2].job_ref(), "not needed").await.unwrap();
    world.pass(seconds(1)).await;
    assert_eq!(world.state(&ahead[2]).await, StateKind::Cancelled, "at once, not when its turn comes");
    world.pass(seconds(25)).await;
    assert_eq!(world.journal.count("ahead 2"), 0);
    assert_eq!(world.journal.count("ahead 3"), 1);
    let report = working.stop().await;
    assert_eq!((report.cancelled, report.completed, report.released), (1, 55, 0));
}

#[tokio::test(start_paused = true)]
async fn one_whose_deadline_passes_while_it_waits_is_not_started() {
    let world = World::new();
    let (working, _, _) = holding(&world, seconds(20), names(1)).await;
    let late = world.queue.dispatch(finish("late")).deadline(seconds(5)).await.unwrap();
    let soon = world.queue.dispatch(finish("soon")).deadline(seconds(60)).await.unwrap();
    world.pass(seconds(25)).await;
    assert_eq!(world.state(&late).await, StateKind::Cancelled);
    assert_eq!(world.state(&soon).await, StateKind::Completed);
    assert_eq!(world.journal.count("late"), 0);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_lost_its_lease_gets_its_turn_although_the_worker_is_always_ahead() {
    let world = World::new();
    let (far, worker) = world.far();
    far.claims_take(milliseconds(20));
    far.settles_take(milliseconds(20));
    let brief = |n: usize| act(&n.to_string(), Do::SleepDeaf(milliseconds(5)));
    world.queue.dispatch_all((0..4_000).map(brief)).await.unwrap();
    let working = start(worker.concurrency(1).sweep_every(milliseconds(200)));
    world.pass(seconds(1)).await;
    // Somebody else takes a job and dies.
    let claim = Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![QueueName::from_static("default")],
        kinds: [(Kind::from_static("act"), 1)].into_iter().collect(),
        limit: 1,
        ahead: 0,
        suspects: false,
        lease: seconds(1),
    };
    let claimed = world.queue.backend().claim(&claim, At::Instant(world.clock.now())).await.unwrap();
    let victim = claimed.jobs[0].lease.job.clone();
    world.pass(seconds(5)).await;
    let recorded = world.queue.get(&victim).await.unwrap().unwrap();
    assert_eq!(recorded.history().lost_leases, 1);
    assert_eq!(recorded.state(), StateKind::Completed);
    let counts = world.queue.queues().await.unwrap()[0].counts;
    assert!(counts.get(StateKind::Ready) > 1_000, "the others have not run out");
    working.kill().await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_lease_was_lost_while_it_waited_is_not_started() {
    let world = World::new();
    let (working, _, ahead) = holding(&world, seconds(20), names(3)).await;
    // The queue's time passes, the worker's stands still: as if its process had been stopped.
    world.clock.advance(seconds(60));
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    let heir = start(world.worker().concurrency(4));
    world.pass(minutes(2)).await;
    for (n, job) in ahead.iter().enumerate() {
        assert_eq!(world.state(job).await, StateKind::Completed);
        assert_eq!(world.journal.count(&format!("ahead {n}")), 1);
    }
    let (frozen, _) = (working.stop().await, heir.stop().await);
    assert_eq!(frozen.lost, 4, "the one that ran, and three that waited");
}

#[tokio::test(start_paused = true)]
async fn those_that_wait_while_the_process_stands_still_past_their_leases_are_handed_back() {
    let world = World::new();
    let (far, worker) = world.far();
    let short = (0..12).map(|n| act(&format!("ahead {n}"), Do::Sleep(milliseconds(15))));
    let (working, _, ahead) = holding_with(&world, &far, short_of(worker), seconds(1), short).await;
    let begun = Arc::new(AtomicUsize::new(0));
    let (lines, noted) = (world.journal.clone(), Arc::clone(&begun));
    far.freezes_while_it_settles(hours(1), move || {
        let ahead = lines.lines().iter().filter(|line| line.starts_with("ahead")).count();
        noted.store(ahead, Ordering::Relaxed);
    });
    world.pass(seconds(10)).await;
    let mut first = 0;
    for job in &ahead {
        let recorded = world.find(job).await;
        assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Completed, 1));
        first += usize::from(recorded.history().epoch == 1);
    }
    assert!(first < ahead.len(), "it stood still when all was over");
    assert_eq!(first, begun.load(Ordering::Relaxed), "the others were handed back, and claimed again");
    working.stop().await;
}
