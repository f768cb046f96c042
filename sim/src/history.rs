//! The plot of a seed: who is there, what is dispatched, what goes wrong; then the weather clears, and everything must end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use windlass::prelude::*;
use windlass::{Keep, MemoryOptions, Retention};
use windlass_core::{JobId, Manage, QueueName};
use windlass_memory::MemoryBackend;

use crate::dispatching::{UNIQUES, Unique};
use crate::jobs::{Act, Deed, Knows};
use crate::network::{Client, Weather};
use crate::oracle::{Oracle, Queueing, Stage};
use crate::rng::Rng;
use crate::seat::{Seat, Setup};
use crate::{Mutant, Passed, Story, Violation};

/// The named queues of every history.
pub(crate) const QUEUES: [&str; 3] = ["mail", "bulk", "slow"];

/// What sort of history it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plot {
    /// Everything at once.
    Mixed,
    /// Nothing goes wrong but what the jobs do.
    Fair,
    /// One job kills its workers, and nothing else goes wrong.
    Poison,
    /// One worker, one job at a time.
    Lone,
}

/// Acts of a history, at least and at most; the rest is the drain.
const ACTS: (u64, u64) = (20, 90);

/// How long everything may take to end once nothing goes wrong.
const DRAIN: Duration = Duration::from_secs(15 * 60);

pub(crate) fn play(seed: u64, mutant: Option<Mutant>, told: bool) -> Result<(Passed, Story), Box<Violation>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { panic!("a runtime for a thread of its own can be built") };
    // A fault on purpose may go as far as a panic of the engine.
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut history = History::new(seed, mutant, told);
            history.play().await
        })
    }));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let text = format!("something panicked: {}", text.unwrap_or_default());
        Err(Box::new(Violation { seed, check: "panic", text, story: Vec::new() }))
    })
}

pub(crate) struct History {
    pub(crate) rng: Rng,
    pub(crate) plot: Plot,
    pub(crate) stage: Stage,
    pub(crate) weather: Weather,
    pub(crate) seats: Vec<Arc<Seat>>,
    pub(crate) seated: JoinSet<()>,
    pub(crate) errands: JoinSet<()>,
    pub(crate) operator: Queue<Client>,
    pub(crate) dispatchers: Vec<Queue<Client>>,
    pub(crate) made: u64,
    pub(crate) poison: Option<JobId>,
}

impl History {
    fn new(seed: u64, mutant: Option<Mutant>, told: bool) -> Self {
        let mut rng = Rng::new(seed);
        let forever = Keep::new(u64::MAX, Duration::from_secs(365 * 24 * 60 * 60));
        let retention = Retention { completed: forever, cancelled: forever, dead: forever };
        let options = MemoryOptions { retention, ..MemoryOptions::default() };
        let engine = match mutant {
            Some(Mutant::Engine(mutant)) => MemoryBackend::with_mutant(options, mutant),
            _ => MemoryBackend::with_options(options),
        };
        let stage = Stage::new(Oracle::new(seed, engine, told));
        let plot = match rng.below(10) {
            0..7 => Plot::Mixed,
            7 => Plot::Fair,
            8 => Plot::Poison,
            _ => Plot::Lone,
        };
        let weather = if plot == Plot::Mixed { Weather::foul(&mut rng) } else { Weather::fair() };
        let seats = if plot == Plot::Lone { 1 } else { rng.below(4) + 2 };
        let seats: Vec<_> = (0..seats).map(|at| Seat::new(setup(&mut rng, plot, at))).collect();
        let client = |rng: &mut Rng| {
            let id = stage.lock().join(None);
            Queue::new(Client::new(stage.clone(), weather.clone(), id, rng.fork())).seeded(rng.next())
        };
        let operator = client(&mut rng);
        let dispatchers = (0..2).map(|_| client(&mut rng)).collect();
        let mut seated = JoinSet::new();
        for seat in &seats {
            let mutant = mutant.and_then(Mutant::of_worker);
            seated.spawn(Arc::clone(seat).work(stage.clone(), weather.clone(), rng.fork(), mutant));
        }
        Self {
            rng,
            plot,
            stage,
            weather,
            seats,
            seated,
            errands: JoinSet::new(),
            operator,
            dispatchers,
            made: 0,
            poison: None,
        }
    }

