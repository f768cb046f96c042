//! Cancelling: while waiting, while running, and losing the race.

use windlass::prelude::*;
use windlass::{Cancelling, Recorded, StateKind};

use super::support::*;

#[tokio::test]
async fn a_cancelled_waiting_job_never_starts() {
    let world = World::new();
    let ready = world.dispatch(finish("ready")).await;
    let scheduled = world.queue.dispatch(finish("scheduled")).delay(hours(1)).await.unwrap();
    for job in [&ready, &scheduled] {
        assert_eq!(world.queue.cancel(job.job_ref(), "not needed").await.unwrap(), Cancelling::Cancelled);
        let Recorded::Cancelled(envelope) = world.find(job).await else { panic!("cancelled") };
        assert_eq!(envelope.state().reason, "not needed");
        let again = world.queue.cancel(job.job_ref(), "again").await.unwrap();
        assert_eq!(again, Cancelling::AlreadyEnded(StateKind::Cancelled));
    }
    world.queue.drain(&world.jobs).await;
    assert!(world.journal.lines().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_running_job_is_told_at_once_and_may_stop_by_itself() {
    let world = World::new();
    let job = world.dispatch(act("sleeper", Do::Sleep(hours(1)))).await;
    // Full, with a beat every hundred seconds: the wake-up for control must do it.
    let working = start(world.worker().concurrency(1).lease(seconds(300)));
    world.pass(seconds(2)).await;
    assert_eq!(world.queue.cancel(job.job_ref(), "changed my mind").await.unwrap(), Cancelling::Requested);
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines(), ["sleeper", "sleeper told to stop: Some(Cancelled)"]);
    let Recorded::Cancelled(envelope) = world.find(&job).await else { panic!("cancelled") };
    assert_eq!(envelope.state().reason, "changed my mind");
    let report = working.stop().await;
    assert_eq!((report.cancelled, report.retried), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_it_is_dropped_after_the_grace() {
    let world = World::new();
    let job = world.dispatch(act("deaf", Do::SleepDeaf(hours(1)))).await;
    let working = start(world.worker().cancel_grace(seconds(3)));
    world.pass(seconds(2)).await;
    world.queue.cancel(job.job_ref(), "stop it").await.unwrap();
    world.pass(seconds(2)).await;
    assert_eq!(world.journal.lines(), ["deaf"], "it still has its grace");
    assert_eq!(world.state(&job).await, StateKind::Running);
    world.pass(seconds(2)).await;
    assert_eq!(world.journal.lines(), ["deaf", "deaf dropped"]);
    let Recorded::Cancelled(envelope) = world.find(&job).await else { panic!("cancelled") };
    assert_eq!(envelope.state().reason, "stop it");
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_finishes_all_the_same_has_won() {
    let world = World::new();
    let job = world.dispatch(act("quick", Do::SleepDeaf(seconds(4)))).await;
    let working = start(world.worker());
    world.pass(seconds(2)).await;
    assert_eq!(world.queue.cancel(job.job_ref(), "too late").await.unwrap(), Cancelling::Requested);
    world.pass(seconds(5)).await;
    assert_eq!(world.state(&job).await, StateKind::Completed);
    let report = working.stop().await;
    assert_eq!((report.completed, report.cancelled), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn one_of_many_is_cancelled_and_the_others_go_on() {
    let world = World::new();
    let mut jobs = Vec::new();
    for n in 0..8 {
        jobs.push(world.dispatch(act(&format!("{n}"), Do::Sleep(seconds(20)))).await);
    }
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    world.queue.cancel(jobs[3].job_ref(), "this one").await.unwrap();
    world.pass(seconds(30)).await;
    for (n, job) in jobs.iter().enumerate() {
        let expected = if n == 3 { StateKind::Cancelled } else { StateKind::Completed };
        assert_eq!(world.state(job).await, expected, "job {n}");
    }
    working.stop().await;
}
