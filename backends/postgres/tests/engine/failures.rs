//! What goes wrong around a verb: its kind, whether it may have happened, and that the handle works again afterwards.

use std::time::Duration;

use windlass_conformance::{Env, complete, draft, mail};
use windlass_core::{
    At, Backend, Claim, Effect, Error, ErrorKind, Inspect, Kind, OnConflict, Pushed, Result, Settled,
    StateKind, Until, Verdict,
};
use windlass_postgres::sqlx::{self, AssertSqlSafe, PgPool};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::Postgres;

use crate::common::{options, url, with};
use crate::opening::ask;

fn error<T: std::fmt::Debug>(result: Result<T>) -> Error {
    result.expect_err("should fail")
}

async fn run(pool: &PgPool, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.expect("a statement");
}

/// Locks every job's row until it is dropped, so that verbs which need one wait.
async fn hold_all(backend: &PostgresBackend) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut tx = backend.pool().begin().await.expect("begin");
    let sql = format!("lock table \"{}\".job in access exclusive mode", backend.schema());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.expect("lock");
    tx
}

/// Waits until somebody of this namespace waits for a lock.
async fn somebody_waits(pool: &PgPool, schema: &str) -> i32 {
    for _ in 0..500 {
        let waiting: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%' || $1 || '%' limit 1",
        )
        .bind(schema)
        .fetch_optional(pool)
        .await
        .expect("activity");
        if let Some(pid) = waiting {
            return pid;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody waits");
}

#[tokio::test]
async fn a_backend_that_is_ended_leaves_it_unknown() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    let job = draft();
    let tx = hold_all(&backend).await;
    let (pusher, push) = (backend.clone(), job.clone().build());
    let pushing = tokio::spawn(async move { pusher.push(&[push], At::Server).await });
    let pid = somebody_waits(backend.pool(), backend.schema()).await;
    run(backend.pool(), format!("select pg_terminate_backend({pid})")).await;
    let failed = error(pushing.await.expect("the pusher"));
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Connection, Effect::Unknown), "{failed}");
    assert_eq!((failed.backend(), failed.operation(), failed.is_retryable()), ("postgres", "push", true));
    drop(tx);
    assert_eq!(backend.push(&[job.build()], At::Server).await.expect("push"), [Pushed::Inserted]);
}

#[tokio::test]
async fn a_statement_that_is_cancelled_or_waits_too_long_changed_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    for how in ["statement_timeout", "lock_timeout"] {
        let settings = format!("{}?options=-c%20{how}%3D100", url());
        let options = PostgresOptions::new().schema(backend.schema()).max_connections(1);
        let hurried = PostgresBackend::connect_with(&settings, options).await.expect("connect");
        let tx = hold_all(&backend).await;
        let failed = error(hurried.push(&[draft().build()], At::Server).await);
        assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Timeout, Effect::NotApplied), "{failed}");
        drop(tx);
        hurried.push(&[draft().build()], At::Server).await.expect("it works again");
    }
}

#[tokio::test]
async fn a_verb_that_takes_too_long_is_unknown_and_one_that_reads_is_not() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    let options = PostgresOptions::new()
        .schema(backend.schema())
        .max_connections(2)
        // Long enough to open a connection on a busy machine, which would be another failure.
        .timeout(Duration::from_secs(1));
    let hurried = PostgresBackend::connect_with(&url(), options).await.expect("connect");
    let job = draft();
    let tx = hold_all(&backend).await;
    let failed = error(hurried.push(&[job.clone().build()], At::Server).await);
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Timeout, Effect::Unknown), "{failed}");
    let failed = error(hurried.get(&job.job(), At::Server).await);
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Timeout, Effect::NotApplied), "{failed}");
    drop(tx);
    // The push may have come through behind the lock: asked again, it is stored once.
    hurried.push(&[job.build()], At::Server).await.expect("push");
    assert_eq!(backend.claim(&ask(10), At::Server).await.expect("claim").jobs.len(), 1);
}

#[tokio::test]
async fn connections_that_are_used_up_are_unavailable() {
    let namespace = with(options().virtual_time(false)).await;
    let made = namespace.backend();
    let options = PostgresOptions::new()
        .schema(made.schema())
        .max_connections(1)
        .listen(false)
        .timeout(Duration::from_secs(20));
    let pool = sqlx::postgres::PgPoolOptions::new()
        // Time to open its connection on a busy machine.
        .acquire_timeout(Duration::from_secs(1))
        .connect(&url())
        .await
        .expect("a pool");
    let backend = PostgresBackend::from_pool(pool, options).expect("options");
    let schema = backend.schema().to_owned();
    let mut tx = made.pool().begin().await.expect("begin");
    let lock = format!("lock table \"{schema}\".job in access exclusive mode");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *tx).await.expect("lock");
    let pusher = backend.clone();
    let waits = tokio::spawn(async move { pusher.push(&[draft().build()], At::Server).await });
    somebody_waits(made.pool(), &schema).await;
    let failed = error(backend.push(&[draft().build()], At::Server).await);
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{failed}");
    tx.commit().await.expect("commit");
    waits.await.expect("the pusher").expect("push");
    backend.push(&[draft().build()], At::Server).await.expect("it works again");
    backend.close().await;
    let failed = error(backend.push(&[draft().build()], At::Server).await);
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Connection, Effect::NotApplied), "{failed}");
    sqlx::query("select 1").execute(backend.pool()).await.expect("the pool is the caller's");
}

