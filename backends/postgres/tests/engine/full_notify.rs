//! A queue of notifications that is held up or full: nothing waits for it, and work is found by looking.

use std::time::Duration;

use tokio::time::Instant;
use windlass_conformance::{Env, complete, draft, mail};
use windlass_core::{At, Backend, SessionId, Verdict, Wake};
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection, PgPool};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::Postgres;

use crate::common::{options, url, with};
use crate::opening::ask;
use crate::turmoil::through;

/// How full the server's queue of notifications is, from 0 to 1.
async fn usage(pool: &PgPool) -> f64 {
    sqlx::query_scalar("select pg_notification_queue_usage()").fetch_one(pool).await.expect("usage")
}

/// Pushes on one handle and waits on another, and says how long until it woke.
async fn pick_up(pusher: &PostgresBackend, sleeper: &PostgresBackend) -> Duration {
    let waiting = sleeper.clone();
    let most = Duration::from_secs(30);
    let wait = tokio::spawn(async move { waiting.wait(SessionId::random(), &[mail()], None, most).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let start = Instant::now();
    pusher.push(&[draft().build()], At::Server).await.expect("push");
    assert_eq!(wait.await.expect("the sleeper").expect("wait"), Wake::Work);
    let took = start.elapsed();
    let claimed = sleeper.claim(&ask(10), At::Server).await.expect("claim").jobs;
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    sleeper.settle(&verdicts, At::Server).await.expect("settle");
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_in_an_open_transaction_holds_the_queue_up_and_nobody_else() {
    // The queue is the whole server's: one of its own.
    let server = Postgres::start().expect("a server");
    let options = PostgresOptions::new().max_connections(4);
    let backend = PostgresBackend::connect_with(&server.url(), options.clone()).await.expect("connect");
    windlass_core::Migrate::migrate(&backend).await.expect("migrate");
    let other = PostgresBackend::connect_with(&server.url(), options).await.expect("connect");
    // It listens, and never comes to hear: the server must keep everything for it.
    let mut stuck = PgConnection::connect(&server.url()).await.expect("connect");
    for sql in ["listen somebody", "begin", "select 1"] {
        sqlx::raw_sql(sql).execute(&mut stuck).await.expect("a transaction");
    }
    let flood = "select count(pg_notify('nobody', repeat('x', 7000) || n)) from generate_series(1, 3000) n";
    for _ in 0..3 {
        sqlx::raw_sql(flood).execute(backend.pool()).await.expect("notifications");
    }
    let held = usage(backend.pool()).await;
    assert!(held > 0.0005, "nothing is held up: {held}");
    let failures = through(&[backend.clone(), other.clone()], &backend, 400).await;
    assert_eq!(failures.all(), 0, "{failures:?}");
    // Once it listens, the other hears of work at once all the same.
    for _ in 0..3 {
        pick_up(&backend, &other).await;
    }
    let took = pick_up(&backend, &other).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(usage(backend.pool()).await >= held, "it was held up to the end");
    sqlx::raw_sql("rollback").execute(&mut stuck).await.expect("rollback");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_notifications_that_is_full_fails_nobody_and_work_is_found_by_looking() {
    // Eight gigabytes would fill it. Here a function of that name in front of the server's own says that it is full.
    let namespace = with(options().virtual_time(false)).await;
    let truth = namespace.backend();
    let full = format!("{}_full", truth.schema());
    let sql = format!(
        "create schema {full}; create function {full}.pg_notify(text, text) returns void language plpgsql as $$ begin \
         raise exception 'too many notifications in the NOTIFY queue' using errcode = '54000'; end $$"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(truth.pool()).await.expect("a full queue");
    let address = format!("{}?options=-c%20search_path%3D{full}%2Cpg_catalog", url());
    let mut backends = Vec::new();
    for _ in 0..2 {
        let options = PostgresOptions::new().schema(truth.schema()).max_connections(3);
        backends.push(PostgresBackend::connect_with(&address, options).await.expect("connect"));
    }
    let refused = sqlx::query("select pg_notify('a', 'b')").execute(backends[0].pool()).await;
    assert!(refused.expect_err("it is full").to_string().contains("too many notifications"));
    let failures = through(&backends, truth, 400).await;
    assert_eq!(failures.all(), 0, "{failures:?}");
    for _ in 0..3 {
        let took = pick_up(&backends[0], &backends[1]).await;
        // It looks once a second while it listens, and the machine may be busy.
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    sqlx::raw_sql(AssertSqlSafe(format!("drop schema {full} cascade")))
        .execute(truth.pool())
        .await
        .expect("drop");
}
