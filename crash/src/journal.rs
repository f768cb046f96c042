//! What the processes said, put together by job and by process. It outlives all of them.

use std::collections::{BTreeMap, HashMap};

use windlass_core::JobId;

use crate::wire::{Ack, Answer, Event, Stamp, Word};

/// One claim of one job, as its worker told it.
#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) epoch: u64,
    pub(crate) member: usize,
    /// After the claim was answered.
    pub(crate) claimed: Stamp,
    /// As its handler began.
    pub(crate) started: Option<Stamp>,
    /// As its handler was about to answer.
    pub(crate) ended: Option<(Stamp, Word)>,
    /// Before each sending of a verdict.
    pub(crate) sent: Vec<(Stamp, Word)>,
    /// The verdict that was applied.
    pub(crate) applied: Option<Applied>,
    /// Whether an answer came that some verdict on it had been applied before.
    pub(crate) already: bool,
    /// When an answer came that the lease is lost, or stood no more.
    pub(crate) refused: Option<Stamp>,
}

impl Hold {
    /// Whether a verdict on it is known to be applied.
    pub(crate) fn is_settled(&self) -> bool {
        self.applied.is_some() || self.already
    }

    /// Whether a verdict that was sent may have been applied, and meets `wanted`.
    pub(crate) fn may_have(&self, wanted: impl Fn(Word) -> bool) -> bool {
        match self.applied {
            Some(applied) => wanted(applied.word),
            None => self.sent.iter().any(|(_, word)| wanted(*word)),
        }
    }
}

/// A verdict that was applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) word: Word,
    /// Before it was sent.
    pub(crate) sent: Stamp,
    /// After it was answered.
    pub(crate) answered: Stamp,
}

/// What was said of one number's dispatch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatch {
    /// Before it was first sent.
    pub(crate) first: Stamp,
    pub(crate) tries: u32,
    /// Each with the instant after its answer.
    pub(crate) acks: Vec<(Stamp, Ack)>,
}

/// A process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) hello: bool,
    /// Whether all that it said has been read.
    pub(crate) closed: bool,
    /// When it was killed, by itself or by the runner: from just before.
    pub(crate) killed: Option<Stamp>,
    /// When it stood still: from just before until just after.
    pub(crate) frozen: Vec<(Stamp, Stamp)>,
    /// When beats of its were without an answer for long.
    pub(crate) waits: Vec<(Stamp, Stamp)>,
    /// At which point it stands itself still, and is yet to be noticed.
    pub(crate) freezing: Option<(Stamp, String)>,
    /// Jobs on which it is about to send verdicts, standing still.
    pub(crate) haunts: Vec<(JobId, u64)>,
    /// Whether its trap for the server has struck, and is yet to be noticed.
    pub(crate) has_crashed: bool,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub(crate) struct Wrong {
    pub(crate) rule: &'static str,
    /// The job it is about.
    pub(crate) job: Option<JobId>,
    pub(crate) what: String,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) members: Vec<Member>,
    pub(crate) jobs: HashMap<JobId, Vec<Hold>>,
    pub(crate) dispatches: BTreeMap<u64, Dispatch>,
    /// Numbers that a transaction may have committed.
    pub(crate) committing: Vec<Vec<u64>>,
    /// When the server was not there, and whether it was killed: from just before until just after.
    pub(crate) outages: Vec<(Stamp, Stamp, bool)>,
    /// When one of the processes killed the server, and it is yet to be noticed.
    pub(crate) crashed: Option<Stamp>,
    /// Final verdicts that were applied.
    pub(crate) finished: u64,
    /// Numbers that were acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) events: u64,
    /// What was wrong the moment it was heard.
    pub(crate) wrong: Vec<Wrong>,
}

