//! Typed background jobs: the compiler checks the wiring, every verdict is fenced, and the in-memory queue is the test
//! harness.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use windlass::prelude::*;
//! # #[derive(Clone)] struct Mailer;
//! # impl Mailer { async fn welcome(&self, _user: u64) -> std::io::Result<()> { Ok(()) } }
//!
//! #[derive(Serialize, Deserialize, Job)]
//! #[job(name = "send_welcome_email", queue = "mail", max_attempts = 5, timeout = "30s")]
//! struct SendWelcomeEmail {
//!     user_id: u64,
//! }
//!
//! impl Handler for SendWelcomeEmail {
//!     type Deps = (Mailer,);
//!     type Error = std::io::Error;
//!
//!     async fn handle(Self { user_id }: Self, (mailer,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Self::Error> {
//!         mailer.welcome(user_id).await?;
//!         Ok(Outcome::Done)
//!     }
//! }
//!
//! #[derive(Clone, Provide)]
//! struct App {
//!     mailer: Mailer,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> windlass::Result<()> {
//! let queue = Queue::<MemoryBackend>::connect("memory:").await?;
//! queue.dispatch(SendWelcomeEmail { user_id: 123 }).await?;
//! queue.dispatch(SendWelcomeEmail { user_id: 124 }).on("bulk").delay(hours(1)).unique_for(minutes(10)).await?;
//!
//! let jobs = Registry::new(App { mailer: Mailer }).register::<SendWelcomeEmail>();
//! let report = Worker::new(queue, jobs).queues(["mail"]).until_empty().run().await?;
//! assert_eq!(report.completed, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Where to read on: [`Job`] and [`Handler`] (what a job is, how it runs), [`Provide`] (where its dependencies come from),
//! [`Queue`] and [`Dispatch`] (putting jobs in), [`Worker`] (running them), [`testing`] (testing them), [`envelope`] (their
//! states), and the guides in [`docs`].
#![doc(html_no_source)]

// The derives write `::windlass::..`; this makes them work within this crate's own tests too.
#[allow(unused_extern_crates, reason = "used by the derives in tests")]
extern crate self as windlass;

mod any;
mod codec;
mod context;
mod dispatch;
pub mod docs;
mod duration;
mod entropy;
pub mod envelope;
mod executor;
mod handler;
mod job;
mod middleware;
pub mod prelude;
mod provide;
mod queue;
mod registry;
mod retry;
pub mod testing;
mod transaction;
mod upgrade;
pub mod worker;

pub use async_trait::async_trait;
pub use windlass_core::{
    At, Backend, Cancelling, Capabilities, ConcurrencyLimit, Connect, Counts, Cursor, DeadReason, Due,
    Effect, Error, ErrorKind, Failure, Filter, Inspect, JobId, JobRef, Keep, Kind, Manage, Migrate,
    Migration, ParentFailure, Priority, Pushed, QueueInfo, QueueName, Result, Retention, SessionId,
    StateKind, Timestamp, Transactional, VirtualClock, WhyBlocked, WhyScheduled, limits,
};
pub use windlass_macros::{Deps, Job, Provide};
pub use windlass_memory::{MemoryBackend, MemoryOptions, MemoryTransaction};
#[cfg(feature = "postgres")]
pub use windlass_postgres::{PostgresBackend, PostgresOptions};
#[cfg(feature = "redis")]
pub use windlass_redis::{Durability as RedisDurability, RedisBackend, RedisOptions};
#[cfg(feature = "sqlite")]
pub use windlass_sqlite::{Durability, SqliteBackend, SqliteOptions, SqliteTransaction};

pub use crate::any::{AnyBackend, Engine};
pub use crate::codec::Codec;
pub use crate::context::{Context, Fence, Stop};
pub use crate::dispatch::{Dispatch, DispatchAll, DispatchAllError, DispatchError, Dispatched};
pub use crate::envelope::{Envelope, Recorded};
pub use crate::handler::{BoxError, Decision, FailureCause, Fault, Handler, Outcome, RunError};
pub use crate::job::{Job, UniqueBy};
pub use crate::middleware::{Ending, Middleware, Next, OnDispatch};
pub use crate::provide::{FromContainer, Provide};
pub use crate::queue::{Ended, Queue};
pub use crate::registry::Registry;
pub use crate::retry::Retry;
pub use crate::transaction::{Receipt, Ticket};
pub use crate::upgrade::Upgrade;
pub use crate::worker::{Report, Worker};

/// The storage contract, for those who write an engine.
pub mod core {
    pub use windlass_core::*;
}
