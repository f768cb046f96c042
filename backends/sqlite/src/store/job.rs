//! One job's row, and its rarer companions.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use windlass_core::{
    Body, DeadReason, Error, ErrorKind, JobId, Lease, Priority, QueueName, SessionId, StateKind, Timestamp,
    WhyBlocked, WhyScheduled,
};

use super::Store;
use super::queues::Lane;
use crate::error::Step;
use crate::packed;

/// Which line of its queue a Ready job stands in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// The ordinary one.
    Main = 0,
    /// Jobs that lost a lease.
    Suspects = 1,
    /// Jobs that a claim could not run and set aside.
    Aside = 2,
}

/// What is known of a job at a glance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Flags(pub(crate) i64);

impl Flags {
    /// It lost a lease, and no verdict has cleared it.
    pub(crate) const SUSPECT: i64 = 1;
    /// Its handler is known to have started.
    pub(crate) const STARTED: i64 = 1 << 1;
    /// It has a unique key.
    pub(crate) const KEYED: i64 = 1 << 2;
    /// It has a concurrency limit.
    pub(crate) const LIMITED: i64 = 1 << 3;
    /// Others may wait for its end.
    pub(crate) const PARENT: i64 = 1 << 4;
    /// It has a row in `more`.
    pub(crate) const MORE: i64 = 1 << 5;
    /// Somebody has asked for its cancellation while it ran.
    pub(crate) const CANCEL: i64 = 1 << 6;
    /// It has parents.
    pub(crate) const CHILD: i64 = 1 << 7;
    /// Its unique key is free from its first claim on.
    pub(crate) const KEYED_TO_START: i64 = 1 << 8;
    /// Whatever the end of such a job sets free needs a look at more than its row.
    pub(crate) const BUSY: i64 = Self::KEYED | Self::LIMITED | Self::PARENT | Self::CANCEL;

    pub(crate) fn has(self, flag: i64) -> bool {
        self.0 & flag != 0
    }

    pub(crate) fn set(&mut self, flag: i64, on: bool) {
        if on {
            self.0 |= flag;
        } else {
            self.0 &= !flag;
        }
    }
}

/// A row of `job`.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) n: i64,
    pub(crate) q: i64,
    pub(crate) id: JobId,
    pub(crate) priority: Priority,
    pub(crate) created: Timestamp,
    pub(crate) flags: Flags,
    pub(crate) state: StateKind,
    pub(crate) why: i64,
    pub(crate) line: Line,
    pub(crate) place: i64,
    pub(crate) at: Timestamp,
    pub(crate) since: Timestamp,
    pub(crate) epoch: i64,
    pub(crate) attempts: u16,
    pub(crate) lost: u16,
    pub(crate) generation: u32,
    pub(crate) session: Option<u128>,
    pub(crate) nonce: Option<u128>,
}

/// The columns of [`Job`], in its order. Queries may append more.
macro_rules! job_columns {
    () => {
        "job.n, job.q, job.id, job.priority, job.created, job.flags, job.state, job.why, job.line, job.place, job.at, \
         job.since, job.epoch, job.attempts, job.lost, job.generation, job.session, job.nonce"
    };
}
pub(crate) use job_columns;

/// How many columns that is.
pub(crate) const COLUMNS: usize = 18;

impl Job {
    pub(crate) fn of_row(row: &SqliteRow) -> Step<Self> {
        Ok(Self {
            n: row.try_get(0)?,
            q: row.try_get(1)?,
            id: id_of(row.try_get(2)?)?,
            priority: Priority::new(row.try_get(3)?)?,
            created: Timestamp::from_millis(row.try_get(4)?),
            flags: Flags(row.try_get(5)?),
            state: state_of(row.try_get(6)?)?,
            why: row.try_get(7)?,
            line: match row.try_get::<i64, _>(8)? {
                0 => Line::Main,
                1 => Line::Suspects,
                _ => Line::Aside,
            },
            place: row.try_get(9)?,
            at: Timestamp::from_millis(row.try_get(10)?),
            since: Timestamp::from_millis(row.try_get(11)?),
            epoch: row.try_get(12)?,
            attempts: row.try_get(13)?,
            lost: row.try_get(14)?,
            generation: row.try_get(15)?,
            session: bits_of(row.try_get(16)?),
            nonce: bits_of(row.try_get(17)?),
        })
    }

    pub(crate) fn rank(&self, sequence: i64) -> i64 {
        rank(self.priority, sequence)
    }

    /// Whether it occupies a place under its concurrency limit, should it have one.
    pub(crate) fn holds_place(&self) -> bool {
        matches!(self.state, StateKind::Ready | StateKind::Running)
    }

    pub(crate) fn epoch(&self) -> u64 {
        u64::try_from(self.epoch).unwrap_or(0)
    }

    pub(crate) fn session(&self) -> SessionId {
        SessionId::from_u128(self.session.unwrap_or(0))
    }

    pub(crate) fn is_leased_by(&self, lease: &Lease) -> bool {
        self.state == StateKind::Running
            && self.epoch() == lease.epoch
            && self.nonce == Some(lease.nonce.as_u128())
            && self.id == lease.job.id
    }
}

/// A place in line: priority first, then entry, in one number. Ten levels need four bits, so 59 are left for the entries.
pub(crate) fn rank(priority: Priority, sequence: i64) -> i64 {
    (i64::from(9 - priority.get()) << 59) | sequence
}

pub(crate) fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::Decode, format!("a stored job cannot be read: {what}"))
}

pub(crate) fn id_of(bytes: &[u8]) -> windlass_core::Result<JobId> {
    let uuid = uuid::Uuid::from_slice(bytes).map_err(|_| damaged("its id does not have 16 bytes"))?;
    JobId::from_uuid(uuid)
}

