//! The accounting: what is stored in the end, held against what the processes said and the plan.
//!
//! A pure function of both, so that its own tests can show it every crime. Instants are compared only where their order is
//! known: one read after the answer to a call against one read before another call was sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use windlass_core::{DeadReason, JobId, QueueInfo, Record, RecordState, StateKind};

use crate::journal::{Hold, Journal};
use crate::plan::{Act, Plan, Wish, id_of, number_of};
use crate::wire::{Stamp, Word, leads_to};

/// What was counted, and what was wrong.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) stored: u64,
    pub(crate) by_state: BTreeMap<&'static str, u64>,
    pub(crate) executions: u64,
    /// Executions after a retry or a snooze that was applied.
    pub(crate) asked_for: u64,
    /// Executions after one whose process was killed.
    pub(crate) after_kill: u64,
    /// Executions after one whose process stood still.
    pub(crate) after_freeze: u64,
    /// Executions after one whose process could not extend its lease while another stood still with the engine's lock.
    pub(crate) after_stall: u64,
    /// Started and not settled in the processes that were killed or stood still.
    pub(crate) in_flight: u64,
    /// Verdicts that came too late, and were refused.
    pub(crate) refused: u64,
    /// Jobs that died of three lost leases.
    pub(crate) poisoned: u64,
    pub(crate) wrong: Vec<(&'static str, String)>,
}

/// When a run began (1) or ended (-1), and of which job.
type Step = (Stamp, i64, u64);

/// Why a lease was lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Kill,
    Freeze,
    Stall,
    Unknown,
}

/// Holds what is stored against what was said.
pub(crate) fn account(plan: Plan, journal: &Journal, records: &[Record], queues: &[QueueInfo]) -> Account {
    let mut accounting = Accounting {
        plan,
        journal,
        stored: records.iter().map(|record| (record.body.id, record)).collect(),
        done: Account { stored: records.len() as u64, wrong: journal.wrong.clone(), ..Account::default() },
    };
    if accounting.stored.len() != records.len() {
        accounting.object("counts", format!("{} jobs listed twice", records.len() - accounting.stored.len()));
    }
    accounting.dispatches();
    accounting.counts(records, queues);
    for record in records {
        accounting.record(record);
    }
    accounting.strangers(records);
    let mut in_order: Vec<(&JobId, &Vec<Hold>)> = journal.jobs.iter().collect();
    in_order.sort_by_key(|(id, _)| **id);
    for (id, holds) in in_order {
        let mut holds: Vec<&Hold> = holds.iter().collect();
        holds.sort_by_key(|hold| hold.epoch);
        accounting.executions(*id, &holds);
    }
    accounting.exclusions();
    accounting.in_flight();
    let (duplicates, in_flight) =
        (accounting.done.after_kill + accounting.done.after_freeze, accounting.done.in_flight);
    if duplicates > in_flight {
        accounting.object("duplicates", format!("{duplicates} duplicates, with {in_flight} jobs in flight"));
    }
    accounting.done
}

struct Accounting<'a> {
    plan: Plan,
    journal: &'a Journal,
    stored: HashMap<JobId, &'a Record>,
    done: Account,
}

impl<'a> Accounting<'a> {
    fn object(&mut self, rule: &'static str, what: String) {
        self.done.wrong.push((rule, what));
    }

