//! The shorthands on a fake: the five questions that most tests ask, and the way to the longer ones.

use windlass_memory::MemoryBackend;

use super::failure::Count;
use super::query::{Query, raise};
use super::sequence::JobList;
use crate::job::Job;
use crate::queue::Queue;

/// Assertions on everything ever dispatched to a [fake](Queue::fake), whatever became of it since. A dispatch that was
/// skipped as a duplicate was not dispatched.
impl Queue<MemoryBackend> {
    /// At least one `J` was dispatched.
    ///
    /// # Panics
    /// When none was; the message lists what was.
    #[track_caller]
    pub fn assert_dispatched<J: Job>(&self) {
        self.dispatched::<J>().assert_any();
    }

    /// At least one `J` that `wanted` accepts was dispatched.
    ///
    /// # Panics
    /// When none was; the message lists what was.
    #[track_caller]
    pub fn assert_dispatched_with<J: Job>(&self, wanted: impl Fn(&J) -> bool) {
        self.dispatched::<J>().matching(wanted).assert_any();
    }

    /// Exactly `times` `J`s were dispatched.
    ///
    /// # Panics
    /// When it was more or fewer; the message lists what was dispatched.
    #[track_caller]
    pub fn assert_dispatched_times<J: Job>(&self, times: usize) {
        raise(self.dispatched::<J>().check(Count::Exactly(times)));
    }

    /// No `J` was dispatched.
    ///
    /// # Panics
    /// When one was; the message lists what was dispatched.
    #[track_caller]
    pub fn assert_not_dispatched<J: Job>(&self) {
        self.dispatched::<J>().assert_none();
    }

    /// Nothing at all was dispatched.
    ///
    /// # Panics
    /// When something was; the message lists it.
    #[track_caller]
    pub fn assert_nothing_dispatched(&self) {
        self.snapshot().assert_nothing_dispatched();
    }

    /// Exactly these jobs were dispatched, in this order; see [`Snapshot::assert_sequence`](super::Snapshot::assert_sequence).
    ///
    /// # Panics
    /// When others were.
    #[track_caller]
    pub fn assert_sequence<L: JobList>(&self) {
        self.snapshot().assert_sequence::<L>();
    }

    /// Such a chain was dispatched; see [`Snapshot::assert_chained`](super::Snapshot::assert_chained).
    ///
    /// # Panics
    /// When none was.
    #[track_caller]
    pub fn assert_chained<L: JobList>(&self) {
        self.snapshot().assert_chained::<L>();
    }

    /// The dispatches of `J`, to be narrowed down and asserted, or [got](Query::get).
    pub fn dispatched<J: Job>(&self) -> Query<J> {
        self.snapshot().dispatched()
    }
}
