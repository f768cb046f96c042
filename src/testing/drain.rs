//! Draining: runs what is queued through the real executor, one job at a time, jumping the clock from one due time to the
//! next. This is the builder and what comes out; `drive.rs` does it.

use std::future::IntoFuture;
use std::time::Duration;

use futures::future::BoxFuture;
use windlass_core::{JobRef, Kinds, Settled, StateKind, Timestamp};

use super::drive::Drive;
use crate::any::Engine;
use crate::executor::Ran;
use crate::queue::Queue;
use crate::registry::{Jobs, Registry};

/// Runs after which a drain gives up: jobs that keep dispatching each other would never end.
const MOST_RUNS: u64 = 10_000;

/// What a drain did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Drained {
    /// Jobs that completed.
    pub completed: u64,
    /// Runs that failed and were tried again.
    pub retried: u64,
    /// Runs that snoozed.
    pub snoozed: u64,
    /// Jobs that were called off.
    pub cancelled: u64,
    /// Jobs that failed for good.
    pub dead: u64,
    /// Runs whose verdict was refused, since the lease was lost.
    pub lost: u64,
    /// Workers that were [crashed](Queue::crash_worker).
    pub crashed: u64,
    /// Calls to the engine that failed and were tried again.
    pub storage_errors: u64,
    /// How far the clock moved.
    pub elapsed: Duration,
    /// What failed, in order: the kind and the error.
    pub failures: Vec<(String, String)>,
    /// Jobs that are left: blocked, paused, due later than the drain went, or of kinds the registry does not know.
    pub left: u64,
}

impl Drained {
    /// Everything ended well: nothing is dead, called off, lost or left.
    ///
    /// # Panics
    /// When something is; the message says what.
    #[track_caller]
    pub fn assert_clean(&self) {
        let Self { dead, cancelled, lost, left, .. } = self;
        assert!(
            dead + cancelled + lost + left == 0,
            "expected a clean drain, but {dead} jobs are dead, {cancelled} cancelled, {lost} lost, {left} left\n  failures: {:#?}",
            self.failures
        );
    }

    /// How many runs there were.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.completed + self.retried + self.snoozed + self.cancelled + self.dead + self.lost + self.crashed
    }

    pub(crate) fn count(&mut self, ran: Ran, settled: Settled) {
        let count = match (ran, settled) {
            (Ran::Settled, Settled::AlreadyApplied | Settled::LeaseLost)
            | (_, Settled::Applied(StateKind::Completed)) => &mut self.completed,
            (_, Settled::LeaseLost | Settled::AlreadyApplied) => &mut self.lost,
            (_, Settled::Applied(StateKind::Cancelled)) => &mut self.cancelled,
            (_, Settled::Applied(StateKind::Dead)) => &mut self.dead,
            (Ran::Snoozed, Settled::Applied(_)) => &mut self.snoozed,
            (_, Settled::Applied(_)) => &mut self.retried,
        };
        *count += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.completed += other.completed;
        self.retried += other.retried;
        self.snoozed += other.snoozed;
        self.cancelled += other.cancelled;
        self.dead += other.dead;
        self.lost += other.lost;
        self.crashed += other.crashed;
        self.storage_errors += other.storage_errors;
        self.elapsed += other.elapsed;
        self.failures.extend(other.failures);
        self.left = other.left;
    }
}

/// One run of a [`step`](Queue::step).
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Stepped {
    /// The job that ran.
    pub job: JobRef,
    /// The name it is stored under.
    pub kind: String,
    /// Which attempt it was, from 1.
    pub attempt: u16,
    /// The state it is in now; `None` when its verdict was refused, or its worker crashed before giving one.
    pub state: Option<StateKind>,
    /// Why it failed, when it did.
    pub error: Option<String>,
}

/// A drain that is being put together; await it to run it.
#[must_use = "a drain does nothing until it is awaited"]
pub struct Drain<'q, B: Engine> {
    queue: &'q Queue<B>,
    jobs: Jobs,
    options: Options,
}

/// How a drain goes.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) kinds: Kinds,
    pub(crate) until: Until,
    pub(crate) strict: bool,
    pub(crate) shuffled: Option<u64>,
    pub(crate) most_runs: u64,
}

