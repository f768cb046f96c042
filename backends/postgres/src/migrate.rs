//! Making a namespace, and bringing it up to date.

use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row};
use windlass_core::{Error, Migrate, Migration, Result};

use crate::PostgresBackend;
use crate::error::{Failure, connecting, of_statement};
use crate::statements::SCHEMA_FILES;

/// All migrations, in order. A released one is never changed: the next version adds to it.
const MIGRATIONS: [Migration; 1] = [Migration { version: 1, name: "tables and functions" }];

/// The way back of each.
const WAYS_BACK: [&str; MIGRATIONS.len()] = ["drop schema @schema@ cascade"];

fn failed(error: sqlx::Error) -> Error {
    match of_statement(error, true) {
        Failure::Again(error) | Failure::Final(error) => {
            error.during(PostgresBackend::NAME_OF_ENGINE, "migrate")
        }
    }
}

impl PostgresBackend {
    /// The newest version that is there; 0 for a namespace that is not there yet.
    async fn version(&self, connection: &mut PgConnection) -> Result<u32> {
        let name = &self.shared.name;
        // Nothing is prepared here: through a pooler each of these may meet another server connection.
        let there = name.fill("select to_regclass('@literal@.migration') is not null");
        let row = sqlx::raw_sql(AssertSqlSafe(there)).fetch_one(&mut *connection).await.map_err(failed)?;
        if !row.try_get::<bool, _>(0).map_err(failed)? {
            return Ok(0);
        }
        let newest = name.fill("select max(version) from @schema@.migration");
        let row = sqlx::raw_sql(AssertSqlSafe(newest)).fetch_one(connection).await.map_err(failed)?;
        let newest: Option<i32> = row.try_get(0).map_err(failed)?;
        Ok(u32::try_from(newest.unwrap_or_default()).unwrap_or_default())
    }

    async fn steps(&self, connection: &mut PgConnection) -> Result<Vec<Migration>> {
        let version = self.version(connection).await?;
        Ok(MIGRATIONS.into_iter().filter(|migration| migration.version > version).collect())
    }

    async fn apply(&self, migration: &Migration, connection: &mut PgConnection) -> Result<()> {
        let name = &self.shared.name;
        let mut run = name.fill(
            "create table if not exists @schema@.migration (\n    version integer primary key,\n    name text not null,\n    \
             applied_at timestamptz not null default now()\n);\n",
        );
        if migration.version == 1 {
            for file in SCHEMA_FILES {
                run.push_str(&name.fill(file));
            }
            let mode = self.shared.options.virtual_time;
            run.push_str(&name.fill(&format!("insert into @schema@.meta (virtual) values ({mode});\n")));
        }
        sqlx::raw_sql(AssertSqlSafe(run)).execute(&mut *connection).await.map_err(failed)?;
        sqlx::query(AssertSqlSafe(
            name.fill("insert into @schema@.migration (version, name) values ($1, $2)"),
        ))
        .persistent(false)
        .bind(i32::try_from(migration.version).unwrap_or(i32::MAX))
        .bind(migration.name)
        .execute(connection)
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Takes back every migration above version `to`, the newest first, in one transaction and behind the lock of
    /// [`migrate`](Migrate::migrate). Version 0 is no namespace at all: all its jobs are gone then, so stop the workers first.
    /// Returns what was taken back: nothing for a namespace that is not above `to`, or not there.
    ///
    /// # Errors
    /// As [`migrate`](Migrate::migrate). One that failed, or whose future was dropped, changed nothing.
    pub async fn migrate_down(&self, to: u32) -> Result<Vec<Migration>> {
        let mut connection = self.connection().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx).await?;
        let version = self.version(&mut tx).await?;
        let mut taken_back = Vec::new();
        for (step, back) in MIGRATIONS.into_iter().zip(WAYS_BACK).rev() {
            if step.version > to && step.version <= version {
                let back = self.shared.name.fill(back);
                sqlx::raw_sql(AssertSqlSafe(back)).execute(&mut *tx).await.map_err(failed)?;
                taken_back.push(step);
            }
        }
        tx.commit().await.map_err(failed)?;
        Ok(taken_back)
    }

    /// A connection for a transaction, which is not given back: whoever is dropped meanwhile may leave it open.
    async fn connection(&self) -> Result<PoolConnection<Postgres>> {
        let mut connection = self.shared.caller.pool.acquire().await.map_err(connecting)?;
        connection.close_on_drop();
        Ok(connection)
    }

    /// One process at a time, to the end of the transaction.
    async fn lock(&self, connection: &mut PgConnection) -> Result<()> {
        let lock = "select pg_advisory_xact_lock(hashtextextended('windlass migrate @text@', 0))";
        let lock = self.shared.name.fill(lock);
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(connection).await.map_err(failed).map(drop)
    }

    /// Drops the namespace: the schema, and every job in it. For tests and for those who leave.
    ///
    /// # Errors
    /// As [`migrate`](Migrate::migrate).
    pub async fn drop_namespace(&self) -> Result<()> {
        let sql = self.shared.name.fill("drop schema if exists @schema@ cascade");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.shared.caller.pool).await.map_err(failed).map(drop)
    }
}

impl Migrate for PostgresBackend {
    async fn pending(&self) -> Result<Vec<Migration>> {
        let mut connection = self.shared.caller.pool.acquire().await.map_err(connecting)?;
        self.steps(&mut connection).await
    }

    /// Brings the schema up to date in one transaction, behind a lock: of several processes one does it and the others wait
    /// for it. Where nothing is to be done nothing is locked, and the role needs no right to change the schema.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](windlass_core::ErrorKind::Config) when the role may not create what is missing; connection
    /// failures as with every verb. A migration that failed, or whose future was dropped, changed nothing.
    async fn migrate(&self) -> Result<Vec<Migration>> {
        if self.pending().await?.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection().await?;
        let mut tx = connection.begin().await.map_err(failed)?;
        self.lock(&mut tx).await?;
        let name = &self.shared.name;
        let steps = self.steps(&mut tx).await?;
        if !steps.is_empty() {
            let there: bool =
                sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
                    .persistent(false)
                    .bind(self.schema())
                    .fetch_one(&mut *tx)
                    .await
                    .map_err(failed)?;
            if !there {
                // Asked first: a role may own its schema and still not be allowed to create one.
                let create = name.fill("create schema @schema@");
                sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *tx).await.map_err(failed)?;
            }
        }
        for step in &steps {
            self.apply(step, &mut tx).await?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(steps)
    }
}
