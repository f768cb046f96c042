//! A folder for databases, gone with its test.

use std::path::PathBuf;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;
use windlass_sqlite::{Durability, SqliteBackend, SqliteOptions};

pub(crate) struct Folder(TempDir);

#[allow(dead_code, reason = "each test file uses some of them")]
impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What an unplugged machine would lose is tested elsewhere: most tests need no sync.
    pub(crate) fn options(&self, name: &str) -> SqliteOptions {
        SqliteOptions::new(self.path(name)).durability(Durability::Normal)
    }

    pub(crate) async fn open(&self, name: &str) -> SqliteBackend {
        SqliteBackend::open_with(self.options(name)).await.expect("open")
    }

    /// A transaction of the user's own, on a connection of their own.
    pub(crate) async fn begin(&self, name: &str) -> SqliteConnection {
        let mut conn =
            SqliteConnectOptions::new().filename(self.path(name)).connect().await.expect("connect");
        sqlx::query("begin immediate").execute(&mut conn).await.expect("begin");
        conn
    }
}

/// A connection of the user's own.
#[allow(dead_code, reason = "each test file uses some of them")]
pub(crate) async fn connect(path: &std::path::Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).connect().await.expect("connect")
}
