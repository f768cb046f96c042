//! Why a lease was lost: what happened to the process that held it, or to the engine, and how much was in flight then.

use super::Accounting;
use crate::journal::Hold;
use crate::wire::Stamp;

/// Why a lease was lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// Its process was killed.
    Kill,
    /// Its process stood still.
    Freeze,
    /// The server was killed or stood still.
    Outage,
    /// Its process could not extend it: the engine did not answer its beats for half a lease, while another process stood
    /// still with the engine's only lock.
    Stall,
    Unknown,
}

/// How much of a span lies within another.
fn shared(a: (Stamp, Stamp), b: (Stamp, Stamp)) -> Stamp {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

impl Accounting<'_> {
    /// What happened to a hold that was never settled, before it was claimed again.
    pub(super) fn cause(&self, hold: &Hold, again: Stamp) -> Cause {
        let member = &self.journal.members[hold.member];
        let meanwhile = |(from, to): (Stamp, Stamp)| from < again && hold.claimed < to;
        if member.frozen.iter().copied().any(meanwhile) {
            Cause::Freeze
        } else if member.killed.is_some_and(|killed| killed < again) {
            Cause::Kill
        } else if self.outages().any(meanwhile) {
            Cause::Outage
        } else if self.stalled(hold, again) {
            Cause::Stall
        } else {
            Cause::Unknown
        }
    }

    /// When the server was not there.
    pub(super) fn outages(&self) -> impl Iterator<Item = (Stamp, Stamp)> {
        self.journal.outages.iter().map(|(from, to, _)| (*from, *to))
    }

    /// Whether beats of its process were without an answer for half a lease in all, while another process stood still.
    ///
    /// A beat that has not been answered within a third of a lease is given up and sent again, so one wait alone is never
    /// that long.
    fn stalled(&self, hold: &Hold, again: Stamp) -> bool {
        if !self.options.engine.has_one_lock() {
            return false;
        }
        let held = (hold.claimed, again);
        let waits = &self.journal.members[hold.member].waits;
        let frozen = |wait: (Stamp, Stamp)| {
            let others = self.journal.members.iter().enumerate().filter(|(other, _)| *other != hold.member);
            others.flat_map(|(_, other)| &other.frozen).map(|frozen| shared(wait, *frozen)).max()
        };
        let waited: Stamp = waits
            .iter()
            .map(|(from, to)| (held.0.max(*from), held.1.min(*to)))
            .filter(|(from, to)| from < to)
            .filter_map(frozen)
            .sum();
        waited >= crate::fleet::nanos(self.options.lease) / 2
    }

    /// What was started and not settled when something happened to its process or to the server.
    pub(super) fn in_flight(&mut self) {
        let outages: Vec<(Stamp, Stamp)> = self.outages().collect();
        let one_lock = self.options.engine.has_one_lock();
        for hold in self.journal.jobs.values().flatten() {
            let Some(started) = hold.started else { continue };
            let member = &self.journal.members[hold.member];
            let killed = member.killed.is_some() && !hold.is_settled();
            let open = |(from, to): &(Stamp, Stamp)| {
                started < *to && hold.applied.is_none_or(|applied| applied.sent >= *from)
            };
            let waits = if one_lock { &member.waits[..] } else { &[] };
            let troubled = outages.iter().chain(&member.frozen).chain(waits).any(open);
            self.done.in_flight += u64::from(killed || troubled);
        }
    }
}
