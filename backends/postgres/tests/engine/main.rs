//! The engine against a real server: `WINDLASS_TEST_POSTGRES_URL` says which, and `cargo xtask test` starts one.

mod common;
mod conformance;
mod contention;
mod cuts;
mod failures;
mod flat;
mod full_notify;
mod gate;
mod gathered;
mod model;
mod opening;
mod plans;
mod spans;
mod standing;
mod stretches;
mod stuck;
mod terminated;
mod together;
mod transactions;
mod turmoil;
mod wakeups;
