//! The SQLite engine against the executable specification.

mod common;

use windlass_conformance::{Conn, Env, TransactionalEnv};
use windlass_core::{Result, Retention};
use windlass_sqlite::{SqliteBackend, SqliteOptions};

use common::Folder;

struct Sqlite {
    backend: SqliteBackend,
    folder: Folder,
}

async fn fresh() -> Sqlite {
    let folder = Folder::new();
    Sqlite { backend: folder.open("jobs.db").await, folder }
}

impl Env for Sqlite {
    type Backend = SqliteBackend;

    fn backend(&self) -> &SqliteBackend {
        &self.backend
    }

    async fn second(&self) -> SqliteBackend {
        self.folder.open("jobs.db").await
    }

    async fn with_retention(&self, retention: Retention) -> SqliteBackend {
        let path = self.folder.path(&format!("{}.db", windlass_core::Nonce::random().as_u128()));
        SqliteBackend::open_with(SqliteOptions::new(path).retention(retention)).await.expect("open")
    }

    async fn server_timed(&self) -> SqliteBackend {
        self.folder.open("server.db").await
    }

    fn skips() -> &'static [(&'static str, &'static str)] {
        &[(
            "a_lost_lease_cannot_be_settled_in_a_transaction",
            "SQLite has one writer: while a transaction is open no lease can be lost, since no sweep can run",
        )]
    }
}

impl TransactionalEnv for Sqlite {
    async fn begin(&self) -> Result<Conn<Self>> {
        Ok(self.folder.begin("jobs.db").await)
    }

    async fn commit(&self, mut conn: Conn<Self>) -> Result<()> {
        sqlx::query("commit").execute(&mut conn).await.expect("commit");
        Ok(())
    }

    async fn rollback(&self, mut conn: Conn<Self>) -> Result<()> {
        sqlx::query("rollback").execute(&mut conn).await.expect("rollback");
        Ok(())
    }
}

windlass_conformance::conformance!(fresh);
windlass_conformance::transactional!(fresh);
