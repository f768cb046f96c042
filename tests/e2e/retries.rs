//! Retries: policies, attempts, and what errors decide.

use std::time::Duration;

use windlass::prelude::*;
use windlass::{DeadReason, Recorded, StateKind, WhyScheduled};

use super::support::*;

#[tokio::test]
async fn a_failed_job_backs_off_and_comes_back() {
    let world = World::new();
    let job = world.dispatch(act("flaky", Do::FailTimes(2))).await;
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.retried, drained.completed), (2, 1));
    assert_eq!(drained.elapsed, seconds(20), "two fixed back-offs of ten seconds");
    assert_eq!(
        drained.failures,
        [("act".to_owned(), "failure 1".to_owned()), ("act".to_owned(), "failure 2".to_owned())]
    );
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Completed, 3));
    assert_eq!(recorded.history().last_error.as_ref().unwrap().message(), "failure 2");
}

#[tokio::test]
async fn while_it_backs_off_it_is_scheduled_and_says_why() {
    let world = World::new();
    let job = world.dispatch(act("fails", Do::Fail("no luck".to_owned()))).await;
    world.worker().until_empty().run().await.unwrap();
    let Recorded::Scheduled(envelope) = world.find(&job).await else { panic!("scheduled") };
    assert_eq!(envelope.state().why, WhyScheduled::Retry);
    assert_eq!(envelope.state().due.since(world.clock.now()), seconds(10));
    assert_eq!(envelope.state().history.attempts, 1);
}

#[tokio::test]
async fn after_its_last_attempt_it_is_dead_and_can_be_revived() {
    let world = World::new();
    let job = world.dispatch(act("doomed", Do::FailTimes(4))).await;
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.retried, drained.dead), (2, 1));
    let Recorded::Dead(envelope) = world.find(&job).await else { panic!("dead") };
    assert_eq!(envelope.state().reason, DeadReason::AttemptsExhausted);
    world.queue.revive(job.job_ref()).await.unwrap();
    let recorded = world.find(&job).await;
    assert_eq!(
        (recorded.state(), recorded.history().attempts, recorded.history().generation),
        (StateKind::Ready, 0, 1)
    );
    // It fails four times in each generation, and has three attempts in each.
    assert_eq!(world.queue.drain(&world.jobs).await.dead, 1);
    assert_eq!(world.find(&job).await.history().epoch, 6, "the epoch is never reset");
}

#[tokio::test]
async fn attempts_of_one_dispatch_can_differ_from_the_jobs() {
    let world = World::new();
    let job = world.queue.dispatch(act("once", Do::Fail("no".to_owned()))).max_attempts(1).await.unwrap();
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.retried, drained.dead), (0, 1));
    assert_eq!(world.find(&job).await.history().attempts, 1);
}

#[tokio::test]
async fn errors_decide_to_bury_cancel_or_retry_after() {
    let world = World::new();
    let buried = world.dispatch(act("bury", Do::Bury("no such user".to_owned()))).await;
    let cancelled = world.dispatch(act("cancel", Do::CancelByError("unsubscribed".to_owned()))).await;
    let given_up = world.dispatch(act("give up", Do::GiveUp("not needed".to_owned()))).await;
    let later = world.dispatch(act("later", Do::RetryAfter(minutes(7)))).await;
    world.worker().until_empty().run().await.unwrap();
    let Recorded::Dead(envelope) = world.find(&buried).await else { panic!("dead") };
    assert_eq!(envelope.state().reason, DeadReason::Buried);
    assert_eq!(envelope.state().history.last_error.as_ref().unwrap().message(), "no such user");
    for (job, reason) in [(&cancelled, "unsubscribed"), (&given_up, "not needed")] {
        let Recorded::Cancelled(envelope) = world.find(job).await else { panic!("cancelled") };
        assert_eq!(envelope.state().reason, reason);
        assert_eq!(envelope.state().history.attempts, 1);
    }
    let Recorded::Scheduled(envelope) = world.find(&later).await else { panic!("scheduled") };
    assert_eq!(envelope.state().due.since(world.clock.now()), minutes(7));
}

#[tokio::test]
async fn retry_after_does_not_escape_max_attempts() {
    let world = World::new();
    world.dispatch(act("busy", Do::RetryAfter(seconds(1)))).await;
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.retried, drained.dead), (2, 1));
    assert_eq!(drained.elapsed, seconds(2));
}

#[tokio::test]
async fn a_snooze_burns_no_attempt() {
    let world = World::new();
    let job = world.dispatch(act("poll", Do::SnoozeUntil(minutes(1)))).await;
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.snoozed, drained.completed), (12, 1));
    assert_eq!(drained.elapsed, minutes(1));
    let recorded = world.find(&job).await;
    assert_eq!((recorded.history().attempts, recorded.history().epoch), (1, 13));
}

