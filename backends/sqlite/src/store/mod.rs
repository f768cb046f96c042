//! The data within one transaction: jobs by number, and what the namespace knows of its queues.
//!
//! The invariant of this module: a job's row says its state, the partial indexes follow the row, and the counts of its
//! queue follow `moved` (in `queues`), which every change of a state passes. A step decides before it writes; what the database
//! itself refuses voids the whole transaction.

mod admit;
mod claim;
mod ending;
mod insert;
pub(crate) mod job;
mod manage;
mod push;
mod queues;
pub(crate) mod read;
mod settle;
mod sweep;

use std::collections::HashMap;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row as _, Sqlite, SqliteConnection};
use windlass_core::{At, Error, ErrorKind, JobId, JobRef, Kind, QueueName, Retention, Timestamp};

use crate::error::Step;
pub(crate) use push::is_plain;
use queues::{Lane, Queue, update_counts};

/// How a namespace is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timing {
    Server,
    Virtual,
}

type Statement = Query<'static, Sqlite, SqliteArguments>;

macro_rules! update_meta {
    () => {
        "update windlass_meta set timing = ?, latest = ?, sequence = ?"
    };
}

/// What the transactions of one connection know from earlier ones, as long as nobody else has written.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    data_version: Option<i64>,
    timing: Option<Timing>,
    latest: i64,
    sequence: i64,
    queues: Vec<Queue>,
    by_name: HashMap<QueueName, Lane>,
    by_number: HashMap<i64, Lane>,
    kinds: HashMap<Kind, i64>,
}

/// The store within one transaction.
pub(crate) struct Store<'c> {
    pub(crate) conn: &'c mut SqliteConnection,
    pub(crate) cache: &'c mut Cache,
    pub(crate) retention: Retention,
    pub(crate) now: Timestamp,
}

impl<'c> Store<'c> {
    /// Begins to work on `conn`: in a transaction that holds the write lock and that this begins, or else in the caller's.
    pub(crate) async fn open(
        conn: &'c mut SqliteConnection,
        cache: &'c mut Cache,
        retention: Retention,
        seen: Timestamp,
        begin: bool,
    ) -> Step<Self> {
        macro_rules! look {
            () => {
                "select data_version, timing, latest, sequence from pragma_data_version, windlass_meta"
            };
        }
        // Two statements in one trip to the connection's thread.
        let sql = if begin { concat!("begin immediate; ", look!()) } else { look!() };
        let row = sqlx::query(sql).fetch_one(&mut *conn).await?;
        let version = row.try_get(0)?;
        if cache.data_version != Some(version) {
            // Somebody else has written: nothing that was known need be so.
            *cache = Cache { data_version: Some(version), ..Cache::default() };
        }
        cache.timing = row.try_get::<Option<i64>, _>(1)?.map(|timing| match timing {
            0 => Timing::Server,
            _ => Timing::Virtual,
        });
        (cache.latest, cache.sequence) = (row.try_get(2)?, row.try_get(3)?);
        // An answer that needed no write may have shown a later instant.
        cache.latest = cache.latest.max(seen.as_millis());
        Ok(Self { conn, cache, retention, now: Timestamp::MIN })
    }

    /// The store in a transaction that [`open`](Self::open) has begun.
    pub(crate) fn begun(conn: &'c mut SqliteConnection, cache: &'c mut Cache, retention: Retention) -> Self {
        Self { conn, cache, retention, now: Timestamp::MIN }
    }

    /// What time it is for the next step: the later of the instant given and the latest seen.
    pub(crate) fn tick(&mut self, at: At) -> Step<()> {
        let (timing, now) = match at {
            At::Server => (Timing::Server, Timestamp::system_now()),
            At::Instant(instant) => (Timing::Virtual, instant),
        };
        if *self.cache.timing.get_or_insert(timing) != timing {
            return Err(timed_the_other_way().into());
        }
        self.cache.latest = self.cache.latest.max(now.as_millis());
        self.now = Timestamp::from_millis(self.cache.latest);
        Ok(())
    }

    /// Writes what was gathered on the way, and commits if it is to.
    pub(crate) async fn close(&mut self, commit: bool) -> Step<()> {
        let mut changed: Vec<&mut Queue> =
            self.cache.queues.iter_mut().filter(|queue| queue.has_changed()).collect();
        let last = if commit { changed.pop() } else { None };
        for queue in changed {
            queue.bind_changes(sqlx::query(update_counts!())).execute(&mut *self.conn).await?;
        }
        let timing = self.cache.timing.map(|timing| i64::from(timing == Timing::Virtual));
        let (latest, sequence) = (self.cache.latest, self.cache.sequence);
        let meta = |statement: Statement| statement.bind(timing).bind(latest).bind(sequence);
        // Most transactions touch one queue: its counts, the row of the namespace and the commit are one trip.
        let statement = match (last, commit) {
            (Some(queue), _) => meta(queue.bind_changes(sqlx::query(concat!(
                update_counts!(),
                "; ",
                update_meta!(),
                "; commit"
            )))),
            (None, true) => meta(sqlx::query(concat!(update_meta!(), "; commit"))),
            (None, false) => meta(sqlx::query(update_meta!())),
        };
        statement.execute(&mut *self.conn).await?;
        Ok(())
    }

    /// The latest instant seen, in milliseconds.
    pub(crate) fn latest(&self) -> i64 {
        self.cache.latest
    }

    pub(crate) fn next_number(&mut self) -> i64 {
        self.numbers(1)
    }

    /// The first of `count` new numbers in a row.
    pub(crate) fn numbers(&mut self, count: usize) -> i64 {
        let first = self.cache.sequence + 1;
        self.cache.sequence += i64::try_from(count).unwrap_or(i64::MAX);
        first
    }

    /// The number of a stored job.
    pub(crate) async fn find(&mut self, job: &JobRef) -> Step<Option<i64>> {
        let Some(lane) = self.find_lane(&job.queue).await? else { return Ok(None) };
        self.find_in(lane, job.id).await
    }

    pub(crate) async fn find_in(&mut self, lane: Lane, id: JobId) -> Step<Option<i64>> {
        let row = sqlx::query("select n from windlass_job where q = ?1 and id = ?2")
            .bind(self.queue(lane).q)
            .bind(&id.as_uuid().as_bytes()[..])
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

pub(crate) fn timed_the_other_way() -> Error {
    Error::new(
        ErrorKind::Config,
        "this namespace is timed the other way: server time and virtual time cannot be mixed, use a file of its own for \
         each",
    )
}

#[cfg(test)]
mod tests;
