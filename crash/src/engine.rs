//! The engine under test, by its URL, and what its own tools say of the data. Its server is `server.rs`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{ConnectOptions as _, Connection as _};
use windlass::{AnyBackend, Migrate as _};
use windlass_core::{Keep, Retention};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_redis::{RedisBackend, RedisOptions};
use windlass_sqlite::{SqliteBackend, SqliteOptions};

/// The engines there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    Postgres,
    Redis,
    Sqlite,
}

impl Engine {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Postgres, "postgres"), (Self::Redis, "redis"), (Self::Sqlite, "sqlite")];

    /// By name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        match Self::ALL.iter().find(|(_, known)| *known == name) {
            Some((engine, _)) => Ok(*engine),
            None => bail!("no crash runs for the engine `{name}`: there are postgres, redis and sqlite"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(engine, _)| *engine == self).map_or("", |(_, name)| name)
    }

    /// Whether it is a server, which can be killed.
    pub(crate) fn has_server(self) -> bool {
        self != Self::Sqlite
    }

    /// Whether a process can hold a transaction of the engine's open.
    pub(crate) fn has_writers(self) -> bool {
        self != Self::Redis
    }

    /// Whether a process that stands still within the engine holds up the others.
    pub(crate) fn has_one_lock(self) -> bool {
        self == Self::Sqlite
    }

    /// What the engine's own tools say of the data, once nothing is left to do.
    pub(crate) async fn check(self, url: &str) -> Result<()> {
        match self {
            // Its tool looks at files that nobody writes: `server.rs`.
            Self::Redis => Ok(()),
            Self::Sqlite => {
                let path = url.strip_prefix("sqlite:").context("a SQLite URL")?;
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                let mut conn = options.connect().await?;
                let rows: Vec<String> =
                    sqlx::query_scalar("pragma integrity_check").fetch_all(&mut conn).await?;
                conn.close().await?;
                ensure!(rows == ["ok"], "integrity_check: {}", rows.join("; "));
                Ok(())
            }
            Self::Postgres => {
                let mut conn = sqlx::PgConnection::connect(url).await?;
                sqlx::raw_sql("create extension if not exists amcheck").execute(&mut conn).await.context(
                    "amcheck is not there: install the package `postgresql-contrib` (Debian's name) and try again",
                )?;
                // Every index against its table, and that every row is in it.
                let checked: i64 = sqlx::query_scalar(
                    "select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid \
                     join pg_namespace n on n.oid = c.relnamespace join pg_am a on a.oid = c.relam, \
                     lateral (select bt_index_parent_check(c.oid, true)) checked \
                     where a.amname = 'btree' and i.indisvalid and n.nspname = 'windlass'",
                )
                .fetch_one(&mut conn)
                .await?;
                conn.close().await?;
                ensure!(checked > 5, "amcheck found {checked} indexes to look at");
                Ok(())
            }
        }
    }
}

/// A place of its own in a file, within `folder`.
pub(crate) fn sqlite_url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("jobs.db").display())
}

/// Everything is kept, to be accounted for.
fn everything() -> Retention {
    let keep = Keep::new(1 << 40, Duration::from_secs(30 * 24 * 60 * 60));
    Retention { completed: keep, cancelled: keep, dead: keep }
}

/// An engine that is open.
#[derive(Clone, Debug)]
pub(crate) enum Opened {
    Postgres(PostgresBackend),
    Redis(RedisBackend),
    Sqlite(SqliteBackend),
}

impl Opened {
    async fn once(url: &str) -> windlass::Result<Self> {
        if url.starts_with("sqlite:") {
            return Ok(Self::Sqlite(
                SqliteBackend::open_with(SqliteOptions::from_url(url)?.retention(everything())).await?,
            ));
        }
        if url.starts_with("redis:") {
            let options = RedisOptions::new(url).retention(everything());
            return Ok(Self::Redis(RedisBackend::connect_with(options).await?));
        }
        let options = PostgresOptions::new().retention(everything());
        let backend = PostgresBackend::connect_with(url, options).await?;
        backend.migrate().await?;
        Ok(Self::Postgres(backend))
    }

    /// Opens the engine at a URL. Its server may be starting: it is waited for.
    pub(crate) async fn at(url: &str) -> windlass::Result<Self> {
        const AGAIN: Duration = Duration::from_millis(50);
        const TRIES: u32 = 1_200;
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::once(url).await {
                Err(error) if error.is_retryable() && tries < TRIES => tokio::time::sleep(AGAIN).await,
                opened => return opened,
            }
        }
    }

    /// With its type hidden.
    pub(crate) fn any(&self) -> AnyBackend {
        match self {
            Self::Postgres(backend) => AnyBackend::new(backend.clone()),
            Self::Redis(backend) => AnyBackend::new(backend.clone()),
            Self::Sqlite(backend) => AnyBackend::new(backend.clone()),
        }
    }
}
