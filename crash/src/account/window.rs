//! What an engine may lose of what it acknowledged, because its settings say so: the end of what it answered before its
//! server was killed.

use windlass_core::JobId;

use super::Accounting;
use crate::plan::{Wish, id_of, number_of};
use crate::server::WINDOW;
use crate::wire::Stamp;

impl Accounting<'_> {
    /// Whether something was answered about this job, or about the one it hangs on, so shortly before the server was killed
    /// that it may be gone. Never, unless the engine is set so.
    pub(super) fn may_have_lost(&self, job: JobId) -> bool {
        self.options.everysec && self.family(job).iter().any(|id| self.answered_in_a_window(*id))
    }

    /// The job, its parent by dispatch, and the job whose verdict it rode with.
    fn family(&self, job: JobId) -> Vec<JobId> {
        let mut family = vec![job];
        match number_of(job).filter(|number| *number < self.plan.jobs) {
            Some(number) if self.plan.wish(number) == Wish::Parent => family.push(id_of(number - 1)),
            Some(_) => {}
            None => family.extend(self.parents.get(&job)),
        }
        family
    }

    fn answered_in_a_window(&self, job: JobId) -> bool {
        let acks = number_of(job).and_then(|number| self.journal.dispatches.get(&number));
        let acks = acks.into_iter().flat_map(|dispatch| dispatch.acks.iter().map(|(at, _)| *at));
        let holds = self.holds(job).iter();
        let answers = holds.flat_map(|hold| {
            let applied = hold.applied.map(|applied| applied.answered);
            [Some(hold.claimed), applied, hold.refused].into_iter().flatten()
        });
        acks.chain(answers).any(|at| self.in_a_window(at))
    }

    fn in_a_window(&self, at: Stamp) -> bool {
        let window = crate::fleet::nanos(WINDOW);
        // What a process heard before the kill it may have noted after.
        let within = |(from, to, killed): &(Stamp, Stamp, bool)| *killed && at + window > *from && at < *to;
        self.journal.outages.iter().any(within)
    }
}
