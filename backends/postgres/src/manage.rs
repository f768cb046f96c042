//! Operators' verbs.

use sqlx::Row;
use uuid::Uuid;
use windlass_core::limits::{TEXT_MAX_BYTES, clip};
use windlass_core::{At, Cancelling, Error, ErrorKind, JobRef, Manage, QueueName, Result, StateKind};

use crate::PostgresBackend;
use crate::backend::instant;
use crate::call::Operation;
use crate::rows::{self, column};
use crate::wake::Event;

impl Manage for PostgresBackend {
    async fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        let (queue, id, at, forget) = (job.queue.as_str(), *job.id.as_uuid(), instant(at), self.forget());
        let reason = clip(reason, TEXT_MAX_BYTES);
        let row = self
            .shared
            .caller
            .row(Operation::change("cancel"), &self.shared.sql.cancel, |query| {
                query.bind(at).bind(queue.to_owned()).bind(id).bind(reason.clone()).bind(forget)
            })
            .await?;
        match column::<i32>(&row, "answer")? {
            -1 => Ok(Cancelling::Missing),
            0 => {
                // Its end may have let others in.
                self.shared.wakes.work(queue);
                self.shared.wakes.here(Event::Ended);
                Ok(Cancelling::Cancelled)
            }
            1 => {
                if let Some(session) = column::<Option<Uuid>>(&row, "told")? {
                    self.shared.wakes.control(session);
                }
                Ok(Cancelling::Requested)
            }
            state => Ok(Cancelling::AlreadyEnded(state_of(state)?)),
        }
    }

    async fn revive(&self, job: &JobRef, at: At) -> Result<()> {
        let (queue, id, at) = (job.queue.as_str(), *job.id.as_uuid(), instant(at));
        let row = self
            .shared
            .caller
            .row(Operation::change("revive"), &self.shared.sql.revive, |query| {
                query.bind(at).bind(queue.to_owned()).bind(id)
            })
            .await?;
        let answer: i32 = column(&row, "answer")?;
        if answer == -2 {
            let holder: Uuid = column(&row, "other")?;
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("cannot revive {job}: job {holder} holds its unique key"),
            ));
        }
        in_state(job, answer, StateKind::Dead, "revive")?;
        self.shared.wakes.work(queue);
        Ok(())
    }

    async fn run_now(&self, job: &JobRef, at: At) -> Result<()> {
        let (queue, id, at) = (job.queue.as_str(), *job.id.as_uuid(), instant(at));
        let row = self
            .shared
            .caller
            .row(Operation::change("run_now"), &self.shared.sql.run_now, |query| {
                query.bind(at).bind(queue.to_owned()).bind(id)
            })
            .await?;
        in_state(job, row.try_get(0).unwrap_or(-1), StateKind::Scheduled, "run now")?;
        self.shared.wakes.work(queue);
        Ok(())
    }

    async fn delete(&self, job: &JobRef, at: At) -> Result<()> {
        let (queue, id, at, forget) = (job.queue.as_str(), *job.id.as_uuid(), instant(at), self.forget());
        let row = self
            .shared
            .caller
            .row(Operation::change("delete"), &self.shared.sql.delete, |query| {
                query.bind(at).bind(queue.to_owned()).bind(id).bind(forget)
            })
            .await?;
        let state = found(job, row.try_get(0).unwrap_or(-1))?;
        if state.is_final() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::WrongState,
            format!("cannot delete {job}: it is {}, cancel it first", state.as_str()),
        ))
    }

    async fn pause(&self, queue: &QueueName, at: At) -> Result<()> {
        self.set_paused(queue, true, "pause", at).await
    }

    async fn resume(&self, queue: &QueueName, at: At) -> Result<()> {
        self.set_paused(queue, false, "resume", at).await?;
        self.shared.wakes.work(queue.as_str());
        Ok(())
    }
}

impl PostgresBackend {
    async fn set_paused(&self, queue: &QueueName, paused: bool, verb: &'static str, at: At) -> Result<()> {
        let (queue, at) = (queue.as_str(), instant(at));
        let bind = |query: crate::jobs::Asked<'static>| query.bind(at).bind(queue.to_owned()).bind(paused);
        self.shared.caller.row(Operation::change(verb), &self.shared.sql.set_paused, bind).await.map(drop)
    }
}

fn state_of(answer: i32) -> Result<StateKind> {
    rows::state(i16::try_from(answer).unwrap_or(-1))
}

fn found(job: &JobRef, answer: i32) -> Result<StateKind> {
    if answer == -1 {
        return Err(Error::new(ErrorKind::NotFound, format!("no job {job} is stored")));
    }
    state_of(answer)
}

fn in_state(job: &JobRef, answer: i32, wanted: StateKind, verb: &str) -> Result<()> {
    let state = found(job, answer)?;
    if state == wanted {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::WrongState,
        format!("cannot {verb} {job}: it is {}, not {}", state.as_str(), wanted.as_str()),
    ))
}
