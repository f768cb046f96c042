//! The data within one transaction: jobs by number, and what the namespace knows of its queues.
//!
//! The invariant of this module: a job's row says its state, the partial indexes follow the row, and the counts of its
//! queue follow [`Store::moved`], which every change of a state passes. A step decides before it writes; what the database
//! itself refuses voids the whole transaction.

mod admit;
mod claim;
mod ending;
mod insert;
pub(crate) mod job;
mod manage;
mod push;
pub(crate) mod read;
mod settle;
mod sweep;

use std::collections::HashMap;

use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Row as _, Sqlite, SqliteConnection};
use windlass_core::{At, Error, ErrorKind, JobId, JobRef, Kind, QueueName, Retention, StateKind, Timestamp};

use crate::error::Step;
use job::{Job, Line};
pub(crate) use push::is_plain;

/// How a namespace is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Timing {
    Server,
    Virtual,
}

/// A named queue, and how its counts have changed in this transaction.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) q: i64,
    pub(crate) paused: bool,
    counts: [i64; COUNTS],
    changes: [i64; COUNTS],
}

type Statement = Query<'static, Sqlite, SqliteArguments>;

macro_rules! update_counts {
    () => {
        "update windlass_queue set blocked = blocked + ?, scheduled = scheduled + ?, ready = ready + ?, \
         running = running + ?, completed = completed + ?, cancelled = cancelled + ?, dead = dead + ?, \
         suspects = suspects + ?, aside = aside + ? where q = ?"
    };
}

macro_rules! update_meta {
    () => {
        "update windlass_meta set timing = ?, latest = ?, sequence = ?"
    };
}

impl Queue {
    /// Binds the changes to a statement that begins with `update_counts!`. They count as written.
    fn bind_changes(&mut self, mut statement: Statement) -> Statement {
        for change in std::mem::take(&mut self.changes) {
            statement = statement.bind(change);
        }
        statement.bind(self.q)
    }
}

/// The seven states, then Ready jobs under suspicion, then those set aside.
const COUNTS: usize = 9;
const SUSPECTS: usize = 7;
const ASIDE: usize = 8;

/// What the transactions of one connection know from earlier ones, as long as nobody else has written.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    data_version: Option<i64>,
    timing: Option<Timing>,
    latest: i64,
    sequence: i64,
    queues: Vec<Queue>,
    numbers: HashMap<QueueName, usize>,
    kinds: HashMap<Kind, i64>,
}

/// The store within one transaction.
pub(crate) struct Store<'c> {
    pub(crate) conn: &'c mut SqliteConnection,
    pub(crate) cache: &'c mut Cache,
    pub(crate) retention: Retention,
    pub(crate) now: Timestamp,
}

