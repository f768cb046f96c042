//! How often jobs ran, and when: each execution beyond the first has a reason, none is too early, and none is at once with
//! another that excludes it.

use std::collections::BTreeMap;

use windlass_core::JobId;

use super::causes::Cause;
use super::{Accounting, final_word};
use crate::journal::Hold;
use crate::plan::{Act, Wish, id_of, number_of};
use crate::wire::Stamp;

/// When a run began (1) or ended (-1), and of which job.
type Step = (Stamp, i64, u64);

impl Accounting<'_> {
    /// Each execution of a job beyond the first has a reason, and none of two claims is at once with the other.
    pub(super) fn executions(&mut self, id: JobId, holds: &[&Hold]) {
        self.done.refused += holds.iter().filter(|hold| hold.refused.is_some()).count() as u64;
        for (place, hold) in holds.iter().enumerate() {
            let later = &holds[place + 1..];
            self.late_verdict(id, hold, later);
            if let Some(end) = self.end_of_run(hold)
                && let Some(later) = later.iter().find(|later| later.claimed < end)
            {
                let what =
                    format!("job {id}: epoch {} was claimed while epoch {} ran", later.epoch, hold.epoch);
                self.object_to(id, "overlap", what);
            }
        }
        let started: Vec<&&Hold> = holds.iter().filter(|hold| hold.started.is_some()).collect();
        self.done.executions += started.len() as u64;
        for pair in started.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if before.is_settled() {
                self.done.asked_for += 1;
                continue;
            }
            match self.cause(before, after.claimed) {
                Cause::Kill => self.done.after_kill += 1,
                Cause::Freeze => self.done.after_freeze += 1,
                Cause::Outage => self.done.after_outage += 1,
                Cause::Stall => self.done.after_stall += 1,
                Cause::Unknown => {
                    let what = format!(
                        "job {id} ran again at epoch {} (process {}), and nothing had happened to process {} that ran \
                         epoch {}",
                        after.epoch, after.member, before.member, before.epoch
                    );
                    self.object_to(id, "duplicates", what);
                }
            }
        }
        self.not_too_early(id, holds);
    }

    /// A verdict that was sent after a later claim had been answered is refused. Whether it met a run of that claim.
    fn late_verdict(&mut self, id: JobId, hold: &Hold, later: &[&Hold]) {
        if let Some(applied) = hold.applied
            && let Some(later) = later.iter().find(|later| later.claimed < applied.sent)
        {
            let what = format!(
                "job {id}: the verdict {:?} of epoch {} was sent after epoch {} had been claimed, and applied",
                applied.word, hold.epoch, later.epoch
            );
            self.object_to(id, "stale", what);
        }
        let Some((sent, _)) = hold.sent.last().copied() else { return };
        let met = later.iter().any(|later| {
            let begun = later.started.is_some_and(|started| started < sent);
            begun && later.ended.is_none_or(|(ended, _)| ended > sent)
        });
        self.done.met += u64::from(met);
    }

    fn not_too_early(&mut self, id: JobId, holds: &[&Hold]) {
        // The engine's clock counts milliseconds, and may be slewed against the monotonic one.
        const TOLERANCE: Stamp = 5_000_000;
        let Some(number) = number_of(id).filter(|number| *number < self.plan.jobs) else { return };
        let Some(first) = holds.first() else { return };
        match self.plan.wish(number) {
            Wish::Delay(millis) => {
                let Some(dispatch) = self.journal.dispatches.get(&number) else { return };
                if first.claimed + TOLERANCE < dispatch.first + millis * 1_000_000 {
                    let what = format!("job {number} was claimed before its delay of {millis} ms was over");
                    self.object_to(id, "early", what);
                }
            }
            Wish::Parent => {
                let parent = self.holds(id_of(number - 1)).iter().filter(|hold| final_word(hold).is_some());
                let ended = parent.filter_map(|hold| hold.applied).map(|applied| applied.sent).min();
                if ended.is_some_and(|ended| first.claimed < ended) {
                    let what = format!("job {number} was claimed before its parent had completed");
                    self.object_to(id, "early", what);
                }
            }
            _ => {}
        }
    }

    /// No more of a key run at once than may.
    pub(super) fn exclusions(&mut self) {
        let mut runs: BTreeMap<(String, u32), Vec<Step>> = BTreeMap::new();
        for number in 0..self.plan.jobs {
            let Some((key, at_most)) = self.plan.wish(number).exclusion() else { continue };
            // Keys of uniqueness are of a kind in a queue, those of a limit of a queue.
            let kind = u8::from(at_most == 1 && self.plan.act(number) == Act::Output);
            let key = format!("{}/{kind}/{key}", self.plan.queue(number));
            for hold in self.holds(id_of(number)) {
                if let (Some(from), Some(to)) = (hold.started, self.end_of_run(hold)) {
                    let runs = runs.entry((key.clone(), at_most)).or_default();
                    runs.extend([(from, 1, number), (to, -1, number)]);
                }
            }
        }
        for ((key, at_most), mut steps) in runs {
            steps.sort_unstable();
            let mut at_once: Vec<u64> = Vec::new();
            for (_, change, number) in steps {
                if change < 0 {
                    if let Some(place) = at_once.iter().position(|other| *other == number) {
                        at_once.swap_remove(place);
                    }
                    continue;
                }
                at_once.push(number);
                if at_once.len() > at_most as usize {
                    let what = format!("jobs {at_once:?} of {key} ran at once");
                    // One whose start the engine has lost stands in nobody's way.
                    let lost = at_once.iter().copied().map(id_of).find(|id| self.may_have_lost(*id));
                    self.object_to(lost.unwrap_or_else(|| id_of(number)), "overlap", what);
                }
            }
        }
    }

    /// When a run was over at the earliest: as it was about to answer or was dropped, or as its process was killed. `None` where that is
    /// not known, and in a process that stood still, whose lease may have ended before.
    fn end_of_run(&self, hold: &Hold) -> Option<Stamp> {
        let member = &self.journal.members[hold.member];
        if !member.frozen.is_empty() {
            return None;
        }
        hold.started?;
        hold.ended.map(|(at, _)| at).or(member.killed)
    }
}
