//! Hearing of work: by notification from another process, and by looking where there are none.

use std::time::Duration;

use tokio::time::Instant;
use windlass_conformance::{Env, complete, draft, mail};
use windlass_core::{At, Backend, SessionId, Verdict, Wake};
use windlass_postgres::sqlx;
use windlass_postgres::{PostgresBackend, PostgresOptions};

use crate::common::{options, url, with};
use crate::opening::ask;

const LONG: Duration = Duration::from_secs(30);

async fn empty(backend: &PostgresBackend) {
    let claimed = backend.claim(&ask(10), At::Server).await.expect("claim").jobs;
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, At::Server).await.expect("settle");
}

/// Pushes on one handle and waits on another, again and again; how long from push to wake in all.
async fn pick_ups(pusher: &PostgresBackend, sleeper: &PostgresBackend, times: u32) -> Duration {
    let mut all = Duration::ZERO;
    for _ in 0..times {
        let waiting = sleeper.clone();
        let wait =
            tokio::spawn(async move { waiting.wait(SessionId::random(), &[mail()], None, LONG).await });
        // Until it has looked and sleeps.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = Instant::now();
        pusher.push(&[draft().build()], At::Server).await.expect("push");
        assert_eq!(wait.await.expect("the sleeper").expect("wait"), Wake::Work);
        all += start.elapsed();
        empty(pusher).await;
    }
    all
}

#[tokio::test]
async fn another_process_is_told_at_once() {
    let namespace = with(options().virtual_time(false)).await;
    let sleeper = namespace.second().await;
    // The first wait begins to listen; until it hears it looks often.
    pick_ups(namespace.backend(), &sleeper, 3).await;
    let listening = async {
        let sql = "select count(*) from pg_stat_activity where query like 'LISTEN%' and state = 'idle'";
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(sleeper.pool()).await.expect("activity") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), listening).await.expect("it listens");
    // By looking alone, once a second, eight would take eight seconds.
    let took = pick_ups(namespace.backend(), &sleeper, 8).await;
    assert!(took < Duration::from_secs(4), "eight pick-ups took {took:?}");
}

#[tokio::test]
async fn without_listening_work_is_found_by_looking() {
    let namespace = with(options().virtual_time(false)).await;
    for quiet in [PostgresOptions::new().listen(false), PostgresOptions::new().pooler(true)] {
        let options = quiet.schema(namespace.backend().schema()).max_connections(2);
        let sleeper = PostgresBackend::connect_with(&url(), options).await.expect("connect");
        let took = pick_ups(namespace.backend(), &sleeper, 4).await;
        assert!(took < Duration::from_secs(4), "four pick-ups took {took:?}");
    }
}

#[tokio::test]
async fn a_listener_that_is_cut_off_listens_again() {
    let namespace = with(options().virtual_time(false)).await;
    let sleeper = namespace.second().await;
    pick_ups(namespace.backend(), &sleeper, 2).await;
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity where query like 'LISTEN%' and pid <> pg_backend_pid()",
    )
    .execute(sleeper.pool())
    .await
    .expect("terminate");
    let took = pick_ups(namespace.backend(), &sleeper, 3).await;
    assert!(took < Duration::from_secs(10), "three pick-ups took {took:?}");
}

#[tokio::test]
async fn a_dropped_wait_costs_no_connection() {
    let namespace = with(options().virtual_time(false)).await;
    let options =
        PostgresOptions::new().schema(namespace.backend().schema()).max_connections(1).listen(false);
    let backend = PostgresBackend::connect_with(&url(), options).await.expect("connect");
    let pid = async || -> i32 {
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(backend.pool()).await.expect("pid")
    };
    let (before, queues) = (pid().await, [mail()]);
    for round in 0..50_u64 {
        let wait = backend.wait(SessionId::random(), &queues, None, LONG);
        drop(tokio::time::timeout(Duration::from_micros(round * 40), wait).await);
    }
    assert_eq!(pid().await, before, "the same connection throughout");
}
