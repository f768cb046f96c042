//! The plain design: one table with a state, claimed with SKIP LOCKED, completed in place.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::time::Instant;

use crate::course::BATCH;
use crate::stream::System;

const TABLES: &str = "
create table plain_job (
    id bigserial primary key, state smallint not null default 0, queue text not null, payload bytea not null,
    run_at timestamptz not null default now(), attempts integer not null default 0, locked_by uuid,
    locked_until timestamptz, finished_at timestamptz
);
create index plain_ready on plain_job (queue, run_at, id) where state = 0;
create index plain_leases on plain_job (locked_until) where state = 1;
";

const PUSH: &str = "insert into plain_job (queue, payload) select 'mail', convert_to(repeat('x', 100), 'UTF8') from generate_series(1, $1)";

const CLAIM: &str = "
update plain_job set state = 1, attempts = attempts + 1, locked_by = $2, locked_until = now() + interval '30 s'
where id in (
    select id from plain_job where queue = 'mail' and state = 0 and run_at <= now() order by run_at, id limit $1
    for update skip locked
) returning id, payload";

const COMPLETE: &str = "
update plain_job set state = 2, finished_at = now(), locked_by = null, locked_until = null
where id = any ($1) and state = 1 and locked_by = $2";

#[derive(Clone)]
pub(crate) struct Plain {
    pool: PgPool,
    worker: uuid::Uuid,
    held: Vec<i64>,
}

impl System for Plain {
    const NAME: &'static str = "plain SKIP LOCKED";

    async fn open(url: &str) -> Self {
        let pool = PgPoolOptions::new().max_connections(4).connect(url).await.expect("a pool");
        sqlx::raw_sql(TABLES).execute(&pool).await.expect("tables");
        Self { pool, worker: uuid::Uuid::new_v4(), held: Vec::new() }
    }

    async fn push(&self, jobs: usize) {
        let jobs = i32::try_from(jobs).expect("a small batch");
        sqlx::query(PUSH).bind(jobs).execute(&self.pool).await.expect("push");
    }

    async fn claim(&mut self) -> (usize, Duration) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            let done = sqlx::query(COMPLETE).bind(&held).bind(self.worker).execute(&self.pool).await;
            assert_eq!(done.expect("complete").rows_affected(), held.len() as u64);
        }
        let batch = i64::try_from(BATCH).expect("a small batch");
        let begun = Instant::now();
        let rows: Vec<(i64, Vec<u8>)> =
            sqlx::query_as(CLAIM).bind(batch).bind(self.worker).fetch_all(&self.pool).await.expect("claim");
        let took = begun.elapsed();
        self.held = rows.into_iter().map(|(id, _)| id).collect();
        (self.held.len(), took)
    }

    async fn completed(&self) -> usize {
        let count =
            sqlx::query_scalar::<_, i64>("select count(*) from plain_job where state = 2 and attempts = 1");
        usize::try_from(count.fetch_one(&self.pool).await.expect("a count")).expect("a count")
    }
}
