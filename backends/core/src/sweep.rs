//! Upkeep that any worker does: due jobs, expired leases, retention, the outbox.

use std::time::Duration;

/// How long finished jobs of one state are kept in a named queue: whichever bound is reached first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keep {
    /// At most so many; 0 forgets a job the moment it ends.
    pub count: u64,
    /// At most for so long after its end.
    pub age: Duration,
}

impl Keep {
    /// Forget a job the moment it ends. Pushing its id again runs it again.
    pub const NOTHING: Self = Self { count: 0, age: Duration::ZERO };

    /// At most `count` jobs, each for at most `age`.
    #[must_use]
    pub const fn new(count: u64, age: Duration) -> Self {
        Self { count, age }
    }
}

/// How long finished jobs are kept: a setting of the namespace, given when the engine is opened.
///
/// A kept job still absorbs a repeated push of its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retention {
    /// Of completed jobs: 10,000, for a day.
    pub completed: Keep,
    /// Of cancelled jobs: 10,000, for a day.
    pub cancelled: Keep,
    /// Of dead jobs: 100,000, for 90 days. They wait for somebody to look at them.
    pub dead: Keep,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            completed: Keep::new(10_000, DAY),
            cancelled: Keep::new(10_000, DAY),
            dead: Keep::new(100_000, DAY.saturating_mul(90)),
        }
    }
}

/// One round of upkeep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sweep {
    /// At most so many jobs of each sort (due, expired, out of retention, in the outbox): 1 to 1,000.
    pub limit: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { limit: 1_000 }
    }
}

/// What a round of upkeep did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Swept {
    /// Scheduled jobs that became Ready or Blocked.
    pub promoted: u64,
    /// Expired leases whose jobs went back to Ready.
    pub reclaimed: u64,
    /// Expired leases whose jobs were called off, as somebody had asked.
    pub cancelled: u64,
    /// Expired leases whose jobs are Dead as poison.
    pub buried: u64,
    /// Finished jobs that were forgotten.
    pub pruned: u64,
    /// Jobs that left an outbox for another named queue.
    pub relayed: u64,
    /// Whether a limit was reached: sweep again.
    pub more: bool,
}