/// An index into the queues that the cache knows.
pub(crate) type Lane = usize;

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
        let changed = |queue: &&mut Queue| queue.changes != [0; COUNTS];
        let mut changed: Vec<&mut Queue> = self.cache.queues.iter_mut().filter(changed).collect();
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

    pub(crate) fn queue(&self, lane: Lane) -> &Queue {
        &self.cache.queues[lane]
    }

    pub(crate) fn count(&self, lane: Lane, state: StateKind) -> i64 {
        self.cache.queues[lane].counts[state as usize]
    }

    pub(crate) fn suspects(&self, lane: Lane) -> i64 {
        self.cache.queues[lane].counts[SUSPECTS]
    }

    pub(crate) fn aside(&self, lane: Lane) -> i64 {
        self.cache.queues[lane].counts[ASIDE]
    }

    /// Counts `jobs` more (or fewer) in a state, and for Ready in a line.
    fn tally(&mut self, lane: Lane, state: StateKind, line: Line, jobs: i64) {
        let queue = &mut self.cache.queues[lane];
        let mut add = |at: usize| {
            queue.counts[at] += jobs;
            queue.changes[at] += jobs;
        };
        add(state as usize);
        if state == StateKind::Ready {
            match line {
                Line::Main => {}
                Line::Suspects => add(SUSPECTS),
                Line::Aside => add(ASIDE),
            }
        }
    }

    /// Counts `jobs` that went from one state to another.
    pub(crate) fn moved(&mut self, lane: Lane, from: (StateKind, Line), to: (StateKind, Line), jobs: i64) {
        self.tally(lane, from.0, from.1, -jobs);
        self.tally(lane, to.0, to.1, jobs);
    }

    /// Counts `jobs` that came in.
    pub(crate) fn came(&mut self, lane: Lane, state: StateKind, jobs: i64) {
        self.tally(lane, state, Line::Main, jobs);
    }

    /// Counts one that is forgotten.
    pub(crate) fn gone(&mut self, lane: Lane, state: StateKind) {
        self.tally(lane, state, Line::Main, -1);
    }

    /// The queue of this name, if it is known.
    pub(crate) async fn find_lane(&mut self, name: &QueueName) -> Step<Option<Lane>> {
        if let Some(lane) = self.cache.numbers.get(name) {
            return Ok(Some(*lane));
        }
        let row = sqlx::query(
            "select q, paused, blocked, scheduled, ready, running, completed, cancelled, dead, suspects, aside \
             from windlass_queue as queue where name = ?1",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut counts = [0; COUNTS];
        for (at, count) in counts.iter_mut().enumerate() {
            *count = row.try_get(at + 2)?;
        }
        let queue = Queue { q: row.try_get(0)?, paused: row.try_get(1)?, counts, changes: [0; COUNTS] };
        Ok(Some(self.remember(name, queue)))
    }

    /// The queue of this name, made if it is new.
    pub(crate) async fn open_lane(&mut self, name: &QueueName) -> Step<Lane> {
        if let Some(lane) = self.find_lane(name).await? {
            return Ok(lane);
        }
        let done = sqlx::query("insert into windlass_queue (name) values (?1)")
            .bind(name.as_str())
            .execute(&mut *self.conn)
            .await?;
        let queue =
            Queue { q: done.last_insert_rowid(), paused: false, counts: [0; COUNTS], changes: [0; COUNTS] };
        Ok(self.remember(name, queue))
    }

    /// The queue with this number. Every job's queue has a row.
    pub(crate) async fn lane_of(&mut self, job: &Job) -> Step<Lane> {
        if let Some(lane) = self.cache.queues.iter().position(|queue| queue.q == job.q) {
            return Ok(lane);
        }
        let name: String = sqlx::query("select name from windlass_queue as queue where q = ?1")
            .bind(job.q)
            .fetch_one(&mut *self.conn)
            .await?
            .try_get(0)?;
        self.open_lane(&QueueName::new(name)?).await
    }

    /// The name of a queue that was looked up before.
    pub(crate) fn name_of(&self, lane: Lane) -> Option<&QueueName> {
        self.cache.numbers.iter().find_map(|(name, number)| (*number == lane).then_some(name))
    }

    fn remember(&mut self, name: &QueueName, queue: Queue) -> Lane {
        let lane = self.cache.queues.len();
        self.cache.queues.push(queue);
        self.cache.numbers.insert(name.clone(), lane);
        lane
    }

    pub(crate) fn set_paused(&mut self, lane: Lane, paused: bool) {
        self.cache.queues[lane].paused = paused;
    }

    /// The number of a kind, if it is known.
    pub(crate) async fn find_kind(&mut self, kind: &Kind) -> Step<Option<i64>> {
        if let Some(k) = self.cache.kinds.get(kind) {
            return Ok(Some(*k));
        }
        let row = sqlx::query("select k from windlass_kind as kind where name = ?1")
            .bind(kind.as_str())
            .fetch_optional(&mut *self.conn)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let k = row.try_get(0)?;
        self.cache.kinds.insert(kind.clone(), k);
        Ok(Some(k))
    }

    /// The number of a kind, given if it is new.
    pub(crate) async fn open_kind(&mut self, kind: &Kind) -> Step<i64> {
        if let Some(k) = self.find_kind(kind).await? {
            return Ok(k);
        }
        let done = sqlx::query("insert into windlass_kind (name) values (?1)")
            .bind(kind.as_str())
            .execute(&mut *self.conn)
            .await?;
        self.cache.kinds.insert(kind.clone(), done.last_insert_rowid());
        Ok(done.last_insert_rowid())
    }

    /// The number of a stored job.
    pub(crate) async fn find(&mut self, job: &JobRef) -> Step<Option<i64>> {
        let Some(lane) = self.find_lane(&job.queue).await? else { return Ok(None) };
        self.find_in(lane, job.id).await
    }

    pub(crate) async fn find_in(&mut self, lane: Lane, id: JobId) -> Step<Option<i64>> {
        let row = sqlx::query("select n from windlass_job as job where q = ?1 and id = ?2")
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
