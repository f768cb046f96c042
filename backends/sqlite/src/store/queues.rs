//! What a transaction knows of named queues and kinds: their numbers, and their counts, which follow every change of a state.

use sqlx::Row as _;
use windlass_core::{Kind, QueueName, StateKind};

use super::job::{Job, Line};
use super::{Statement, Store};
use crate::error::Step;

/// A named queue, and how its counts have changed in this transaction.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) q: i64,
    pub(crate) name: QueueName,
    pub(crate) paused: bool,
    counts: [i64; COUNTS],
    pub(super) changes: [i64; COUNTS],
}

/// The seven states, then Ready jobs under suspicion, then those set aside.
const COUNTS: usize = 9;
const SUSPECTS: usize = 7;
const ASIDE: usize = 8;

/// Adds the changes of a queue to its row; see [`Queue::bind_changes`].
macro_rules! update_counts {
    () => {
        "update windlass_queue set blocked = blocked + ?, scheduled = scheduled + ?, ready = ready + ?, \
         running = running + ?, completed = completed + ?, cancelled = cancelled + ?, dead = dead + ?, \
         suspects = suspects + ?, aside = aside + ? where q = ?"
    };
}
pub(super) use update_counts;

impl Queue {
    /// Binds the changes to a statement that begins with `update_counts!`. They count as written.
    pub(super) fn bind_changes(&mut self, mut statement: Statement) -> Statement {
        for change in std::mem::take(&mut self.changes) {
            statement = statement.bind(change);
        }
        statement.bind(self.q)
    }

    /// Whether something has been counted that is not written yet.
    pub(super) fn has_changed(&self) -> bool {
        self.changes != [0; COUNTS]
    }
}

/// An index into the queues that the cache knows.
pub(crate) type Lane = usize;

impl Store<'_> {
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

    /// Counts `jobs` that are forgotten.
    pub(crate) fn gone(&mut self, lane: Lane, state: StateKind, jobs: i64) {
        self.tally(lane, state, Line::Main, -jobs);
    }

    /// The queue of this name, if it is known.
    pub(crate) async fn find_lane(&mut self, name: &QueueName) -> Step<Option<Lane>> {
        if let Some(lane) = self.cache.by_name.get(name) {
            return Ok(Some(*lane));
        }
        let row = sqlx::query(
            "select q, paused, blocked, scheduled, ready, running, completed, cancelled, dead, suspects, aside \
             from windlass_queue where name = ?1",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut counts = [0; COUNTS];
        for (at, count) in counts.iter_mut().enumerate() {
            *count = row.try_get(at + 2)?;
        }
        let queue = Queue {
            q: row.try_get(0)?,
            name: name.clone(),
            paused: row.try_get(1)?,
            counts,
            changes: [0; COUNTS],
        };
        Ok(Some(self.remember(queue)))
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
        let queue = Queue {
            q: done.last_insert_rowid(),
            name: name.clone(),
            paused: false,
            counts: [0; COUNTS],
            changes: [0; COUNTS],
        };
        Ok(self.remember(queue))
    }

    /// The queue with this number. Every job's queue has a row.
    pub(crate) async fn lane_of(&mut self, job: &Job) -> Step<Lane> {
        if let Some(lane) = self.cache.by_number.get(&job.q) {
            return Ok(*lane);
        }
        let name: String = sqlx::query("select name from windlass_queue where q = ?1")
            .bind(job.q)
            .fetch_one(&mut *self.conn)
            .await?
            .try_get(0)?;
        self.open_lane(&QueueName::new(name)?).await
    }

    fn remember(&mut self, queue: Queue) -> Lane {
        let lane = self.cache.queues.len();
        self.cache.by_name.insert(queue.name.clone(), lane);
        self.cache.by_number.insert(queue.q, lane);
        self.cache.queues.push(queue);
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
        let row = sqlx::query("select k from windlass_kind where name = ?1")
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
}
