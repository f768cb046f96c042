//! One statement: a connection for it, a time limit, another try where the server undid it because of others, and no
//! connection that is left half way.

use std::sync::Arc;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres};
use windlass_core::{Error, ErrorKind, Result};

use crate::error::{Failure, connecting, of_statement};
use crate::jobs::Asked;

/// How often a statement is sent that the server undoes because of others (a deadlock, a serialization failure).
const TRIES: u32 = 8;

/// What a statement is for.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    /// The verb, for errors.
    pub(crate) name: &'static str,
    /// Whether it is to change anything: if not, a lost answer leaves nothing unknown.
    pub(crate) changes: bool,
}

impl Operation {
    pub(crate) const fn change(name: &'static str) -> Self {
        Self { name, changes: true }
    }

    pub(crate) const fn read(name: &'static str) -> Self {
        Self { name, changes: false }
    }
}

/// Where statements are sent.
pub(crate) struct Caller {
    pub(crate) pool: PgPool,
    pub(crate) timeout: Duration,
    pub(crate) pooler: bool,
}

/// A connection on which a statement is under way. One that is dropped before the answer came is closed, not given to the
/// next: what it would read is somebody else's answer.
struct Lent {
    connection: PoolConnection<Postgres>,
    answered: bool,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.close_on_drop();
        }
    }
}

impl Caller {
    /// Sends a statement with the arguments that `bind` gives it, and returns all rows.
    pub(crate) async fn rows(
        &self,
        operation: Operation,
        sql: &Arc<str>,
        bind: impl Fn(Asked<'static>) -> Asked<'static> + Send + Sync,
    ) -> Result<Vec<PgRow>> {
        let all = self.tried(operation, sql, bind);
        match tokio::time::timeout(self.timeout, all).await {
            Ok(answer) => answer,
            Err(_) => {
                let error = Error::new(
                    ErrorKind::Timeout,
                    format!("no answer within {:?}; the limit is `PostgresOptions::timeout`", self.timeout),
                );
                Err(if operation.changes { error.effect_unknown() } else { error })
            }
        }
        .map_err(|error| error.during("postgres", operation.name))
    }

    /// As [`rows`](Self::rows), for a statement that returns exactly one.
    pub(crate) async fn row(
        &self,
        operation: Operation,
        sql: &Arc<str>,
        bind: impl Fn(Asked<'static>) -> Asked<'static> + Send + Sync,
    ) -> Result<PgRow> {
        let rows = self.rows(operation, sql, bind).await?;
        rows.into_iter().next().ok_or_else(|| {
            Error::new(ErrorKind::Decode, "the server answered with no row")
                .during("postgres", operation.name)
        })
    }

    async fn tried(
        &self,
        operation: Operation,
        sql: &Arc<str>,
        bind: impl Fn(Asked<'static>) -> Asked<'static> + Send + Sync,
    ) -> Result<Vec<PgRow>> {
        let mut tries = 0;
        loop {
            tries += 1;
            let connection = self.pool.acquire().await.map_err(connecting)?;
            let mut lent = Lent { connection, answered: false };
            let asked = ask(&mut lent.connection, sql, &bind, self.pooler).await;
            // An error of the server's is an answer too; after any other the connection is of no use.
            lent.answered = matches!(asked, Ok(_) | Err(sqlx::Error::Database(_)));
            match asked.map_err(|error| of_statement(error, operation.changes)) {
                Ok(rows) => return Ok(rows),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again(error)) if tries >= TRIES => return Err(error),
                Err(Failure::Again(_)) => drop(lent),
            }
        }
    }
}

/// Asks on a connection; through a pooler in a transaction of its own, since only that stays on one server connection.
async fn ask(
    connection: &mut PgConnection,
    sql: &Arc<str>,
    bind: &(impl Fn(Asked<'static>) -> Asked<'static> + Sync),
    pooler: bool,
) -> Result<Vec<PgRow>, sqlx::Error> {
    // Safe: made in `statements` from fixed text and a quoted schema name.
    let query = bind(sqlx::query(AssertSqlSafe(Arc::clone(sql))));
    if !pooler {
        return query.fetch_all(connection).await;
    }
    sqlx::raw_sql("begin").execute(&mut *connection).await?;
    match query.persistent(false).fetch_all(&mut *connection).await {
        Ok(rows) => {
            sqlx::raw_sql("commit").execute(connection).await?;
            Ok(rows)
        }
        Err(error) => {
            if matches!(error, sqlx::Error::Database(_)) {
                sqlx::raw_sql("rollback").execute(connection).await?;
            }
            Err(error)
        }
    }
}

/// Sends a statement within a transaction of the caller's, once: what the server undid there, the whole transaction has
/// lost.
pub(crate) async fn rows_in(
    connection: &mut PgConnection,
    operation: Operation,
    sql: &Arc<str>,
    pooler: bool,
    bind: impl FnOnce(Asked<'static>) -> Asked<'static>,
) -> Result<Vec<PgRow>> {
    let query = bind(sqlx::query(AssertSqlSafe(Arc::clone(sql)))).persistent(!pooler);
    query.fetch_all(connection).await.map_err(|error| match of_statement(error, false) {
        Failure::Again(error) | Failure::Final(error) => error.during("postgres", operation.name),
    })
}
