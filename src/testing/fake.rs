//! Making a fake: a queue on an empty memory engine that remembers every dispatch, with a clock that stands still and
//! random numbers that repeat.

use windlass_core::{Timestamp, VirtualClock};
use windlass_memory::{Faults, MemoryBackend, MemoryOptions};

use crate::queue::Queue;

/// The variable that overrides the seed of every fake: to replay a failure, or to explore.
const SEED_VARIABLE: &str = "WINDLASS_TEST_SEED";

/// Settings of a fake queue. [`Queue::fake`] is `Fake::new().queue()`.
///
/// ```
/// use windlass::prelude::*;
/// use windlass::testing::Fake;
///
/// let queue = Fake::new().start_at("2031-05-01T08:00:00Z").seed(7).queue();
/// assert_eq!(queue.now().to_string(), "2031-05-01T08:00:00Z");
/// ```
#[derive(Clone, Debug)]
#[must_use = "end it with `queue()`"]
pub struct Fake {
    start: Timestamp,
    seed: u64,
    tokio_time: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self { start: Timestamp::VIRTUAL_START, seed: 0, tokio_time: false }
    }
}

impl Fake {
    /// The clock shows 2030-01-01T00:00:00Z, the seed is 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the clock shows at first, in RFC 3339: `2030-01-01T00:00:00Z`.
    ///
    /// # Panics
    /// When the text is no such time.
    #[track_caller]
    pub fn start_at(mut self, instant: &str) -> Self {
        match instant.parse() {
            Ok(start) => self.start = start,
            Err(error) => panic!("`{instant}` is no RFC 3339 time such as `2030-01-01T00:00:00Z`: {error}"),
        }
        self
    }

    /// Seeds the jitter of retries and the faults by rate. The environment variable `WINDLASS_TEST_SEED` overrides it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Lets the clock move along with tokio's, on top of what it is [advanced](Queue::advance) by: for handlers that sleep or
    /// time out, in a test with `start_paused = true`.
    pub fn tokio_time(mut self) -> Self {
        self.tokio_time = true;
        self
    }

    /// The queue. Nothing is shared with other fakes.
    ///
    /// # Panics
    /// When `WINDLASS_TEST_SEED` is set and no number.
    #[must_use]
    pub fn queue(self) -> Queue<MemoryBackend> {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => match text.parse() {
                Ok(seed) => seed,
                Err(_) => panic!("{SEED_VARIABLE} is `{text}`: give a number"),
            },
            Err(_) => self.seed,
        };
        let options = MemoryOptions { record_dispatches: true, ..MemoryOptions::default() };
        let queue = Queue::new(MemoryBackend::with_options(options))
            .clock(VirtualClock::starting_at(self.start))
            .deterministic(seed)
            .under_test();
        queue.backend().faults().seed(seed);
        if self.tokio_time { queue.slaved_to_tokio() } else { queue }
    }
}

impl Queue<MemoryBackend> {
    /// A queue for a test: an empty memory engine that remembers every dispatch, a clock that shows 2030-01-01T00:00:00Z
    /// until it is moved, ids 1, 2, 3, and random numbers from a fixed seed. Nothing is shared with other tests. See
    /// [`Fake`] for one with settings.
    #[must_use]
    pub fn fake() -> Self {
        Fake::new().queue()
    }

    /// The plan of what goes wrong with the engine, in tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        self.backend().faults()
    }
}
