//! Everything a program that dispatches and runs jobs names: `use windlass::prelude::*`.

#[cfg(feature = "postgres")]
pub use crate::PostgresBackend;
#[cfg(feature = "redis")]
pub use crate::RedisBackend;
#[cfg(feature = "sqlite")]
pub use crate::SqliteBackend;
pub use crate::duration::{days, hours, milliseconds, minutes, seconds};
pub use crate::worker::shutdown_signal;
pub use crate::{
    AnyBackend, Backend, Context, Decision, Deps, Ended, Ending, Fault, Handler, Job, MemoryBackend,
    Middleware, Next, OnDispatch, Outcome, Priority, Provide, Queue, Registry, Retry, UniqueBy, Upgrade,
    Worker,
};
