//! Reading what comes back.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;
use windlass_core::{
    Body, ClaimedJob, DeadReason, Error, ErrorKind, Failure, Finished, JobId, JobRef, Kind, Lease, LogLine,
    Nonce, Priority, Progress, QueueName, Record, RecordState, Result, SessionId, StateKind, TimeLimit,
    Timestamp, WhyBlocked, WhyScheduled,
};

use crate::extras;

fn unreadable(what: &str) -> Error {
    Error::new(
        ErrorKind::Decode,
        format!("stored {what} cannot be understood: a newer version of this engine wrote it, or a hand"),
    )
}

/// A column that is there by the statement's own text.
pub(crate) fn column<'r, T>(row: &'r PgRow, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(name).map_err(|error| unreadable(name).with_source(error))
}

/// A column by its place: a name is looked up for every row.
fn nth<'r, T>(row: &'r PgRow, at: usize, name: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(at).map_err(|error| unreadable(name).with_source(error))
}

pub(crate) fn state(number: i16) -> Result<StateKind> {
    usize::try_from(number)
        .ok()
        .and_then(|at| StateKind::ALL.get(at).copied())
        .ok_or_else(|| unreadable("state"))
}

pub(crate) fn dead_number(reason: DeadReason) -> i16 {
    match reason {
        DeadReason::AttemptsExhausted => 0,
        DeadReason::Poison => 2,
        DeadReason::Undecodable => 3,
        // `DeadReason` may grow: what this version does not know was buried.
        _ => 1,
    }
}

fn dead_reason(number: Option<i16>) -> Result<DeadReason> {
    match number {
        Some(0) => Ok(DeadReason::AttemptsExhausted),
        Some(1) => Ok(DeadReason::Buried),
        Some(2) => Ok(DeadReason::Poison),
        Some(3) => Ok(DeadReason::Undecodable),
        _ => Err(unreadable("reason of a death")),
    }
}

fn instant(row: &PgRow, name: &str) -> Result<Timestamp> {
    column(row, name).map(Timestamp::from_millis)
}

fn number<T: TryFrom<i64>>(value: i64, what: &str) -> Result<T> {
    T::try_from(value).map_err(|_| unreadable(what))
}

fn job_id(id: Uuid) -> Result<JobId> {
    JobId::from_uuid(id).map_err(|_| unreadable("id"))
}

/// The first eleven columns of a claim and of a record (`statements.rs`).
fn body(row: &PgRow) -> Result<Body> {
    let queue = QueueName::new(nth::<&str>(row, 0, "queue")?).map_err(|_| unreadable("queue"))?;
    let kind = Kind::new(nth::<&str>(row, 2, "kind")?).map_err(|_| unreadable("kind"))?;
    let mut body = Body::new(job_id(nth(row, 1, "id")?)?, queue, kind, nth::<&[u8]>(row, 3, "payload")?);
    let timeout: Option<i64> = nth(row, 4, "timeout_ms")?;
    body.timeout = match timeout {
        None => TimeLimit::NONE,
        Some(millis) => Duration::from_millis(number(millis, "timeout")?).into(),
    };
    body.version = number(nth::<i32>(row, 5, "version")?.into(), "version")?;
    body.min_reader = number(nth::<i32>(row, 6, "min_reader")?.into(), "min_reader")?;
    body.max_attempts = number(nth::<i16>(row, 7, "max_attempts")?.into(), "max_attempts")?;
    body.codec = number(nth::<i16>(row, 8, "codec")?.into(), "codec")?;
    let priority = number(nth::<i16>(row, 9, "priority")?.into(), "priority")?;
    body.priority = Priority::new(priority).map_err(|_| unreadable("priority"))?;
    let extras: Option<&str> = nth(row, 10, "extras")?;
    body.extras = extras
        .map(|text| extras::decode(text).ok_or_else(|| unreadable("extras")))
        .transpose()?
        .map(Box::new);
    Ok(body)
}

/// A job that a claim brought (`statements.rs`).
pub(crate) fn claimed(row: &PgRow, nonce: Nonce) -> Result<ClaimedJob> {
    let body = body(row)?;
    let lease = Lease {
        job: JobRef::new(body.queue.clone(), body.id),
        epoch: number(nth::<i32>(row, 11, "epoch")?.into(), "epoch")?,
        nonce,
        handle: number(nth(row, 12, "handle")?, "handle")?,
    };
    Ok(ClaimedJob {
        lease,
        attempts: number(nth::<i16>(row, 13, "attempts")?.into(), "attempts")?,
        lost_leases: number(nth::<i16>(row, 14, "lost")?.into(), "lost leases")?,
        generation: number(nth::<i32>(row, 15, "generation")?.into(), "generation")?,
        created_at: Timestamp::from_millis(nth(row, 16, "created_at")?),
        deadline: nth::<Option<i64>>(row, 17, "deadline")?.map(Timestamp::from_millis),
        ahead: nth(row, 18, "is_ahead")?,
        suspect: nth(row, 19, "suspect")?,
        body: Arc::new(body),
    })
}