impl Journal {
    /// Takes an event in. Events of one member come in its order.
    pub(crate) fn hear(&mut self, member: usize, at: Stamp, event: Event) {
        self.events += 1;
        match event {
            Event::Hello => self.members[member].hello = true,
            Event::Claimed(jobs) => {
                for (id, epoch) in jobs {
                    self.claimed(member, at, id, epoch);
                }
            }
            Event::Started(id, epoch) => match self.hold(member, id, epoch) {
                Some(Hold { started: started @ None, .. }) => *started = Some(at),
                _ => self.object_to(
                    id,
                    "runs",
                    format!("job {id} started at epoch {epoch} without a claim of its own"),
                ),
            },
            Event::Ending(id, epoch, word) => match self.hold(member, id, epoch) {
                Some(Hold { ended: ended @ None, .. }) => *ended = Some((at, word)),
                _ => self.object_to(id, "runs", format!("job {id} ended twice at epoch {epoch}")),
            },
            Event::Sending(verdicts) => {
                for (id, epoch, word) in verdicts {
                    match self.hold(member, id, epoch) {
                        Some(hold) => hold.sent.push((at, word)),
                        None => self.object_to(
                            id,
                            "runs",
                            format!("a verdict on job {id} without a claim of epoch {epoch}"),
                        ),
                    }
                }
            }
            Event::Answered(answers) => {
                for (id, epoch, answer) in answers {
                    self.answered(member, at, id, epoch, answer);
                }
            }
            Event::Dispatching(numbers) => {
                for number in numbers {
                    let dispatch = self.dispatches.entry(number).or_default();
                    if dispatch.tries == 0 || at < dispatch.first {
                        dispatch.first = at;
                    }
                    dispatch.tries += 1;
                }
            }
            Event::Acknowledged(acks) => {
                for (number, ack) in acks {
                    self.acknowledge(number, at, ack);
                }
            }
            Event::Committing(numbers) => self.committing.push(numbers),
            Event::Dying(_) => self.members[member].killed = Some(at),
            Event::Freezing(point) => self.members[member].freezing = Some((at, point)),
            Event::Crashing(_) => {
                self.crashed = Some(at);
                self.members[member].has_crashed = true;
            }
            Event::Haunting(jobs) => self.members[member].haunts = jobs,
            Event::Waited(since) => self.members[member].waits.push((since, at)),
            Event::Wrong(what) => self.object("errors", format!("process {member} says: {what}")),
        }
    }

    /// Notes that something must not be.
    pub(crate) fn object(&mut self, rule: &'static str, what: String) {
        self.wrong.push(Wrong { rule, job: None, what });
    }

    /// Notes that something about a job must not be.
    fn object_to(&mut self, job: JobId, rule: &'static str, what: String) {
        self.wrong.push(Wrong { rule, job: Some(job), what });
    }

    /// Whether a job on which a member is about to send a verdict runs again: now is the time to let it.
    pub(crate) fn is_haunted(&self, member: usize) -> bool {
        self.members[member].haunts.iter().any(|(id, epoch)| {
            let holds = self.jobs.get(id).map_or(&[][..], Vec::as_slice);
            holds.iter().any(|hold| hold.epoch > *epoch && hold.started.is_some())
        })
    }

    fn hold(&mut self, member: usize, id: JobId, epoch: u64) -> Option<&mut Hold> {
        let holds = self.jobs.get_mut(&id)?;
        holds.iter_mut().rev().find(|hold| hold.epoch == epoch && hold.member == member)
    }

    fn claimed(&mut self, member: usize, at: Stamp, id: JobId, epoch: u64) {
        let holds = self.jobs.entry(id).or_default();
        let other = holds.iter().find(|hold| hold.epoch == epoch).map(|hold| hold.member);
        holds.push(Hold {
            epoch,
            member,
            claimed: at,
            started: None,
            ended: None,
            sent: Vec::new(),
            applied: None,
            already: false,
            refused: None,
        });
        if let Some(other) = other {
            let what = format!("job {id}: epoch {epoch} went to process {other} and to process {member}");
            self.object_to(id, "stale", what);
        }
    }

    fn answered(&mut self, member: usize, at: Stamp, id: JobId, epoch: u64, answer: Answer) {
        let Some(hold) = self.hold(member, id, epoch) else { return };
        let (settled, last) = (hold.is_settled(), hold.sent.last().copied());
        let newly = match (answer, last) {
            (Answer::Applied, Some((sent, word))) if !settled => {
                hold.applied = Some(Applied { word, sent, answered: at });
                hold.applied
            }
            (Answer::Applied, _) => {
                let what = format!("job {id}: a verdict of epoch {epoch} was applied twice");
                return self.object_to(id, "double", what);
            }
            // One that was sent before was applied, and its answer lost: which one is known if all said the same.
            (Answer::Already, Some((_, word))) if !settled => {
                hold.already = true;
                if hold.sent.len() == 1 {
                    let what = format!(
                        "job {id}: the first verdict of epoch {epoch} had been applied before, they say"
                    );
                    self.object_to(id, "double", what);
                    return;
                }
                let (sent, _) = hold.sent[0];
                if hold.sent.iter().all(|(_, other)| *other == word) {
                    hold.applied = Some(Applied { word, sent, answered: at });
                }
                hold.applied
            }
            (Answer::Already, _) => None,
            (Answer::Refused, _) => {
                // What settled itself in a transaction says so by a verdict that is refused.
                hold.refused = hold.refused.or((!settled).then_some(at));
                None
            }
        };
        self.finished += u64::from(newly.is_some_and(|applied| applied.word.is_final()));
    }

