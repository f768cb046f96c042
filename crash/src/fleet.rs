//! The processes of a run: started, watched, started again as they die.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use windlass_servers::Process;

use crate::collector::Collector;
use crate::options::Options;
use crate::parts::{Part, Task, WRITTEN};
use crate::plan::{Plan, Way};
use crate::points::{Blow, Order, Point, Trap};
use crate::wire::{Stamp, now};

/// What a process is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Worker,
    /// Of this share of the blocks.
    Dispatcher(u64),
    Writer,
}

/// A process of the fleet.
#[derive(Debug)]
pub(crate) struct Ship {
    pub(crate) role: Role,
    pub(crate) member: usize,
    process: Process,
    since: Stamp,
    /// The trap it was told to set, and when.
    pub(crate) trapped: Option<(Trap, Stamp)>,
    /// Up to which block it was told to dispatch.
    allowed: Option<u64>,
    /// Since when it stands still, and for how long.
    frozen: Option<(Stamp, Stamp)>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) ships: Vec<Ship>,
    collector: Collector,
    options: Options,
    url: String,
    socket: std::path::PathBuf,
    plan: Plan,
    rng: fastrand::Rng,
    /// Numbers of jobs that writers have used up.
    written: u64,
    pub(crate) restarts: u64,
}

impl Fleet {
    pub(crate) fn new(
        collector: Collector,
        options: &Options,
        url: &str,
        socket: &std::path::Path,
        plan: Plan,
        rng: fastrand::Rng,
    ) -> Self {
        Self {
            ships: Vec::new(),
            collector,
            options: options.clone(),
            url: url.to_owned(),
            socket: socket.to_owned(),
            plan,
            rng,
            written: 0,
            restarts: 0,
        }
    }

    /// Starts a process.
    pub(crate) fn start(&mut self, role: Role, trap: Option<Trap>) -> Result<()> {
        let task = match role {
            Role::Worker => Task::Work {
                // Workers differ, as they do after a deployment.
                concurrency: [4, 16, 64][self.rng.usize(0..3)],
                look_ahead: self.rng.bool(),
                lease: self.options.lease,
            },
            Role::Dispatcher(share) => {
                let shares = self.options.dispatchers;
                Task::Dispatch { share, shares, from: self.first_to_dispatch(share) }
            }
            Role::Writer => {
                let from = self.plan.jobs + self.written;
                self.written += WRITTEN;
                Task::Write { from, trap: trap.context("a writer dies of something")? }
            }
        };
        let member = self.collector.expect();
        let part =
            Part { url: self.url.clone(), collector: self.socket.clone(), member, plan: self.plan, task };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(part.words());
        if !self.options.verbose {
            // What goes wrong is told to the collector; planned panics are not worth reading.
            command.stderr(std::process::Stdio::null());
        }
        let process = Process::spawn(&mut command)?;
        self.ships.push(Ship {
            role,
            member,
            process,
            since: now(),
            trapped: None,
            allowed: None,
            frozen: None,
        });
        Ok(())
    }

    /// The first block of a share that is not acknowledged as a whole.
    fn first_to_dispatch(&self, share: u64) -> u64 {
        let plan = self.plan;
        self.collector.with(|journal| {
            let is_done =
                |number| journal.dispatches.get(&number).is_some_and(|dispatch| !dispatch.acks.is_empty());
            let mut blocks = (0..plan.blocks()).filter(|block| block % self.options.dispatchers == share);
            blocks.find(|block| !plan.block(*block).all(is_done)).unwrap_or(plan.blocks())
        })
    }

    /// Takes in what ended by itself or was killed; starts again what is to go on.
    pub(crate) fn tend(&mut self) -> Result<()> {
        let mut place = 0;
        while place < self.ships.len() {
            let ship = &mut self.ships[place];
            let (member, frozen) = (ship.member, ship.frozen.is_some());
            if !frozen
                && let Some((at, _)) = self.collector.with(|journal| journal.members[member].freezing.take())
            {
                let haunts = ship.trapped.is_some_and(|(trap, _)| trap.point == Point::Haunting);
                let time = if haunts {
                    nanos(self.options.lease) * HAUNTS_MOST
                } else {
                    stands_still(&mut self.rng, self.options.lease)
                };
                ship.frozen = Some((at, time));
                ship.trapped = None;
            }
            if self.collector.with(|journal| std::mem::take(&mut journal.members[member].has_crashed)) {
                ship.trapped = None;
            }
            let Some(status) = ship.process.ended()? else {
                place += 1;
                continue;
            };
            // All that it said must be heard before anything is concluded from it.
            if !self.collector.with(|journal| journal.members[member].closed) {
                place += 1;
                continue;
            }
            let ship = self.ships.swap_remove(place);
            let expected = self.collector.with(|journal| journal.members[member].killed.is_some());
            let finished = matches!(ship.role, Role::Dispatcher(_)) && status.success();
            if !expected && !finished {
                self.collector.with(|journal| {
                    journal.object("errors", format!("{:?} {member} ended by itself: {status}", ship.role));
                });
            }
            if !finished && ship.role != Role::Writer {
                self.restarts += 1;
                self.start(ship.role, None)?;
            }
        }
        self.thaw()
    }

    /// Wakes what has stood still for long enough, and zombies as their jobs run again.
    fn thaw(&mut self) -> Result<()> {
        for ship in &mut self.ships {
            let Some((from, time)) = ship.frozen else { continue };
            let is_time = now() - from > time;
            if is_time || self.collector.with(|journal| journal.is_haunted(ship.member)) {
                ship.process.thaw()?;
                ship.frozen = None;
                self.collector.with(|journal| {
                    let member = &mut journal.members[ship.member];
                    member.frozen.push((from, now()));
                    member.haunts.clear();
                });
            }
        }
        Ok(())
    }