fn failure(message: Option<String>, panicked: Option<bool>) -> Option<Failure> {
    let message = message?;
    Some(if panicked == Some(true) { Failure::panic(&message) } else { Failure::new(&message) })
}

/// A job as it is stored.
pub(crate) fn record(row: &PgRow) -> Result<Record> {
    Ok(Record {
        body: Arc::new(body(row)?),
        state: record_state(row)?,
        created_at: instant(row, "created_at")?,
        attempts: number(column::<i16>(row, "attempts")?.into(), "attempts")?,
        lost_leases: number(column::<i16>(row, "lost")?.into(), "lost leases")?,
        generation: number(column::<i32>(row, "generation")?.into(), "generation")?,
        epoch: number(column::<i32>(row, "epoch")?.into(), "epoch")?,
        last_error: failure(column(row, "error")?, column(row, "panicked")?),
        progress: progress(row)?,
        log: log(row)?,
    })
}

fn record_state(row: &PgRow) -> Result<RecordState> {
    Ok(match state(column(row, "state")?)? {
        StateKind::Blocked => RecordState::Blocked { why: why_blocked(row)? },
        StateKind::Scheduled => RecordState::Scheduled {
            due: instant(row, "rank")?,
            why: match column::<Option<i16>>(row, "why")? {
                Some(2) => WhyScheduled::Retry,
                Some(3) => WhyScheduled::Snooze,
                _ => WhyScheduled::Delay,
            },
        },
        StateKind::Ready => RecordState::Ready { parked: column::<i16>(row, "line")? == 2 },
        StateKind::Running => RecordState::Running {
            session: SessionId::from_u128(column::<Uuid>(row, "session")?.as_u128()),
            since: instant(row, "since")?,
            lease_until: instant(row, "until")?,
            started: column(row, "started")?,
            cancel_requested: column(row, "cancel")?,
        },
        StateKind::Completed => {
            RecordState::Completed { at: instant(row, "at")?, output: column(row, "output")? }
        }
        StateKind::Cancelled => RecordState::Cancelled {
            at: instant(row, "at")?,
            reason: column::<Option<String>>(row, "reason")?.unwrap_or_default(),
            superseded_by: column::<Option<Uuid>>(row, "superseded_by")?.map(job_id).transpose()?,
        },
        StateKind::Dead => {
            RecordState::Dead { at: instant(row, "at")?, reason: dead_reason(column(row, "dead_reason")?)? }
        }
    })
}

fn why_blocked(row: &PgRow) -> Result<WhyBlocked> {
    Ok(match column::<i16>(row, "line")? {
        4 => WhyBlocked::Parents(number(column::<i32>(row, "waits")?.into(), "count of parents")?),
        5 => WhyBlocked::Limit,
        6 => WhyBlocked::Unique,
        // Put off to the next sweep: by whatever will hold it up then.
        _ => match body(row)? {
            body if !body.parents().is_empty() => {
                WhyBlocked::Parents(u32::try_from(body.parents().len()).unwrap_or(u32::MAX))
            }
            body if body.limit().is_some() => WhyBlocked::Limit,
            _ => WhyBlocked::Unique,
        },
    })
}

fn progress(row: &PgRow) -> Result<Option<Progress>> {
    let Some(percent) = column::<Option<i16>>(row, "percent")? else { return Ok(None) };
    let note = column::<Option<&str>>(row, "note")?.unwrap_or_default();
    Ok(Some(Progress::new(number(percent.into(), "progress")?, note)))
}

/// Log lines are stored as pairs of instant and text.
fn log(row: &PgRow) -> Result<Vec<LogLine>> {
    let Some(text) = column::<Option<&str>>(row, "log")? else { return Ok(Vec::new()) };
    let lines: Vec<(i64, Box<str>)> =
        serde_json::from_str(text).map_err(|error| unreadable("log").with_source(error))?;
    Ok(lines.into_iter().map(|(at, text)| LogLine { at: Timestamp::from_millis(at), text }).collect())
}

/// How a job ended, if it has.
pub(crate) fn outcome(row: &PgRow) -> Result<Option<Finished>> {
    let Some(number) = column::<Option<i16>>(row, "state")? else { return Ok(Some(Finished::Missing)) };
    Ok(match state(number)? {
        StateKind::Completed => Some(Finished::Completed {
            output: column(row, "output")?,
            codec: self::number(column::<i16>(row, "codec")?.into(), "codec")?,
        }),
        StateKind::Cancelled => {
            Some(Finished::Cancelled { reason: column::<Option<String>>(row, "reason")?.unwrap_or_default() })
        }
        StateKind::Dead => Some(Finished::Dead {
            reason: dead_reason(column(row, "dead_reason")?)?,
            error: failure(column(row, "error")?, column(row, "panicked")?),
        }),
        _ => None,
    })
}
