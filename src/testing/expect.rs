//! Expectations said before the fact, for code that takes the queue along: a guard that looks when it goes.

use std::panic::Location;

use windlass_memory::MemoryBackend;

use super::failure::{AssertionError, Count};
use super::query::Query;
use super::snapshot::Mark;
use crate::job::Job;
use crate::queue::Queue;

/// A step of a query that is taken later.
type Narrow<J> = Box<dyn Fn(Query<J>) -> Query<J> + Send>;

/// Expects dispatches of `J` from now on, at least one unless told otherwise, and verifies that when it is dropped. While
/// the test is panicking already it is silent.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use windlass::prelude::*;
/// # #[derive(Serialize, Deserialize, Job)]
/// # #[job(name = "send_email")]
/// # struct SendEmail;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windlass::Result<()> {
/// let queue = Queue::<MemoryBackend>::fake();
/// let _mail = queue.expect::<SendEmail>().once().on("mail");
/// queue.dispatch(SendEmail).on("mail").await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "an expectation is verified when it is dropped: bind it to `_name`"]
pub struct Expectation<J: Job> {
    queue: Queue<MemoryBackend>,
    mark: Mark,
    wanted: Count,
    steps: Vec<Narrow<J>>,
    place: &'static Location<'static>,
    verified: bool,
}

impl Queue<MemoryBackend> {
    /// Expects dispatches of `J` until the guard is dropped; see [`Expectation`]. For most tests an assertion afterwards reads
    /// better.
    #[track_caller]
    pub fn expect<J: Job>(&self) -> Expectation<J> {
        Expectation {
            queue: self.clone(),
            mark: self.mark(),
            wanted: Count::AtLeast(1),
            steps: Vec::new(),
            place: Location::caller(),
            verified: false,
        }
    }
}

impl<J: Job> Expectation<J> {
    /// Exactly one.
    pub fn once(self) -> Self {
        self.times(1)
    }

    /// Exactly so many.
    pub fn times(mut self, times: usize) -> Self {
        self.wanted = Count::Exactly(times);
        self
    }

    /// None.
    pub fn never(self) -> Self {
        self.times(0)
    }

    /// So many or more.
    pub fn at_least(mut self, times: usize) -> Self {
        self.wanted = Count::AtLeast(times);
        self
    }

    /// So many or fewer.
    pub fn at_most(mut self, times: usize) -> Self {
        self.wanted = Count::AtMost(times);
        self
    }

    /// Sent to this named queue.
    pub fn on(self, queue: impl Into<String>) -> Self {
        let queue = queue.into();
        self.that(move |query| query.on(&queue))
    }

    /// Accepted by the predicate.
    pub fn matching(self, accepts: impl Fn(&J) -> bool + Send + 'static) -> Self {
        self.that(move |query| query.matching(&accepts))
    }

    /// Narrowed down as a [`Query`] is: `.that(|query| query.delayed_by(hours(1)).tagged("vip"))`.
    pub fn that(mut self, narrow: impl Fn(Query<J>) -> Query<J> + Send + 'static) -> Self {
        self.steps.push(Box::new(narrow));
        self
    }

    /// Verifies now instead of at the drop.
    ///
    /// # Panics
    /// When the expectation is not met.
    #[track_caller]
    pub fn verify(mut self) {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
    }

    fn check(&mut self) -> Result<(), AssertionError> {
        self.verified = true;
        let query = self.queue.since(self.mark).dispatched::<J>();
        let query = self.steps.iter().fold(query, |query, narrow| narrow(query));
        query.check(self.wanted).map(drop)
    }
}

impl<J: Job> Drop for Expectation<J> {
    fn drop(&mut self) {
        // A second panic would end the process and hide the first.
        if self.verified || std::thread::panicking() {
            return;
        }
        if let Err(error) = self.check() {
            panic!("the expectation of {}:{} was not met: {error}", self.place.file(), self.place.line());
        }
    }
}

impl<J: Job> std::fmt::Debug for Expectation<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expectation")
            .field("job", &J::NAME)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}
