//! The gate's steps one by one: what a claim that dies between two of them leaves behind, and what two at once do.

use std::time::Duration;

use windlass_conformance::{Env, TransactionalEnv, draft};
use windlass_core::{Backend, JobRef, StateKind, Timestamp};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

use crate::common::{Namespace, fresh, url};
use crate::opening::ask;
use crate::standing::{Moment, STAND_STILL, Stuck, Way, Worked, give_up_elsewhere, run, seconds, sweep};
use crate::stretches::{NOW, push};

/// Longer than a generation may be held.
const LONG: Duration = Duration::from_millis(1_100);
/// Long enough for what waits for nobody to be over.
const A_WHILE: Duration = Duration::from_millis(300);

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

/// Gives a push up and dies at a step of that; what it still brings is found, whoever sweeps and claims meanwhile.
async fn gives_up_and_dies(step: i32) {
    let (namespace, backend, _) = ready().await;
    let (slow, job) = push_slowly(&namespace).await;
    let mut jobs = push(&backend, 1).await;
    let mut worked = Worked::default();
    assert_eq!(worked.work(&backend, NOW).await, 0);
    tokio::time::sleep(LONG).await;
    let mut conn = PgConnection::connect(&url()).await.expect("connect");
    let _ = look(&mut conn, &backend, &format!("set gate.dies = '{step}'")).await;
    conn.close().await.expect("close");
    sweep(&backend, NOW).await;
    worked.work_until(&backend, NOW, 1).await;
    sweep(&backend, seconds(31)).await;
    jobs.extend(push(&backend, 1).await);
    worked.work_until(&backend, seconds(31), 1).await;
    namespace.commit(slow).await.expect("commit");
    jobs.push(job);
    for at in [40, 62] {
        sweep(&backend, seconds(at)).await;
        worked.work(&backend, seconds(at)).await;
    }
    worked.is_all(&backend, &jobs, seconds(70)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_dies_as_it_gives_a_push_up_does_not_lose_it() {
    // There are no more than that many: see `ready`.
    for done in futures::future::join_all((1..=8).map(|step| tokio::spawn(gives_up_and_dies(step)))).await {
        done.expect("a course");
    }
}

/// Whoever opens a generation is overtaken by another at a step of that. What a push brings that is open meanwhile is found.
async fn is_overtaken(step: i32, gives_up: bool) {
    let (namespace, backend, _) = ready().await;
    let lock = i64::from(uuid::Uuid::new_v4().as_fields().0);
    let mut holder = namespace.begin().await.expect("begin");
    sqlx::query("select pg_advisory_xact_lock($1)").bind(lock).execute(&mut holder).await.expect("the lock");
    let (first, job) = push_slowly(&namespace).await;
    let mut jobs = vec![push(&backend, 1).await.remove(0), job];
    let mut open = Some(first);
    let mut other = PgConnection::connect(&url()).await.expect("connect");
    if gives_up {
        look(&mut other, &backend, "").await.expect("it marks the one that is held");
        tokio::time::sleep(LONG).await;
    } else {
        namespace.commit(open.take().expect("open")).await.expect("commit");
    }
    let mut one = namespace.begin().await.expect("begin");
    let set = format!("set gate.waits = '{step}'; set gate.lock = '{lock}'");
    let looking = tokio::spawn({
        let backend = backend.clone();
        async move {
            look(&mut one, &backend, &set).await.expect("it goes on");
            one
        }
    });
    tokio::time::sleep(A_WHILE).await;
    let (second, job) = push_slowly(&namespace).await;
    jobs.push(job);
    if let Some(first) = open {
        namespace.commit(first).await.expect("commit");
    }
    for _ in 0..2 {
        look(&mut other, &backend, "").await.expect("it overtakes");
        if !looking.is_finished() {
            tokio::time::sleep(LONG).await;
        }
    }
    namespace.commit(holder).await.expect("commit");
    let one = looking.await.expect("a task");
    look(&mut other, &backend, "").await.expect("it looks on");
    namespace.commit(one).await.expect("commit");
    jobs.extend(push(&backend, 1).await);
    let mut worked = Worked::default();
    sweep(&backend, NOW).await;
    // All but the one that is open still; the first may have fallen into a span.
    for at in [0, 31, 62] {
        for _ in 0..3 {
            worked.work(&backend, seconds(at)).await;
            tokio::time::sleep(LONG / 2).await;
        }
        sweep(&backend, seconds(at)).await;
    }
    namespace.commit(second).await.expect("commit");
    for at in [70, 100] {
        sweep(&backend, seconds(at)).await;
        worked.work(&backend, seconds(at)).await;
    }
    worked.is_all(&backend, &jobs, seconds(100)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_overtaken_as_a_generation_is_opened_lets_nothing_be_lost() {
    let courses =
        (1..=8).flat_map(|step| [false, true].map(|gives_up| tokio::spawn(is_overtaken(step, gives_up))));
    for done in futures::future::join_all(courses).await {
        done.expect("a course");
    }
}

/// Claims, and stands still before its span is in, when it has chosen its jobs.
const CLAIM_STANDS_STILL: &str = "
create function @schema@.claim_stands_still() returns trigger language plpgsql as $$
begin
    if new.queue = 'mail' then
        perform pg_advisory_xact_lock_shared(@lock@);
    end if;
    return new;
end
$$;
create trigger stand_still before insert on @schema@.span for each row execute function @schema@.claim_stands_still();
";

#[tokio::test]
async fn what_commits_in_the_middle_of_a_claim_is_counted() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    run(&backend, STAND_STILL).await;
    let lock = i64::from(uuid::Uuid::new_v4().as_fields().0);
    run(&backend, &CLAIM_STANDS_STILL.replace("@lock@", &lock.to_string())).await;
    let mut holder = namespace.begin().await.expect("begin");
    sqlx::query("select pg_advisory_xact_lock($1)").bind(lock).execute(&mut holder).await.expect("the lock");
    let stuck = Stuck::at(&backend, Moment::AfterItsJobs, Way::Alike).await;
    let mut jobs = push(&backend, 2).await;
    // By a claim that is over by then: it would keep sweeps from looking.
    give_up_elsewhere(&backend).await;
    let claiming = tokio::spawn({
        let backend = backend.clone();
        async move {
            loop {
                let claimed = backend.claim(&ask(2), NOW).await.expect("claim").jobs;
                if !claimed.is_empty() {
                    return claimed;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    let waits = "select exists (select from pg_locks where locktype = 'advisory' and not granted and objid::int8 = $1)";
    while !sqlx::query_scalar::<_, bool>(waits).bind(lock).fetch_one(&mut holder).await.expect("locks") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let late = stuck.let_go().await;
    // Nothing stands still any more; but what this claim counted is not to be seen yet.
    sweep(&backend, NOW).await;
    namespace.commit(holder).await.expect("commit");
    let claimed = claiming.await.expect("a task");
    let taken: Vec<_> = claimed.iter().map(|job| job.lease.job.clone()).collect();
    assert_eq!(taken.len(), 2, "two were asked for: {taken:?}");
    let verdicts: Vec<_> = claimed
        .into_iter()
        .map(|job| windlass_core::Verdict::new(job.lease, windlass_conformance::complete()))
        .collect();
    let settled = backend.settle(&verdicts, NOW).await.expect("settle");
    assert_eq!(settled, vec![windlass_core::Settled::Applied(StateKind::Completed); taken.len()]);
    let mut worked = Worked { jobs: taken };
    sweep(&backend, seconds(31)).await;
    worked.work(&backend, seconds(31)).await;
    jobs.extend(late);
    worked.is_all(&backend, &jobs, seconds(31)).await;
}
