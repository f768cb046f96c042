//! A namespace for each test: a schema of its own on the server that `cargo xtask test` starts.

use std::sync::Mutex;

use windlass_conformance::{Conn, Env, TransactionalEnv};
use windlass_core::{Migrate, Result, Retention};
use windlass_postgres::sqlx::{self, Connection, PgConnection};
use windlass_postgres::{PostgresBackend, PostgresOptions};

/// The URL of the tests' server.
pub(crate) fn url() -> String {
    std::env::var("WINDLASS_TEST_POSTGRES_URL").expect(
        "no Postgres to test against: run the tests with `cargo xtask test`, or start servers with `cargo xtask servers up` \
         and set WINDLASS_TEST_POSTGRES_URL as it says",
    )
}

/// Options of a fresh namespace for a test: few connections, since many tests run at once.
pub(crate) fn options() -> PostgresOptions {
    let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
    // The same tests through a pooler in transaction mode: its URL, and this.
    let pooler = std::env::var_os("WINDLASS_TEST_POSTGRES_POOLER").is_some();
    PostgresOptions::new().schema(schema).max_connections(8).virtual_time(true).pooler(pooler)
}

pub(crate) async fn open(options: &PostgresOptions) -> PostgresBackend {
    let backend = PostgresBackend::connect_with(&url(), options.clone()).await.expect("connect");
    backend.migrate().await.expect("migrate");
    backend
}

/// A namespace, dropped when its test is over.
pub(crate) struct Namespace {
    backend: PostgresBackend,
    options: PostgresOptions,
    made: Mutex<Vec<PostgresBackend>>,
}

pub(crate) async fn fresh() -> Namespace {
    with(options()).await
}

pub(crate) async fn with(options: PostgresOptions) -> Namespace {
    let backend = open(&options).await;
    let made = Mutex::new(vec![backend.clone()]);
    Namespace { backend, options, made }
}

impl Namespace {
    fn keep(&self, backend: PostgresBackend) -> PostgresBackend {
        self.made.lock().expect("not poisoned").push(backend.clone());
        backend
    }
}

impl Drop for Namespace {
    /// On a thread of its own: the test's runtime may be the one that is being left.
    fn drop(&mut self) {
        let schemas: Vec<String> = self
            .made
            .lock()
            .expect("not poisoned")
            .iter()
            .map(|backend| backend.schema().to_owned())
            .collect();
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                for schema in schemas {
                    let options = PostgresOptions::new().schema(schema).max_connections(1);
                    if let Ok(backend) = PostgresBackend::connect_with(&url(), options).await {
                        // A test that failed half way may still hold locks; the server goes with the run.
                        let _ =
                            tokio::time::timeout(std::time::Duration::from_secs(5), backend.drop_namespace())
                                .await;
                    }
                }
            });
            std::io::Result::Ok(())
        });
        let _ = dropped.join();
    }
}

impl Env for Namespace {
    type Backend = PostgresBackend;

    fn backend(&self) -> &PostgresBackend {
        &self.backend
    }

    async fn second(&self) -> PostgresBackend {
        open(&self.options).await
    }

    async fn with_retention(&self, retention: Retention) -> PostgresBackend {
        self.keep(open(&options().retention(retention)).await)
    }

    async fn server_timed(&self) -> PostgresBackend {
        self.keep(open(&options().virtual_time(false)).await)
    }
}

impl TransactionalEnv for Namespace {
    async fn begin(&self) -> Result<Conn<Self>> {
        let mut connection = PgConnection::connect(&url()).await.expect("a connection");
        sqlx::raw_sql("begin").execute(&mut connection).await.expect("begin");
        Ok(connection)
    }

    async fn commit(&self, mut conn: Conn<Self>) -> Result<()> {
        sqlx::raw_sql("commit").execute(&mut conn).await.expect("commit");
        Ok(())
    }

    async fn rollback(&self, mut conn: Conn<Self>) -> Result<()> {
        sqlx::raw_sql("rollback").execute(&mut conn).await.expect("rollback");
        Ok(())
    }
}
