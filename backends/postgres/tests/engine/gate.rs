//! The gate's steps one by one: what a claim that dies between two of them leaves behind, and what two at once do.

use std::time::Duration;

use windlass_conformance::{Env, TransactionalEnv, draft};
use windlass_core::{Backend, JobRef, Timestamp};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

use crate::common::{Namespace, fresh, url};
use crate::opening::ask;
use crate::stretches::{NOW, push};
use crate::stuck::{run, wait_for_lock};

/// A copy of `decided` that can be stopped before each step that changes something: it dies there, or waits for a lock.
const STEPS: &str = "
create function @schema@.step(n integer) returns void language plpgsql as $$
begin
    if current_setting('gate.dies', true) = n::text then
        raise exception 'it died at step %', n using errcode = 'WL777';
    elsif current_setting('gate.waits', true) = n::text then
        perform set_config('gate.waits', '', false);
        perform pg_advisory_xact_lock_shared(current_setting('gate.lock')::bigint);
    end if;
end
$$;
do $do$
declare
    part text;
    source text := '';
    n integer := 0;
begin
    foreach part in array regexp_split_to_array(pg_get_functiondef('@schema@.decided(bigint)'::regprocedure),
        '(?=perform (setval|nextval))') loop
        source := source || case when n > 0 then format('perform @schema@.step(%s); ', n) else '' end || part;
        n := n + 1;
    end loop;
    execute source;
    execute format('create function @schema@.steps() returns integer language sql as $$ select %s $$', n - 1);
end
$do$;
";

async fn ready() -> (Namespace, PostgresBackend, i32) {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    run(&backend, STEPS).await;
    let sql = format!("select \"{}\".steps()", backend.schema());
    let steps = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(backend.pool()).await.expect("steps");
    assert!(steps >= 6, "{steps} steps");
    (namespace, backend, steps)
}

/// A lone push as the engine sends it, in a transaction that stays open.
async fn push_slowly(namespace: &Namespace) -> (PgConnection, JobRef) {
    let mut conn = namespace.begin().await.expect("begin");
    let job = draft().job();
    let sql = format!(
        "select \"{}\".push_alike($1, 'mail', 'greet', null, 1, 1, 1::int2, 0::int2, 5::int2, array[$2], array['x'::bytea])",
        namespace.backend().schema()
    );
    let stored: bool = sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(Timestamp::VIRTUAL_START.as_millis())
        .bind(job.id.as_uuid())
        .fetch_one(&mut conn)
        .await
        .expect("push");
    assert!(stored);
    (conn, job)
}

/// Looks how far everything is decided, as a claim does, with a setting for its steps.
async fn look(conn: &mut PgConnection, backend: &PostgresBackend, set: &str) -> Result<i64, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(set.to_owned())).execute(&mut *conn).await?;
    let schema = backend.schema();
    let sql = format!("select \"{schema}\".decided(e.last_value) from \"{schema}\".entry e");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(conn).await
}

async fn claimed(backend: &PostgresBackend) -> Vec<JobRef> {
    let claimed = backend.claim(&ask(10), NOW).await.expect("claim");
    claimed.jobs.into_iter().map(|job| job.lease.job).collect()
}

#[tokio::test]
async fn a_claim_that_dies_between_two_steps_lets_nobody_pass_a_push() {
    let (namespace, backend, steps) = ready().await;
    let mut died = 0;
    for step in 1..=steps {
        let before = push(&backend, 1).await;
        let mut conn = PgConnection::connect(&url()).await.expect("connect");
        let (slow, job) = push_slowly(&namespace).await;
        let after = push(&backend, 1).await;
        died += usize::from(look(&mut conn, &backend, &format!("set gate.dies = '{step}'")).await.is_err());
        conn.close().await.expect("close");
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.extend(claimed(&backend).await);
        }
        assert!(!seen.contains(&after[0]), "step {step}: the open push was passed");
        namespace.commit(slow).await.expect("commit");
        for _ in 0..2 {
            seen.extend(claimed(&backend).await);
        }
        assert_eq!(seen, [before, vec![job], after].concat(), "step {step}");
    }
    assert!(died >= 3, "it died {died} times");
}
