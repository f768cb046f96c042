//! A run: from an empty engine to its account.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, Result};
use windlass::AnyBackend;
use windlass_core::{At, Filter, Inspect as _, QueueInfo, Record};

use crate::account::account;
use crate::collector::Collector;
use crate::engine;
use crate::faults::{self, Fault};
use crate::fleet::{Fleet, Role, nanos};
use crate::options::Options;
use crate::plan::Plan;
use crate::report::Report;
use crate::wire::now;

/// How often the runner looks at its fleet.
const TICK: Duration = Duration::from_millis(3);
/// A trap that nobody steps into for so long is given up.
const TRAP_MOST: Duration = Duration::from_secs(6);
/// Without any event for so long, the run hangs.
const SILENCE_MOST: Duration = Duration::from_secs(60);

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("windlass-crash-").tempdir()?;
    let url = options.engine.url(folder.path());
    let socket = folder.path().join("collector.sock");
    let log = folder.path().join("events.log");
    let collector = Collector::listen(&socket, options.keep.then_some(&*log))?;
    let plan = Plan { seed: options.seed, jobs: options.jobs };
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let faults = faults::plan(&mut rng, options.kills, options.engine.has_writers());
    // Opened first, so that the schema is there before the first process is.
    let backend = engine::open(&url).await?;
    let begun = now();
    let mut run = Run {
        fleet: Fleet::new(collector.clone(), options, &url, &socket, plan, rng),
        collector: collector.clone(),
        plan,
        struck: BTreeMap::new(),
        waiting: split(faults),
    };
    for _ in 0..options.workers {
        run.fleet.start(Role::Worker, None)?;
    }
    for share in 0..options.dispatchers {
        run.fleet.start(Role::Dispatcher(share), None)?;
    }
    run.until_drained(&backend).await?;
    let took = Duration::from_nanos(now() - begun);
    run.fleet.dismiss()?;
    run.until_all_is_heard().await;
    let (records, queues) = inspect(&backend).await.context("cannot list what is stored")?;
    drop(backend);
    if let Err(error) = options.engine.check(&url).await {
        collector.with(|journal| journal.object("integrity", format!("{error:#}")));
    }
    let missed = run.waiting.iter().map(VecDeque::len).sum::<usize>() as u64;
    let report = collector.with(|journal| Report {
        options: options.clone(),
        account: account(plan, journal, &records, &queues),
        struck: run.struck.clone(),
        missed,
        restarts: run.fleet.restarts,
        processes: journal.members.len(),
        events: journal.events,
        ways: crate::fleet::ways(plan),
        took,
    });
    if options.keep {
        println!("kept in {}", folder.keep().display());
    }
    Ok(report)
}

/// Faults of workers and writers by what is finished, those of dispatchers by what is acknowledged.
fn split(faults: Vec<(f64, Fault)>) -> [VecDeque<(f64, Fault)>; 2] {
    let (dispatchers, others): (Vec<_>, Vec<_>) =
        faults.into_iter().partition(|(_, fault)| fault.is_of_dispatchers());
    [others.into(), dispatchers.into()]
}

struct Run {
    fleet: Fleet,
    collector: Collector,
    plan: Plan,
    /// How often what was done.
    struck: BTreeMap<(&'static str, String), u64>,
    waiting: [VecDeque<(f64, Fault)>; 2],
}

impl Run {
    /// Lets it run until everything is dispatched, every fault has come, and nothing is left to do.
    async fn until_drained(&mut self, backend: &AnyBackend) -> Result<()> {
        let (mut heard, mut last) = (0, now());
        let mut ticks = 0_u64;
        loop {
            tokio::time::sleep(TICK).await;
            ticks += 1;
            self.fleet.tend()?;
            self.strike()?;
            for trap in self.fleet.give_up_traps(TRAP_MOST)? {
                // It was killed all the same, only not there.
                let (what, point) = Fault::TrapWorker(trap).label();
                *self.struck.entry((what, point)).or_default() -= 1;
                *self.struck.entry(("killed", "after a trap in vain".to_owned())).or_default() += 1;
            }
            let events = self.collector.with(|journal| journal.events);
            if events != heard {
                (heard, last) = (events, now());
            }
            let dispatching = self.fleet.has(|ship| matches!(ship.role, Role::Dispatcher(_)));
            if !dispatching && !self.fleet.is_troubled() && ticks.is_multiple_of(30) {
                let live: u64 =
                    backend.queues(At::Server).await?.iter().map(|queue| queue.counts.live()).sum();
                if live == 0 {
                    return Ok(());
                }
            }
            if now() - last > nanos(SILENCE_MOST) {
                let queues = backend.queues(At::Server).await?;
                let what = format!("nothing happened for {SILENCE_MOST:?}, with {queues:?}");
                self.collector.with(|journal| journal.object("stuck", what));
                return Ok(());
            }
        }
    }

    /// Does what is due and can be done.
    fn strike(&mut self) -> Result<()> {
        let (finished, acknowledged) =
            self.collector.with(|journal| (journal.finished, journal.acknowledged));
        for (queue, done) in [(0, finished), (1, acknowledged)] {
            let Some((due, fault)) = self.waiting[queue].front().copied() else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a share of a run")]
            let share = done as f64 / self.plan.jobs as f64;
            if share < due || !self.hit(fault)? {
                continue;
            }
            self.waiting[queue].pop_front();
            *self.struck.entry(fault.label()).or_default() += 1;
        }
        Ok(())
    }

    /// Does it, if there is somebody to do it to.
    fn hit(&mut self, fault: Fault) -> Result<bool> {
        if let Fault::Writer(trap) = fault {
            if self.fleet.has(|ship| ship.role == Role::Writer) {
                return Ok(false);
            }
            self.fleet.start(Role::Writer, Some(trap))?;
            return Ok(true);
        }
        let Some(victim) = self.fleet.victim(!fault.is_of_dispatchers()) else { return Ok(false) };
        match fault {
            Fault::KillWorker | Fault::KillDispatcher => self.fleet.kill(victim)?,
            Fault::FreezeWorker => self.fleet.freeze(victim)?,
            Fault::TrapWorker(trap) | Fault::TrapDispatcher(trap) => {
                return Ok(self.fleet.trap(victim, trap));
            }
            Fault::Writer(_) => {}
        }
        Ok(true)
    }

    /// What processes said last may still be under way.
    async fn until_all_is_heard(&self) {
        const MOST: u32 = 1_000;
        for _ in 0..MOST {
            if self.collector.with(|journal| journal.members.iter().all(|member| member.closed)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.collector.with(|journal| journal.object("errors", "a process was not heard out".to_owned()));
    }
}

/// Everything that is stored.
async fn inspect(backend: &AnyBackend) -> windlass::Result<(Vec<Record>, Vec<QueueInfo>)> {
    let (mut records, mut after) = (Vec::new(), None);
    loop {
        let page = backend.list(&Filter::default(), after.as_ref(), 1_000, At::Server).await?;
        records.extend(page.records);
        after = page.next;
        if after.is_none() {
            return Ok((records, backend.queues(At::Server).await?));
        }
    }
}