    fn holds(&self, id: JobId) -> &'a [Hold] {
        self.journal.jobs.get(&id).map_or(&[], Vec::as_slice)
    }

    fn hold(&self, id: JobId, epoch: u64) -> Option<&'a Hold> {
        self.holds(id).iter().find(|hold| hold.epoch == epoch)
    }

    /// Everything that was acknowledged is there; what was refused is not.
    fn dispatches(&mut self) {
        let journal = self.journal;
        for number in 0..self.plan.jobs {
            let dispatch = journal.dispatches.get(&number);
            let Some(dispatch) = dispatch.filter(|dispatch| !dispatch.acks.is_empty()) else {
                self.object("lost", format!("job {number} was never acknowledged"));
                continue;
            };
            let is_there = self.stored.contains_key(&id_of(number));
            let acknowledged = dispatch.acks.iter().any(|ack| ack.is_stored());
            let all_answered = dispatch.tries as usize == dispatch.acks.len();
            if acknowledged && !is_there {
                self.object(
                    "lost",
                    format!("job {number} was acknowledged ({:?}) and is gone", dispatch.acks),
                );
            }
            if !acknowledged && all_answered && is_there {
                self.object("stranger", format!("job {number} was refused each time, and is stored"));
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
    fn counts(&mut self, records: &[Record], queues: &[QueueInfo]) {
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
    fn record(&mut self, record: &Record) {
        let id = record.body.id;
        let holds = self.holds(id);
        let about = || format!("{} {id} ({:?})", record.body.kind, number_of(id));
        let ended: Vec<&Hold> = holds.iter().filter(|hold| final_word(hold).is_some()).collect();
        if ended.len() > 1 {
            let epochs: Vec<u64> = ended.iter().map(|hold| hold.epoch).collect();
            self.object("double", format!("{} has an outcome of each of the epochs {epochs:?}", about()));
        }
        if let Some(hold) = ended.iter().find(|hold| hold.epoch != record.epoch) {
            let what = format!("{} ended at epoch {} and stands at {}", about(), hold.epoch, record.epoch);
            self.object("double", what);
        }
        if !record.state.kind().is_final() {
            return self.object("lost", format!("{} never ended: {:?}", about(), record.state));
        }
        let word = self.hold(id, record.epoch).and_then(|hold| hold.sent).map(|(_, word)| word);
        if let Err(why) = self.outcome(record, word) {
            self.object("outcome", format!("{} is {:?}: {why}", about(), record.state));
        }
        let known = holds.iter().filter(|hold| hold.applied.is_some_and(|applied| applied.word.counts()));
        let possible = holds.iter().filter(|hold| hold.sent.is_some_and(|(_, word)| word.counts()));
        let (known, possible) = (known.count(), possible.count());
        if !(known..=possible).contains(&usize::from(record.attempts)) {
            let what = format!(
                "{} counts {} attempts: {known} to {possible} gave a verdict",
                about(),
                record.attempts
            );
            self.object("attempts", what);
        }
        // A claim whose answer never came left no trace here but its epoch.
        let lost = holds.iter().filter(|hold| hold.applied.is_none()).count() as u64;
        let untold = record.epoch.saturating_sub(holds.len() as u64);
        if u64::from(record.lost_leases) > lost + untold {
            let what = format!(
                "{} counts {} lost leases, and {lost} + {untold} can be",
                about(),
                record.lost_leases
            );
            self.object("attempts", what);
        }
    }

    /// Whether the stored state is what the last attempt said, or has another good reason.
    fn outcome(&mut self, record: &Record, word: Option<Word>) -> Result<(), String> {
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
        let Some(word) = word else { return Err(format!("nobody said so at epoch {}", record.epoch)) };
        if !leads_to(word, record.state.kind()) {
            return Err(format!("the attempt of epoch {} said {word:?}", record.epoch));
        }
        let act = number.map_or(Act::Done, |number| self.plan.act(number));
        let expected = match act {
            Act::Cancel => Word::Cancel,
            Act::Bury => Word::Bury,
            Act::FailAlways => Word::Exhausted,
            _ => Word::Complete,
        };
        if word != expected {
            return Err(format!("it was planned to {act:?}, and the attempt said {word:?}"));
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
    fn strangers(&mut self, records: &[Record]) {
        let mut children = HashMap::new();
        for record in records {
            let Some(Act::Then(count)) = number_of(record.body.id).map(|number| self.plan.act(number)) else {
                continue;
            };
            // A job of a writer that was to give an output has no children either way.
            if record.state.kind() == StateKind::Completed {
                let ids = (0..count).map(|child| JobId::derived(record.body.id, record.epoch, child));
                children.extend(ids.map(|id| (id, record.body.id)));
            }
        }
        for (child, parent) in &children {
            if !self.stored.contains_key(child) {
                self.object("then", format!("job {parent} completed, and its child {child} is not there"));
            }
        }
        let committing: HashSet<u64> = self.journal.committing.iter().flatten().copied().collect();
        for record in records {
            let id = record.body.id;
            if record.body.kind.as_str() == "crash_child" {
                if !children.contains_key(&id) {
                    self.object(
                        "then",
                        format!("child {id} is there, and no parent's applied verdict had it"),
                    );
                }
                continue;
            }
            let known = number_of(id).is_some_and(|number| {
                self.journal.dispatches.contains_key(&number) || committing.contains(&number)
            });
            if !known {
                self.object("stranger", format!("job {id} is stored, and nobody dispatched it"));
            }
        }
    }

    /// Each execution of a job beyond the first has a reason, and none of two claims at once.
    fn executions(&mut self, id: JobId, holds: &[&Hold]) {
        self.done.refused += holds.iter().filter(|hold| hold.refused).count() as u64;
        for (place, hold) in holds.iter().enumerate() {
            if let Some(applied) = hold.applied
                && let Some(later) = holds[place + 1..].iter().find(|later| later.claimed < applied.sent)
            {
                self.object(
                    "stale",
                    format!(
                        "job {id}: the verdict {:?} of epoch {} was sent after epoch {} had been claimed, and applied",
                        applied.word, hold.epoch, later.epoch
                    ),
                );
            }
            if let Some(end) = self.end_of_run(hold)
                && let Some(later) = holds[place + 1..].iter().find(|later| later.claimed < end)
            {
                let what =
                    format!("job {id}: epoch {} was claimed while epoch {} ran", later.epoch, hold.epoch);
                self.object("overlap", what);
            }
        }
        let started: Vec<&&Hold> = holds.iter().filter(|hold| hold.started.is_some()).collect();
        self.done.executions += started.len() as u64;
        for pair in started.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if before.applied.is_some() {
                self.done.asked_for += 1;
                continue;
            }
            match self.cause(before, after.claimed) {
                Cause::Kill => self.done.after_kill += 1,
                Cause::Freeze => self.done.after_freeze += 1,
                Cause::Stall => self.done.after_stall += 1,
                Cause::Unknown => self.object(
                    "duplicates",
                    format!(
                        "job {id} ran again at epoch {} (process {}), and nothing had happened to process {} that ran \
                         epoch {}",
                        after.epoch, after.member, before.member, before.epoch
                    ),
                ),
            }
        }
        self.not_too_early(id, holds);
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
                    self.object(
                        "early",
                        format!("job {number} was claimed before its delay of {millis} ms was over"),
                    );
                }
            }
            Wish::Parent => {
                let parent = self.holds(id_of(number - 1)).iter().filter(|hold| final_word(hold).is_some());
                let ended = parent.filter_map(|hold| hold.applied).map(|applied| applied.sent).min();
                if ended.is_some_and(|ended| first.claimed < ended) {
                    self.object("early", format!("job {number} was claimed before its parent had completed"));
                }
            }
            _ => {}
        }
    }

    /// No more of a key run at once than may.
    fn exclusions(&mut self) {
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
        for ((key, at_most), mut runs) in runs {
            runs.sort_unstable();
            let mut at_once = 0;
            for (_, change, number) in runs {
                at_once += change;
                if at_once > i64::from(at_most) {
                    self.object(
                        "overlap",
                        format!("{at_once} of {key} ran at once, as job {number} started"),
                    );
                }
            }
        }
    }

    /// When a run was over at the earliest: as it was about to answer, or as its process was killed. `None` where that is
    /// not known, and in a process that stood still, whose lease may have ended before.
    fn end_of_run(&self, hold: &Hold) -> Option<Stamp> {
        let member = &self.journal.members[hold.member];
        if !member.frozen.is_empty() {
            return None;
        }
        hold.started?;
        hold.ended.map(|(at, _)| at).or(member.killed)
    }

    /// What happened to a hold that was never settled, before it was claimed again.
    fn cause(&self, hold: &Hold, again: Stamp) -> Cause {
        let member = &self.journal.members[hold.member];
        let meanwhile = |(from, to): &(Stamp, Stamp)| *from < again && hold.claimed < *to;
        if member.frozen.iter().any(meanwhile) {
            Cause::Freeze
        } else if member.killed.is_some_and(|killed| killed < again) {
            Cause::Kill
        } else if self.journal.members.iter().any(|member| member.frozen.iter().any(meanwhile)) {
            Cause::Stall
        } else {
            Cause::Unknown
        }
    }

    /// What was started and not settled in the processes that something happened to.
    fn in_flight(&mut self) {
        for hold in self.journal.jobs.values().flatten() {
            let Some(started) = hold.started else { continue };
            let member = &self.journal.members[hold.member];
            let killed = member.killed.is_some() && hold.applied.is_none();
            let frozen = member
                .frozen
                .iter()
                .any(|(from, to)| started < *to && hold.applied.is_none_or(|applied| applied.sent > *from));
            self.done.in_flight += u64::from(killed || frozen);
        }
    }
}

fn final_word(hold: &Hold) -> Option<Word> {
    hold.applied.map(|applied| applied.word).filter(|word| word.is_final())
}

#[cfg(test)]
mod tests {
    use windlass_core::{Body, Kind, QueueName, Timestamp};

    use super::*;
    use crate::journal::Member;
    use crate::wire::{Ack, Answer, Event};

    /// A plan of one job that is simply done, acknowledged, and run by process 0 at epoch 1.
    fn one_job() -> (Plan, JobId, Journal) {
        let simple = |seed: &u64| {
            let plan = Plan { seed: *seed, jobs: 1 };
            plan.act(0) == Act::Done && plan.wish(0) == Wish::Nothing
        };
        let seed = (0..).find(simple).expect("most jobs are");
        let mut journal = Journal { members: vec![Member::default(); 2], ..Journal::default() };
        journal.hear(0, 1, Event::Dispatching(vec![0]));
        journal.hear(0, 2, Event::Acknowledged(vec![(0, Ack::Inserted)]));
        claimed(&mut journal, 0, 10, 1);
        (Plan { seed, jobs: 1 }, id_of(0), journal)
    }

    fn claimed(journal: &mut Journal, member: usize, at: Stamp, epoch: u64) {
        journal.hear(member, at, Event::Claimed(vec![(id_of(0), epoch)]));
        journal.hear(member, at + 1, Event::Started(id_of(0), epoch));
    }

    fn settled(journal: &mut Journal, member: usize, at: Stamp, epoch: u64) {
        journal.hear(member, at, Event::Ending(id_of(0), epoch, Word::Complete));
        journal.hear(member, at + 1, Event::Sending(vec![(id_of(0), epoch, Word::Complete)]));
        journal.hear(member, at + 2, Event::Answered(vec![(id_of(0), epoch, Answer::Applied)]));
    }

    fn record(id: JobId, epoch: u64) -> Record {
        let (queue, kind) = (QueueName::from_static("crash-a"), Kind::from_static("crash_work"));
        Record {
            body: std::sync::Arc::new(Body::new(id, queue, kind, [])),
            state: RecordState::Completed { at: Timestamp::from_millis(0), output: None },
            created_at: Timestamp::from_millis(0),
            attempts: 1,
            lost_leases: 0,
            generation: 0,
            epoch,
            last_error: None,
            progress: None,
            log: Vec::new(),
        }
    }

    /// The rules that were broken, without the counts, of which these tests keep none.
    fn broken(plan: Plan, journal: &Journal, records: &[Record]) -> Vec<&'static str> {
        let wrong = account(plan, journal, records, &[]).wrong;
        wrong.into_iter().map(|(rule, _)| rule).filter(|rule| *rule != "counts").collect()
    }

    #[test]
    fn a_job_that_ran_once_and_ended_is_fine_and_one_that_is_gone_is_lost() {
        let (plan, id, mut journal) = one_job();
        settled(&mut journal, 0, 20, 1);
        assert!(broken(plan, &journal, &[record(id, 1)]).is_empty());
        assert_eq!(broken(plan, &journal, &[]), ["lost"]);
        assert_eq!(
            broken(plan, &journal, &[record(id, 1), record(JobId::fresh(), 1)]),
            ["outcome", "attempts", "stranger"]
        );
    }

    #[test]
    fn a_second_execution_needs_a_kill() {
        let (plan, id, mut journal) = one_job();
        claimed(&mut journal, 1, 30, 2);
        settled(&mut journal, 1, 40, 2);
        assert_eq!(broken(plan, &journal, &[record(id, 2)]), ["duplicates"]);
        journal.members[0].killed = Some(20);
        assert!(broken(plan, &journal, &[record(id, 2)]).is_empty());
    }

    #[test]
    fn a_verdict_that_is_believed_too_late_is_stale() {
        let (plan, id, mut journal) = one_job();
        journal.members[0].frozen.push((12, 35));
        claimed(&mut journal, 1, 30, 2);
        settled(&mut journal, 0, 40, 1);
        let rules = broken(plan, &journal, &[record(id, 2)]);
        assert!(
            rules.contains(&"stale") && rules.contains(&"double") && rules.contains(&"outcome"),
            "{rules:?}"
        );
    }
}