/// sqlx 0.9 leaves a transaction open on a connection whose `begin` is dropped at the wrong moment, and its pool hands that
/// connection on. A verb within it would be answered, and never be committed.
#[tokio::test]
async fn a_begin_that_was_dropped_swallows_nothing() {
    let namespace = with(options().virtual_time(false)).await;
    let made = namespace.backend();
    let options = PostgresOptions::new().schema(made.schema()).max_connections(1).listen(false);
    let name = format!("{}?application_name=dropped-{}", url(), made.schema());
    let backend = PostgresBackend::connect_with(&name, options).await.expect("connect");
    backend.push(&[draft().build()], At::Server).await.expect("push");
    backend.pool().begin().await.expect("begin").rollback().await.expect("rollback");
    for round in 0..24 {
        let mut begin = Box::pin(backend.pool().begin());
        for _ in 0..=round % 3 {
            if futures::poll!(&mut begin).is_ready() {
                break;
            }
        }
        drop(begin);
        let job = draft();
        backend.push(&[job.clone().build()], At::Server).await.expect("push");
        assert!(made.get(&job.job(), At::Server).await.expect("get").is_some(), "swallowed in round {round}");
    }
    let open = "select count(*) from pg_stat_activity where application_name = $1 and state like 'idle in%'";
    let name = format!("dropped-{}", made.schema());
    let mut looks = 0;
    while sqlx::query_scalar::<_, i64>(open).bind(&name).fetch_one(made.pool()).await.expect("activity") > 0 {
        assert!(looks < 500, "a transaction stays open");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_unavailable() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    let settings = format!("{}?options=-c%20default_transaction_read_only%3Don", url());
    let options = PostgresOptions::new().schema(backend.schema()).max_connections(1);
    let standby = PostgresBackend::connect_with(&settings, options).await.expect("connect");
    let failed = error(standby.push(&[draft().build()], At::Server).await);
    assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{failed}");
    assert_eq!(standby.queues(At::Server).await.expect("reading goes on"), []);
}

#[tokio::test]
async fn a_deadlock_is_sorted_out_within_the_verb() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    let keyed = |key: &str| draft().unique(key, OnConflict::Supersede, Until::End).build();
    backend.push(&[keyed("a"), keyed("b")], At::Server).await.expect("push");
    // A stranger locks the keys the other way about than the push does.
    let schema = backend.schema().to_owned();
    let lock =
        |key: &str| AssertSqlSafe(format!("select 1 from \"{schema}\".key where key = '{key}' for update"));
    let mut tx = backend.pool().begin().await.expect("begin");
    sqlx::raw_sql(AssertSqlSafe("set local deadlock_timeout = '10 min'".to_owned()))
        .execute(&mut *tx)
        .await
        .expect("patience");
    sqlx::query(lock("b")).execute(&mut *tx).await.expect("lock");
    let pusher = backend.clone();
    let pushing = tokio::spawn(async move { pusher.push(&[keyed("a"), keyed("b")], At::Server).await });
    somebody_waits(backend.pool(), backend.schema()).await;
    // The push holds `a` and waits for `b`; now this waits for `a`. The server ends the push, which is sent again and has to
    // wait for the commit.
    sqlx::query(lock("a")).execute(&mut *tx).await.expect("the push gave way");
    tx.commit().await.expect("commit");
    let pushed = pushing.await.expect("the pusher").expect("push");
    assert!(pushed.iter().all(|pushed| matches!(pushed, Pushed::Superseded(_))), "{pushed:?}");
}

#[tokio::test]
async fn a_dropped_verb_leaves_no_answer_for_the_next() {
    let namespace = with(options().virtual_time(false)).await;
    let made = namespace.backend().clone();
    let options = PostgresOptions::new().schema(made.schema()).max_connections(1).listen(false);
    let backend = PostgresBackend::connect_with(&url(), options).await.expect("connect");
    for round in 0..40_u64 {
        let jobs: Vec<_> = (0..20).map(|_| draft().build()).collect();
        let moment = Duration::from_micros(round * 100);
        drop(tokio::time::timeout(moment, backend.push(&jobs, At::Server)).await);
        // On the only connection there is: what comes back is the answer to this.
        assert_eq!(
            backend.queues(At::Server).await.expect("queues").len(),
            usize::from(round > 0),
            "round {round}"
        );
        let pushed = backend.push(&jobs, At::Server).await.expect("push");
        assert!(pushed.iter().all(|one| *one == pushed[0]), "whole or nothing: {pushed:?}");
    }
}

