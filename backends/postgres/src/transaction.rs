//! Joining a caller's transaction: a connection of sqlx inside one that the caller began and will end.

use sqlx::{PgConnection, Row};
use windlass_core::{At, NewJob, Pushed, Result, Settled, Transactional, Verdict};

use crate::PostgresBackend;
use crate::backend::instant;
use crate::call::{Operation, rows_in};
use crate::jobs::Jobs;
use crate::push::pushed;
use crate::verdicts::{self, Verdicts, same_length};

impl Transactional for PostgresBackend {
    /// A connection; a `&mut sqlx::Transaction` is one as well. Without a transaction each call is one of its own.
    type Conn = PgConnection;

    /// See [`Transactional::push_in`]. It locks nothing that a worker may need before the transaction ends, except for one
    /// that supersedes a waiting job which has a limit of its own.
    ///
    /// Nobody is woken: this engine does not see the commit. Call [`PostgresBackend::wake`] after it, or leave it to the
    /// workers' polling.
    ///
    /// # Errors
    /// As [`Backend::push`](windlass_core::Backend::push). After an error of the server's the transaction can only be rolled
    /// back; [`Invalid`](windlass_core::ErrorKind::Invalid) comes before anything is sent and leaves it usable. Under
    /// REPEATABLE READ a job with a key may fail with [`Unavailable`](windlass_core::ErrorKind::Unavailable): run
    /// the whole transaction again.
    async fn push_in(&self, conn: &mut PgConnection, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        let columns = Jobs::new(jobs);
        let (at, forget) = (instant(at), self.forget());
        let rows = rows_in(
            conn,
            Operation::change("push"),
            &self.shared.sql.push,
            self.shared.options.pooler,
            |query| columns.bind(query.bind(at).bind(true).bind(forget)),
        )
        .await?;
        same_length(jobs.len(), rows.len())?;
        rows.iter().map(pushed).collect()
    }

    /// See [`Transactional::settle_in`]. From here to the end of the transaction the job's row is locked: sweeps pass it
    /// over, so its lease cannot be lost before the commit. Its unique key and the row of its limit are locked too:
    /// settle last, and commit at once.
    ///
    /// # Errors
    /// As [`push_in`](Self::push_in).
    async fn settle_in(&self, conn: &mut PgConnection, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        let columns = Verdicts::new(verdicts);
        let sql = &self.shared.sql;
        let sql = if columns.has_then() { &sql.settle_then_in } else { &sql.settle_in };
        let (at, forget) = (instant(at), self.forget());
        let rows = rows_in(conn, Operation::change("settle"), sql, self.shared.options.pooler, |query| {
            columns.bind(query.bind(at).bind(forget))
        })
        .await?;
        let answers: Vec<i16> = rows.first().and_then(|row| row.try_get(0).ok()).unwrap_or_default();
        same_length(verdicts.len(), answers.len())?;
        verdicts::settled(&answers)
    }
}
