//! The storage contract of Windlass, and nothing else.
//!
//! An engine (memory, SQLite, Redis, Postgres, or a stranger's) implements [`Backend`] and as many of the
//! capability traits as it can honour: [`Connect`], [`Inspect`], [`Manage`], [`Migrate`], [`Transactional`].
//! It moves opaque bodies through the states of [`StateKind`] and knows nothing of handlers, codecs or
//! workers. `windlass-conformance` is the executable form of every sentence written here.
//!
//! Read in the order in which a job lives: [`Body`] and [`NewJob`] (push), [`Claim`], [`Lease`] and
//! [`Verdict`] (settle), [`Held`] (extend), [`Sweep`].
//!
//! Three rules hold throughout:
//!
//! * **One step a transition.** A verb either happens as a whole or not at all, per named queue.
//! * **Fencing.** Whatever a worker says about a job is compared with (id, epoch, nonce) of its claim.
//! * **Time is the engine's.** Every verb takes an [`At`]; no client clock decides anything.
#![doc(html_no_source)]

mod backend;
mod body;
mod capability;
mod claim;
mod error;
mod extend;
mod id;
mod inspect;
pub mod limits;
mod manage;
mod name;
mod settle;
mod sweep;
mod time;
mod wait;

pub use backend::{Backend, Capabilities};
pub use body::{
    Body, ConcurrencyLimit, Due, Extras, NewJob, OnConflict, ParentFailure, Priority, Pushed, TimeLimit,
    Unique, Until,
};
pub use capability::{Connect, Migrate, Migration, Transactional};
pub use claim::{Claim, Claimed, ClaimedJob, Kinds};
pub use error::{Effect, Error, ErrorKind, Result};
pub use extend::{Held, Kept, LogLine, Note, Progress};
pub use id::{JobId, JobRef, Lease, Nonce, SessionId};
pub use inspect::{
    Counts, Cursor, Filter, Inspect, Page, QueueInfo, Record, RecordState, StateKind, WhyBlocked,
    WhyScheduled,
};
pub use manage::{Cancelling, Manage};
pub use name::{Kind, QueueName};
pub use settle::{DeadReason, Failure, Finished, Ruling, Settled, Verdict};
pub use sweep::{Keep, Retention, Sweep, Swept};
pub use time::{At, Timestamp, VirtualClock};
pub use wait::Wake;
