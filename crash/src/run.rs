//! A run: from an empty engine to its account.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, Result};
use windlass::AnyBackend;
use windlass_core::{At, Filter, Inspect as _, QueueInfo, Record};

use crate::account::{Found, account};
use crate::collector::Collector;
use crate::effects;
use crate::engine::{self, Opened};
use crate::faults::{self, Fault, Line};
use crate::fleet::{Fleet, Role, nanos};
use crate::options::Options;
use crate::points::{Blow, Point, Trap};
use crate::report::Report;
use crate::server::{Server, Serving, WINDOW};
use crate::wire::{Stamp, now};

/// How often the runner looks at its fleet.
const TICK: Duration = Duration::from_millis(3);
/// A trap that nobody steps into for so long is given up.
const TRAP_MOST: Duration = Duration::from_secs(6);
/// After so long without anything to do, more is dispatched.
const IDLE_MOST: Duration = Duration::from_secs(4);
/// Without a job that was dispatched or ended for so long, the run hangs.
const SILENCE_MOST: Duration = Duration::from_secs(60);

/// Runs it.
pub(crate) async fn run(options: &Options) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("windlass-crash-").tempdir()?;
    let server = Server::start(options)?;
    let url = server.as_ref().map_or_else(|| engine::sqlite_url(folder.path()), Server::url);
    let socket = folder.path().join("collector.sock");
    let log = folder.path().join("events.log");
    let collector = Collector::listen(&socket, options.keep.then_some(&*log))?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let faults = faults::plan(&mut rng, options);
    // Opened first, so that the schema is there before the first process is.
    let backend = Opened::at(&url).await?.any();
    if options.effects {
        effects::prepare(&url).await?;
    }
    let begun = now();
    let mut run = Run {
        fleet: Fleet::new(collector.clone(), options, &url, &socket, options.plan(), rng.fork()),
        serving: Serving::new(server, collector.clone()),
        collector: collector.clone(),
        rng,
        options,
        struck: BTreeMap::new(),
        slack: 0,
        waiting: Line::ALL
            .map(|line| faults.iter().copied().filter(|(_, fault)| fault.line() == line).collect()),
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
    let found = run.found(&backend, &url).await?;
    let missed = run.waiting.iter().map(VecDeque::len).sum::<usize>() as u64;
    let report = collector.with(|journal| Report {
        options: options.clone(),
        account: account(options, journal, &found),
        struck: run.struck.clone(),
        missed,
        restarts: run.fleet.restarts,
        processes: journal.members.len(),
        events: journal.events,
        away: journal.outages.iter().map(|(from, to, _)| Duration::from_nanos(to - from)).sum(),
        ways: crate::fleet::ways(options.plan()),
        took,
    });
    if options.keep {
        println!("kept in {}", folder.keep().display());
    }
    Ok(report)
}

struct Run<'a> {
    options: &'a Options,
    fleet: Fleet,
    serving: Serving,
    collector: Collector,
    rng: fastrand::Rng,
    /// How often what was done.
    struck: BTreeMap<(&'static str, String), u64>,
    /// How often too little was dispatched for what was to happen.
    slack: u32,
    /// What is still to be done, by line.
    waiting: [VecDeque<(f64, Fault)>; 3],
}

