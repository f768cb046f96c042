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

/// What jobs of an answer have in common: of those after it a row says only what differs.
#[derive(Clone, Default)]
pub(crate) struct Common {
    queue: Option<QueueName>,
    kind: Option<Kind>,
    timeout: Option<TimeLimit>,
    version: Option<u16>,
    min_reader: Option<u16>,
    max_attempts: Option<u16>,
    codec: Option<u8>,
    priority: Option<Priority>,
}

impl Common {
    /// From the first row of a claim: nothing, if that says nothing.
    pub(crate) fn new(row: &PgRow) -> Result<Self> {
        let mut common = Self::default();
        common.read(row)?;
        Ok(common)
    }

    /// Takes over what a row says: its first eleven columns but the id, the payload and the extras (`statements.rs`).
    fn read(&mut self, row: &PgRow) -> Result<()> {
        if let Some(queue) = nth::<Option<&str>>(row, 0, "queue")? {
            self.queue = Some(QueueName::new(queue).map_err(|_| unreadable("queue"))?);
        }
        if let Some(kind) = nth::<Option<&str>>(row, 2, "kind")? {
            self.kind = Some(Kind::new(kind).map_err(|_| unreadable("kind"))?);
        }
        match nth::<Option<i64>>(row, 4, "timeout_ms")? {
            None => {}
            Some(-1) => self.timeout = Some(TimeLimit::NONE),
            Some(millis) => self.timeout = Some(Duration::from_millis(number(millis, "timeout")?).into()),
        }
        if let Some(version) = nth::<Option<i32>>(row, 5, "version")? {
            self.version = Some(number(version.into(), "version")?);
        }
        if let Some(min_reader) = nth::<Option<i32>>(row, 6, "min_reader")? {
            self.min_reader = Some(number(min_reader.into(), "min_reader")?);
        }
        if let Some(max_attempts) = nth::<Option<i16>>(row, 7, "max_attempts")? {
            self.max_attempts = Some(number(max_attempts.into(), "max_attempts")?);
        }
        if let Some(codec) = nth::<Option<i16>>(row, 8, "codec")? {
            self.codec = Some(number(codec.into(), "codec")?);
        }
        if let Some(priority) = nth::<Option<i16>>(row, 9, "priority")? {
            let priority = Priority::new(number(priority.into(), "priority")?);
            self.priority = Some(priority.map_err(|_| unreadable("priority"))?);
        }
        Ok(())
    }
}

/// The first eleven columns of a claim and of a record (`statements.rs`).
fn body(row: &PgRow, common: &Common) -> Result<Body> {
    let mut said = common.clone();
    said.read(row)?;
    let (Some(queue), Some(kind)) = (said.queue, said.kind) else { return Err(unreadable("job")) };
    let extras: Option<&str> = nth(row, 10, "extras")?;
    let extras = extras.map(|text| extras::decode(text).ok_or_else(|| unreadable("extras"))).transpose()?;
    Ok(Body {
        timeout: said.timeout.unwrap_or(TimeLimit::NONE),
        extras: extras.map(Box::new),
        max_attempts: said.max_attempts.ok_or_else(|| unreadable("max_attempts"))?,
        version: said.version.ok_or_else(|| unreadable("version"))?,
        min_reader: said.min_reader.ok_or_else(|| unreadable("min_reader"))?,
        codec: said.codec.ok_or_else(|| unreadable("codec"))?,
        priority: said.priority.ok_or_else(|| unreadable("priority"))?,
        ..Body::new(job_id(nth(row, 1, "id")?)?, queue, kind, nth::<&[u8]>(row, 3, "payload")?)
    })
}

/// A job that a claim brought (`statements.rs`). What is null is as it is of every fresh job.
pub(crate) fn claimed(row: &PgRow, nonce: Nonce, common: &Common) -> Result<ClaimedJob> {
    let body = body(row, common)?;
    let epoch: Option<i32> = nth(row, 11, "epoch")?;
    let lease = Lease {
        job: JobRef::new(body.queue.clone(), body.id),
        epoch: number(epoch.unwrap_or(1).into(), "epoch")?,
        nonce,
        handle: number(nth(row, 12, "handle")?, "handle")?,
    };
    let count = |at, name| nth::<Option<i16>>(row, at, name).map(Option::unwrap_or_default);
    Ok(ClaimedJob {
        lease,
        attempts: number(count(13, "attempts")?.into(), "attempts")?,
        lost_leases: number(count(14, "lost")?.into(), "lost leases")?,
        generation: number(nth::<Option<i32>>(row, 15, "generation")?.unwrap_or(0).into(), "generation")?,
        created_at: Timestamp::from_millis(nth(row, 16, "created_at")?),
        deadline: nth::<Option<i64>>(row, 17, "deadline")?.map(Timestamp::from_millis),
        ahead: nth::<Option<bool>>(row, 18, "is_ahead")?.unwrap_or(false),
        suspect: nth::<Option<bool>>(row, 19, "suspect")?.unwrap_or(false),
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
        body: Arc::new(body(row, &Common::default())?),
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
        _ => match body(row, &Common::default())? {
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
