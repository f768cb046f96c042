//! The raw limit of Postgres: the statements of the engine's own benchmark, which make the same writes to tables like the
//! engine's, with the same checks. No codec, no other states, no worker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::types::Uuid;

use crate::store;

const TABLES: &str = include_str!("../../../backends/postgres/benches/bare_tables.sql");
const PUSH: &str = include_str!("../../../backends/postgres/benches/bare_push.sql");
const CLAIM: &str = include_str!("../../../backends/postgres/benches/bare_claim.sql");
const SETTLE: &str = include_str!("../../../backends/postgres/benches/bare_settle.sql");

/// As many as an engine has that is told nothing.
const CONNECTIONS: u32 = 10;
/// Loops that drain at once: one alone waits for the disk half of its time.
const DRAINERS: usize = 2;
const BATCH: usize = 500;

pub(crate) struct Raw {
    pool: PgPool,
    next: AtomicU64,
}

impl Raw {
    /// Makes its tables, like those that the engine has made there.
    pub(crate) async fn open(url: &str) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .after_connect(|connection, _| {
                // As the engine's functions have it: left to itself the planner reads whole tables that it knows nothing of.
                let same = "set plan_cache_mode = force_generic_plan; set enable_seqscan = off; \
                            set enable_hashjoin = off; set enable_mergejoin = off; set jit = off";
                Box::pin(async move { sqlx::raw_sql(same).execute(connection).await.map(drop) })
            })
            .connect(url)
            .await
            .expect("connections");
        sqlx::raw_sql(TABLES).execute(&pool).await.expect("tables");
        Self { pool, next: AtomicU64::new(1) }
    }

    async fn push(&self, count: usize) {
        let first = self.next.fetch_add(count as u64, Ordering::Relaxed);
        let ids: Vec<Uuid> = (first..first + count as u64).map(spread).collect();
        let payloads: Vec<&[u8]> = vec![&[b'x'; 100]; count];
        sqlx::query(PUSH).bind(ids).bind(payloads).execute(&self.pool).await.expect("a push");
    }

    /// Settles one batch and claims the next in one transaction, until nothing is left; how many it settled.
    async fn drain_alone(pool: PgPool, mut nonce: Uuid) -> usize {
        let mut seqs: Vec<i64> = Vec::new();
        let mut done = 0;
        loop {
            let mut tx = pool.begin().await.expect("begin");
            let held = seqs.len();
            let settled = sqlx::query(SETTLE)
                .bind(std::mem::take(&mut seqs))
                .bind(nonce)
                .execute(&mut *tx)
                .await
                .expect("settle");
            assert_eq!(settled.rows_affected(), held as u64, "each job was settled once");
            done += held;
            nonce = Uuid::from_u128(nonce.as_u128().wrapping_add(1 << 64));
            // One at a time, as the engine's lane has it: a statement of its own, so that the next one sees the cursor.
            sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *tx).await.expect("lane");
            let rows = sqlx::query(CLAIM)
                .bind(nonce)
                .bind(i64::try_from(BATCH).expect("a small number"))
                .fetch_all(&mut *tx)
                .await
                .expect("claim");
            tx.commit().await.expect("commit");
            if rows.is_empty() {
                return done;
            }
            for row in &rows {
                seqs.push(row.get("seq"));
                std::hint::black_box(row.get::<&[u8], _>("payload"));
            }
        }
    }
}

/// The id of a job: they grow, as the library's do, and their ends are spread.
fn spread(n: u64) -> Uuid {
    Uuid::from_u128(u128::from(n) << 64 | u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

impl store::Raw for Raw {
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn dispatch(&mut self, jobs: usize, in_flight: usize) -> Duration {
        let begun = Instant::now();
        stream::iter(0..jobs)
            .map(|_| self.push(1))
            .buffer_unordered(in_flight)
            .for_each(|()| std::future::ready(()))
            .await;
        begun.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn bulk(&mut self, jobs: usize) -> Duration {
        let begun = Instant::now();
        for from in (0..jobs).step_by(1_000) {
            self.push(1_000.min(jobs - from)).await;
        }
        begun.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn drain(&mut self, jobs: usize) -> Duration {
        let begun = Instant::now();
        let drainers: Vec<_> = (1..=DRAINERS as u128)
            .map(|lane| tokio::spawn(Self::drain_alone(self.pool.clone(), Uuid::from_u128(lane))))
            .collect();
        let mut done = 0;
        for drainer in drainers {
            done += drainer.await.expect("a drainer");
        }
        let took = begun.elapsed();
        assert_eq!(done, jobs, "each job was settled once");
        took
    }
}
