//! The worker's everyday life.

use std::time::Duration;

use windlass::{Priority, StateKind};

use super::support::*;
use windlass::prelude::*;

#[tokio::test(start_paused = true)]
async fn it_runs_what_is_dispatched_before_and_after_it_started() {
    let world = World::new();
    let before = world.dispatch(finish("before")).await;
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    let after = world.dispatch(finish("after")).await;
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines(), ["before", "after"]);
    for job in [&before, &after] {
        let recorded = world.find(job).await;
        assert_eq!(recorded.state(), StateKind::Completed);
        assert_eq!((recorded.history().attempts, recorded.history().epoch), (1, 1));
    }
    let report = working.stop().await;
    assert_eq!((report.started, report.completed, report.lost), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_woken_at_once_not_at_the_next_poll() {
    let world = World::new();
    let working = start(world.worker().poll(hours(1)));
    world.pass(seconds(5)).await;
    world.dispatch(finish("now")).await;
    // No time passes at all: only tasks run.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.journal.lines(), ["now"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn delayed_jobs_start_when_they_are_due_and_not_before() {
    let world = World::new();
    let working = start(world.worker().poll(minutes(10)));
    world.queue.dispatch(finish("later")).delay(minutes(5)).await.unwrap();
    world.pass(minutes(5) - Duration::from_millis(200)).await;
    assert!(world.journal.lines().is_empty());
    world.pass(Duration::from_millis(400)).await;
    assert_eq!(world.journal.lines(), ["later"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn priority_goes_before_order_of_arrival() {
    let world = World::new();
    for (name, priority) in [
        ("low", Priority::LOW),
        ("normal 1", Priority::NORMAL),
        ("high", Priority::HIGH),
        ("normal 2", Priority::NORMAL),
    ] {
        world.queue.dispatch(finish(name)).priority(priority).await.unwrap();
    }
    world.worker().concurrency(1).until_empty().run().await.unwrap();
    assert_eq!(world.journal.lines(), ["high", "normal 1", "normal 2", "low"]);
}

#[tokio::test(start_paused = true)]
async fn strict_order_empties_the_first_queue_first() {
    let world = World::new();
    for n in 0..3 {
        world.queue.dispatch(finish(&format!("bulk {n}"))).on("bulk").await.unwrap();
        world.queue.dispatch(finish(&format!("mail {n}"))).on("mail").await.unwrap();
    }
    world.queue.dispatch(finish("elsewhere")).on("elsewhere").await.unwrap();
    world.worker().queues(["mail", "bulk"]).concurrency(1).until_empty().run().await.unwrap();
    assert_eq!(world.journal.lines(), ["mail 0", "mail 1", "mail 2", "bulk 0", "bulk 1", "bulk 2"]);
}

#[tokio::test(start_paused = true)]
async fn weights_share_the_worker() {
    let world = World::new();
    for n in 0..40 {
        world.queue.dispatch(finish("a")).on("a").await.unwrap();
        world.queue.dispatch(finish("b")).on("b").await.unwrap();
        let _ = n;
    }
    let worker = world.worker().weights([("a", 3), ("b", 1)]).concurrency(1).look_ahead(false);
    worker.at_most_jobs(20).run().await.unwrap();
    assert_eq!((world.journal.count("a"), world.journal.count("b")), (15, 5));
}

#[tokio::test(start_paused = true)]
async fn it_runs_as_many_at_once_as_it_was_told() {
    let world = World::new();
    for n in 0..10 {
        world.dispatch(act(&format!("{n}"), Do::Sleep(seconds(10)))).await;
    }
    let working = start(world.worker().concurrency(4));
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines().len(), 4);
    world.pass(seconds(10)).await;
    assert_eq!(world.journal.lines().len(), 8);
    world.pass(seconds(20)).await;
    let report = working.stop().await;
    assert_eq!(report.completed, 10);
}

#[tokio::test(start_paused = true)]
async fn a_job_may_run_for_many_leases() {
    let world = World::new();
    let long = world.dispatch(act("long", Do::Sleep(minutes(10)))).await;
    let working = start(world.worker());
    let other = start(world.worker());
    world.pass(minutes(11)).await;
    let recorded = world.find(&long).await;
    assert_eq!(recorded.state(), StateKind::Completed);
    assert_eq!((recorded.history().epoch, recorded.history().lost_leases), (1, 0));
    assert_eq!(world.journal.lines(), ["long"]);
    working.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_it_does_not_know_is_left_for_a_worker_that_does() {
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "stranger")]
    struct Stranger;
    impl Handler for Stranger {
        type Deps = (Journal,);
        type Error = Fault;
        async fn handle(_: Self, (journal,): (Journal,), _: &mut Context) -> Result<Outcome, Fault> {
            journal.write("stranger");
            Ok(Outcome::Done)
        }
    }
    let world = World::new();
    let stranger = world.queue.dispatch(Stranger).await.unwrap();
    world.dispatch(finish("known")).await;
    world.worker().until_empty().run().await.unwrap();
    assert_eq!(world.journal.lines(), ["known"]);
    assert_eq!(world.state(&stranger).await, StateKind::Ready);
    let jobs = world.jobs.clone().register::<Stranger>();
    Worker::new(world.queue.clone(), jobs).until_empty().run().await.unwrap();
    assert_eq!(world.journal.lines(), ["known", "stranger"]);
    assert_eq!(world.state(&stranger).await, StateKind::Completed);
}

#[tokio::test(start_paused = true)]
async fn settings_that_cannot_work_are_refused() {
    let world = World::new();
    let cases = [
        (world.worker().concurrency(0), "concurrency 0 is out of range"),
        (world.worker().lease(Duration::from_millis(10)), "lease of 10ms is out of range"),
        (world.worker().lease(Duration::MAX), "use 1 s to 24 h"),
        (world.worker().poll(Duration::ZERO), "poll and sweep_every must be longer than 0"),
        (world.worker().queues(Vec::<&str>::new()), "at least one named queue"),
        (world.worker().queues(["Bad Name"]), "queue name \"Bad Name\""),
        (world.worker().weights([("a", 0)]), "weight 0"),
    ];
    for (worker, text) in cases {
        let error = worker.run().await.unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_workers_on_many_threads_run_each_job_exactly_once() {
    let queue = Queue::new(MemoryBackend::new());
    let journal = Journal::default();
    let jobs = Registry::new(App { journal: journal.clone() }).register::<Act>();
    let names: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    queue.dispatch_all(names.iter().map(|name| finish(name))).await.unwrap();
    let workers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(Worker::new(queue.clone(), jobs.clone()).concurrency(16).until_empty().run()))
        .collect();
    let mut completed = 0;
    for worker in workers {
        let report = worker.await.unwrap().unwrap();
        completed += report.completed;
        assert_eq!(report.lost, 0);
    }
    assert_eq!(completed, 5_000);
    let mut ran = journal.lines();
    ran.sort_by_key(|name| name.parse::<u32>().unwrap());
    assert_eq!(ran, names);
}

#[tokio::test(start_paused = true)]
async fn a_duration_that_never_ends_means_never() {
    const NEVER: Duration = Duration::MAX;
    let world = World::new();
    let deaf = world.dispatch(act("deaf", Do::SleepDeaf(seconds(20)))).await;
    let waiter = tokio::spawn({
        let (queue, deaf) = (world.queue.clone(), deaf.clone());
        async move { queue.wait_for(&deaf, NEVER).await.unwrap() }
    });
    let worker = world.worker().poll(NEVER).sweep_every(NEVER).shutdown_deadline(NEVER);
    let working = start(worker.cancel_grace(NEVER).at_most_time(NEVER));
    world.pass(seconds(1)).await;
    world.queue.cancel(deaf.job_ref(), "if you please").await.unwrap();
    world.pass(seconds(1)).await;
    world.dispatch(finish("next")).await;
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines(), ["deaf", "next"]);
    let stopped = working.signal();
    world.pass(seconds(30)).await;
    let report = stopped.await.unwrap().unwrap();
    assert_eq!((report.completed, report.cancelled, report.released), (2, 0, 0));
    assert_eq!(waiter.await.unwrap(), Some(Ended::Completed(())));
}

/// Counts how often it is polled.
#[derive(serde::Serialize, serde::Deserialize, Job)]
#[job(name = "count_polls")]
struct CountPolls;

impl Handler for CountPolls {
    type Deps = (Journal,);
    type Error = Fault;

    async fn handle(_: Self, (journal,): (Journal,), _: &mut Context) -> Result<Outcome, Fault> {
        let mut sleep = std::pin::pin!(tokio::time::sleep(seconds(1)));
        std::future::poll_fn(|cx| {
            journal.write("polled");
            sleep.as_mut().poll(cx)
        })
        .await;
        Ok(Outcome::Done)
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_polled_once_a_turn() {
    let world = World::new();
    let jobs = world.jobs.clone().register::<CountPolls>();
    let working = start(Worker::new(world.queue.clone(), jobs));
    let job = world.queue.dispatch(CountPolls).await.unwrap();
    world.pass(seconds(3)).await;
    assert_eq!(world.queue.find(&job).await.unwrap().unwrap().state(), StateKind::Completed);
    assert_eq!(world.journal.lines(), ["polled", "polled"], "at its start, and when it woke");
    working.stop().await;
}