/// How far a drain moves the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    Empty,
    Instant(Timestamp),
    /// Not at all.
    Due,
}

/// Running what is queued: on a [fake](Queue::fake), and on any engine whose queue was given a virtual
/// [`clock`](Queue::clock).
impl<B: Engine> Queue<B> {
    /// Runs jobs until none is left that can run, moving the clock to each due time: retries, delays and snoozes included. One
    /// at a time, by the real executor with codec, middleware, limits and panic guard; what a handler awaits takes real
    /// time, or tokio's when the clock is [slaved](super::Fake::tokio_time) to it. A handler's error is recorded, not
    /// raised, unless the drain is [`strict`](Drain::strict).
    ///
    /// Like a worker it tries again when the engine fails; each time costs a second of virtual time.
    ///
    /// # Panics
    /// After 10,000 runs, naming the kinds that keep going; and when the queue's clock cannot be moved.
    pub fn drain<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Drain<'_, B> {
        Drain::new(self, jobs.jobs())
    }

    /// [`drain`](Self::drain) of what is due now: the clock does not move.
    pub fn drain_due<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Drain<'_, B> {
        self.drain(jobs).due()
    }

    /// [`drain`](Self::drain) of what is due up to `instant`, where the clock stands afterwards.
    pub fn drain_until<C: Send + Sync + 'static>(
        &self,
        jobs: &Registry<C>,
        instant: impl Into<Timestamp>,
    ) -> Drain<'_, B> {
        self.drain(jobs).until(instant)
    }

    /// [`drain`](Self::drain) in another order that a crowd of workers might take: jobs of several named queues, and up to
    /// eight at a time, change places as the seed says.
    pub fn drain_shuffled<C: Send + Sync + 'static>(&self, jobs: &Registry<C>, seed: u64) -> Drain<'_, B> {
        self.drain(jobs).shuffled(seed)
    }

    /// Runs one job that is due now; `None` when none is. The clock does not move.
    ///
    /// # Panics
    /// When the queue's clock is not virtual.
    pub async fn step<C: Send + Sync + 'static>(&self, jobs: &Registry<C>) -> Option<Stepped> {
        let drain = self.drain(jobs).due();
        let mut drive = Drive::new(drain.queue, drain.jobs, drain.options);
        drive.next().await
    }
}

impl<'q, B: Engine> Drain<'q, B> {
    pub(crate) fn new(queue: &'q Queue<B>, jobs: Jobs) -> Self {
        let options = Options {
            kinds: jobs.kinds(),
            until: Until::Empty,
            strict: false,
            shuffled: None,
            most_runs: MOST_RUNS,
        };
        Self { queue, jobs, options }
    }

    pub(crate) fn kinds(mut self, kinds: Kinds) -> Self {
        self.options.kinds = kinds;
        self
    }

    /// Leaves the clock where it is.
    pub fn due(mut self) -> Self {
        self.options.until = Until::Due;
        self
    }

    /// Moves the clock to `instant`, and no further.
    pub fn until(mut self, instant: impl Into<Timestamp>) -> Self {
        self.options.until = Until::Instant(instant.into());
        self
    }

    /// Takes another legal order.
    pub fn shuffled(mut self, seed: u64) -> Self {
        self.options.shuffled = Some(seed);
        self
    }

    /// Panics at the first handler that fails, with its error.
    pub fn strict(mut self) -> Self {
        self.options.strict = true;
        self
    }

    /// Gives up after so many runs instead of 10,000.
    pub fn at_most_runs(mut self, runs: u64) -> Self {
        self.options.most_runs = runs;
        self
    }
}

impl<'q, B: Engine> IntoFuture for Drain<'q, B> {
    type Output = Drained;
    type IntoFuture = BoxFuture<'q, Drained>;

    fn into_future(self) -> BoxFuture<'q, Drained> {
        Box::pin(Drive::new(self.queue, self.jobs, self.options).run())
    }
}

impl<B: Engine> std::fmt::Debug for Drain<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("queue", self.queue).finish_non_exhaustive()
    }
}
