//! Reading: what needs no write lock. Each function is one statement, and so sees one moment.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use windlass_core::{
    At, Body, Claimed, Counts, Cursor, Error, Failure, Filter, Finished, JobId, JobRef, Kind, Page, Progress,
    QueueInfo, QueueName, Record, RecordState, SessionId, StateKind, Timestamp,
};

use super::claim::numbers;
use super::job::{
    COLUMNS, Flags, Job, Line, bits, damaged, dead_reason, id_of, job_columns, why_blocked, why_scheduled,
};
use super::settle::read_log;
use crate::error::Step;
use crate::packed;

/// Rows that one page of a listing looks at.
const LOOKS: usize = 10_000;

macro_rules! record_columns {
    () => {
        concat!(
            job_columns!(),
            ", queue.name, body.packed, more.parents_left, more.error, more.panicked, more.percent, more.note, \
             more.log, more.output, more.reason, more.superseded_by, (select name from windlass_kind where k = job.k)"
        )
    };
}

macro_rules! record_tables {
    () => {
        " from windlass_job as job join windlass_queue as queue using (q) join windlass_body as body using (n) left join windlass_more as more using (n) "
    };
}

pub(crate) async fn get(conn: &mut SqliteConnection, job: &JobRef) -> Step<Option<Record>> {
    let row = sqlx::query(concat!(
        "select ",
        record_columns!(),
        record_tables!(),
        "where job.q = (select q from windlass_queue as queue where name = ?1) and job.id = ?2"
    ))
    .bind(job.queue.as_str())
    .bind(&job.id.as_uuid().as_bytes()[..])
    .fetch_optional(conn)
    .await?;
    row.map(|row| record(&row)).transpose()
}

fn record(row: &SqliteRow) -> Step<Record> {
    let job = Job::of_row(row)?;
    let queue = QueueName::new(row.try_get::<&str, _>(COLUMNS)?)?;
    let packed: &[u8] = row.try_get(COLUMNS + 1)?;
    let body = match packed::unpack(queue.clone(), job.id, packed) {
        Ok(body) => body,
        // Bytes that cannot be read are shown as they are.
        Err(_) => Body::new(job.id, queue, Kind::new(row.try_get::<&str, _>(COLUMNS + 11)?)?, packed),
    };
    let more = COLUMNS + 2;
    let error: Option<&str> = row.try_get(more + 1)?;
    let panicked: Option<bool> = row.try_get(more + 2)?;
    let last_error = error.map(|error| failure(error, panicked));
    let percent: Option<u8> = row.try_get(more + 3)?;
    let note: Option<&str> = row.try_get(more + 4)?;
    let log: Option<&[u8]> = row.try_get(more + 5)?;
    let state = match job.state {
        StateKind::Blocked => {
            let left = row.try_get::<Option<u32>, _>(more)?.unwrap_or(0);
            RecordState::Blocked { why: why_blocked(job.why, left) }
        }
        StateKind::Scheduled => RecordState::Scheduled { due: job.at, why: why_scheduled(job.why) },
        StateKind::Ready => RecordState::Ready { parked: job.line == Line::Aside },
        StateKind::Running => RecordState::Running {
            session: job.session(),
            since: job.since,
            lease_until: job.at,
            started: job.flags.has(Flags::STARTED),
            cancel_requested: job.flags.has(Flags::CANCEL),
        },
        StateKind::Completed => RecordState::Completed {
            at: job.at,
            output: row.try_get::<Option<&[u8]>, _>(more + 6)?.map(Into::into),
        },
        StateKind::Cancelled => RecordState::Cancelled {
            at: job.at,
            reason: row.try_get::<Option<String>, _>(more + 7)?.unwrap_or_default(),
            superseded_by: row.try_get::<Option<&[u8]>, _>(more + 8)?.map(id_of).transpose()?,
        },
        StateKind::Dead => RecordState::Dead { at: job.at, reason: dead_reason(job.why) },
    };
    Ok(Record {
        body: Arc::new(body),
        state,
        created_at: job.created,
        attempts: job.attempts,
        lost_leases: job.lost,
        generation: job.generation,
        epoch: job.epoch(),
        last_error,
        progress: percent.map(|percent| Progress::new(percent, note.unwrap_or_default())),
        log: log.map(read_log).transpose()?.unwrap_or_default(),
    })
}

fn failure(message: &str, panicked: Option<bool>) -> Failure {
    if panicked == Some(true) { Failure::panic(message) } else { Failure::new(message) }
}