#[tokio::test]
async fn a_handler_can_decide_by_its_own_error_type() {
    #[derive(Debug)]
    struct HttpError(u16);
    impl std::fmt::Display for HttpError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "status {}", self.0)
        }
    }
    impl std::error::Error for HttpError {}

    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "fetch", retry = Retry::None)]
    struct Fetch(u16);
    impl Handler for Fetch {
        type Deps = ();
        type Error = HttpError;
        async fn handle(Self(status): Self, (): (), _: &mut Context) -> Result<Outcome, HttpError> {
            Err(HttpError(status))
        }
        fn decide(error: &HttpError) -> Decision {
            match error.0 {
                429 => Decision::RetryAfter(minutes(1)),
                410 => Decision::Cancel("it is gone".to_owned()),
                400..500 => Decision::Bury,
                _ => Decision::Policy,
            }
        }
    }
    let queue = Queue::<MemoryBackend>::fake();
    let jobs = Registry::new(()).register::<Fetch>();
    let mut states = Vec::new();
    for status in [429, 410, 404, 500] {
        let job = queue.dispatch(Fetch(status)).await.unwrap();
        Worker::new(queue.clone(), jobs.clone()).until_empty().run().await.unwrap();
        states.push(queue.find(&job).await.unwrap().unwrap().state());
    }
    // `Retry::None`: the first failure is the last.
    assert_eq!(states, [StateKind::Scheduled, StateKind::Cancelled, StateKind::Dead, StateKind::Dead]);
}

#[tokio::test]
async fn anyhow_errors_keep_their_causes() {
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "deep", max_attempts = 1)]
    struct Deep;
    impl Handler for Deep {
        type Deps = ();
        type Error = anyhow::Error;
        async fn handle(_: Self, (): (), _: &mut Context) -> anyhow::Result<Outcome> {
            use anyhow::Context as _;
            let number: u8 = "x".parse().context("reading the amount").context("charging the card")?;
            unreachable!("{number}")
        }
    }
    let queue = Queue::<MemoryBackend>::fake();
    let job = queue.dispatch(Deep).await.unwrap();
    queue.drain(&Registry::new(()).register::<Deep>()).await;
    let recorded = queue.find(&job).await.unwrap().unwrap();
    let text = recorded.history().last_error.clone().unwrap();
    assert_eq!(text.message(), "charging the card: reading the amount: invalid digit found in string");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_takes_too_long_is_dropped_and_tried_again() {
    let world = World::new();
    let job = world.queue.dispatch(act("slow", Do::SleepDeaf(minutes(1)))).timeout(seconds(5)).await.unwrap();
    let working = start(world.worker());
    world.pass(seconds(6)).await;
    assert_eq!(world.journal.lines(), ["slow", "slow dropped"]);
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Scheduled, 1));
    assert_eq!(recorded.history().last_error.as_ref().unwrap().message(), "timed out after 5s");
    let report = working.stop().await;
    assert_eq!((report.timed_out, report.retried), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_the_start_and_the_run() {
    let world = World::new();
    let late = world.queue.dispatch(finish("late")).delay(seconds(20)).deadline(seconds(10)).await.unwrap();
    let long = world
        .queue
        .dispatch(act("long", Do::SleepDeaf(minutes(1))))
        .deadline(seconds(10))
        .max_attempts(1)
        .await
        .unwrap();
    let working = start(world.worker());
    world.pass(seconds(30)).await;
    assert_eq!(world.journal.lines(), ["long", "long dropped"]);
    let Recorded::Cancelled(envelope) = world.find(&late).await else { panic!("cancelled") };
    assert_eq!(envelope.state().reason, "its deadline had passed");
    let Recorded::Dead(envelope) = world.find(&long).await else { panic!("dead") };
    assert!(envelope.state().history.last_error.as_ref().unwrap().message().starts_with("timed out after"));
    working.stop().await;
}

#[tokio::test]
async fn the_default_policy_is_jittered_and_capped() {
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "default_policy")]
    struct DefaultPolicy;
    impl Handler for DefaultPolicy {
        type Deps = ();
        type Error = Fault;
        async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
            Err(Fault::retry("always"))
        }
    }
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(DefaultPolicy).await.unwrap();
    let drained = queue.drain(&Registry::new(()).register::<DefaultPolicy>()).await;
    assert_eq!((drained.retried, drained.dead), (19, 1), "twenty attempts");
    assert!(drained.elapsed < hours(19), "{:?}", drained.elapsed);
    assert!(drained.elapsed > Duration::from_secs(60), "{:?}", drained.elapsed);
}
