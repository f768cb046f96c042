//! What is read back from storage: an envelope whose state is only known at run time.

use windlass_core::{
    DeadReason, Error, Failure, JobId, LogLine, Progress, Record, RecordState, Result, SessionId, StateKind,
    Timestamp, WhyBlocked, WhyScheduled,
};

use super::{Envelope, Raw, State};
use crate::job::Job;

/// What every stored job has behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// When it was dispatched.
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

macro_rules! stored {
    ($($(#[$doc:meta])* $state:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, PartialEq, Eq, Debug)]
            pub struct $state {
                $($(#[$field_doc])* pub $field: $type,)*
                /// What lies behind it.
                pub history: History,
            }
        )*
    };
}

stored! {
    /// Something must end first.
    Blocked {
        /// What it waits for.
        why: WhyBlocked,
    }
    /// Due later.
    Scheduled {
        /// When it is due.
        due: Timestamp,
        /// Why later.
        why: WhyScheduled,
    }
    /// Waiting for a worker.
    Ready {
        /// Whether it was moved aside, because a worker came that could not run it.
        parked: bool,
    }
    /// Running, as seen from outside: there is no lease in it, and so no verdict.
    Leased {
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
    }
    /// Done.
    Completed {
        /// When.
        at: Timestamp,
        /// The encoded output, when one was kept.
        output: Option<Box<[u8]>>,
    }
    /// Called off.
    Cancelled {
        /// When.
        at: Timestamp,
        /// Why.
        reason: String,
        /// The job that took its place, when one did.
        superseded_by: Option<JobId>,
    }
    /// Failed for good.
    Dead {
        /// When.
        at: Timestamp,
        /// Why it is not tried again.
        reason: DeadReason,
    }
}

/// A stored job, in whichever state it is.
#[derive(Clone, Debug)]
pub enum Recorded<J> {
    /// Something must end first.
    Blocked(Envelope<J, Blocked>),
    /// Due later.
    Scheduled(Envelope<J, Scheduled>),
    /// Waiting for a worker.
    Ready(Envelope<J, Ready>),
    /// Held by a worker.
    Running(Envelope<J, Leased>),
    /// Done.
    Completed(Envelope<J, Completed>),
    /// Called off.
    Cancelled(Envelope<J, Cancelled>),
    /// Failed for good.
    Dead(Envelope<J, Dead>),
}

/// Does the same with the envelope in each state.
macro_rules! each {
    ($recorded:expr, $envelope:ident => $do:expr) => {
        match $recorded {
            Recorded::Blocked($envelope) => $do,
            Recorded::Scheduled($envelope) => $do,
            Recorded::Ready($envelope) => $do,
            Recorded::Running($envelope) => $do,
            Recorded::Completed($envelope) => $do,
            Recorded::Cancelled($envelope) => $do,
            Recorded::Dead($envelope) => $do,
        }
    };
}

impl<J> Recorded<J> {
    /// Which of the seven states it is in.
    pub fn state(&self) -> StateKind {
        match self {
            Self::Blocked(_) => StateKind::Blocked,
            Self::Scheduled(_) => StateKind::Scheduled,
            Self::Ready(_) => StateKind::Ready,
            Self::Running(_) => StateKind::Running,
            Self::Completed(_) => StateKind::Completed,
            Self::Cancelled(_) => StateKind::Cancelled,
            Self::Dead(_) => StateKind::Dead,
        }
    }

    /// The payload.
    pub fn job(&self) -> &J {
        each!(self, envelope => envelope.job())
    }

    /// The identity of the job.
    pub fn id(&self) -> JobId {
        each!(self, envelope => envelope.id())
    }

    /// What lies behind it.
    pub fn history(&self) -> &History {
        each!(self, envelope => &envelope.state().history)
    }
}

impl Recorded<Raw> {
    /// Reads the payload as a `J`.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) when it is of another kind or cannot be read.
    pub fn decode<J: Job>(self) -> Result<Recorded<J>> {
        Ok(match self {
            Self::Blocked(envelope) => Recorded::Blocked(envelope.decode()?),
            Self::Scheduled(envelope) => Recorded::Scheduled(envelope.decode()?),
            Self::Ready(envelope) => Recorded::Ready(envelope.decode()?),
            Self::Running(envelope) => Recorded::Running(envelope.decode()?),
            Self::Completed(envelope) => Recorded::Completed(envelope.decode()?),
            Self::Cancelled(envelope) => Recorded::Cancelled(envelope.decode()?),
            Self::Dead(envelope) => Recorded::Dead(envelope.decode()?),
        })
    }
}

impl<J: Job> Envelope<J, Completed> {
    /// What the job gave back.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) when it cannot be read as the job's present output type.
    pub fn output(&self) -> Result<J::Output> {
        decode_output::<J>(self.state.output.as_deref(), self.body.codec)
    }
}

/// Reads an output; one that was not kept reads as JSON's `null`, which is what `()` is.
pub(crate) fn decode_output<J: Job>(output: Option<&[u8]>, codec: u8) -> Result<J::Output> {
    let read = match output {
        Some(output) => crate::codec::Codec::from_id(codec)?.decode(output),
        None => crate::codec::Codec::Json.decode(b"null"),
    };
    read.map_err(|error| {
        Error::new(error.kind(), format!("the output of `{}` cannot be read: {}", J::NAME, error.message()))
    })
}

impl From<Record> for Recorded<Raw> {
    fn from(record: Record) -> Self {
        let history = History {
            created_at: record.created_at,
            attempts: record.attempts,
            lost_leases: record.lost_leases,
            generation: record.generation,
            epoch: record.epoch,
            last_error: record.last_error,
            progress: record.progress,
            log: record.log,
        };
        fn seal<S: State>(body: std::sync::Arc<windlass_core::Body>, state: S) -> Envelope<Raw, S> {
            Envelope { job: Raw, body, state }
        }
        let body = record.body;
        match record.state {
            RecordState::Blocked { why } => Self::Blocked(seal(body, Blocked { why, history })),
            RecordState::Scheduled { due, why } => {
                Self::Scheduled(seal(body, Scheduled { due, why, history }))
            }
            RecordState::Ready { parked } => Self::Ready(seal(body, Ready { parked, history })),
            RecordState::Running { session, since, lease_until, started, cancel_requested } => Self::Running(
                seal(body, Leased { session, since, lease_until, started, cancel_requested, history }),
            ),
            RecordState::Completed { at, output } => {
                Self::Completed(seal(body, Completed { at, output, history }))
            }
            RecordState::Cancelled { at, reason, superseded_by } => {
                Self::Cancelled(seal(body, Cancelled { at, reason, superseded_by, history }))
            }
            RecordState::Dead { at, reason } => Self::Dead(seal(body, Dead { at, reason, history })),
        }
    }
}