/// The verbs that a worker repeats through an outage, until they work.
async fn insist<T>(verb: impl AsyncFn() -> Result<T>) -> T {
    let mut last = None;
    for _ in 0..300 {
        match verb().await {
            Ok(answer) => return answer,
            Err(failed) => {
                assert!(failed.is_retryable(), "{failed}");
                last = Some(failed);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never worked again: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_stopped_and_frozen_loses_nothing_it_acknowledged() {
    let mut server = Postgres::start().expect("a server");
    let options = PostgresOptions::new().max_connections(4).timeout(Duration::from_secs(2));
    let backend = PostgresBackend::connect_with(&server.url(), options).await.expect("connect");
    windlass_core::Migrate::migrate(&backend).await.expect("migrate");
    let mut stored = 0;
    for outage in 0..3 {
        let jobs: Vec<_> = (0..50).map(|_| draft().build()).collect();
        assert_eq!(backend.push(&jobs, At::Server).await.expect("push"), vec![Pushed::Inserted; 50]);
        stored += 50;
        match outage {
            0 => server.kill().expect("kill"),
            1 => server.stop().expect("stop"),
            _ => server.freeze().expect("freeze"),
        }
        let job = draft();
        let failed = error(backend.push(&[job.clone().build()], At::Server).await);
        assert!(failed.is_retryable(), "{failed}");
        if outage == 2 {
            assert_eq!((failed.kind(), failed.effect()), (ErrorKind::Timeout, Effect::Unknown), "{failed}");
            server.thaw().expect("thaw");
        } else {
            server.restart().expect("restart");
        }
        let again = job.build();
        insist(async || backend.push(std::slice::from_ref(&again), At::Server).await).await;
        stored += 1;
    }
    let claimed = insist(async || backend.claim(&ask(1_000), At::Server).await).await.jobs;
    assert_eq!(claimed.len(), stored, "nothing lost and nothing twice");
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    server.kill().expect("kill");
    server.restart().expect("restart");
    let settled = insist(async || backend.settle(&verdicts, At::Server).await).await;
    assert!(
        settled.iter().all(|one| *one == Settled::Applied(StateKind::Completed)),
        "the leases outlived the crash"
    );
    let queues = backend.queues(At::Server).await.expect("queues");
    assert_eq!(queues[0].counts.get(StateKind::Completed), stored as u64);
}

#[tokio::test]
async fn a_full_disk_and_a_stopping_server_are_unavailable_and_no_bug() {
    // What cannot be brought about here is said by the server's own function.
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    for (code, kind, effect) in [
        ("53100", ErrorKind::Unavailable, Effect::NotApplied),
        ("53300", ErrorKind::Unavailable, Effect::NotApplied),
        ("57P03", ErrorKind::Unavailable, Effect::NotApplied),
        ("57P01", ErrorKind::Connection, Effect::Unknown),
        ("57P02", ErrorKind::Connection, Effect::Unknown),
        ("08006", ErrorKind::Connection, Effect::Unknown),
        ("40001", ErrorKind::Unavailable, Effect::NotApplied),
        ("58030", ErrorKind::Unavailable, Effect::NotApplied),
        ("XX000", ErrorKind::Unexpected, Effect::NotApplied),
    ] {
        let sql = format!(
            "create or replace function \"{}\".set_paused(at_ms bigint, q text, wanted boolean) returns void language \
             plpgsql as $$ begin raise exception 'said so' using errcode = '{code}'; end $$",
            backend.schema()
        );
        run(backend.pool(), sql).await;
        let failed = error(windlass_core::Manage::pause(&backend, &mail(), At::Server).await);
        assert_eq!((failed.kind(), failed.effect()), (kind, effect), "{code}: {failed}");
        assert!(failed.to_string().contains("said so"), "{failed}");
    }
}

#[tokio::test]
async fn what_a_newer_version_wrote_is_told_from_a_failure() {
    let namespace = with(options().virtual_time(false)).await;
    let backend = namespace.backend().clone();
    let job = draft();
    backend.push(&[job.clone().build()], At::Server).await.expect("push");
    run(backend.pool(), format!("update \"{}\".job set extras = '{{\"tags\": 3}}'", backend.schema())).await;
    let failed = error(backend.get(&job.job(), At::Server).await);
    assert_eq!(failed.kind(), ErrorKind::Decode, "{failed}");
    let claim = Claim { kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(), ..ask(1) };
    let failed = error(backend.claim(&claim, At::Server).await);
    assert_eq!(failed.kind(), ErrorKind::Decode, "{failed}");
}
