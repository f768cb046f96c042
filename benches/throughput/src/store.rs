//! What an engine has to show to be measured: a fresh store with its raw limit, and what sets its sheet apart. The rows are
//! `sheet.rs`'s.

use std::time::Duration;

use windlass::prelude::*;
use windlass::{Engine, Retention};

/// A fresh store of an engine, with the server or the files that it lives in. They go with it.
pub(crate) trait Store: Sized {
    type Backend: Engine;
    type Raw: Raw;
    /// What an acknowledged write survives.
    type Durability: Copy + 'static;

    const ABOUT: About;
    /// What it is measured at, with their names.
    const DURABILITIES: &'static [(Self::Durability, &'static str)];

    async fn open(durability: Self::Durability) -> Self;

    /// A handle that shares nothing with any other but the store, as one in another process would.
    async fn queue(&self, retention: Retention) -> Queue<Self::Backend>;

    /// The same through something that holds every answer back for a millisecond. Only asked where [`About::afar`].
    async fn queue_afar(&self, retention: Retention) -> Queue<Self::Backend> {
        self.queue(retention).await
    }

    /// The raw limit, on this store.
    async fn raw(&self) -> Self::Raw;

    /// CPU time that its server has used, where it has one.
    fn server_cpu(&self) -> Option<Duration> {
        None
    }

    /// Bytes that it takes up now. Only asked where [`About::held`] names what they are.
    async fn held(&self) -> u64 {
        0
    }

    /// What it has written so far. Only asked where [`About::tells_writes`].
    async fn writes(&self) -> Writes {
        Writes::default()
    }
}

/// What a store has written since it was made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Writes {
    pub(crate) wal_bytes: u64,
    pub(crate) index_entries: u64,
}

/// The raw limit of an engine: a loop that does nothing else.
pub(crate) trait Raw {
    async fn dispatch(&mut self, jobs: usize, in_flight: usize) -> Duration;
    async fn bulk(&mut self, jobs: usize) -> Duration;
    /// Settles and claims in batches as large as ours are at best, and checks that each job was settled once.
    async fn drain(&mut self, jobs: usize) -> Duration;
}

/// What sets the sheet of an engine apart.
pub(crate) struct About {
    pub(crate) engine: &'static str,
    /// The raw limit's name, and the package that it goes through.
    pub(crate) raw: (&'static str, &'static str),
    /// How many dispatches are on their way at once where more than one is.
    pub(crate) in_flight: usize,
    /// The parts of all jobs that are dispatched one after the other, and `in_flight` at once: fewer where each waits for a
    /// disk.
    pub(crate) parts: (usize, usize),
    /// How many completed jobs are kept, where history is.
    pub(crate) kept: u64,
    /// What a waiting job takes up, if the store can tell: the workload's name.
    pub(crate) held: Option<&'static str>,
    pub(crate) has_server: bool,
    /// Whether it can be measured as if it were a round trip away.
    pub(crate) afar: bool,
    /// Whether the store tells what it writes.
    pub(crate) tells_writes: bool,
}
