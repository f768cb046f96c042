//! The library over a real Redis, in real time: real workers, whatever `cargo xtask test` gives them for a server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{RedisOptions, SessionId, StateKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "visit", max_attempts = 3, retry = Retry::Fixed(milliseconds(50)), output = u64)]
struct Visit {
    number: u64,
    /// How many attempts fail before one does not.
    fails: u16,
    takes: Duration,
}

fn visit(number: u64) -> Visit {
    Visit { number, fails: 0, takes: Duration::ZERO }
}

/// When each visit began, by its number.
#[derive(Clone, Default)]
struct Visits(Arc<Mutex<HashMap<u64, Vec<Instant>>>>);

impl Visits {
    fn of(&self, number: u64) -> Vec<Instant> {
        self.0.lock().unwrap().get(&number).cloned().unwrap_or_default()
    }
}

#[derive(Clone, Provide)]
struct App {
    visits: Visits,
}

impl Handler for Visit {
    type Deps = (Visits,);
    type Error = Fault;

    async fn handle(visit: Self, (visits,): (Visits,), cx: &mut Context) -> Result<Outcome<u64>, Fault> {
        visits.0.lock().unwrap().entry(visit.number).or_default().push(now());
        if cx.attempt() <= visit.fails {
            return Err(Fault::retry("not yet"));
        }
        tokio::select! {
            () = tokio::time::sleep(visit.takes) => Ok(Outcome::Value(visit.number * 2)),
            () = cx.cancelled() => Err(Fault::retry("told to stop")),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what a user would see on a clock of his own")]
fn now() -> Instant {
    Instant::now()
}

fn options() -> RedisOptions {
    let url = std::env::var("WINDLASS_TEST_REDIS_URL")
        .expect("WINDLASS_TEST_REDIS_URL is not set: run `cargo xtask test`, which starts a private Redis");
    RedisOptions::new(url).namespace(format!("t{}", SessionId::random()))
}

async fn fresh() -> (Queue<RedisBackend>, Visits, Registry<App>) {
    let queue = Queue::new(RedisBackend::connect_with(options()).await.unwrap());
    let visits = Visits::default();
    let jobs = Registry::new(App { visits: visits.clone() }).register::<Visit>();
    (queue, visits, jobs)
}

/// A worker that runs until the handle is dropped.
fn work(
    queue: &Queue<RedisBackend>,
    jobs: &Registry<App>,
) -> tokio::task::JoinHandle<windlass::Result<windlass::Report>> {
    let worker = Worker::new(queue.clone(), jobs.clone()).concurrency(16).poll(seconds(5));
    tokio::spawn(worker.run_until(std::future::pending()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_two_workers_runs_once() {
    let (queue, visits, jobs) = fresh().await;
    for start in (0..2_000).step_by(500) {
        queue.dispatch_all((start..start + 500).map(visit)).await.unwrap();
    }
    let other = Queue::new(queue.backend().clone());
    let workers = [&queue, &other].map(|queue| {
        let worker = Worker::new(queue.clone(), jobs.clone()).concurrency(16).until_empty();
        tokio::spawn(worker.run())
    });
    let mut completed = 0;
    for worker in workers {
        completed += worker.await.unwrap().unwrap().completed;
    }
    assert_eq!(completed, 2_000);
    assert!((0..2_000).all(|number| visits.of(number).len() == 1), "each once");
    let queues = queue.queues().await.unwrap();
    assert_eq!(queues[0].counts.get(StateKind::Completed), 2_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_takes_a_job_at_once_and_a_delayed_one_in_time() {
    let (queue, visits, jobs) = fresh().await;
    let worker = work(&queue, &jobs);
    // The first settles connections and scripts.
    let warm = queue.dispatch(visit(0)).await.unwrap();
    assert_eq!(queue.wait_for(&warm, seconds(10)).await.unwrap(), Some(Ended::Completed(0)));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let at = now();
    let job = queue.dispatch(visit(1)).await.unwrap();
    assert_eq!(queue.wait_for(&job, seconds(10)).await.unwrap(), Some(Ended::Completed(2)));
    // Polling would take up to five seconds.
    assert!(visits.of(1)[0] - at < Duration::from_secs(1), "it took {:?}", visits.of(1)[0] - at);
    let at = now();
    let job = queue.dispatch(visit(2)).delay(milliseconds(700)).await.unwrap();
    assert_eq!(queue.wait_for(&job, seconds(10)).await.unwrap(), Some(Ended::Completed(4)));
    let waited = visits.of(2)[0] - at;
    assert!(
        waited >= Duration::from_millis(690) && waited < Duration::from_millis(1_700),
        "it took {waited:?}"
    );
    worker.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_is_tried_again_and_a_running_one_hears_of_its_cancellation() {
    let (queue, visits, jobs) = fresh().await;
    let worker = work(&queue, &jobs);
    let job = queue.dispatch(Visit { fails: 2, ..visit(1) }).await.unwrap();
    assert_eq!(queue.wait_for(&job, seconds(10)).await.unwrap(), Some(Ended::Completed(2)));
    assert_eq!(visits.of(1).len(), 3);
    let long = queue.dispatch(Visit { takes: seconds(60), ..visit(2) }).await.unwrap();
    while visits.of(2).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let at = now();
    queue.cancel(long.job_ref(), "no longer").await.unwrap();
    let ended = queue.wait_for(&long, seconds(20)).await.unwrap();
    assert!(matches!(ended, Some(Ended::Cancelled { .. })), "{ended:?}");
    // Its worker's beat would have come after ten seconds.
    assert!(now() - at < Duration::from_secs(5));
    worker.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_worker_held_is_run_by_another() {
    let (queue, visits, jobs) = fresh().await;
    let doomed = Worker::new(queue.clone(), jobs.clone()).lease(seconds(1));
    let doomed = tokio::spawn(doomed.run_until(std::future::pending()));
    let job = queue.dispatch(Visit { takes: milliseconds(1_500), ..visit(1) }).await.unwrap();
    while visits.of(1).is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    doomed.abort();
    let heir = Worker::new(queue.clone(), jobs.clone()).sweep_every(milliseconds(200));
    let heir = tokio::spawn(heir.run_until(std::future::pending()));
    assert_eq!(queue.wait_for(&job, seconds(20)).await.unwrap(), Some(Ended::Completed(2)));
    assert_eq!(visits.of(1).len(), 2);
    heir.abort();
}

#[tokio::test]
async fn the_url_chooses_it_and_its_password_is_never_shown() {
    let url = std::env::var("WINDLASS_TEST_REDIS_URL").unwrap();
    let queue = Queue::<AnyBackend>::connect(&url).await.unwrap();
    assert_eq!(queue.backend().engine_name(), "redis");
    let queue = Queue::<RedisBackend>::connect(&url).await.unwrap();
    assert!(format!("{queue:?}").contains("RedisBackend"));
    for url in ["redis://:hunter2@127.0.0.1:1", "redis://:hunter2@", "rediss://:hunter2@127.0.0.1:1"] {
        let error = Queue::<AnyBackend>::connect(url).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}
