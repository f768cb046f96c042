//! What a handler can do with its context.

use serde::{Deserialize, Serialize};
use windlass::core::{At, Backend as _, Sweep};
use windlass::prelude::*;
use windlass::{Fence, JobId, Recorded, StateKind};

use super::support::*;

#[tokio::test]
async fn then_jobs_exist_if_and_only_if_the_run_ended_well_and_was_recorded() {
    let cases = [
        (Do::Finish, true),
        (Do::Snooze(hours(1)), true),
        (Do::GiveUp("done with".to_owned()), true),
        (Do::Fail("no".to_owned()), false),
        (Do::Panic("no".to_owned()), false),
        (Do::Bury("no".to_owned()), false),
    ];
    for (rest, exists) in cases {
        let world = World::new();
        world.dispatch(act("parent", Do::Then("child".to_owned(), Box::new(rest.clone())))).await;
        world.worker().until_empty().run().await.unwrap();
        assert_eq!(world.journal.count("child"), usize::from(exists), "{rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn then_jobs_of_a_run_that_lost_its_lease_do_not_exist() {
    let world = World::new();
    let rest = Box::new(Do::SleepDeaf(seconds(5)));
    let job = world.dispatch(act("parent", Do::Then("child".to_owned(), rest))).await;
    let frozen = start(world.worker());
    world.pass(seconds(1)).await;
    world.clock.advance(seconds(60));
    world.queue.backend().sweep(&Sweep::default(), At::Instant(world.clock.now())).await.unwrap();
    let heir = start(world.worker());
    world.pass(seconds(60)).await;
    assert_eq!(world.state(&job).await, StateKind::Completed);
    assert_eq!(world.journal.count("parent woke"), 2, "both ran to the end");
    assert_eq!(world.journal.count("child"), 1, "and one was believed");
    frozen.stop().await;
    heir.stop().await;
}

#[tokio::test]
async fn each_snooze_can_dispatch_anew() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "poller")]
    struct Poller;
    impl Handler for Poller {
        type Deps = ();
        type Error = Fault;
        async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
            let fence: Fence = cx.fence();
            cx.then_with(finish(&format!("poll {}", fence.epoch)), |dispatch| dispatch.on("reports"))?;
            if fence.epoch < 3 { Ok(Outcome::Snooze(minutes(1))) } else { Ok(Outcome::Done) }
        }
    }
    let world = World::new();
    world.queue.dispatch(Poller).await.unwrap();
    let jobs = world.jobs.clone().register::<Poller>();
    world.queue.drain(&jobs).await.assert_clean();
    assert_eq!(world.journal.lines(), ["poll 1", "poll 2", "poll 3"]);
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "observer", output = Seen, max_attempts = 4, retry = Retry::Fixed(seconds(1)))]
struct Observer;

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Seen {
    id: JobId,
    key: JobId,
    attempt: u16,
    max_attempts: u16,
    last: bool,
    queue: String,
    kind: String,
    tenant: Option<String>,
    tags: Vec<String>,
    lost: u16,
}

impl Handler for Observer {
    type Deps = ();
    type Error = Fault;
    async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome<Seen>, Fault> {
        assert!(!cx.is_cancelled() && cx.stop_reason().is_none() && !cx.cancellation_token().is_cancelled());
        assert!(cx.deadline().is_some() && cx.payload() == b"null" && cx.job_ref().id == cx.id());
        if cx.attempt() < 3 {
            return Err(Fault::retry("not yet"));
        }
        cx.progress(50, "half").await?;
        cx.dispatch(finish("sent at once")).await?;
        Ok(Outcome::Value(Seen {
            id: cx.id(),
            key: cx.idempotency_key(),
            attempt: cx.attempt(),
            max_attempts: cx.max_attempts(),
            last: cx.is_last_attempt(),
            queue: cx.queue_name().to_string(),
            kind: cx.kind().to_string(),
            tenant: cx.metadata("tenant").map(str::to_owned),
            tags: cx.tags().to_vec(),
            lost: cx.lost_leases(),
        }))
    }
}

#[tokio::test]
async fn a_handler_knows_its_job_and_whoever_waits_gets_its_output() {
    let world = World::new();
    let jobs = world.jobs.clone().register::<Observer>();
    let dispatch =
        world.queue.dispatch(Observer).on("lab").tag("blue").tags(["green"]).metadata("tenant", "acme");
    let job = dispatch.deadline(hours(1)).await.unwrap();
    assert_eq!(world.queue.wait_for(&job, std::time::Duration::ZERO).await.unwrap(), None, "not yet");
    world.queue.drain(&jobs).await.assert_clean();
    let seen = world.queue.wait_for(&job, seconds(1)).await.unwrap().unwrap().completed().unwrap();
    let expected = Seen {
        id: job.id(),
        key: job.id(),
        attempt: 3,
        max_attempts: 4,
        last: false,
        queue: "lab".to_owned(),
        kind: "observer".to_owned(),
        tenant: Some("acme".to_owned()),
        tags: vec!["blue".to_owned(), "green".to_owned()],
        lost: 0,
    };
    assert_eq!(seen, expected);
    let Recorded::Completed(envelope) = world.find(&job).await else { panic!("completed") };
    assert_eq!(envelope.output().unwrap(), expected);
    let progress = envelope.state().history.progress.clone().unwrap();
    assert_eq!((progress.percent, &*progress.note), (50, "half"));
    assert_eq!(world.journal.lines(), ["sent at once"]);
}

#[tokio::test]
async fn log_lines_are_kept_also_those_of_a_failed_run() {
    let world = World::new();
    let job = world.dispatch(act("chatty", Do::Log(150))).await;
    world.queue.drain(&world.jobs).await.assert_clean();
    let recorded = world.find(&job).await;
    let log: Vec<&str> = recorded.history().log.iter().map(|line| &*line.text).collect();
    assert_eq!((log.len(), log[0], log[99]), (100, "line 50", "line 149"));
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_job_does_and_tells_how() {
    let world = World::new();
    let done = world.dispatch(act("done", Do::Sleep(seconds(3)))).await;
    let dead = world.dispatch(act("dead", Do::Bury("no".to_owned()))).await;
    let cancelled = world.dispatch(act("cancelled", Do::GiveUp("enough".to_owned()))).await;
    let working = start(world.worker());
    let waiting = tokio::spawn({
        let (queue, done) = (world.queue.clone(), done.clone());
        async move { queue.wait_for(&done, minutes(1)).await }
    });
    world.pass(seconds(5)).await;
    assert_eq!(waiting.await.unwrap().unwrap(), Some(Ended::Completed(())));
    let ended = world.queue.wait_for(&dead, seconds(1)).await.unwrap().unwrap();
    assert!(matches!(&ended, Ended::Dead { error: Some(error), .. } if error.message() == "no"), "{ended:?}");
    assert!(ended.completed().is_none());
    let ended = world.queue.wait_for(&cancelled, seconds(1)).await.unwrap();
    assert_eq!(ended, Some(Ended::Cancelled { reason: "enough".to_owned() }));
    world.queue.delete(done.job_ref()).await.unwrap();
    assert_eq!(world.queue.wait_for(&done, seconds(1)).await.unwrap(), Some(Ended::Missing));
    working.stop().await;
}
