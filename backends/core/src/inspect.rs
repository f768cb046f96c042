//! Looking without touching: records, listings, counts.

use std::future::Future;
use std::sync::Arc;

use crate::limits::PAGE_MAX;
use crate::{
    At, Backend, Body, DeadReason, Error, Failure, JobId, JobRef, Kind, LogLine, Progress, QueueName, Result,
    SessionId, Timestamp,
};

/// The seven stored states.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StateKind {
    /// Something must end first: a limit, a key, parents.
    Blocked,
    /// Due later: the first time, a retry or a snooze.
    Scheduled,
    /// Waiting for a worker.
    Ready,
    /// Held by a worker under a lease.
    Running,
    /// Done.
    Completed,
    /// Called off.
    Cancelled,
    /// Failed for good; can be revived.
    Dead,
}

impl StateKind {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 7] = [
        Self::Blocked,
        Self::Scheduled,
        Self::Ready,
        Self::Running,
        Self::Completed,
        Self::Cancelled,
        Self::Dead,
    ];

    /// Whether nothing but a revival leads out of this state.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Dead)
    }

    /// Whether the job waits: Blocked, Scheduled or Ready.
    #[must_use]
    pub const fn is_waiting(self) -> bool {
        matches!(self, Self::Blocked | Self::Scheduled | Self::Ready)
    }

    /// The state's name in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Scheduled => "scheduled",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Dead => "dead",
        }
    }
}

/// What a Blocked job waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyBlocked {
    /// So many parents that have not completed.
    Parents(u32),
    /// A place under its concurrency limit.
    Limit,
    /// The end of the running holder of its unique key.
    Unique,
}

/// Why a job is Scheduled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyScheduled {
    /// It was dispatched for later.
    Delay,
    /// It failed and backs off.
    Retry,
    /// Its handler asked for it.
    Snooze,
}

/// The state of a record, with the data that is valid in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordState {
    /// See [`StateKind::Blocked`].
    Blocked {
        /// What it waits for.
        why: WhyBlocked,
    },
    /// See [`StateKind::Scheduled`].
    Scheduled {
        /// When it is due.
        due: Timestamp,
        /// Why later.
        why: WhyScheduled,
    },
    /// See [`StateKind::Ready`].
    Ready {
        /// Whether it was moved aside, because a claim came that could not run it.
        parked: bool,
    },
    /// See [`StateKind::Running`].
    Running {
        /// Who holds it.
        session: SessionId,
        /// When it was claimed.
        since: Timestamp,
        /// When the lease ends without an extend.
        lease_until: Timestamp,
        /// Whether its handler is known to have started.
        started: bool,
        /// Whether somebody has asked for its cancellation.
        cancel_requested: bool,
    },
    /// See [`StateKind::Completed`].
    Completed {
        /// When.
        at: Timestamp,
        /// The encoded output, when one was kept.
        output: Option<Box<[u8]>>,
    },
    /// See [`StateKind::Cancelled`].
    Cancelled {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
        /// The job that took its place, when one did.
        superseded_by: Option<JobId>,
    },
    /// See [`StateKind::Dead`].
    Dead {
        /// When.
        at: Timestamp,
        /// Why it is not tried again.
        reason: DeadReason,
    },
}

impl RecordState {
    /// Which of the seven it is.
    #[must_use]
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::Blocked { .. } => StateKind::Blocked,
            Self::Scheduled { .. } => StateKind::Scheduled,
            Self::Ready { .. } => StateKind::Ready,
            Self::Running { .. } => StateKind::Running,
            Self::Completed { .. } => StateKind::Completed,
            Self::Cancelled { .. } => StateKind::Cancelled,
            Self::Dead { .. } => StateKind::Dead,
        }
    }
}

/// A job as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// What it is.
    pub body: Arc<Body>,
    /// Where it stands.
    pub state: RecordState,
    /// When the engine took it in.
    pub created_at: Timestamp,
    /// Handlers that started and gave a verdict, in this generation.
    pub attempts: u16,
    /// Leases lost by handlers that had started, in this generation.
    pub lost_leases: u16,
    /// How often it was revived.
    pub generation: u32,
    /// How often it was claimed in all.
    pub epoch: u64,
    /// The last error.
    pub last_error: Option<Failure>,
    /// How far the last run came.
    pub progress: Option<Progress>,
    /// The last hundred log lines.
    pub log: Vec<LogLine>,
}

