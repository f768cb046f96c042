//! Virtual time: the sugar that moves a queue's clock, and the clock that goes along with tokio's.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use windlass_core::{Backend, Timestamp, VirtualClock};

use crate::queue::Queue;

/// Moves a virtual clock by as much as tokio's clock has moved.
#[derive(Debug)]
pub(crate) struct TokioHands {
    /// Up to where tokio's time has been added.
    seen: Mutex<Instant>,
}

impl TokioHands {
    pub(crate) fn new() -> Self {
        Self { seen: Mutex::new(Instant::now()) }
    }

    /// Adds what has passed since the last time, in whole milliseconds; the rest waits for the next time.
    pub(crate) fn move_along(&self, clock: &VirtualClock) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = Instant::now().saturating_duration_since(*seen);
        let whole = Duration::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX));
        if !whole.is_zero() {
            *seen += whole;
            clock.advance(whole);
        }
    }
}

/// The hands of a virtual clock: of a [fake](Queue::fake), or of a queue that was given one with [`clock`](Queue::clock).
impl<B: Backend> Queue<B> {
    /// What the queue's virtual clock shows.
    ///
    /// # Panics
    /// When the queue goes by its engine's clock.
    #[must_use]
    #[track_caller]
    pub fn now(&self) -> Timestamp {
        self.hands().now()
    }

    /// Moves the queue's virtual clock forward and returns what it shows then. Nothing is woken and nothing runs by itself:
    /// drain, or let a worker poll.
    ///
    /// # Panics
    /// When the queue goes by its engine's clock.
    #[track_caller]
    pub fn advance(&self, by: Duration) -> Timestamp {
        self.hands().advance(by)
    }

    /// Moves the queue's virtual clock forward to `to`; a time that has passed leaves it where it is.
    ///
    /// # Panics
    /// When the queue goes by its engine's clock.
    #[track_caller]
    pub fn advance_to(&self, to: impl Into<Timestamp>) -> Timestamp {
        self.hands().advance_to(to.into())
    }

    #[track_caller]
    fn hands(&self) -> &VirtualClock {
        match self.virtual_clock() {
            Some(clock) => clock,
            None => panic!(
                "this queue goes by its engine's clock, which cannot be moved: make it with `Queue::fake()` or give it a `VirtualClock`"
            ),
        }
    }
}
