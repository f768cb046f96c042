//! The database's file: opening it, knowing it again, and its schema.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use windlass_core::{Error, ErrorKind, Migration, Result};

use crate::error::{is_busy, translated};
use crate::options::{Durability, SqliteOptions};

/// The steps of the schema, oldest first.
const MIGRATIONS: &[(Migration, &str)] =
    &[(Migration { version: 1, name: "jobs, queues and their indexes" }, include_str!("schema.sql"))];

/// Which file a path leads to, while it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    /// The file at `path`; `None` when there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            Some(Self(found.dev(), found.ino()))
        }
        #[cfg(not(unix))]
        {
            // An open file cannot be replaced there.
            let _ = found;
            Some(Self(0, 0))
        }
    }
}

pub(crate) fn gone() -> Error {
    Error::new(
        ErrorKind::Connection,
        "the database file is gone from its path: put it back, and work goes on without a restart",
    )
}

fn connect_options(options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(&options.path)
        // The driver's own back-off starves; waiting for the lock is done without blocking a thread.
        .busy_timeout(Duration::ZERO)
        .statement_cache_capacity(512)
        .row_buffer_size(1_024)
        .foreign_keys(false)
        .log_slow_statements(log::LevelFilter::Off, Duration::ZERO)
        .disable_statement_logging()
}

/// Opens a connection that writes.
pub(crate) async fn open(options: &SqliteOptions, create: bool) -> Result<SqliteConnection> {
    let synchronous = match options.durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Normal => SqliteSynchronous::Normal,
    };
    let wanted = connect_options(options)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .pragma("journal_size_limit", "67108864")
        .pragma("temp_store", "memory")
        .pragma("cache_size", "-32768");
    let mut waited = Duration::ZERO;
    let mut conn = loop {
        match wanted.connect().await {
            // Two processes that open a new file at once may meet as they set its journal mode.
            Err(error) if is_busy(&error) && waited < options.busy_timeout => {
                waited += BUSY_PAUSE;
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            opened => break opened.map_err(translated)?,
        }
    };
    check_version(&mut conn).await?;
    if let Some(bytes) = options.max_bytes {
        limit(&mut conn, bytes).await.map_err(translated)?;
    }
    Ok(conn)
}

async fn limit(conn: &mut SqliteConnection, bytes: u64) -> std::result::Result<(), sqlx::Error> {
    let page: i64 = sqlx::query("pragma page_size").fetch_one(&mut *conn).await?.try_get(0)?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    sqlx::raw_sql(AssertSqlSafe(format!("pragma max_page_count = {}", pages.max(1)))).execute(conn).await?;
    Ok(())
}

/// How long to wait before trying again for the lock.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// Opens the connections that read. They are made when they are needed.
pub(crate) fn open_readers(options: &SqliteOptions) -> SqlitePool {
    SqlitePoolOptions::new()
        .max_connections(options.readers)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(10))
        .connect_lazy_with(connect_options(options).read_only(true))
}

/// Opens a connection that watches for the writes of others.
pub(crate) async fn open_watcher(options: &SqliteOptions) -> Result<SqliteConnection> {
    connect_options(options).read_only(true).connect().await.map_err(translated)
}

/// Refuses releases of SQLite with the WAL-reset defect: two connections that meet at a checkpoint could lose committed
/// transactions. 3.7.0 to 3.51.2 have it, but for two releases that it was mended in.
async fn check_version(conn: &mut SqliteConnection) -> Result<()> {
    let row = sqlx::query("select sqlite_version()").fetch_one(conn).await.map_err(translated)?;
    let version: String = row.try_get(0).map_err(translated)?;
    if is_sound(&version) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!(
            "SQLite {version} can lose committed transactions in WAL mode (its WAL-reset defect): use 3.51.3 or later, as \
             the bundled one is"
        ),
    ))
}

fn is_sound(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    version >= (3, 51, 3)
        || ((3, 50, 7)..(3, 51, 0)).contains(&version)
        || ((3, 44, 6)..(3, 45, 0)).contains(&version)
}

/// The version of the schema in the file: 0 when there is none.
async fn stored_version(conn: &mut SqliteConnection) -> std::result::Result<u32, sqlx::Error> {
    let found = sqlx::query("select 1 from sqlite_schema where type = 'table' and name = 'windlass_meta'")
        .fetch_optional(&mut *conn)
        .await?;
    if found.is_none() {
        return Ok(0);
    }
    sqlx::query("select version from windlass_meta").fetch_one(conn).await?.try_get(0)
}

/// The steps that the file has not gone through.
pub(crate) async fn pending(conn: &mut SqliteConnection) -> Result<Vec<Migration>> {
    let stored = stored_version(conn).await.map_err(translated)?;
    check_stored(stored)?;
    Ok(steps_after(stored).map(|(step, _)| step.clone()).collect())
}

fn steps_after(stored: u32) -> impl Iterator<Item = &'static (Migration, &'static str)> {
    MIGRATIONS.iter().filter(move |(step, _)| step.version > stored)
}

fn check_stored(stored: u32) -> Result<()> {
    let newest = MIGRATIONS.last().map_or(0, |(step, _)| step.version);
    if stored > newest {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the schema has version {stored}, made by a newer release: this one knows {newest}"),
        ));
    }
    Ok(())
}

/// Brings the schema up to date within one transaction: of two processes at once the second finds nothing to do.
pub(crate) async fn migrate(conn: &mut SqliteConnection, patience: Duration) -> Result<Vec<Migration>> {
    if pending(conn).await?.is_empty() {
        return Ok(Vec::new());
    }
    begin(conn, patience).await.map_err(translated)?;
    let done = apply(conn).await;
    let end = if done.is_ok() { "commit" } else { "rollback" };
    let ended = sqlx::query(end).execute(conn).await;
    let done = done?;
    ended.map_err(translated)?;
    Ok(done)
}

async fn apply(conn: &mut SqliteConnection) -> Result<Vec<Migration>> {
    let stored = stored_version(conn).await.map_err(translated)?;
    let mut done = Vec::new();
    for (step, sql) in steps_after(stored) {
        sqlx::raw_sql(*sql).execute(&mut *conn).await.map_err(translated)?;
        sqlx::query("update windlass_meta set version = ?1")
            .bind(step.version)
            .execute(&mut *conn)
            .await
            .map_err(translated)?;
        done.push(step.clone());
    }
    Ok(done)
}

/// Begins a transaction that holds the write lock, waiting for others without blocking a thread.
pub(crate) async fn begin(
    conn: &mut SqliteConnection,
    patience: Duration,
) -> std::result::Result<(), sqlx::Error> {
    let started = tokio::time::Instant::now();
    loop {
        match sqlx::query("begin immediate").execute(&mut *conn).await {
            Err(error) if is_busy(&error) && started.elapsed() < patience => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
            Ok(_) => return Ok(()),
        }
    }
}

/// Ends a connection. Its last one of all processes takes the log along.
pub(crate) async fn close(conn: SqliteConnection) {
    if let Err(error) = conn.close().await {
        tracing::debug!(%error, "closing a connection failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_with_the_wal_reset_defect_are_refused() {
        for sound in ["3.51.3", "3.54.1", "3.50.7", "3.44.6", "4.0.0"] {
            assert!(is_sound(sound), "{sound}");
        }
        for unsound in ["3.7.0", "3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.2", "nonsense"] {
            assert!(!is_sound(unsound), "{unsound}");
        }
    }
}