    fn acknowledge(&mut self, number: u64, at: Stamp, ack: Ack) {
        let dispatch = self.dispatches.entry(number).or_default();
        let stood = dispatch.acks.iter().any(|(_, ack)| ack.is_stored());
        if dispatch.acks.is_empty() {
            self.acknowledged += 1;
        }
        dispatch.acks.push((at, ack));
        if stood && ack != Ack::Same {
            let what = format!("job {number} was acknowledged, and then {ack:?} when it was sent again");
            self.object_to(crate::plan::id_of(number), "lost", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::id_of;

    fn journal() -> Journal {
        Journal { members: vec![Member::default(); 2], ..Journal::default() }
    }

    fn rule(journal: &mut Journal) -> Option<&'static str> {
        journal.wrong.pop().map(|wrong| wrong.rule)
    }

    #[test]
    fn an_epoch_is_given_once_and_applied_once() {
        let (mut journal, id) = (journal(), id_of(1));
        journal.hear(0, 1, Event::Claimed(vec![(id, 1)]));
        journal.hear(0, 2, Event::Started(id, 1));
        journal.hear(0, 3, Event::Ending(id, 1, Word::Complete));
        journal.hear(0, 4, Event::Sending(vec![(id, 1, Word::Complete)]));
        journal.hear(0, 5, Event::Answered(vec![(id, 1, Answer::Applied)]));
        assert!(journal.wrong.is_empty() && journal.finished == 1, "{:?}", journal.wrong);
        journal.hear(0, 6, Event::Answered(vec![(id, 1, Answer::Applied)]));
        assert_eq!(rule(&mut journal), Some("double"));
        journal.hear(1, 7, Event::Claimed(vec![(id, 1)]));
        assert_eq!(rule(&mut journal), Some("stale"));
        journal.hear(1, 8, Event::Started(id, 2));
        assert_eq!(rule(&mut journal), Some("runs"));
    }

    #[test]
    fn a_verdict_whose_answer_was_lost_counts_from_its_first_sending() {
        let (mut journal, id) = (journal(), id_of(1));
        journal.hear(0, 1, Event::Claimed(vec![(id, 1)]));
        journal.hear(0, 4, Event::Sending(vec![(id, 1, Word::Complete)]));
        journal.hear(0, 8, Event::Sending(vec![(id, 1, Word::Complete)]));
        journal.hear(0, 9, Event::Answered(vec![(id, 1, Answer::Already)]));
        let applied = journal.jobs[&id][0].applied.expect("it was applied");
        assert_eq!((applied.word, applied.sent, journal.finished), (Word::Complete, 4, 1));
        // Which of two different ones it was is not known.
        journal.hear(0, 11, Event::Claimed(vec![(id, 2)]));
        journal.hear(0, 14, Event::Sending(vec![(id, 2, Word::Complete)]));
        journal.hear(0, 18, Event::Sending(vec![(id, 2, Word::Retry)]));
        journal.hear(0, 19, Event::Answered(vec![(id, 2, Answer::Already)]));
        let hold = &journal.jobs[&id][1];
        assert!(hold.applied.is_none() && hold.is_settled() && hold.may_have(Word::is_final));
        assert!(journal.wrong.is_empty(), "{:?}", journal.wrong);
    }

    #[test]
    fn a_first_verdict_that_was_applied_before_was_anothers() {
        let (mut journal, id) = (journal(), id_of(1));
        journal.hear(0, 1, Event::Claimed(vec![(id, 1)]));
        journal.hear(0, 4, Event::Sending(vec![(id, 1, Word::Complete)]));
        journal.hear(0, 5, Event::Answered(vec![(id, 1, Answer::Already)]));
        assert_eq!(rule(&mut journal), Some("double"));
    }

    #[test]
    fn what_was_acknowledged_stays_the_same() {
        let mut journal = journal();
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Inserted), (2, Ack::Conflict)]));
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Same), (2, Ack::Inserted)]));
        assert!(journal.wrong.is_empty() && journal.acknowledged == 2);
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Inserted)]));
        assert_eq!(rule(&mut journal), Some("lost"));
    }

    #[test]
    fn a_zombie_is_woken_as_its_job_runs_again() {
        let (mut journal, id) = (journal(), id_of(1));
        journal.hear(0, 1, Event::Claimed(vec![(id, 1)]));
        journal.hear(0, 2, Event::Haunting(vec![(id, 1)]));
        journal.hear(1, 3, Event::Claimed(vec![(id, 2)]));
        assert!(!journal.is_haunted(0));
        journal.hear(1, 4, Event::Started(id, 2));
        assert!(journal.is_haunted(0) && !journal.is_haunted(1));
    }
}
