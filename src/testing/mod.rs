//! Testing your jobs: the fake is the real in-memory engine, with a clock that stands still until you move it.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use windlass::prelude::*;
//!
//! #[derive(Serialize, Deserialize, Job)]
//! #[job(name = "send_email")]
//! struct SendEmail {
//!     to: String,
//! }
//!
//! // Code under test is generic over the engine.
//! async fn sign_up<B: Backend>(queue: &Queue<B>, email: &str) -> windlass::Result<()> {
//!     queue.dispatch(SendEmail { to: email.to_owned() }).await?;
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> windlass::Result<()> {
//! let queue = Queue::<MemoryBackend>::fake();
//! sign_up(&queue, "ada@example.com").await?;
//! queue.assert_dispatched::<SendEmail>();
//! queue.dispatched::<SendEmail>().on("default").matching(|job| job.to == "ada@example.com").assert_once();
//! # Ok(())
//! # }
//! ```
//!
//! The rooms: making one ([`Fake`]); asking what was dispatched ([`Query`], [`Snapshot`]); running it ([`Drain`],
//! [`perform`], [`Inline`]); breaking it ([`Faults`], [`Step`], [`assert_idempotent`]). The
//! guide [Testing your jobs](crate::docs::testing) has a recipe for each.

mod assertions;
mod clock;
mod crash;
mod cycle;
mod diff;
mod drain;
mod drive;
mod expect;
mod failure;
mod fake;
mod faulty;
mod found;
mod harness;
mod inline;
mod perform;
mod performed;
mod query;
mod safety;
mod sequence;
#[cfg(feature = "mutants")]
#[doc(hidden)]
pub mod simulation;
mod snapshot;
mod text;

pub use windlass_memory::{Corrupt, Dispatched, Faults, Verb};

pub(crate) use self::clock::TokioHands;
pub use self::crash::Step;
pub use self::drain::{Drain, Drained, Stepped};
pub use self::expect::Expectation;
pub use self::failure::{AssertionError, Count};
pub use self::fake::Fake;
pub use self::faulty::Faulty;
pub use self::found::Found;
pub(crate) use self::harness::Harness;
pub use self::inline::Inline;
pub use self::perform::{Perform, Performing, perform};
pub use self::performed::Performed;
pub use self::query::Query;
pub use self::safety::{assert_at_least_once, assert_idempotent};
pub use self::sequence::{JobList, Names};
pub use self::snapshot::{Entry, Mark, Snapshot};
