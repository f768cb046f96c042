//! The worker: claims jobs, runs each under the executor, settles their verdicts, and keeps its leases alive.
//!
//! Four tasks share one hand (`hand.rs`): the *drive* (`drive.rs`, its calls in `calls.rs`) settles and claims; the *runners* (`runner.rs`) run
//! one job at a time each; the *beat* (`beat.rs`) extends the session on its own; the *upkeep* (`upkeep.rs`) sweeps and
//! listens for wake-ups. `order.rs` decides which named queue goes first, `pace.rs` how far to look ahead.

mod beat;
mod calls;
mod drive;
mod hand;
mod order;
mod pace;
mod report;
mod runner;
mod signal;
pub(crate) mod simulated;
mod upkeep;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::limits::{DELAY_MAX, LEASE_MAX, LEASE_MIN};
use windlass_core::{Error, ErrorKind, QueueName, Result};

use crate::any::{AnyBackend, Engine};
use crate::queue::Queue;
use crate::registry::{Jobs, Registry};

use self::order::Order;
pub use self::report::Report;
pub use self::signal::shutdown_signal;
use self::simulated::Simulated;

/// Runs the jobs of any number of named queues, of any kinds.
///
/// ```no_run
/// # use windlass::prelude::*;
/// # async fn run(queue: Queue<MemoryBackend>, jobs: Registry) -> windlass::Result<()> {
/// Worker::new(queue, jobs)
///     .weights([("mail", 3), ("bulk", 1)])
///     .concurrency(64)
///     .run_until(shutdown_signal())
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker<B: Engine> {
    queue: Queue<B>,
    jobs: Jobs,
    order: Result<Order>,
    pub(crate) settings: Settings,
}

/// What a worker goes by.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) poll: Duration,
    pub(crate) sweep_every: Duration,
    pub(crate) shutdown_deadline: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) look_ahead: bool,
    pub(crate) until_empty: bool,
    pub(crate) at_most_jobs: Option<u64>,
    pub(crate) at_most_time: Option<Duration>,
    pub(crate) simulated: Simulated,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            concurrency: 64,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            sweep_every: Duration::from_secs(5),
            // What Kubernetes and systemd leave a process by default, less a margin.
            shutdown_deadline: Duration::from_secs(25),
            cancel_grace: Duration::from_secs(5),
            look_ahead: true,
            until_empty: false,
            at_most_jobs: None,
            at_most_time: None,
            simulated: Simulated::default(),
        }
    }
}