impl Run<'_> {
    /// Lets it run until everything is dispatched, every fault has come, and nothing is left to do.
    async fn until_drained(&mut self, backend: &AnyBackend) -> Result<()> {
        let (mut heard, mut last) = (0, now());
        let mut ticks = 0_u64;
        loop {
            tokio::time::sleep(TICK).await;
            ticks += 1;
            self.serving.tend()?;
            self.fleet.tend()?;
            self.strike()?;
            self.give_up_traps()?;
            self.pace();
            let done = self.collector.with(|journal| journal.finished + journal.acknowledged);
            if done != heard {
                (heard, last) = (done, now());
            }
            if now() - last > nanos(IDLE_MOST) * Stamp::from(self.slack + 1) {
                self.slack += 1;
            }
            let dispatching = self.fleet.has(|ship| matches!(ship.role, Role::Dispatcher(_)));
            let troubled = self.fleet.is_troubled() || self.serving.is_troubled();
            // The runner's own connection may have died with the server: then it asks again.
            if !dispatching
                && !troubled
                && ticks.is_multiple_of(30)
                && let Ok(queues) = backend.queues(At::Server).await
                && queues.iter().all(|queue| queue.counts.live() == 0)
            {
                return Ok(());
            }
            if now() - last > nanos(SILENCE_MOST) {
                let queues = backend.queues(At::Server).await;
                let what = format!("no job was dispatched or ended for {SILENCE_MOST:?}, with {queues:?}");
                self.collector.with(|journal| journal.object("stuck", what));
                return Ok(());
            }
        }
    }

    /// Does what is due and can be done.
    fn strike(&mut self) -> Result<()> {
        let (finished, acknowledged) =
            self.collector.with(|journal| (journal.finished, journal.acknowledged));
        for line in Line::ALL {
            let done = if line == Line::Dispatchers { acknowledged } else { finished };
            let Some((due, fault)) = self.waiting[line as usize].front().copied() else { continue };
            #[expect(clippy::cast_precision_loss, reason = "a share of a run")]
            let share = done as f64 / self.options.jobs as f64;
            if share < due || !self.hit(fault)? {
                continue;
            }
            self.waiting[line as usize].pop_front();
            *self.struck.entry(fault.label()).or_default() += 1;
        }
        Ok(())
    }

    /// Lets the dispatchers go on, but not so far that all is done before what is to happen has happened.
    fn pace(&mut self) {
        // Some of what is dispatched never ends by a verdict: what was refused or superseded, and the children of the dead.
        const AHEAD: f64 = 0.1;
        let lines = [Line::Workers, Line::Servers];
        let next = lines.iter().filter_map(|line| self.waiting[*line as usize].front()).map(|(due, _)| *due);
        // A trap needs somebody who comes past.
        let set = self.fleet.has(|ship| ship.trapped.is_some());
        let due = next.fold(if set { faults::UNTIL } else { 1.0 }, f64::min);
        let share = due * (1.0 + AHEAD) + AHEAD * (1.0 + f64::from(self.slack) / 2.0);
        let plan = self.options.plan();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the blocks"
        )]
        let block = (share * plan.blocks() as f64) as u64;
        self.fleet.allow(block);
    }

    /// Does it, if there is somebody to do it to.
    fn hit(&mut self, fault: Fault) -> Result<bool> {
        match fault {
            Fault::Writer(trap) => {
                if self.fleet.has(|ship| ship.role == Role::Writer) {
                    return Ok(false);
                }
                self.fleet.start(Role::Writer, Some(trap))?;
                return Ok(true);
            }
            Fault::KillServer(_) | Fault::FreezeServer(_) => {
                // One thing at a time: who is to kill the server knows it by its process id.
                if self.serving.target().is_none() || self.fleet.waits_for_a_crash() {
                    return Ok(false);
                }
                match fault {
                    Fault::KillServer(millis) => self.serving.kill(Duration::from_millis(millis))?,
                    Fault::FreezeServer(hundredths) => {
                        self.serving.freeze(self.options.lease * hundredths / 100)?;
                    }
                    _ => {}
                }
                return Ok(true);
            }
            _ => {}
        }
        let Some(victim) = self.fleet.victim(fault.line() != Line::Dispatchers) else { return Ok(false) };
        match fault {
            Fault::KillWorker | Fault::KillDispatcher => self.fleet.kill(victim)?,
            Fault::FreezeWorker => self.fleet.freeze(victim)?,
            Fault::TrapWorker(trap) | Fault::TrapDispatcher(trap) => {
                let trap = match trap.blow {
                    Blow::Crash(_) => {
                        let target = self.serving.target().filter(|_| !self.fleet.waits_for_a_crash());
                        let Some(server) = target else { return Ok(false) };
                        Trap { blow: Blow::Crash(server), ..trap }
                    }
                    Blow::Die | Blow::Freeze => trap,
                };
                return Ok(self.fleet.trap(victim, trap));
            }
            Fault::Writer(_) | Fault::KillServer(_) | Fault::FreezeServer(_) => {}
        }
        Ok(true)
    }

    /// Traps that nobody stepped into.
    fn give_up_traps(&mut self) -> Result<()> {
        for trap in self.fleet.give_up_traps(TRAP_MOST)? {
            // It was killed all the same, only not there.
            let label = Fault::TrapWorker(trap).label();
            *self.struck.entry(label).or_default() -= 1;
            *self.struck.entry(("killed", "after a trap in vain".to_owned())).or_default() += 1;
            // What was to happen happens to another, as long as there is work to come past.
            if self.collector.with(|journal| journal.acknowledged) >= self.options.jobs {
                continue;
            }
            let (due, again) = (0.0, Fault::TrapWorker(trap));
            if trap.point == Point::Haunting {
                self.waiting[Line::Workers as usize].push_front((due, again));
            } else if matches!(trap.blow, Blow::Crash(_)) {
                self.waiting[Line::Servers as usize]
                    .push_front((due, Fault::KillServer(self.rng.u64(0..500))));
            }
        }
        Ok(())
    }

    /// What is stored, and that it is the same after one more kill of the server.
    async fn found(&mut self, backend: &AnyBackend, url: &str) -> Result<Found> {
        let (records, queues) = inspect(backend).await.context("cannot list what is stored")?;
        if let Err(error) = self.options.engine.check(url).await {
            self.collector.with(|journal| journal.object("integrity", format!("{error:#}")));
        }
        if self.options.everysec {
            tokio::time::sleep(WINDOW).await;
        }
        if self.options.engine.has_server() {
            if let Err(error) = self.serving.once_more() {
                self.collector.with(|journal| journal.object("integrity", format!("{error:#}")));
            }
            let again = Opened::at(url).await?.any();
            let other = changed(&again, &records).await.context("cannot look at it again")?;
            if other > 0 || again.queues(At::Server).await? != queues {
                let what = format!(
                    "{other} jobs are others after the server was killed and started once more, or their counts"
                );
                self.collector.with(|journal| journal.object("integrity", what));
            }
        }
        let rows = if self.options.effects { effects::rows(url).await? } else { Vec::new() };
        Ok(Found { records, queues, rows })
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

/// How many of these are stored as something else. Looked at one by one: a listing of a large queue is slow on some engines.
async fn changed(backend: &AnyBackend, records: &[Record]) -> Result<usize> {
    const AT_ONCE: usize = 32;
    let mut looks = tokio::task::JoinSet::new();
    for share in records.chunks(records.len().div_ceil(AT_ONCE).max(1)) {
        let (backend, share) = (backend.clone(), share.to_vec());
        looks.spawn(async move {
            let mut changed = 0;
            for record in &share {
                let now = backend.get(&record.body.job(), At::Server).await?;
                changed += usize::from(now.as_ref() != Some(record));
            }
            Ok::<usize, windlass::Error>(changed)
        });
    }
    let mut changed = 0;
    while let Some(look) = looks.join_next().await {
        changed += look??;
    }
    Ok(changed)
}
