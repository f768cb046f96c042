//! Doors for the project's simulator (`sim/`), behind the cargo feature `mutants`: seeded randomness on any engine, a
//! worker that can be frozen, and faults on purpose. Not for users, and not covered by any promise of compatibility.

use windlass_core::Backend;

use crate::any::Engine;
use crate::queue::Queue;
use crate::worker::Worker;
pub use crate::worker::simulated::{Freezer, Mutant};

impl<B: Backend> Queue<B> {
    /// Draws sessions, nonces and jitter from `seed`, and numbers ids 1, 2, 3, so that runs repeat.
    #[doc(hidden)]
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        self.deterministic(seed)
    }
}

impl<B: Engine> Worker<B> {
    /// A worker that stands still while `freezer` does, with a fault on purpose if one is named.
    #[doc(hidden)]
    pub fn simulated(mut self, freezer: Freezer, mutant: Option<Mutant>) -> Self {
        self.settings.simulated.freezer = freezer;
        self.settings.simulated.mutant = mutant;
        self
    }

    /// So many verdicts are worth a call of their own.
    #[doc(hidden)]
    pub fn flushing_at(mut self, verdicts: usize) -> Self {
        self.settings.simulated.flush_at = Some(verdicts);
        self
    }
}
