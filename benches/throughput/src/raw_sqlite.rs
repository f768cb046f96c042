//! The raw limit of SQLite: the same rows written to the same tables through the same driver, in transactions as large, by a
//! loop that does nothing else. No codec, no checks, no fences that could fail, no worker.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};
use windlass::prelude::*;
use windlass::{Durability, SqliteOptions};

use crate::store;

/// Jobs that a transaction of a drain settles, and claims.
const BATCH: usize = 1_000;

pub(crate) struct Raw {
    conn: SqliteConnection,
    next: i64,
}

impl Raw {
    pub(crate) async fn open(path: &Path, durability: Durability) -> Self {
        // The engine makes its tables, and is closed again.
        drop(SqliteBackend::open_with(SqliteOptions::new(path)).await.expect("a database"));
        let synchronous = match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        };
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .statement_cache_capacity(512)
            .row_buffer_size(1_024)
            .disable_statement_logging();
        let mut conn = options.connect().await.expect("a connection");
        sqlx::raw_sql("insert into windlass_queue (q, name) values (1, 'default'); insert into windlass_kind values (1, 'noop')")
            .execute(&mut conn)
            .await
            .expect("rows");
        Self { conn, next: 1 }
    }

    async fn run(&mut self, sql: &'static str) {
        sqlx::query(sql).execute(&mut self.conn).await.expect("a statement");
    }

    async fn insert(&mut self, count: usize) {
        let mut jobs = String::from(
            "insert into windlass_job (n, q, id, k, min_reader, priority, created, flags, state, why, line, place, at, \
             since, epoch, attempts, lost, generation) values ",
        );
        let mut bodies = String::from("; insert into windlass_body (n, packed) values ");
        for row in 0..count {
            let comma = if row == 0 { "" } else { "," };
            let _ = write!(jobs, "{comma}(?,?,?,?,?,?,?,?,?,0,0,?,?,0,0,0,0,0)");
            let _ = write!(bodies, "{comma}(?,?)");
        }
        jobs.push_str(&bodies);
        let mut statement = sqlx::query(AssertSqlSafe(jobs));
        let first = self.next;
        for n in first..first + i64::try_from(count).unwrap_or(0) {
            let id = u128::from(n.unsigned_abs()).to_be_bytes().to_vec();
            statement = statement.bind(n).bind(1).bind(id).bind(1).bind(1).bind(5).bind(0).bind(0).bind(2);
            statement = statement.bind((4_i64 << 59) | n).bind(0);
        }
        for n in first..first + i64::try_from(count).unwrap_or(0) {
            statement = statement.bind(n).bind(vec![b'x'; 128]);
        }
        self.next += i64::try_from(count).unwrap_or(0);
        statement.execute(&mut self.conn).await.expect("jobs and bodies");
    }
}

impl store::Raw for Raw {
    /// Transactions of `together` jobs, in statements of at most 50.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn dispatch(&mut self, jobs: usize, together: usize) -> Duration {
        let begun = Instant::now();
        for from in (0..jobs).step_by(together) {
            self.run("begin immediate").await;
            let mut left = together.min(jobs - from);
            while left > 0 {
                let now = left.min(50);
                self.insert(now).await;
                left -= now;
            }
            self.run("update windlass_queue set ready = ready + 1; update windlass_meta set sequence = sequence + 1; commit").await;
        }
        begun.elapsed()
    }

    async fn bulk(&mut self, jobs: usize) -> Duration {
        self.dispatch(jobs, 1_000).await
    }

    /// Settles one batch and claims the next in one transaction, until nothing is left.
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn drain(&mut self, jobs: usize) -> Duration {
        let begun = Instant::now();
        let (mut held, mut done) = (String::from("[]"), 0);
        loop {
            self.run("begin immediate").await;
            let settled = sqlx::query(
                "update windlass_job as job set state = 4, line = 0, place = ?2 + told.key, at = ?3, flags = flags & ~3, \
                 attempts = min(attempts + 1, 65535), session = null from json_each(?1) as told \
                 where job.n = told.value and job.state = 3",
            )
            .bind(&held)
            .bind(self.next)
            .bind(1_i64)
            .execute(&mut self.conn)
            .await
            .expect("settle")
            .rows_affected();
            done += usize::try_from(settled).unwrap_or(0);
            self.next += i64::try_from(BATCH).unwrap_or(0);
            let rows = sqlx::query(
                "select n, id, epoch, (select packed from windlass_body as body where body.n = job.n) \
                 from windlass_job as job where state = 2 and q = 1 and line = 0 order by place limit ?1",
            )
            .bind(i64::try_from(BATCH).unwrap_or(0))
            .fetch_all(&mut self.conn)
            .await
            .expect("claim");
            held = String::from("[");
            for (at, row) in rows.iter().enumerate() {
                let n: i64 = row.get(0);
                std::hint::black_box(row.get::<&[u8], _>(3));
                let _ = write!(held, "{}{n}", if at == 0 { "" } else { "," });
            }
            held.push(']');
            sqlx::query(
                "update windlass_job as job set state = 3, line = 0, epoch = epoch + 1, flags = flags | 2, at = ?2, \
                 since = ?2, session = ?3, nonce = ?4 where n in (select value from json_each(?1))",
            )
            .bind(&held)
            .bind(30_000_i64)
            .bind(vec![1_u8; 16])
            .bind(vec![2_u8; 16])
            .execute(&mut self.conn)
            .await
            .expect("take");
            self.run("update windlass_queue set ready = ready - 1; update windlass_meta set sequence = sequence + 1; commit").await;
            if rows.is_empty() {
                break;
            }
        }
        let took = begun.elapsed();
        assert_eq!(done, jobs, "each job was settled once");
        took
    }
}
