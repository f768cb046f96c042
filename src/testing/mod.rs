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
//! queue.assert_dispatched_with(|job: &SendEmail| job.to == "ada@example.com");
//! # Ok(())
//! # }
//! ```

mod assertions;
mod drain;

use windlass_core::VirtualClock;
use windlass_memory::{MemoryBackend, MemoryOptions};

pub use self::drain::Drained;
pub use windlass_memory::{Dispatched, Faults, Verb};

use crate::queue::Queue;

impl Queue<MemoryBackend> {
    /// A queue for a test: an empty memory engine that remembers every dispatch, a clock that shows 2030-01-01T00:00:00Z
    /// until it is moved, ids 1, 2, 3, and random numbers from a fixed seed. Nothing is shared with other tests.
    #[must_use]
    pub fn fake() -> Self {
        let options = MemoryOptions { record_dispatches: true, ..MemoryOptions::default() };
        Self::new(MemoryBackend::with_options(options)).clock(VirtualClock::default()).deterministic(0)
    }
}
