//! Many lone dispatches at once: few calls, an answer for each, and nobody disturbed by another's end. On servers of its own.

mod support;

use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt as _};
use windlass_conformance::draft;
use windlass_core::{At, Backend, Effect, Inspect, Pushed, StateKind};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_servers::{Proxy, Redis, Side};

const AT: At = At::Server;

async fn opened() -> (Redis, RedisBackend) {
    let server = tokio::task::block_in_place(Redis::start).expect("a private Redis");
    let backend = support::open(RedisOptions::new(server.url())).await;
    (server, backend)
}

/// How often scripts were called.
fn calls(server: &Redis) -> u64 {
    let info = server.ask(&["INFO", "commandstats"]).expect("INFO");
    let line = info.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")).unwrap_or("0");
    line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number")
}

async fn ready(backend: &RedisBackend) -> u64 {
    backend.queues(AT).await.expect("queues").iter().map(|queue| queue.counts.get(StateKind::Ready)).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_are_few_calls_and_one_alone_is_one() {
    const JOBS: u64 = 2_000;
    let (server, backend) = opened().await;
    backend.push(&[draft().build()], AT).await.expect("push");
    let before = calls(&server);
    backend.push(&[draft().build()], AT).await.expect("push");
    assert_eq!(calls(&server) - before, 1);
    let before = calls(&server);
    let dispatches = stream::iter(0..JOBS)
        .map(|_| async { backend.push(&[draft().build()], AT).await.expect("push") })
        .buffer_unordered(100)
        .collect::<Vec<_>>();
    let answers =
        tokio::time::timeout(Duration::from_secs(60), dispatches).await.expect("nobody waits for ever");
    assert!(answers.iter().all(|answer| answer == &[Pushed::Inserted]));
    let calls = calls(&server) - before;
    println!("{JOBS} dispatches, 100 at once: {calls} calls");
    assert!(calls < JOBS / 4, "{calls} calls");
    assert_eq!(ready(&backend).await, JOBS + 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_its_own_answer_though_ids_come_twice() {
    let (_server, backend) = opened().await;
    let jobs: Vec<_> = (0..50).map(|_| draft().build()).collect();
    // Each three times, next to each other and far apart.
    let all: Vec<_> = jobs.iter().chain(&jobs).flat_map(|job| [job.clone(), job.clone()]).take(150).collect();
    let answers = join_all(all.iter().map(|job| backend.push(std::slice::from_ref(job), AT))).await;
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("push")[0]).collect();
    for job in &jobs {
        let of_job = || all.iter().zip(&answers).filter(|(other, _)| other.body.id == job.body.id);
        assert_eq!(of_job().filter(|(_, answer)| **answer == Pushed::Inserted).count(), 1);
        assert!(of_job().all(|(_, answer)| matches!(answer, Pushed::Inserted | Pushed::SameId)));
    }
    assert_eq!(ready(&backend).await, 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_stops_waiting_disturbs_nobody() {
    let (_server, backend) = opened().await;
    let mut kept = Vec::new();
    for round in 0..40_u64 {
        let mut tasks = Vec::new();
        for _ in 0..60 {
            let (backend, job) = (backend.clone(), draft().build());
            tasks.push((job.body.job(), tokio::spawn(async move { backend.push(&[job], AT).await })));
        }
        // At every stage: before the first poll, in line, in the first call, in a gathered one.
        for _ in 0..round % 8 {
            tokio::task::yield_now().await;
        }
        for (at, (job, task)) in tasks.into_iter().enumerate() {
            if (at as u64 + round).is_multiple_of(3) {
                task.abort();
            } else {
                kept.push((job, task));
            }
        }
    }
    let mut answered = 0;
    for (job, task) in kept {
        let pushed =
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("an answer").expect("no panic");
        assert_eq!(pushed.expect("push"), [Pushed::Inserted]);
        assert!(backend.get(&job, AT).await.expect("get").is_some());
        answered += 1;
    }
    assert_eq!(answered, 1_600);
    // The line is open: nobody holds a place in it for ever.
    let last = tokio::time::timeout(Duration::from_secs(5), backend.push(&[draft().build()], AT)).await;
    assert_eq!(last.expect("at once").expect("push"), [Pushed::Inserted]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_fails_says_so_to_each_and_the_next_goes_through() {
    let server = tokio::task::block_in_place(Redis::start).expect("a private Redis");
    let proxy = Proxy::before(server.port()).expect("a proxy");
    let url = format!("redis://127.0.0.1:{}", proxy.port());
    let backend = support::open(RedisOptions::new(url).response_timeout(Duration::from_secs(2))).await;
    backend.push(&[draft().build()], AT).await.expect("push");
    let jobs: Vec<_> = (0..100).map(|_| draft().build()).collect();
    let mut unknown = 0;
    for side in [Side::Request, Side::Reply] {
        proxy.cut(side, 10);
        let answers = join_all(jobs.iter().map(|job| backend.push(std::slice::from_ref(job), AT))).await;
        for error in answers.into_iter().filter_map(Result::err) {
            assert!(error.is_retryable(), "{error}");
            assert!(!error.message().is_empty());
            unknown += usize::from(error.effect() == Effect::Unknown);
        }
        proxy.spare();
    }
    assert!(unknown > 0, "a cut call leaves it open whether it happened");
    let again = join_all(jobs.iter().map(|job| backend.push(std::slice::from_ref(job), AT))).await;
    for answer in again {
        assert!(matches!(answer.expect("push")[..], [Pushed::Inserted | Pushed::SameId]));
    }
    assert_eq!(ready(&backend).await, 101);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_the_line_is_not_sent_and_those_behind_are() {
    let (server, backend) = opened().await;
    backend.push(&[draft().build()], AT).await.expect("push");
    // While the server stands still two are under way, and the rest in line: too few to go without waiting.
    server.freeze().expect("freeze");
    let spawn = || {
        let (backend, job) = (backend.clone(), draft().build());
        (job.body.job(), tokio::spawn(async move { backend.push(&[job], AT).await }))
    };
    let under_way = [spawn(), spawn()];
    tokio::time::sleep(Duration::from_millis(300)).await;
    let tasks: Vec<_> = (0..18).map(|_| spawn()).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (mut left, mut kept) = (Vec::new(), Vec::from(under_way.map(|(_, task)| task)));
    for (at, (job, task)) in tasks.into_iter().enumerate() {
        if at % 3 == 0 {
            task.abort();
            drop(task.await);
            left.push(job);
        } else {
            kept.push(task);
        }
    }
    server.thaw().expect("thaw");
    for task in kept {
        let pushed =
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("an answer").expect("no panic");
        assert_eq!(pushed.expect("push"), [Pushed::Inserted]);
    }
    for job in &left {
        assert!(backend.get(job, AT).await.expect("get").is_none(), "nobody waited for it any more");
    }
}

/// A runtime that ends drops the calls under way, and takes no new task for those who stand in line.
#[test]
fn a_runtime_that_ends_with_many_in_line_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (server, dispatching) = runtime.block_on(async {
        let (server, backend) = opened().await;
        backend.push(&[draft().build()], AT).await.expect("push");
        server.freeze().expect("a freeze");
        let dispatch = |backend: RedisBackend| async move { backend.push(&[draft().build()], AT).await };
        let dispatching: Vec<_> = (0..10).map(|_| tokio::spawn(dispatch(backend.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        (server, dispatching)
    });
    runtime.shutdown_timeout(Duration::from_secs(10));
    assert!(dispatching.iter().all(tokio::task::JoinHandle::is_finished), "nobody waits for ever");
    drop(server);
}
