//! The executable specification of a Windlass storage engine.
//!
//! Every promise of `windlass-core` is a property here: an async function over a [`World`], named as the sentence
//! it holds the engine to. [`conformance!`] stamps one test per property for an engine that gives an [`Env`];
//! [`transactional!`] does the same for engines that join a caller's transaction. [`model`] compares two engines
//! over random histories. `docs.md` beside this crate tells how a new engine uses it, and which seeded faults it
//! has been seen to catch.
#![doc(html_no_source)]

mod draft;
mod env;
mod list;
pub mod model;
#[doc(hidden)]
pub mod properties;
#[doc(hidden)]
pub mod transactions;
mod world;

pub use draft::{Draft, draft};
pub use env::{Conn, Env, TransactionalEnv, run};
pub use world::{LEASE, World, bury, call_off, complete, ids, mail, release, retry, secs, snooze};
