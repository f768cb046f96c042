//! What does not grow: a claim touches as much of a large backlog as of a small one.

use serde_json::Value;
use windlass_conformance::{Env, draft};
use windlass_core::{At, Backend, NewJob};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe};

use crate::common::{options, with};

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