    async fn play(&mut self) -> Result<(Passed, Story), Box<Violation>> {
        let acts = self.rng.within(ACTS.0, ACTS.1);
        for _ in 0..acts {
            self.act().await;
            while self.errands.try_join_next().is_some() {}
            self.unbroken()?;
        }
        self.heal().await;
        self.drain(DRAIN).await?;
        self.ask_for_what_must_be_free().await;
        self.drain(Duration::from_secs(120)).await?;
        if let Some(poison) = self.poison {
            self.stage.lock().spare_the_innocent(poison);
        }
        for seat in &self.seats {
            seat.close();
            seat.stop();
        }
        // L7: stopping takes no longer than its deadline and a second.
        let stopped = async { while self.seated.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(Duration::from_secs(5), stopped).await.is_ok();
        let mut oracle = self.stage.lock();
        oracle.expect(in_time, "L7", || "a worker did not stop within its deadline".to_owned());
        oracle.finish();
        match oracle.violation.take() {
            Some(violation) => Err(violation),
            None => Ok((oracle.passed(), oracle.story.take().unwrap_or_default())),
        }
    }

    fn unbroken(&self) -> Result<(), Box<Violation>> {
        self.stage.lock().violation.take().map_or(Ok(()), Err)
    }

    /// From now on all is well: what is paused goes on, what stands still moves.
    async fn heal(&mut self) {
        self.weather.clear();
        for seat in &self.seats {
            if seat.freezer.is_frozen() {
                self.stage.lock().freezes(seat.client(), false);
                seat.freezer.thaw();
            }
        }
        self.stage.lock().heal();
        for queue in QUEUES {
            let queue = QueueName::from_static(queue);
            let _ = self.operator.backend().resume(&queue, windlass::At::Server).await;
        }
    }

    /// L1: everything ends.
    async fn drain(&mut self, most: Duration) -> Result<(), Box<Violation>> {
        let end = tokio::time::Instant::now() + most;
        let mut queueing = Queueing::default();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            while self.errands.try_join_next().is_some() {}
            self.unbroken()?;
            let live = {
                let mut oracle = self.stage.lock();
                oracle.look_for_idlers(&mut queueing);
                oracle.live()
            };
            if live.is_empty() && self.errands.is_empty() {
                return self.unbroken();
            }
            if tokio::time::Instant::now() > end {
                self.stage.lock().too_late(&live, most);
                return self.unbroken();
            }
        }
    }

    /// L5: with everything at an end no key and no place is taken. One job for each must come in, and run.
    async fn ask_for_what_must_be_free(&mut self) {
        let queue = self.operator.clone();
        for on in QUEUES {
            for unique in
                UNIQUES.iter().filter(|unique| !matches!(unique, Unique::Window | Unique::WindowLast))
            {
                let id = self.fresh_id();
                let sent = queue.dispatch(Act { deed: Deed::Quick }).id(id).on(on).unique(unique.by()).await;
                let new = sent.is_ok_and(|sent| sent.is_new());
                // Those that wait for a dead parent hold no key of these: parents come without keys.
                self.stage
                    .lock()
                    .expect(new, "L5", || format!("the key {unique:?} in {on} is not free at the end"));
            }
            for limit in 1..=3 {
                let id = self.fresh_id();
                let name = format!("limit-{limit}");
                let _ = queue.dispatch(Act { deed: Deed::Quick }).id(id).on(on).limit(name, limit).await;
            }
        }
    }
}

/// The workers of a seat. The first one sees to everything, so that everything can end.
fn setup(rng: &mut Rng, plot: Plot, at: usize) -> Setup {
    let mut queues: Vec<(&'static str, u32)> = Vec::new();
    let first = rng.below(QUEUES.len());
    for offset in 0..QUEUES.len() {
        if at == 0 || rng.percent(75) || offset == 0 {
            let weight = u32::try_from(rng.within(1, 4)).unwrap_or(1);
            queues.push((QUEUES[(first + offset) % QUEUES.len()], weight));
        }
    }
    let lone = plot == Plot::Lone;
    Setup {
        concurrency: if lone { 1 } else { rng.below(4) + 1 },
        lease: rng.millis(2_000, 9_000),
        sweep_every: rng.millis(500, 3_000),
        queues,
        weighted: rng.percent(50),
        look_ahead: !lone && rng.percent(60),
        flush_at: [1, 1, 2, 128][rng.below(4)],
        knows: match rng.below(3) {
            _ if at == 0 => Knows::Both,
            0 => Knows::Nothing,
            1 => Knows::First,
            _ => Knows::Both,
        },
    }
}
