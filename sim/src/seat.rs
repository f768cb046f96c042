//! A seat: holds one worker after another. Each is started, works, and is frozen, killed, or stopped in good order.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use windlass::prelude::*;
use windlass::testing::simulation::Freezer;

use crate::jobs::{Act, App, Knows, NewOdd, Odd, Place};
use crate::network::{Client, Weather};
use crate::oracle::Stage;
use crate::rng::Rng;
use crate::{Mutant, WorkerMutant};

/// How the workers of a seat are set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) concurrency: usize,
    pub(crate) lease: Duration,
    pub(crate) sweep_every: Duration,
    /// By weight, or in strict order without.
    pub(crate) queues: Vec<(&'static str, u32)>,
    pub(crate) weighted: bool,
    pub(crate) look_ahead: bool,
    /// From so many verdicts on a worker has a second call under way.
    pub(crate) flush_at: usize,
    pub(crate) knows: Knows,
}

/// How long a handler has after it was told that its job is called off.
pub(crate) const CANCEL_GRACE: Duration = Duration::from_secs(2);
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(3);

pub(crate) struct Seat {
    pub(crate) setup: Setup,
    pub(crate) freezer: Freezer,
    killed: Notify,
    stopped: Notify,
    closed: AtomicBool,
    client: AtomicU64,
}

impl Seat {
    pub(crate) fn new(setup: Setup) -> Arc<Self> {
        Arc::new(Self {
            setup,
            freezer: Freezer::default(),
            killed: Notify::new(),
            stopped: Notify::new(),
            closed: AtomicBool::new(false),
            client: AtomicU64::new(0),
        })
    }

    /// Drops the worker where it stands.
    pub(crate) fn kill(&self) {
        self.killed.notify_one();
    }

    /// Stops the worker in good order.
    pub(crate) fn stop(&self) {
        self.stopped.notify_one();
    }

    /// Lets the worker that is stopped or killed next be the last.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The client that the present worker speaks through.
    pub(crate) fn client(&self) -> u32 {
        u32::try_from(self.client.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Seats one worker after another.
    pub(crate) async fn work(
        self: Arc<Self>,
        stage: Stage,
        weather: Weather,
        mut rng: Rng,
        mutant: Option<WorkerMutant>,
    ) {
        while !self.closed.load(Ordering::Acquire) {
            let client = stage.lock().arrive(&self.setup);
            self.client.store(client.into(), Ordering::Release);
            let engine = Client::new(stage.clone(), weather.clone(), client, rng.fork());
            let queue = Queue::new(engine).seeded(rng.next());
            let place = Place { stage: stage.clone(), seat: Arc::clone(&self), client };
            let worker = self.worker(queue, place).simulated(self.freezer.clone(), mutant);
            let told = OnceLock::new();
            let stop = async {
                self.stopped.notified().await;
                let _ = told.set(stage.lock().now());
            };
            let run = self.freezer.clone().hold(worker.run_until(stop));
            let ended = tokio::select! {
                biased;
                () = self.killed.notified() => None,
                ended = run => Some(ended),
            };
            if let Some(told) = told.get().copied().filter(|_| ended.is_some()) {
                stage.lock().stopped(client, told, SHUTDOWN_DEADLINE);
            }
            stage.lock().leave(client, ended.is_some());
            self.freezer.thaw();
            if !self.closed.load(Ordering::Acquire) {
                tokio::time::sleep(rng.millis(50, 3_000)).await;
            }
        }
    }

    fn worker(&self, queue: Queue<Client>, place: Place) -> Worker<Client> {
        let setup = &self.setup;
        let mut jobs = Registry::new(App { place }).register::<Act>();
        match setup.knows {
            Knows::Nothing => {}
            Knows::First => jobs = jobs.register::<Odd>(),
            Knows::Both => jobs = jobs.register::<NewOdd>(),
        }
        let worker = Worker::new(queue, jobs)
            .concurrency(setup.concurrency)
            .lease(setup.lease)
            .poll(Duration::from_secs(1))
            .sweep_every(setup.sweep_every)
            .cancel_grace(CANCEL_GRACE)
            .shutdown_deadline(SHUTDOWN_DEADLINE)
            .look_ahead(setup.look_ahead)
            .flushing_at(setup.flush_at);
        if setup.weighted {
            worker.weights(setup.queues.iter().copied())
        } else {
            worker.queues(setup.queues.iter().map(|(name, _)| *name))
        }
    }
}

impl Mutant {
    /// The fault, when it is one of the workers.
    pub(crate) fn of_worker(self) -> Option<WorkerMutant> {
        match self {
            Self::Worker(mutant) => Some(mutant),
            Self::Engine(_) => None,
        }
    }
}
