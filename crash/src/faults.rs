//! What is going to happen to whom, and when: drawn from the seed before the run.

use crate::options::Options;
use crate::points::{Blow, Point, Trap};

/// The part of a run that is done before the last fault: what is left is enough to see that all goes on.
pub(crate) const UNTIL: f64 = 0.85;

/// Something that is done to a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A worker is killed, whatever it is doing.
    KillWorker,
    /// A worker is stood still, whatever it is doing.
    FreezeWorker,
    /// A worker kills or freezes itself, or kills the server, at a point.
    TrapWorker(Trap),
    /// A dispatcher is killed, whatever it is doing.
    KillDispatcher,
    /// A dispatcher kills itself or the server at a point.
    TrapDispatcher(Trap),
    /// A writer is started, which kills itself within its transaction.
    Writer(Trap),
    /// The server is killed, whatever it is doing, and stays away for so many milliseconds.
    KillServer(u64),
    /// The server is stood still for so many hundredths of a lease.
    FreezeServer(u32),
}

/// Whom a fault waits for: those of one sort come one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// By what is finished.
    Workers,
    /// By what is acknowledged: while there are any.
    Dispatchers,
    /// By what is finished.
    Servers,
}

impl Line {
    pub(crate) const ALL: [Self; 3] = [Self::Workers, Self::Dispatchers, Self::Servers];
}

impl Fault {
    pub(crate) fn line(self) -> Line {
        match self {
            Self::KillDispatcher | Self::TrapDispatcher(_) => Line::Dispatchers,
            Self::KillServer(_)
            | Self::FreezeServer(_)
            | Self::TrapWorker(Trap { blow: Blow::Crash(_), .. }) => Line::Servers,
            Self::KillWorker | Self::FreezeWorker | Self::TrapWorker(_) | Self::Writer(_) => Line::Workers,
        }
    }

    /// The trap of it, when it is one.
    pub(crate) fn trap(self) -> Option<Trap> {
        match self {
            Self::TrapWorker(trap) | Self::TrapDispatcher(trap) | Self::Writer(trap) => Some(trap),
            _ => None,
        }
    }

    /// Its name in the table.
    pub(crate) fn label(self) -> (&'static str, String) {
        let place = self.trap().map_or_else(|| "anywhere".to_owned(), |trap| trap.point.to_string());
        let what = match (self, self.trap().map(|trap| trap.blow)) {
            (_, Some(Blow::Crash(_))) | (Self::KillServer(_), _) => "server killed",
            (_, Some(Blow::Freeze)) | (Self::FreezeWorker, _) => "worker frozen",
            (Self::FreezeServer(_), _) => "server frozen",
            (Self::KillDispatcher | Self::TrapDispatcher(_), _) => "dispatcher killed",
            (Self::Writer(_), _) => "writer killed",
            (Self::KillWorker | Self::TrapWorker(_), _) => "worker killed",
        };
        (what, place)
    }
}

/// The faults of a run, each with the part of its run that is to be done before it.
///
/// Of `kills`, half hit workers anywhere and a quarter workers at a named point; the rest is shared by frozen workers,
/// dispatchers and writers. Zombies and what happens to the server come on top.
pub(crate) fn plan(rng: &mut fastrand::Rng, options: &Options) -> Vec<(f64, Fault)> {
    let mut faults = Vec::new();
    // A short run does not come to every point: which ones is the seed's choice.
    let first = rng.u64(0..64);
    let workers: Vec<Point> = if options.effects {
        Point::OF_EFFECTS.into_iter().chain(Point::OF_WORKERS).collect()
    } else {
        Point::OF_WORKERS.to_vec()
    };
    for number in 0..options.kills {
        let fault = match number % 12 {
            0 | 2 | 4 | 6 | 8 | 10 => Fault::KillWorker,
            1 | 5 | 9 => Fault::TrapWorker(trap(rng, Blow::Die, &workers, first + number / 4)),
            3 if number % 24 == 3 => Fault::FreezeWorker,
            3 => Fault::TrapWorker(trap(rng, Blow::Freeze, &Point::TO_FREEZE, first + number / 24)),
            7 if number % 24 == 7 => Fault::KillDispatcher,
            7 => Fault::TrapDispatcher(trap(rng, Blow::Die, &Point::OF_DISPATCHERS, first + number / 24)),
            _ if options.engine.has_writers() && !options.effects => {
                Fault::Writer(trap(rng, Blow::Die, &Point::OF_WRITERS, first + number / 12))
            }
            _ => Fault::KillWorker,
        };
        faults.push(fault);
    }
    let zombie = Trap { blow: Blow::Freeze, point: Point::Haunting, passage: 1, micros: 0 };
    faults.extend((0..options.zombies).map(|_| Fault::TrapWorker(zombie)));
    for number in 0..options.server_kills {
        // Whose id is filled in as it happens.
        let crash = Blow::Crash(0);
        faults.push(match number % 4 {
            0 | 2 => Fault::KillServer(rng.u64(0..500)),
            1 => Fault::TrapWorker(trap(rng, crash, &Point::OF_SERVERS, first + number / 4)),
            _ => Fault::TrapDispatcher(trap(rng, crash, &[Point::Pushing], 0)),
        });
    }
    faults.extend((0..options.server_freezes).map(|_| Fault::FreezeServer(rng.u32(40..160))));
    rng.shuffle(&mut faults);
    spread(faults)
}