/// A page by (id, queue). It looks at a bounded number of rows, so it may be short and still have a cursor.
pub(crate) async fn list(
    conn: &mut SqliteConnection,
    filter: &Filter,
    after: Option<&Cursor>,
    limit: usize,
) -> Step<Page> {
    let after = after.map(read_cursor).transpose()?;
    let looks = if is_open(filter) { limit + 1 } else { LOOKS };
    let found = numbers_after(conn, filter, after.as_ref(), looks).await?;
    let mut records: Vec<Record> = Vec::new();
    let mut last: Option<&Found> = None;
    for page in found.chunks(limit.max(64)) {
        let mut stored = by_number(conn, page).await?;
        for place in page {
            if records.len() == limit {
                return Ok(Page { records, next: last.map(|last| write_cursor(last.id, &last.queue)) });
            }
            last = Some(place);
            // One may have been forgotten in this moment.
            records.extend(stored.remove(&place.n).filter(|record| filter.passes(record)));
        }
    }
    let next = last.filter(|_| found.len() >= looks).map(|last| write_cursor(last.id, &last.queue));
    Ok(Page { records, next })
}

/// A job in the order of listings.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    id: JobId,
    queue: QueueName,
    n: i64,
}

/// The first `looks` jobs behind a cursor. Each queue's part is a search of its own in the index; the parts are merged.
async fn numbers_after(
    conn: &mut SqliteConnection,
    filter: &Filter,
    after: Option<&(JobId, QueueName)>,
    looks: usize,
) -> Step<Vec<Found>> {
    let queues =
        sqlx::query("select q, name from windlass_queue order by name").fetch_all(&mut *conn).await?;
    let mut found = Vec::new();
    for row in &queues {
        let (q, queue) = (row.try_get::<i64, _>(0)?, QueueName::new(row.try_get::<&str, _>(1)?)?);
        if filter.queue.as_ref().is_some_and(|wanted| *wanted != queue) {
            continue;
        }
        let (from, too) = match after {
            None => (Vec::new(), true),
            Some((id, behind)) => (id.as_uuid().as_bytes().to_vec(), queue > *behind),
        };
        let rows = sqlx::query(
            "select id, n from windlass_job where q = ?1 and id >= ?2 and (?3 or id > ?2) order by id limit ?4",
        )
        .bind(q)
        .bind(from)
        .bind(too)
        .bind(i64::try_from(looks).unwrap_or(i64::MAX))
        .fetch_all(&mut *conn)
        .await?;
        for row in &rows {
            found.push(Found { id: id_of(row.try_get(0)?)?, queue: queue.clone(), n: row.try_get(1)? });
        }
    }
    found.sort_unstable();
    found.truncate(looks);
    Ok(found)
}

async fn by_number(conn: &mut SqliteConnection, found: &[Found]) -> Step<HashMap<i64, Record>> {
    let rows = sqlx::query(concat!(
        "select ",
        record_columns!(),
        record_tables!(),
        "where job.n in (select value from json_each(?1))"
    ))
    .bind(numbers(found.iter().map(|found| found.n)))
    .fetch_all(conn)
    .await?;
    let mut records = HashMap::with_capacity(rows.len());
    for row in &rows {
        records.insert(row.try_get(0)?, record(row)?);
    }
    Ok(records)
}

/// Whether every record of the queue passes.
fn is_open(filter: &Filter) -> bool {
    filter.states.is_empty() && filter.kind.is_none() && filter.tag.is_none()
}

fn write_cursor(id: JobId, queue: &QueueName) -> Cursor {
    Cursor(format!("{id}/{queue}").into())
}

fn read_cursor(cursor: &Cursor) -> windlass_core::Result<(JobId, QueueName)> {
    let parts = cursor.0.split_once('/');
    parts
        .and_then(|(id, queue)| Some((id.parse().ok()?, QueueName::new(queue).ok()?)))
        .ok_or_else(|| Error::invalid("cursor is not one that a listing of this engine returned"))
}

pub(crate) async fn queues(conn: &mut SqliteConnection) -> Step<Vec<QueueInfo>> {
    let rows = sqlx::query(
        "select name, paused, blocked, scheduled, ready, running, completed, cancelled, dead from windlass_queue order by name",
    )
    .fetch_all(conn)
    .await?;
    let mut queues = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut counts = Counts::default();
        for (at, state) in StateKind::ALL.into_iter().enumerate() {
            *counts.get_mut(state) = row.try_get::<i64, _>(at + 2)?.try_into().unwrap_or(0);
        }
        let name = QueueName::new(row.try_get::<&str, _>(0)?)?;
        queues.push(QueueInfo { name, paused: row.try_get(1)?, counts });
    }
    Ok(queues)
}

