//! The engine against a real server: `WINDLASS_TEST_POSTGRES_URL` says which, and `cargo xtask test` starts one.

mod common;
mod conformance;
mod failures;
mod flat;
mod model;
mod opening;
mod stretches;
mod together;
mod transactions;
mod wakeups;
