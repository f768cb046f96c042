//! The test harness, tested: what it says when an assertion fails, how it runs jobs, what it lets go wrong.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod app;
mod breaking;
mod draining;
mod messages;
mod performing;
mod queries;
mod support;
mod time;