/// How a job ended; `None` while it has not.
pub(crate) async fn finished(conn: &mut SqliteConnection, job: &JobRef) -> Step<Option<Finished>> {
    let row = sqlx::query(
        "select job.state, job.why, body.packed, more.output, more.reason, more.error, more.panicked, job.id \
         from windlass_job as job join windlass_body as body using (n) left join windlass_more as more using (n) \
         where job.q = (select q from windlass_queue where name = ?1) and job.id = ?2",
    )
    .bind(job.queue.as_str())
    .bind(&job.id.as_uuid().as_bytes()[..])
    .fetch_optional(conn)
    .await?;
    let Some(row) = row else { return Ok(Some(Finished::Missing)) };
    Ok(match super::job::state_of(row.try_get(0)?)? {
        StateKind::Completed => {
            let codec = *row.try_get::<&[u8], _>(2)?.get(1).ok_or_else(|| damaged("its bytes end early"))?;
            let output: Option<Vec<u8>> = row.try_get(3)?;
            Some(Finished::Completed { output: output.map(Into::into), codec })
        }
        StateKind::Cancelled => {
            Some(Finished::Cancelled { reason: row.try_get::<Option<String>, _>(4)?.unwrap_or_default() })
        }
        StateKind::Dead => {
            let error: Option<&str> = row.try_get(5)?;
            let panicked = row.try_get(6)?;
            let error = error.map(|error| failure(error, panicked));
            Some(Finished::Dead { reason: dead_reason(row.try_get(1)?), error })
        }
        _ => None,
    })
}

/// What there is to do for a session in these queues.
pub(crate) struct Glance {
    /// Jobs in the ordinary lines.
    pub(crate) ready: bool,
    /// Ready jobs of any line.
    pub(crate) any_ready: bool,
    /// When the next Scheduled job is due.
    pub(crate) due: Option<Timestamp>,
    /// Whether somebody has asked for the cancellation of a job of the session.
    pub(crate) control: bool,
    virtually: Option<bool>,
    latest: Timestamp,
}

pub(crate) async fn glance(
    conn: &mut SqliteConnection,
    session: SessionId,
    queues: &[QueueName],
) -> Step<Glance> {
    let mut names = String::from("[");
    for (at, name) in queues.iter().enumerate() {
        if at > 0 {
            names.push(',');
        }
        // A name has no control characters; what JSON escapes beyond those are these two.
        names.push('"');
        names.push_str(&name.as_str().replace('\\', "\\\\").replace('"', "\\\""));
        names.push('"');
    }
    names.push(']');
    let row = sqlx::query(
        "select coalesce(max(ready > suspects + aside), 0), coalesce(max(ready > 0), 0), \
         min(case when scheduled > 0 then (select at from windlass_job as job where state = 1 and q = queue.q order by at limit 1) end), \
         exists (select 1 from windlass_control as control where session = ?2), \
         (select timing from windlass_meta as meta), (select latest from windlass_meta as meta) \
         from windlass_queue as queue where paused = 0 and name in (select value from json_each(?1))",
    )
    .bind(names)
    .bind(bits(session.as_u128()))
    .fetch_one(conn)
    .await?;
    Ok(Glance {
        ready: row.try_get(0)?,
        any_ready: row.try_get(1)?,
        due: row.try_get::<Option<i64>, _>(2)?.map(Timestamp::from_millis),
        control: row.try_get(3)?,
        virtually: row.try_get(4)?,
        latest: Timestamp::from_millis(row.try_get(5)?),
    })
}

impl Glance {
    /// The answer to a claim, when there is nothing to claim: it needs no write lock then. `seen` is the latest instant
    /// that this process knows of.
    pub(crate) fn answer(&self, at: At, seen: Timestamp) -> Option<Claimed> {
        let (virtually, instant) = match at {
            At::Server => (false, Timestamp::system_now()),
            At::Instant(instant) => (true, instant),
        };
        let now = self.latest.max(seen).max(instant);
        let nothing = !self.any_ready && self.due.is_none_or(|due| due > now);
        if !nothing || self.virtually.is_some_and(|stored| stored != virtually) {
            return None;
        }
        Some(Claimed { jobs: Vec::new(), more: false, wake_at: self.due, now })
    }
}

/// Refuses a verb that is timed the other way.
pub(crate) async fn check_timing(conn: &mut SqliteConnection, at: At) -> Step<()> {
    let virtually: Option<bool> =
        sqlx::query("select timing from windlass_meta as meta").fetch_one(conn).await?.try_get(0)?;
    if virtually.is_some_and(|virtually| virtually != matches!(at, At::Instant(_))) {
        return Err(super::timed_the_other_way().into());
    }
    Ok(())
}
