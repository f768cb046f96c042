//! End-to-end tests, one file a feature: real queues, real workers, the memory engine; `sqlite` on a file.
//!
//! Time is tokio's paused clock and a virtual clock of the queue that is moved along with it, so a minute costs nothing
//! and nothing depends on how busy the machine is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod any_backend;
mod bad_input;
mod bursts;
mod cancel;
mod context;
mod dispatch;
mod engine;
mod failures;
mod fake;
mod far;
mod faults;
mod fencing;
mod look_ahead;
mod middleware;
mod pausing;
mod recorded;
mod retries;
mod shutdown;
mod signals;
mod sqlite;
mod support;
mod transactions;
mod upgrades;
mod wakeups;
mod worker;
