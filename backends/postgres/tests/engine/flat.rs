//! What does not grow: a claim touches as much of a large backlog as of a small one, and no hot verb reads through a table.

use serde_json::Value;
use windlass_conformance::{Env, complete, draft, mail};
use windlass_core::{At, Backend, Held, NewJob, Sweep, Verdict};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe};

use crate::common::{options, with};
use crate::opening::ask;

async fn crowd(backend: &PostgresBackend, thousands: usize, make: impl Fn() -> NewJob) {
    for _ in 0..thousands {
        let batch: Vec<_> = (0..1_000).map(|_| make()).collect();
        backend.push(&batch, At::Server).await.expect("push");
    }
}

/// How many pages of memory a claim of one job touches.
pub(crate) async fn pages_of_a_claim(backend: &PostgresBackend) -> i64 {
    let sql = format!(
        "explain (analyze, buffers, format json) select * from \"{}\".claim(null, gen_random_uuid(), gen_random_uuid(), \
         array['mail'], array['greet'], array[1], 1, 0, true, 30000)",
        backend.schema()
    );
    let plan = |sql: String| async move {
        let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(backend.pool()).await.expect("a plan");
        let text: &str = sqlx::Row::try_get_unchecked(&rows[0], 0).expect("text");
        serde_json::from_str::<Value>(text).expect("JSON")
    };
    // The first calls of a connection plan.
    for _ in 0..3 {
        plan(sql.clone()).await;
    }
    let plan = plan(sql).await;
    let top = &plan[0]["Plan"];
    top["Shared Hit Blocks"].as_i64().expect("hits") + top["Shared Read Blocks"].as_i64().expect("reads")
}

#[tokio::test]
async fn a_claim_touches_no_more_of_a_large_backlog() {
    let namespace = with(options().virtual_time(false).max_connections(1)).await;
    let backend = namespace.backend();
    crowd(backend, 1, || draft().build()).await;
    let few = pages_of_a_claim(backend).await;
    crowd(backend, 30, || draft().build()).await;
    crowd(backend, 10, || draft().after(std::time::Duration::from_secs(3_600)).build()).await;
    let many = pages_of_a_claim(backend).await;
    // A level more of an index is a page more for each time it is gone down.
    assert!(many <= few + 30, "{few} pages with a thousand waiting, {many} with forty thousand");
}

#[tokio::test]
async fn no_hot_verb_reads_through_a_table() {
    let namespace = with(options().virtual_time(false).max_connections(1)).await;
    let backend = namespace.backend();
    // Making an index reads its empty table.
    let before = scanned(backend).await;
    crowd(backend, 5, || draft().build()).await;
    crowd(backend, 1, || draft().after(std::time::Duration::from_secs(3_600)).build()).await;
    let mut verdicts: Vec<Verdict> = Vec::new();
    for _ in 0..8 {
        let ask = ask(200);
        let (_, claimed) =
            backend.settle_and_claim(&verdicts, &ask, At::Server).await.expect("settle and claim");
        assert_eq!(claimed.jobs.len(), 200);
        let held: Vec<_> =
            claimed.jobs.iter().map(|job| Held { lease: job.lease.clone(), started: true }).collect();
        backend.extend(ask.session, &held, ask.lease, At::Server).await.expect("extend");
        backend.push(&[draft().build()], At::Server).await.expect("push");
        let wait = backend.wait(ask.session, &[mail()], None, std::time::Duration::ZERO).await;
        assert_eq!(wait.expect("wait"), windlass_core::Wake::Work);
        verdicts = claimed.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    }
    backend.settle(&verdicts, At::Server).await.expect("settle");
    backend.sweep(&Sweep::default(), At::Server).await.expect("sweep");
    for ((table, scans, lookups), (_, before, _)) in scanned(backend).await.into_iter().zip(before) {
        assert_eq!(scans, before, "{table} was read through");
        assert!(lookups > 0, "{table} was looked up by its index");
    }
}

/// How often each large table was read through, and looked up by an index.
async fn scanned(backend: &PostgresBackend) -> Vec<(String, i64, i64)> {
    // A connection tells its counts when it is asked to. On Postgres 14 it cannot be: it does so by itself after the first
    // statement that ends more than half a second after it last did, and who asks is told what is up to half a second old.
    if sqlx::query("select pg_stat_force_next_flush()").execute(backend.pool()).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        sqlx::query("select 1").execute(backend.pool()).await.expect("a statement");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, seq_scan, coalesce(idx_scan, 0) from pg_stat_user_tables where schemaname = $1 \
         and relname in ('job', 'live', 'done') order by relname",
    )
    .bind(backend.schema())
    .fetch_all(backend.pool())
    .await
    .expect("statistics");
    assert_eq!(rows.len(), 3);
    rows
}
