//! Pushing: batches of jobs that differ little, of jobs of all sorts, and what to do when somebody else holds an id.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use windlass_core::{At, NewJob, Pushed, QueueName, Result};

use crate::PostgresBackend;
use crate::backend::instant;
use crate::call::Operation;
use crate::error::is_lock_timeout;
use crate::jobs::{Alike, Asked, Jobs};
use crate::rows::column;
use crate::verdicts::same_length;

pub(crate) fn pushed(row: &PgRow) -> Result<Pushed> {
    let other = || {
        let id: Uuid = column(row, "other")?;
        windlass_core::JobId::from_uuid(id)
    };
    match column::<i16>(row, "answer")? {
        0 => Ok(Pushed::Inserted),
        1 => Ok(Pushed::SameId),
        2 => Ok(Pushed::Conflict(other()?)),
        _ => Ok(Pushed::Superseded(other()?)),
    }
}

impl PostgresBackend {
    async fn send_push(&self, columns: &Jobs<'_>, at: At) -> Result<Vec<Pushed>> {
        let (at, forget) = (instant(at), self.forget());
        let push = Operation::change("push");
        let bind = |query: Asked<'static>| columns.bind(query.bind(at).bind(false).bind(forget));
        let rows = self.shared.caller.rows(push, &self.shared.sql.push, bind).await?;
        rows.iter().map(pushed).collect()
    }

    /// Sends a batch that was checked, and rings for it.
    pub(crate) async fn push_now(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        let pooler = self.shared.options.pooler;
        // Through a pooler a transaction is several messages: whoever is cut off between them would stay in the gate.
        let pushed = if pooler {
            self.send_push(&Jobs::new(jobs).in_live(), at).await?
        } else {
            match self.push_fresh(jobs, at).await {
                // A transaction that is still open pushed one of these ids: wait for it where that holds nobody up.
                Err(error) if is_lock_timeout(&error) => {
                    self.send_push(&Jobs::new(jobs).in_live(), at).await?
                }
                pushed => pushed?,
            }
        };
        self.ring(jobs, pushed)
    }

    /// As [`push_now`](Self::push_now) for the plain jobs of several callers: a lock that one of them needs holds nobody up.
    pub(crate) async fn push_together(&self, jobs: &[NewJob]) -> Result<Vec<Pushed>> {
        let pushed = self.push_fresh(jobs, At::Server).await?;
        self.ring(jobs, pushed)
    }

    /// A batch, fresh where it can be. It gives up after a while where somebody else is about to store one of its ids.
    async fn push_fresh(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        if let Some(alike) = Alike::new(jobs) {
            let at = instant(at);
            let row = self
                .shared
                .caller
                .row(Operation::change("push"), &self.shared.sql.push_alike, |query| {
                    alike.bind(query.bind(at))
                })
                .await?;
            if row.try_get(0).unwrap_or_default() {
                return Ok(vec![Pushed::Inserted; jobs.len()]);
            }
        }
        self.send_push(&Jobs::new(jobs), at).await
    }

    /// Rings for a batch that was stored.
    fn ring(&self, jobs: &[NewJob], pushed: Vec<Pushed>) -> Result<Vec<Pushed>> {
        same_length(jobs.len(), pushed.len())?;
        let mut rung: Option<&QueueName> = None;
        for job in jobs {
            // Most batches are of one queue.
            if rung != Some(&job.body.queue) {
                self.shared.wakes.work(job.body.queue.as_str());
                rung = Some(&job.body.queue);
            }
        }
        Ok(pushed)
    }
}
