//! The engine under test, by its URL. An engine that lands gets its scheme here, and, where it has one, its server a
//! [`Role`](crate::fleet::Role) in the fleet.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sqlx::{ConnectOptions as _, Connection as _};
use windlass::AnyBackend;
use windlass_core::{Keep, Retention};
use windlass_sqlite::{SqliteBackend, SqliteOptions};

/// The engines there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    Sqlite,
}

impl Engine {
    /// By name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        match name {
            "sqlite" => Ok(Self::Sqlite),
            other => bail!("no crash runs for the engine `{other}`: there is sqlite"),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
        }
    }

    /// A place of its own for a run, within `folder`.
    pub(crate) fn url(self, folder: &Path) -> String {
        match self {
            Self::Sqlite => format!("sqlite:{}", folder.join("jobs.db").display()),
        }
    }

    /// Whether a process can hold a transaction of the engine's open.
    pub(crate) fn has_writers(self) -> bool {
        match self {
            Self::Sqlite => true,
        }
    }

    /// What the engine's own tools say of the data, once nothing is left to do.
    pub(crate) async fn check(self, url: &str) -> Result<()> {
        match self {
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
        }
    }
}

/// Everything is kept, to be accounted for.
fn everything() -> Retention {
    let keep = Keep::new(1 << 40, Duration::from_secs(30 * 24 * 60 * 60));
    Retention { completed: keep, cancelled: keep, dead: keep }
}

/// Opens the SQLite engine at a URL.
pub(crate) async fn open_sqlite(url: &str) -> windlass::Result<SqliteBackend> {
    SqliteBackend::open_with(SqliteOptions::from_url(url)?.retention(everything())).await
}

/// Opens the engine at a URL.
pub(crate) async fn open(url: &str) -> windlass::Result<AnyBackend> {
    Ok(AnyBackend::new(open_sqlite(url).await?))
}