pub(crate) fn state_of(state: i64) -> windlass_core::Result<StateKind> {
    let state = usize::try_from(state).ok().and_then(|state| StateKind::ALL.get(state).copied());
    state.ok_or_else(|| damaged("its state has no name"))
}

fn bits_of(bytes: Option<&[u8]>) -> Option<u128> {
    bytes.and_then(|bytes| bytes.try_into().ok()).map(u128::from_be_bytes)
}

/// 128 bits as they are stored.
pub(crate) fn bits(bits: u128) -> Vec<u8> {
    bits.to_be_bytes().to_vec()
}

pub(crate) fn why_blocked(why: i64, parents_left: u32) -> WhyBlocked {
    match why {
        0 => WhyBlocked::Parents(parents_left),
        1 => WhyBlocked::Limit,
        _ => WhyBlocked::Unique,
    }
}

pub(crate) const BLOCKED_BY_PARENTS: i64 = 0;
pub(crate) const BLOCKED_BY_LIMIT: i64 = 1;
pub(crate) const BLOCKED_BY_KEY: i64 = 2;

pub(crate) fn why_scheduled(why: i64) -> WhyScheduled {
    match why {
        0 => WhyScheduled::Delay,
        1 => WhyScheduled::Retry,
        _ => WhyScheduled::Snooze,
    }
}

pub(crate) fn scheduled_number(why: WhyScheduled) -> i64 {
    match why {
        WhyScheduled::Delay => 0,
        WhyScheduled::Retry => 1,
        WhyScheduled::Snooze => 2,
    }
}

pub(crate) fn dead_reason(why: i64) -> DeadReason {
    match why {
        0 => DeadReason::AttemptsExhausted,
        1 => DeadReason::Buried,
        2 => DeadReason::Poison,
        _ => DeadReason::Undecodable,
    }
}

pub(crate) fn dead_number(reason: DeadReason) -> i64 {
    match reason {
        DeadReason::AttemptsExhausted => 0,
        DeadReason::Poison => 2,
        DeadReason::Undecodable => 3,
        // A reason that this release does not know is at least a burial.
        _ => 1,
    }
}

impl Store<'_> {
    /// The row with this number, if it is stored.
    pub(crate) async fn load(&mut self, n: i64) -> Step<Option<Job>> {
        load(self.conn, n).await
    }

    /// Writes a job's row back and counts the change of its state. `before` is the row as it was.
    pub(crate) async fn save(&mut self, before: &Job, job: &Job) -> Step<()> {
        sqlx::query(
            "update windlass_job set flags = ?2, state = ?3, why = ?4, line = ?5, place = ?6, at = ?7, since = ?8, epoch = ?9, \
             attempts = ?10, lost = ?11, generation = ?12, session = ?13, nonce = ?14 where n = ?1",
        )
        .bind(job.n)
        .bind(job.flags.0)
        .bind(job.state as i64)
        .bind(job.why)
        .bind(job.line as i64)
        .bind(job.place)
        .bind(job.at.as_millis())
        .bind(job.since.as_millis())
        .bind(job.epoch)
        .bind(i64::from(job.attempts))
        .bind(i64::from(job.lost))
        .bind(i64::from(job.generation))
        .bind(job.session.map(bits))
        .bind(job.nonce.map(bits))
        .execute(&mut *self.conn)
        .await?;
        if (before.state, before.line) != (job.state, job.line) {
            let lane = self.lane_of(job).await?;
            self.moved(lane, (before.state, before.line), (job.state, job.line), 1);
        }
        Ok(())
    }

    /// The body of a job.
    pub(crate) async fn body(&mut self, job: &Job) -> Step<Body> {
        let lane = self.lane_of(job).await?;
        let queue = self.queue(lane).name.clone();
        body(self.conn, queue, job).await
    }

    /// Makes sure that a job has a row in `more`.
    pub(crate) async fn open_more(&mut self, job: &mut Job) -> Step<()> {
        if !job.flags.has(Flags::MORE) {
            job.flags.set(Flags::MORE, true);
            sqlx::query("insert or ignore into windlass_more (n) values (?1)")
                .bind(job.n)
                .execute(&mut *self.conn)
                .await?;
            sqlx::query("update windlass_job set flags = flags | ?2 where n = ?1")
                .bind(job.n)
                .bind(Flags::MORE)
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    /// Removes a job with all that belongs to it.
    pub(crate) async fn forget(&mut self, lane: Lane, job: &Job) -> Step<()> {
        sqlx::query("delete from windlass_body where n = ?1").bind(job.n).execute(&mut *self.conn).await?;
        if job.flags.has(Flags::MORE) {
            sqlx::query("delete from windlass_more where n = ?1")
                .bind(job.n)
                .execute(&mut *self.conn)
                .await?;
        }
        sqlx::query("delete from windlass_job where n = ?1").bind(job.n).execute(&mut *self.conn).await?;
        self.gone(lane, job.state, 1);
        Ok(())
    }
}

pub(crate) async fn load(conn: &mut SqliteConnection, n: i64) -> Step<Option<Job>> {
    let row = sqlx::query(concat!("select ", job_columns!(), " from windlass_job as job where n = ?1"))
        .bind(n)
        .fetch_optional(conn)
        .await?;
    row.map(|row| Job::of_row(&row)).transpose()
}

pub(crate) async fn body(conn: &mut SqliteConnection, queue: QueueName, job: &Job) -> Step<Body> {
    let row =
        sqlx::query("select packed from windlass_body where n = ?1").bind(job.n).fetch_one(conn).await?;
    Ok(packed::unpack(queue, job.id, row.try_get(0)?)?)
}
