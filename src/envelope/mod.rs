//! `Envelope<J, S>`: a job `J` in the state `S`, where `S` carries exactly the data that is valid in it.
//!
//! ```text
//! Draft ──push──▶ Blocked ─released─▶ Ready ──claim──▶ Running ──complete──▶ Completed
//!         ├─────▶ Scheduled ──due───▶   ▲               │ retry, snooze ───▶ Scheduled
//!         └───────────────────────────▶ │               │ release ─────────▶ Ready
//!                                       └──── revive ── Dead ◀── bury       cancel ──▶ Cancelled
//! ```
//!
//! Setters exist on [`Draft`] only, verdicts on [`Running`] only, and a verdict consumes its envelope: completing twice is
//! a compile error, and so is completing what never started. That stops a wrong step within this process; across
//! processes the fence in storage stops it.
//!
//! ```compile_fail,E0382
//! use windlass::envelope::{Envelope, Raw, Running};
//! fn twice(running: Envelope<Raw, Running>) {
//!     let _ = running.complete(None);
//!     let _ = running.complete(None); // used after it was moved
//! }
//! ```

mod draft;
mod recorded;
mod running;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::{Body, Error, JobId, JobRef, Kind, Priority, QueueName, Result};

pub use self::draft::Draft;
pub(crate) use self::recorded::decode_output;
pub use self::recorded::{Blocked, Cancelled, Completed, Dead, History, Leased, Ready, Recorded, Scheduled};
pub use self::running::Running;

use crate::codec::Codec;
use crate::job::Job;
use crate::upgrade;

/// A payload that stays encoded: the engine and the worker handle jobs whose type they do not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Raw;

/// A state of an envelope. Sealed: the states are the ones of this module.
pub trait State: sealed::Sealed + fmt::Debug {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! states {
    ($($state:ident)*) => {
        $(
            impl sealed::Sealed for $state {}
            impl State for $state {}
        )*
    };
}

states!(Draft Blocked Scheduled Ready Running Leased Completed Cancelled Dead);

/// A job in a known state.
#[derive(Clone)]
pub struct Envelope<J, S: State = Draft> {
    job: J,
    body: Arc<Body>,
    state: S,
}

impl<J, S: State> Envelope<J, S> {
    /// The payload; [`Raw`] while it is encoded.
    pub fn job(&self) -> &J {
        &self.job
    }

    /// The payload, by value.
    pub fn into_job(self) -> J {
        self.job
    }

    /// The state and its data.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// The identity of the job.
    pub fn id(&self) -> JobId {
        self.body.id
    }

    /// The named queue it belongs to.
    pub fn queue(&self) -> &QueueName {
        &self.body.queue
    }

    /// Its queue and its id.
    pub fn job_ref(&self) -> JobRef {
        self.body.job()
    }

    /// The stable name of its type.
    pub fn kind(&self) -> &Kind {
        &self.body.kind
    }

    /// The version of its payload's shape.
    pub fn version(&self) -> u16 {
        self.body.version
    }

    /// Which goes first.
    pub fn priority(&self) -> Priority {
        self.body.priority
    }

    /// How many attempts it has.
    pub fn max_attempts(&self) -> u16 {
        self.body.max_attempts
    }

    /// The limit of one attempt.
    pub fn timeout(&self) -> Option<Duration> {
        self.body.timeout.get()
    }

    /// Its tags.
    pub fn tags(&self) -> &[String] {
        self.body.tags()
    }

    /// The metadata value of `key`.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.body.extras.as_ref()?.metadata.get(key).map(String::as_str)
    }

    /// The codec of its payload.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) for a codec this version does not know.
    pub fn codec(&self) -> Result<Codec> {
        Codec::from_id(self.body.codec)
    }

    /// The encoded payload.
    pub fn payload(&self) -> &[u8] {
        &self.body.payload
    }

    /// What is stored.
    pub fn body(&self) -> &Arc<Body> {
        &self.body
    }
}

impl<S: State> Envelope<Raw, S> {
    /// Reads the payload as a `J`, upgrading it from an older version if need be.
    ///
    /// # Errors
    /// [`ErrorKind::Decode`](windlass_core::ErrorKind::Decode) when it is of another kind or cannot be read.
    pub fn decode<J: Job>(self) -> Result<Envelope<J, S>> {
        let kind = self.body.kind.as_str();
        if kind != J::NAME && !J::ALIASES.contains(&kind) {
            return Err(Error::new(
                windlass_core::ErrorKind::Decode,
                format!("job {} is a `{kind}`, not a `{}`", self.body.id, J::NAME),
            ));
        }
        let job = upgrade::decode::<J>(self.codec()?, self.body.version, &self.body.payload)?;
        Ok(Envelope { job, body: self.body, state: self.state })
    }
}

impl<J, S: State> fmt::Debug for Envelope<J, S> {
    /// Leaves the payload out: it may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("body", &self.body)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