/// Which records to list. Everything that is set must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// Of this named queue.
    pub queue: Option<QueueName>,
    /// In one of these states; empty means any.
    pub states: Vec<StateKind>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// With this tag.
    pub tag: Option<String>,
}

/// Where the next page begins. Opaque: only the engine that made it can read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor(pub Box<str>);

/// A page of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// At most as many as were asked for, in the order of their ids. A page may be short, even empty, and still not be the
    /// last: an engine looks at a bounded number of records.
    pub records: Vec<Record>,
    /// Where the next page begins; `None` at the end. Records that come or go meanwhile may be missed, none is shown
    /// twice.
    pub next: Option<Cursor>,
}

/// How many jobs of a named queue are in each state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts([u64; 7]);

impl Counts {
    /// How many are in `state`.
    #[must_use]
    pub const fn get(&self, state: StateKind) -> u64 {
        self.0[state as usize]
    }

    /// The count of `state`, for engines to set.
    pub fn get_mut(&mut self, state: StateKind) -> &mut u64 {
        &mut self.0[state as usize]
    }

    /// All that are not finished.
    #[must_use]
    pub fn live(&self) -> u64 {
        StateKind::ALL.iter().filter(|state| !state.is_final()).map(|state| self.get(*state)).sum()
    }
}

/// A named queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueInfo {
    /// Its name.
    pub name: QueueName,
    /// Whether it is paused.
    pub paused: bool,
    /// How many jobs are in each state. Kept by the engine as jobs move, never counted by scanning.
    pub counts: Counts,
}

/// Looking into an engine.
pub trait Inspect: Backend {
    /// The job as it is stored, or `None`.
    fn get(&self, job: &JobRef, at: At) -> impl Future<Output = Result<Option<Record>>> + Send;

    /// One page of the jobs that pass `filter`, by id. `limit` is 1 to 1,000.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a limit out of range or a cursor that is not one.
    fn list(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: usize,
        at: At,
    ) -> impl Future<Output = Result<Page>> + Send;

    /// All named queues that ever held a job or a setting, by name, with their counts. An engine may let the counts lag
    /// by a few seconds.
    fn queues(&self, at: At) -> impl Future<Output = Result<Vec<QueueInfo>>> + Send;
}

/// Checks the size of a page; every engine calls it.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) outside of 1 to 1,000.
pub(crate) fn check_page(limit: usize) -> Result<()> {
    if limit == 0 || limit > PAGE_MAX {
        return Err(Error::invalid(format!("page of {limit} is out of range: use 1 to {PAGE_MAX}")));
    }
    Ok(())
}

impl Filter {
    /// Checks the size of a page; every engine calls it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) outside of 1 to 1,000.
    pub fn validate_page(limit: usize) -> Result<()> {
        check_page(limit)
    }

    /// Whether `record` passes.
    #[must_use]
    pub fn passes(&self, record: &Record) -> bool {
        self.queue.as_ref().is_none_or(|queue| *queue == record.body.queue)
            && (self.states.is_empty() || self.states.contains(&record.state.kind()))
            && self.kind.as_ref().is_none_or(|kind| *kind == record.body.kind)
            && self.tag.as_ref().is_none_or(|tag| record.body.tags().contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_know_their_place() {
        assert!(StateKind::ALL.is_sorted());
        assert_eq!(StateKind::ALL.iter().filter(|s| s.is_final()).count(), 3);
        assert_eq!(StateKind::ALL.iter().filter(|s| s.is_waiting()).count(), 3);
        let names: Vec<_> = StateKind::ALL.iter().map(|s| s.as_str()).collect();
        assert_eq!(names, ["blocked", "scheduled", "ready", "running", "completed", "cancelled", "dead"]);
    }

    #[test]
    fn counts_add_up() {
        let mut counts = Counts::default();
        *counts.get_mut(StateKind::Ready) += 2;
        *counts.get_mut(StateKind::Dead) += 1;
        assert_eq!((counts.get(StateKind::Ready), counts.live()), (2, 2));
    }

    #[test]
    fn a_page_has_a_size() {
        assert!(Filter::validate_page(0).is_err() && Filter::validate_page(1_001).is_err());
        Filter::validate_page(1_000).unwrap();
    }
}