impl<B: Engine> Worker<B> {
    /// A worker for the named queue `default`, until [`queues`](Self::queues) says otherwise.
    pub fn new<C: Send + Sync + 'static>(queue: Queue<B>, jobs: Registry<C>) -> Self {
        Self { queue, jobs: jobs.jobs(), order: Order::strict(["default"]), settings: Settings::default() }
    }

    /// Works these named queues in strict order: a later one gets a turn only when the earlier ones are empty, and starves
    /// while they are not.
    pub fn queues<N: TryInto<QueueName, Error: Into<Error>>>(
        mut self,
        queues: impl IntoIterator<Item = N>,
    ) -> Self {
        self.order = Order::strict(queues);
        self
    }

    /// Works these named queues by weight: in any `w1 + w2 + ...` claims, one of weight `w` comes first `w` times, and what
    /// it leaves free goes to the others. None starves.
    pub fn weights<N: TryInto<QueueName, Error: Into<Error>>>(
        mut self,
        queues: impl IntoIterator<Item = (N, u32)>,
    ) -> Self {
        self.order = Order::weighted(queues);
        self
    }

    /// Runs at most so many jobs at once, 1 or more. 64 unless told otherwise.
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.settings.concurrency = jobs;
        self
    }

    /// Leases last this long without a sign of life, 1 s to 24 h. 30 s unless told otherwise; renewed three times in it. It
    /// bounds how long the jobs of a dead worker wait, not how long a job may run.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// Looks for work at least this often, should a wake-up be lost. 1 s unless told otherwise.
    pub fn poll(mut self, every: Duration) -> Self {
        self.settings.poll = every.min(DELAY_MAX);
        self
    }

    /// Does upkeep this often: due jobs, lost leases, retention. 5 s unless told otherwise.
    pub fn sweep_every(mut self, every: Duration) -> Self {
        self.settings.sweep_every = every.min(DELAY_MAX);
        self
    }

    /// On shutdown waits this long for running jobs, then stops and releases them. 25 s unless told otherwise.
    pub fn shutdown_deadline(mut self, deadline: Duration) -> Self {
        self.settings.shutdown_deadline = deadline.min(DELAY_MAX);
        self
    }

    /// Gives a cancelled job this long to stop by itself before its future is dropped. 5 s unless told otherwise.
    pub fn cancel_grace(mut self, grace: Duration) -> Self {
        self.settings.cancel_grace = grace.min(DELAY_MAX);
        self
    }

    /// Whether to claim jobs ahead of free slots while jobs are short. On unless told otherwise.
    pub fn look_ahead(mut self, on: bool) -> Self {
        self.settings.look_ahead = on;
        self
    }

    /// Stops when nothing is Ready and nothing runs. Jobs that are due later are left.
    pub fn until_empty(mut self) -> Self {
        self.settings.until_empty = true;
        self
    }

    /// Stops after so many jobs were started, when they have ended.
    pub fn at_most_jobs(mut self, jobs: u64) -> Self {
        self.settings.at_most_jobs = Some(jobs);
        self
    }

    /// Stops claiming after so long, and when what runs then has ended.
    pub fn at_most_time(mut self, time: Duration) -> Self {
        self.settings.at_most_time = Some(time.min(DELAY_MAX));
        self
    }

    /// Runs until a bound such as [`until_empty`](Self::until_empty) is reached; without one, for ever.
    ///
    /// # Errors
    /// As [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Report> {
        self.run_until(std::future::pending()).await
    }

    /// Runs until `shutdown` resolves, then stops gracefully: claims nothing more, hands back what it has not started, waits
    /// for what runs until the shutdown deadline, then stops and releases that. Needs a tokio runtime with its timer on.
    ///
    /// Dropping the future stops everything at once; the jobs in hand then wait for their leases to end.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for settings that cannot work. Errors of the engine do not end a worker: it backs off and
    /// tries again.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<Report> {
        let order = self.order?;
        self.settings.validate()?;
        for (kind, queue) in self.jobs.outside_of(&order.names()) {
            tracing::info!(%kind, queue, "this worker can run a kind whose own queue it does not work");
        }
        let queue: Queue<B> = self.queue;
        let erased: Queue<AnyBackend> = queue.erase();
        let shared = Arc::new(drive::Shared::new(queue, erased, self.jobs, &order, self.settings));
        drive::run(shared, order, shutdown).await
    }
}

impl Settings {
    fn validate(&self) -> Result<()> {
        let refuse = |text: String| Err(Error::new(ErrorKind::Config, text));
        if self.concurrency == 0 || self.concurrency > 100_000 {
            return refuse(format!("concurrency {} is out of range: use 1 to 100000", self.concurrency));
        }
        if self.lease < LEASE_MIN || self.lease > LEASE_MAX {
            return refuse(format!("lease of {:?} is out of range: use 1 s to 24 h", self.lease));
        }
        if self.poll.is_zero() || self.sweep_every.is_zero() {
            return refuse("poll and sweep_every must be longer than 0: they would spin".to_owned());
        }
        Ok(())
    }

    /// How often the session is extended: three times a lease, so that two beats may be lost.
    pub(crate) fn beat_every(&self) -> Duration {
        self.lease / 3
    }

    /// How long before the end of a lease that could not be extended its handler is stopped: a tenth.
    pub(crate) fn fence_margin(&self) -> Duration {
        self.lease / 10
    }
}
