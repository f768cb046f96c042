//! Others that stand in the way while jobs go through: a pool and a server without a free connection, locks, deadlocks,
//! serialization failures, a statement timeout that is too short.

use std::time::Duration;

use windlass_conformance::{Env, complete, draft};
use windlass_core::{
    At, Backend, Effect, ErrorKind, Inspect, Migrate, OnConflict, Pushed, StateKind, Until, Verdict,
};
use windlass_postgres::sqlx::postgres::PgPoolOptions;
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection, PgPool};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::{Postgres, PostgresSettings};

use crate::common::{options, url, with};
use crate::opening::ask;
use crate::turmoil::through;

/// A handle on a namespace with settings of the server's for its sessions.
async fn set(schema: &str, settings: &str) -> PostgresBackend {
    let address = format!("{}?options={}", url(), settings.replace(' ', "%20").replace('=', "%3D"));
    let options = PostgresOptions::new().schema(schema).max_connections(3).listen(false);
    PostgresBackend::connect_with(&address, options).await.expect("connect")
}

/// Locks the jobs of a namespace against everybody, again and again, for ever: `held` of every twice as long.
async fn lock_now_and_then(pool: PgPool, schema: String, held: Duration) {
    loop {
        let mut tx = pool.begin().await.expect("begin");
        let sql = format!("lock table \"{schema}\".job in access exclusive mode");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.expect("lock");
        tokio::time::sleep(held).await;
        tx.commit().await.expect("commit");
        tokio::time::sleep(held).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_used_up_again_and_again_loses_and_doubles_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let truth = namespace.backend();
    let pool = PgPoolOptions::new().acquire_timeout(Duration::from_millis(30)).connect(&url()).await;
    let options = PostgresOptions::new().schema(truth.schema()).max_connections(2).listen(false);
    let backend = PostgresBackend::from_pool(pool.expect("a pool"), options).expect("options");
    // Every now and then all connections there are wait for a lock.
    let (pool, schema) = (truth.pool().clone(), truth.schema().to_owned());
    let hog = tokio::spawn(lock_now_and_then(pool, schema, Duration::from_millis(60)));
    let failures = through(&[backend.clone(), backend.clone(), backend], truth, 600).await;
    hog.abort();
    println!("{failures:?}");
    let unavailable = failures.count(ErrorKind::Unavailable, Effect::NotApplied);
    assert!(unavailable > 0 && failures.all() == unavailable, "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_a_free_connection_is_unavailable_and_then_goes_on() {
    let few = PostgresSettings { durable: false, others: vec![("max_connections", "8".to_owned())] };
    let server = Postgres::start_with(&few).expect("a server");
    let options = PostgresOptions::new().max_connections(2).listen(false).timeout(Duration::from_secs(1));
    let first = PostgresBackend::connect_with(&server.url(), options.clone()).await.expect("connect");
    first.migrate().await.expect("migrate");
    let backend = PostgresBackend::connect_with(&server.url(), options.clone()).await.expect("connect");
    let mut taken = Vec::new();
    while let Ok(connection) = PgConnection::connect(&server.url()).await {
        taken.push(connection);
        assert!(taken.len() <= 8, "the server takes more than it was told to");
    }
    let failed = backend.push(&[draft().build()], At::Server).await.expect_err("no connection");
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{failed}");
    let refused = PostgresBackend::connect_with(&server.url(), options).await.expect_err("no connection");
    assert_eq!((refused.kind(), refused.is_retryable()), (ErrorKind::Unavailable, true), "{refused}");
    for connection in taken {
        connection.close().await.expect("closed");
    }
    let failures = through(&[backend], &first, 100).await;
    assert_eq!(failures.all(), 0, "{failures:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_timeout_that_strikes_in_the_midst_loses_and_doubles_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let truth = namespace.backend();
    for setting in ["-c statement_timeout=25", "-c lock_timeout=25"] {
        let backends = [set(truth.schema(), setting).await, set(truth.schema(), setting).await];
        let (pool, schema) = (truth.pool().clone(), truth.schema().to_owned());
        let locker = tokio::spawn(lock_now_and_then(pool, schema, Duration::from_millis(60)));
        let failures = through(&backends, truth, 300).await;
        locker.abort();
        println!("{setting}: {failures:?}");
        let late = failures.count(ErrorKind::Timeout, Effect::NotApplied);
        assert!(late > 0 && failures.all() == late, "{setting}: {failures:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_serializable_by_default_lose_and_double_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let truth = namespace.backend();
    // A pool of the caller's is left as it is: it is told that it cannot claim so.
    let strict = PgPoolOptions::new().after_connect(|connection, _| {
        Box::pin(async move {
            let serializable = "set default_transaction_isolation = 'serializable'";
            sqlx::raw_sql(serializable).execute(connection).await.map(drop)
        })
    });
    let pool = strict.connect(&url()).await.expect("connect");
    let theirs = PostgresOptions::new().schema(truth.schema()).listen(false);
    let theirs = PostgresBackend::from_pool(pool, theirs).expect("options that work");
    let refused = theirs.claim(&ask(1), At::Server).await.expect_err("it could take jobs twice");
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Config, Effect::NotApplied), "{refused}");
    // The engine's own connections see to it themselves.
    for level in ["repeatable\\ read", "serializable"] {
        let setting = format!("-c default_transaction_isolation={level}");
        let mut backends = Vec::new();
        for _ in 0..3 {
            backends.push(set(truth.schema(), &setting.replace('\\', "%5C")).await);
        }
        let failures = through(&backends, truth, 300).await;
        println!("{level}: {failures:?}");
        // What the server undid eight times over is told; most of it is not.
        let undone = failures.count(ErrorKind::Unavailable, Effect::NotApplied);
        assert_eq!(failures.all(), undone, "{level}: {failures:?}");
    }
}

/// Locks pairs of keys the other way about than the engine does, for ever.
async fn lock_backwards(url: String) {
    let mut rng = 1_u64;
    let mut connection = PgConnection::connect(&url).await.expect("connect");
    loop {
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (low, high) = (rng >> 33 & 3, (rng >> 40 & 3) + 4);
        let mut tx = connection.begin().await.expect("begin");
        for key in [high, low] {
            let sql = format!("select 1 from windlass.key where key = 'k{key}' for update");
            // It may be this side that the server ends.
            if sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = tx.rollback().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlocks_with_strangers_lose_and_double_nothing() {
    // Deadlocks are counted by database: one of its own.
    let eager = PostgresSettings { durable: false, others: vec![("deadlock_timeout", "10ms".to_owned())] };
    let server = Postgres::start_with(&eager).expect("a server");
    let options = PostgresOptions::new().max_connections(4).listen(false);
    let backend = PostgresBackend::connect_with(&server.url(), options).await.expect("connect");
    backend.migrate().await.expect("migrate");
    let deadlocks = async || -> i64 {
        sqlx::query_scalar("select deadlocks from pg_stat_database where datname = current_database()")
            .fetch_one(backend.pool())
            .await
            .expect("statistics")
    };
    let stranger = tokio::spawn(lock_backwards(server.url()));
    let mut pushed = Vec::new();
    let mut rounds = 0;
    while deadlocks().await < 5 {
        rounds += 1;
        assert!(rounds < 2_000, "no deadlocks came about");
        let keyed = |key| draft().unique(&format!("k{key}"), OnConflict::Supersede, Until::End).build();
        let jobs: Vec<_> = (0..8).map(keyed).collect();
        let answers = loop {
            match backend.push(&jobs, At::Server).await {
                Ok(answers) => break answers,
                Err(error) => {
                    assert_eq!(
                        (error.kind(), error.effect()),
                        (ErrorKind::Unavailable, Effect::NotApplied),
                        "{error}"
                    );
                }
            }
        };
        let fine = |answer: &Pushed| matches!(answer, Pushed::Inserted | Pushed::Superseded(_));
        assert!(answers.iter().all(fine), "{answers:?}");
        pushed.extend(jobs.into_iter().map(|job| job.body.job()));
    }
    assert!(!stranger.is_finished());
    stranger.abort();
    println!("{} deadlocks in {rounds} rounds", deadlocks().await);
    // One holder of each key is left, and everybody else was superseded, once.
    let claimed = backend.claim(&ask(100), At::Server).await.expect("claim").jobs;
    assert_eq!(claimed.len(), 8);
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, At::Server).await.expect("settle");
    let counts = backend.queues(At::Server).await.expect("queues")[0].counts;
    let ended = (counts.get(StateKind::Completed), counts.get(StateKind::Cancelled), counts.live());
    assert_eq!(ended, (8, pushed.len() as u64 - 8, 0));
}
