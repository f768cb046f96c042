//! SQLite: Windlass on a file, beside the bare database doing the same writes through the same driver.

use windlass::prelude::*;
use windlass::{Durability, Retention, SqliteOptions};

use crate::raw_sqlite::Raw;
use crate::store::{About, Store};

/// A database in a folder of its own.
pub(crate) struct File {
    folder: tempfile::TempDir,
    durability: Durability,
}

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("jobs.db")
    }
}

impl Store for File {
    type Backend = SqliteBackend;
    type Raw = Raw;
    type Durability = Durability;

    const ABOUT: About = About {
        engine: "sqlite",
        raw: ("raw sqlx", "sqlx"),
        in_flight: 64,
        parts: (100, 4),
        // More than any run here leaves.
        kept: 100_000_000,
        held: None,
        has_server: false,
        afar: false,
        tells_writes: false,
    };
    const DURABILITIES: &'static [(Durability, &'static str)] =
        &[(Durability::Full, "full"), (Durability::Normal, "normal")];

    async fn open(durability: Durability) -> Self {
        // Beside the build, on a disk: a temporary folder may be in memory, where a sync costs nothing.
        let target = std::env::current_exe().ok().and_then(|exe| exe.parent().map(std::path::Path::to_owned));
        let folder = tempfile::tempdir_in(target.unwrap_or_default()).expect("a folder");
        Self { folder, durability }
    }

    async fn queue(&self, retention: Retention) -> Queue<SqliteBackend> {
        let options = SqliteOptions::new(self.path()).durability(self.durability).retention(retention);
        Queue::new(SqliteBackend::open_with(options).await.expect("a database"))
    }

    async fn raw(&self) -> Raw {
        Raw::open(&self.path(), self.durability).await
    }
}
