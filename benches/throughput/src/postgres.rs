//! Postgres: Windlass on a private server that syncs its commits, beside a bare program that makes the same writes with the
//! same checks through the same driver.

use std::time::Duration;

use sqlx::postgres::{PgPool, PgPoolOptions};
use windlass::prelude::*;
use windlass::{Migrate as _, PostgresOptions, Retention};
use windlass_servers::{Postgres, PostgresSettings};

use crate::raw_postgres::Raw;
use crate::store::{About, Store, Writes};

/// A connection tells its statistics at its end, if not before; those of a worker end with it, in the background.
const TOLD: Duration = Duration::from_secs(2);

/// A private server, and a connection to ask it through.
pub(crate) struct Server {
    postgres: Postgres,
    pool: PgPool,
}

impl Store for Server {
    type Backend = PostgresBackend;
    type Raw = Raw;
    type Durability = ();

    const ABOUT: About = About {
        engine: "postgres",
        raw: ("bare SQL", "sqlx"),
        in_flight: 64,
        parts: (50, 10),
        // More than any run here leaves.
        kept: 100_000_000,
        held: Some("disk"),
        has_server: true,
        afar: false,
        tells_writes: true,
    };
    const DURABILITIES: &'static [((), &'static str)] = &[((), "full")];

    async fn open((): ()) -> Self {
        let settings = PostgresSettings {
            durable: true,
            // No checkpoint falls into a run.
            others: [("shared_buffers", "1GB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "30min")]
                .map(|(name, value)| (name, value.to_owned()))
                .to_vec(),
        };
        let postgres = Postgres::start_with(&settings).expect("a private Postgres");
        let pool =
            PgPoolOptions::new().max_connections(1).connect(&postgres.url()).await.expect("a connection");
        Self { postgres, pool }
    }

    /// With as many connections as an engine has that is told nothing.
    async fn queue(&self, retention: Retention) -> Queue<PostgresBackend> {
        let options = PostgresOptions::new().retention(retention);
        let backend = PostgresBackend::connect_with(&self.postgres.url(), options).await.expect("it answers");
        backend.migrate().await.expect("its tables");
        Queue::new(backend)
    }

    async fn raw(&self) -> Raw {
        // Its tables are made like ours.
        drop(self.queue(Retention::default()).await);
        Raw::open(&self.postgres.url()).await
    }

    fn server_cpu(&self) -> Option<Duration> {
        Some(self.postgres.cpu_time().expect("the server's CPU time"))
    }

    /// What its tables and indexes take on the disk.
    async fn held(&self) -> u64 {
        self.number(
            "select coalesce(sum(pg_total_relation_size(oid)), 0)::bigint from pg_class \
             where relnamespace = 'windlass'::regnamespace and relkind = 'r'",
        )
        .await
    }

    async fn writes(&self) -> Writes {
        tokio::time::sleep(TOLD).await;
        Writes {
            wal_bytes: self.number("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint").await,
            // Those of inserted rows, and of rows that moved to where their index entries do not reach. An index of some rows
            // only is not counted: a plain job is in none.
            index_entries: self
                .number(
                    "select coalesce(sum((t.n_tup_ins + t.n_tup_upd - t.n_tup_hot_upd) * (
                        select count(*) from pg_index i where i.indrelid = t.relid and i.indpred is null)), 0)::bigint
                     from pg_stat_user_tables t where t.schemaname = 'windlass'",
                )
                .await,
        }
    }
}

impl Server {
    async fn number(&self, sql: &'static str) -> u64 {
        let number: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await.expect("an answer");
        number.unsigned_abs()
    }
}
