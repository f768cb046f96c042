//! What is going to happen to whom, and when: drawn from the seed before the run.

use crate::points::{Blow, Point, Trap};

/// Something that is done to a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A worker is killed, whatever it is doing.
    KillWorker,
    /// A worker is stood still, whatever it is doing.
    FreezeWorker,
    /// A worker kills or freezes itself at a point.
    TrapWorker(Trap),
    /// A dispatcher is killed, whatever it is doing.
    KillDispatcher,
    /// A dispatcher kills itself at a point.
    TrapDispatcher(Trap),
    /// A writer is started, which kills itself within its transaction.
    Writer(Trap),
}

impl Fault {
    /// Whether it happens to a dispatcher, and so while there are any.
    pub(crate) fn is_of_dispatchers(self) -> bool {
        matches!(self, Self::KillDispatcher | Self::TrapDispatcher(_))
    }

    /// Its name in the table.
    pub(crate) fn label(self) -> (&'static str, String) {
        match self {
            Self::KillWorker => ("worker killed", "anywhere".to_owned()),
            Self::FreezeWorker => ("worker frozen", "anywhere".to_owned()),
            Self::TrapWorker(trap) if trap.blow == Blow::Freeze => ("worker frozen", trap.point.to_string()),
            Self::TrapWorker(trap) => ("worker killed", trap.point.to_string()),
            Self::KillDispatcher => ("dispatcher killed", "anywhere".to_owned()),
            Self::TrapDispatcher(trap) => ("dispatcher killed", trap.point.to_string()),
            Self::Writer(trap) => ("writer killed", trap.point.to_string()),
        }
    }
}

/// The faults of a run: of `kills`, half hit workers anywhere and a quarter workers at a named point; the rest is shared by
/// frozen workers, dispatchers and writers. Each comes with the part of its run that is to be done before it.
pub(crate) fn plan(rng: &mut fastrand::Rng, kills: u64, writers: bool) -> Vec<(f64, Fault)> {
    let mut faults = Vec::new();
    // A short run does not come to every point: which ones is the seed's choice.
    let first = rng.u64(0..64);
    for number in 0..kills {
        let fault = match number % 12 {
            0 | 2 | 4 | 6 | 8 | 10 => Fault::KillWorker,
            1 | 5 | 9 => Fault::TrapWorker(trap(rng, Blow::Die, &Point::OF_WORKERS, first + number / 4)),
            3 if number % 24 == 3 => Fault::FreezeWorker,
            3 => Fault::TrapWorker(trap(rng, Blow::Freeze, &Point::TO_FREEZE, first + number / 24)),
            7 if number % 24 == 7 => Fault::KillDispatcher,
            7 => Fault::TrapDispatcher(trap(rng, Blow::Die, &Point::OF_DISPATCHERS, first + number / 24)),
            _ if writers => Fault::Writer(trap(rng, Blow::Die, &Point::OF_WRITERS, first + number / 12)),
            _ => Fault::KillWorker,
        };
        faults.push(fault);
    }
    rng.shuffle(&mut faults);
    // What is still to be done when the last one comes is enough to see that all goes on.
    const UNTIL: f64 = 0.85;
    let count = faults.len().max(1);
    let due = |place: usize| {
        let share = f64::from(u32::try_from(place).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(count).unwrap_or(1));
        0.02 + share * (UNTIL - 0.02)
    };
    faults.into_iter().enumerate().map(|(place, fault)| (due(place), fault)).collect()
}

/// The points take turns, so that none is left out.
fn trap(rng: &mut fastrand::Rng, blow: Blow, points: &[Point], turn: u64) -> Trap {
    let point = points[usize::try_from(turn).unwrap_or(0) % points.len()];
    let passage = match point {
        Point::BeforeHandler | Point::InHandler | Point::AfterHandler => rng.u32(1..=200),
        Point::Claimed | Point::Settling | Point::Settled | Point::Pushing | Point::Pushed => rng.u32(1..=10),
        Point::Extending | Point::InTransaction | Point::Committing => 1,
    };
    Trap { blow, point, passage, micros: rng.u32(0..2_000) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_kills_hit_workers_anywhere_and_every_point_comes_up() {
        let faults = plan(&mut fastrand::Rng::with_seed(1), 400, true);
        assert_eq!(faults.len(), 400);
        assert!(faults.iter().filter(|(_, fault)| *fault == Fault::KillWorker).count() >= 200);
        assert!(faults.is_sorted_by(|a, b| a.0 <= b.0) && faults.iter().all(|(due, _)| *due < 0.86));
        let labels: std::collections::BTreeSet<_> = faults.iter().map(|(_, fault)| fault.label()).collect();
        let points = Point::OF_WORKERS.len() + Point::TO_FREEZE.len() + Point::OF_DISPATCHERS.len();
        assert_eq!(labels.len(), points + Point::OF_WRITERS.len() + 3, "{labels:?}");
        assert_eq!(faults, plan(&mut fastrand::Rng::with_seed(1), 400, true));
        assert_eq!(plan(&mut fastrand::Rng::with_seed(1), 12, true).len(), 12);
    }
}