/// Spreads those of each line over the run.
fn spread(faults: Vec<Fault>) -> Vec<(f64, Fault)> {
    let mut spread = Vec::new();
    for line in Line::ALL {
        let of_line: Vec<Fault> = faults.iter().copied().filter(|fault| fault.line() == line).collect();
        let share = |place: usize| u32::try_from(place).map_or(f64::MAX, f64::from);
        let count = share(of_line.len().max(1));
        let due = |place: usize| 0.02 + share(place) / count * (UNTIL - 0.02);
        spread.extend(of_line.into_iter().enumerate().map(|(place, fault)| (due(place), fault)));
    }
    spread
}

/// The points take turns, so that none is left out.
fn trap(rng: &mut fastrand::Rng, blow: Blow, points: &[Point], turn: u64) -> Trap {
    let point = points[usize::try_from(turn).unwrap_or(0) % points.len()];
    let passage = match point {
        Point::BeforeHandler | Point::InHandler | Point::AfterHandler => rng.u32(1..=200),
        Point::Claiming
        | Point::Claimed
        | Point::Settling
        | Point::Settled
        | Point::Pushing
        | Point::Pushed => rng.u32(1..=10),
        Point::Extending | Point::InTransaction | Point::Committing | Point::Haunting => 1,
    };
    Trap { blow, point, passage, micros: rng.u32(0..2_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(flags: &[&str]) -> Options {
        Options::parse(flags).expect("options")
    }

    fn planned(options: &Options) -> Vec<(f64, Fault)> {
        plan(&mut fastrand::Rng::with_seed(1), options)
    }

    #[test]
    fn half_of_the_kills_hit_workers_anywhere_and_every_point_comes_up() {
        let options =
            options(&["--backend", "postgres", "--jobs", "20000", "--kills", "400", "--server-kills", "40"]);
        let faults = planned(&options);
        let all = options.kills + options.zombies + options.server_kills + options.server_freezes;
        assert_eq!(faults.len() as u64, all);
        assert!(faults.iter().filter(|(_, fault)| *fault == Fault::KillWorker).count() >= 200);
        let labels: std::collections::BTreeSet<_> = faults.iter().map(|(_, fault)| fault.label()).collect();
        let points = Point::OF_WORKERS.len() + Point::TO_FREEZE.len() + 1 + Point::OF_DISPATCHERS.len();
        // Anywhere: a worker killed and frozen, a dispatcher killed, the server killed and frozen; and those who wait for it.
        let anywhere = 5;
        let servers = Point::OF_SERVERS.len() + 1;
        assert_eq!(labels.len(), points + Point::OF_WRITERS.len() + anywhere + servers, "{labels:?}");
        assert_eq!(faults, planned(&options));
    }

    #[test]
    fn each_line_is_in_order_and_ends_before_the_run_does() {
        let options =
            options(&["--backend", "redis", "--jobs", "20000", "--kills", "120", "--server-kills", "30"]);
        let faults = planned(&options);
        for line in Line::ALL {
            let of_line: Vec<f64> =
                faults.iter().filter(|(_, fault)| fault.line() == line).map(|(due, _)| *due).collect();
            assert!(!of_line.is_empty() && of_line.is_sorted(), "{line:?}");
            assert!(of_line.iter().all(|due| (0.02..0.86).contains(due)), "{line:?}");
        }
    }

    #[test]
    fn a_short_run_has_zombies_and_an_engine_in_a_file_has_no_server() {
        let options = options(&[]);
        let faults = planned(&options);
        let zombies = faults.iter().filter(|(_, fault)| fault.label().1 == "haunting").count();
        assert!(zombies >= 5, "{faults:?}");
        assert!(faults.iter().all(|(_, fault)| fault.line() != Line::Servers), "{faults:?}");
    }
}
