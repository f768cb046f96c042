//! What is stored, held against what was dispatched and settled.

use std::collections::{HashMap, HashSet};

use windlass_core::{DeadReason, JobId, QueueInfo, Record, RecordState, StateKind};

use super::{Accounting, final_word};
use crate::journal::Hold;
use crate::plan::{Act, Plan, Wish, id_of, number_of};
use crate::wire::{Word, leads_to};

impl Accounting<'_> {
    /// Everything that was acknowledged is there; what was refused is not.
    pub(super) fn dispatches(&mut self) {
        let journal = self.journal;
        for number in 0..self.plan.jobs {
            let dispatch = journal.dispatches.get(&number);
            let Some(dispatch) = dispatch.filter(|dispatch| !dispatch.acks.is_empty()) else {
                self.object("lost", format!("job {number} was never acknowledged"));
                continue;
            };
            let is_there = self.stored.contains_key(&id_of(number));
            let acknowledged = dispatch.acks.iter().any(|(_, ack)| ack.is_stored());
            let all_answered = dispatch.tries as usize == dispatch.acks.len();
            if acknowledged && !is_there {
                let what = format!("job {number} was acknowledged ({:?}) and is gone", dispatch.acks);
                self.object_to(id_of(number), "lost", what);
            }
            if !acknowledged && all_answered && is_there {
                let what = format!("job {number} was refused each time, and is stored");
                self.object_to(id_of(number), "stranger", what);
            }
        }
        for group in &journal.committing {
            let there = group.iter().filter(|number| self.stored.contains_key(&id_of(**number))).count();
            if there != 0 && there != group.len() {
                let what =
                    format!("of {} jobs of one transaction {there} are stored: {group:?}", group.len());
                self.object("atomic", what);
            }
        }
    }

    /// The counts that the engine keeps are those of its jobs.
    pub(super) fn counts(&mut self, records: &[Record], queues: &[QueueInfo]) {
        let mut listed: HashMap<(&str, StateKind), u64> = HashMap::new();
        for record in records {
            *listed.entry((record.body.queue.as_str(), record.state.kind())).or_default() += 1;
            *self.done.by_state.entry(record.state.kind().as_str()).or_default() += 1;
        }
        let mut wrong = Vec::new();
        for queue in queues {
            for state in StateKind::ALL {
                let (kept, listed) =
                    (queue.counts.get(state), listed.remove(&(queue.name.as_str(), state)).unwrap_or(0));
                if kept != listed {
                    wrong.push(format!(
                        "{} {state:?}: {kept} by the counts, {listed} by the listing",
                        queue.name
                    ));
                }
            }
        }
        wrong.extend(listed.iter().map(|(queue, count)| format!("{queue:?}: {count} listed, and no counts")));
        wrong.into_iter().for_each(|what| self.object("counts", what));
    }

    /// One job has ended, once, as an attempt said.
    pub(super) fn record(&mut self, record: &Record) {
        let id = record.body.id;
        let holds = self.holds(id);
        let about = || format!("{} {id} ({:?})", record.body.kind, number_of(id));
        let ended: Vec<&Hold> = holds.iter().filter(|hold| final_word(hold).is_some()).collect();
        if ended.len() > 1 {
            let epochs: Vec<u64> = ended.iter().map(|hold| hold.epoch).collect();
            let what = format!("{} has an outcome of each of the epochs {epochs:?}", about());
            self.object_to(id, "double", what);
        }
        if let Some(hold) = ended.iter().find(|hold| hold.epoch != record.epoch) {
            let what = format!("{} ended at epoch {} and stands at {}", about(), hold.epoch, record.epoch);
            self.object_to(id, "double", what);
        }
        if !record.state.kind().is_final() {
            let what = format!("{} never ended: {:?}", about(), record.state);
            return self.object_to(id, "lost", what);
        }
        if let Err(why) = self.outcome(record, self.hold(id, record.epoch)) {
            self.object_to(id, "outcome", format!("{} is {:?}: {why}", about(), record.state));
        }
        let known = holds.iter().filter(|hold| hold.applied.is_some_and(|applied| applied.word.counts()));
        let possible = holds.iter().filter(|hold| hold.may_have(Word::counts));
        let (known, possible) = (known.count(), possible.count());
        if !(known..=possible).contains(&usize::from(record.attempts)) {
            let what = format!(
                "{} counts {} attempts: {known} to {possible} gave a verdict",
                about(),
                record.attempts
            );
            self.object_to(id, "attempts", what);
        }
        // A claim whose answer never came left no trace here but its epoch.
        let lost = holds.iter().filter(|hold| !hold.is_settled()).count() as u64;
        let untold = record.epoch.saturating_sub(holds.len() as u64);
        if u64::from(record.lost_leases) > lost + untold {
            let what = format!(
                "{} counts {} lost leases, and {lost} + {untold} can be",
                about(),
                record.lost_leases
            );
            self.object_to(id, "attempts", what);
        }
    }

    /// Whether the stored state is what the last attempt said, or has another good reason.
    fn outcome(&mut self, record: &Record, hold: Option<&Hold>) -> Result<(), String> {
        let number = number_of(record.body.id);
        let planned = number.filter(|number| *number < self.plan.jobs);
        match &record.state {
            RecordState::Dead { reason: DeadReason::Poison, .. } => {
                self.done.poisoned += 1;
                let enough = record.lost_leases >= windlass_core::limits::LOST_LEASES_MAX;
                return if enough { Ok(()) } else { Err(format!("it lost {} leases", record.lost_leases)) };
            }
            RecordState::Cancelled { superseded_by: Some(by), .. } => {
                let wishes = |id| number_of(id).map(|number| self.plan.wish(number));
                let (own, other) = (wishes(record.body.id), wishes(*by));
                let stands = self.stored.contains_key(by) && own == other;
                return match own {
                    Some(Wish::Supersede(_)) if stands => Ok(()),
                    _ => Err(format!("it wished {own:?} and the other {other:?}")),
                };
            }
            RecordState::Cancelled { .. } if planned.map(|n| self.plan.wish(n)) == Some(Wish::Parent) => {
                let parent = planned.map(|number| id_of(number - 1)).and_then(|id| self.stored.get(&id));
                let parent = parent.map(|parent| parent.state.kind());
                if matches!(parent, Some(StateKind::Cancelled | StateKind::Dead)) && record.epoch == 0 {
                    return Ok(());
                }
            }
            _ => {}
        }
        let Some(hold) = hold.filter(|hold| !hold.sent.is_empty()) else {
            return Err(format!("nobody said so at epoch {}", record.epoch));
        };
        let act = number.map_or(Act::Done, |number| self.plan.act(number));
        let expected = match act {
            Act::Cancel => Word::Cancel,
            Act::Bury => Word::Bury,
            Act::FailAlways => Word::Exhausted,
            _ => Word::Complete,
        };
        if !hold.may_have(|word| leads_to(word, record.state.kind())) {
            return Err(format!("the attempt of epoch {} said {:?}", record.epoch, hold.sent));
        }
        if !hold.may_have(|word| word == expected) {
            return Err(format!("it was planned to {act:?}, and the attempt said {:?}", hold.sent));
        }
        if let (Act::Output, Some(_), RecordState::Completed { output, .. }) = (act, planned, &record.state) {
            let output = output.as_deref().map(String::from_utf8_lossy);
            if output.as_deref() != Some(&*record.epoch.to_string()) {
                return Err(format!("the output {output:?} is not that of epoch {}", record.epoch));
            }
        }
        Ok(())
    }

    /// Nothing is there that nobody dispatched; children are there if and only if their parent's verdict was applied.
    pub(super) fn strangers(&mut self, records: &[Record]) {
        let gone = self.parents.iter().filter(|(child, _)| !self.stored.contains_key(child));
        let gone: Vec<(JobId, JobId)> = gone.map(|(child, parent)| (*child, *parent)).collect();
        for (child, parent) in gone {
            let what = format!("job {parent} completed, and its child {child} is not there");
            self.object_to(parent, "then", what);
        }
        let committing: HashSet<u64> = self.journal.committing.iter().flatten().copied().collect();
        for record in records {
            let id = record.body.id;
            if record.body.kind.as_str() == "crash_child" {
                if !self.parents.contains_key(&id) {
                    let what = format!("child {id} is there, and no parent's applied verdict had it");
                    self.object_to(id, "then", what);
                }
                continue;
            }
            let known = number_of(id).is_some_and(|number| {
                self.journal.dispatches.contains_key(&number) || committing.contains(&number)
            });
            if !known {
                self.object_to(id, "stranger", format!("job {id} is stored, and nobody dispatched it"));
            }
        }
    }
}

/// The children that are to be there, each with its parent.
pub(super) fn children(plan: Plan, records: &[Record]) -> HashMap<JobId, JobId> {
    let mut children = HashMap::new();
    for record in records {
        let Some(Act::Then(count)) = number_of(record.body.id).map(|number| plan.act(number)) else {
            continue;
        };
        if record.state.kind() == StateKind::Completed {
            let ids = (0..count).map(|child| JobId::derived(record.body.id, record.epoch, child));
            children.extend(ids.map(|id| (id, record.body.id)));
        }
    }
    children
}