    /// Places of those of a role that have worked for a moment and that nothing is planned for.
    fn at_work(&self, wanted: impl Fn(Role) -> bool) -> Vec<usize> {
        const MOMENT: Duration = Duration::from_millis(50);
        let fit = |ship: &Ship| {
            wanted(ship.role)
                && ship.frozen.is_none()
                && ship.trapped.is_none()
                && now() - ship.since > nanos(MOMENT)
                && self.collector.with(|journal| {
                    let member = &journal.members[ship.member];
                    member.hello && member.killed.is_none() && member.freezing.is_none()
                })
        };
        (0..self.ships.len()).filter(|place| fit(&self.ships[*place])).collect()
    }

    /// One of a role to do something to. Of workers only when another one stays at work.
    pub(crate) fn victim(&mut self, worker: bool) -> Option<usize> {
        let fit = self
            .at_work(|role| if worker { role == Role::Worker } else { matches!(role, Role::Dispatcher(_)) });
        let enough = if worker { 2 } else { 1 };
        (fit.len() >= enough).then(|| fit[self.rng.usize(0..fit.len())])
    }

    /// Kills a process.
    pub(crate) fn kill(&mut self, place: usize) -> Result<()> {
        let ship = &mut self.ships[place];
        self.collector.with(|journal| journal.members[ship.member].killed.get_or_insert(now()).to_owned());
        ship.process.kill()
    }

    /// Stands a process still.
    pub(crate) fn freeze(&mut self, place: usize) -> Result<()> {
        let ship = &mut self.ships[place];
        ship.frozen = Some((now(), stands_still(&mut self.rng, self.options.lease)));
        ship.process.freeze()
    }

    /// Lets the dispatchers go on up to a block.
    pub(crate) fn allow(&mut self, block: u64) {
        for ship in self.ships.iter_mut().filter(|ship| matches!(ship.role, Role::Dispatcher(_))) {
            if ship.allowed.is_none_or(|allowed| allowed < block)
                && self.collector.order(ship.member, Order::Dispatch(block))
            {
                ship.allowed = Some(block);
            }
        }
    }

    /// Has a process set a trap for itself.
    pub(crate) fn trap(&mut self, place: usize, trap: Trap) -> bool {
        let ship = &mut self.ships[place];
        let told = self.collector.order(ship.member, Order::Set(trap));
        if told {
            ship.trapped = Some((trap, now()));
        }
        told
    }

    /// Whether one of them is to kill the server.
    pub(crate) fn waits_for_a_crash(&self) -> bool {
        self.has(|ship| ship.trapped.is_some_and(|(trap, _)| matches!(trap.blow, Blow::Crash(_))))
    }

    /// Traps that nobody has stepped into for so long: forgotten, and their processes killed instead.
    pub(crate) fn give_up_traps(&mut self, after: Duration) -> Result<Vec<Trap>> {
        let mut given_up = Vec::new();
        for place in 0..self.ships.len() {
            let ship = &self.ships[place];
            let struck = self.collector.with(|journal| journal.members[ship.member].killed.is_some());
            if let Some((trap, since)) = ship.trapped
                && !struck
                && ship.frozen.is_none()
                && now() - since > nanos(after)
            {
                given_up.push(trap);
                self.ships[place].trapped = None;
                self.kill(place)?;
            }
        }
        Ok(given_up)
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Ship) -> bool) -> bool {
        self.ships.iter().any(wanted)
    }

    /// Whether any of them stands still, or is about to be struck.
    pub(crate) fn is_troubled(&self) -> bool {
        self.has(|ship| ship.frozen.is_some() || ship.trapped.is_some() || ship.role != Role::Worker)
    }

    /// Asks every worker to end, and says which did not end well.
    pub(crate) fn dismiss(&mut self) -> Result<()> {
        for mut ship in std::mem::take(&mut self.ships) {
            let ended = ship.process.terminate(Duration::from_secs(30));
            let well = ended.as_ref().is_ok_and(std::process::ExitStatus::success);
            if !well {
                let what =
                    format!("{:?} {} did not end well when asked to: {ended:?}", ship.role, ship.member);
                self.collector.with(|journal| journal.object("errors", what));
            }
        }
        Ok(())
    }
}

/// So many leases a zombie waits for its job to run again.
const HAUNTS_MOST: Stamp = 5;

/// How long a process is to stand still: until about the end of its leases, or a while longer. What it held is being run by
/// others then, so that its verdicts meet leases that stand; long after, they would find jobs that have ended.
fn stands_still(rng: &mut fastrand::Rng, lease: Duration) -> Stamp {
    nanos(lease) / 100 * rng.u64(90..160)
}

/// How many jobs of the plan are sent in each way: for the table.
pub(crate) fn ways(plan: Plan) -> [u64; 3] {
    let mut counts = [0; 3];
    for block in 0..plan.blocks() {
        let jobs = plan.block(block).count() as u64;
        counts[match plan.way(block) {
            Way::OneByOne => 0,
            Way::AtOnce => 1,
            Way::Batch => 2,
        }] += jobs;
    }
    counts
}

pub(crate) fn nanos(duration: Duration) -> Stamp {
    Stamp::try_from(duration.as_nanos()).unwrap_or(Stamp::MAX)
}
