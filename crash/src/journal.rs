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
    /// Before its verdict was last sent.
    pub(crate) sent: Option<(Stamp, Word)>,
    /// When the answer came, that the verdict was applied.
    pub(crate) applied: Option<Applied>,
    /// Whether an answer came that the lease is lost.
    pub(crate) refused: bool,
}

/// A verdict that was applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applied {
    pub(crate) word: Word,
    /// Before it was sent.
    pub(crate) sent: Stamp,
}

/// What was said of one number's dispatch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dispatch {
    /// Before it was first sent.
    pub(crate) first: Stamp,
    pub(crate) tries: u32,
    pub(crate) acks: Vec<Ack>,
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
    /// At which point it has struck itself, and is yet to be noticed.
    pub(crate) dying: Option<String>,
    pub(crate) freezing: Option<(Stamp, String)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) members: Vec<Member>,
    pub(crate) jobs: HashMap<JobId, Vec<Hold>>,
    pub(crate) dispatches: BTreeMap<u64, Dispatch>,
    /// Numbers that a transaction may have committed.
    pub(crate) committing: Vec<Vec<u64>>,
    /// Final verdicts that were applied.
    pub(crate) finished: u64,
    /// Numbers that were acknowledged.
    pub(crate) acknowledged: u64,
    pub(crate) events: u64,
    /// What was wrong the moment it was heard.
    pub(crate) wrong: Vec<(&'static str, String)>,
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
                _ => self
                    .object("runs", format!("job {id} started at epoch {epoch} without a claim of its own")),
            },
            Event::Ending(id, epoch, word) => match self.hold(member, id, epoch) {
                Some(Hold { ended: ended @ None, .. }) => *ended = Some((at, word)),
                _ => self.object("runs", format!("job {id} ended twice at epoch {epoch}")),
            },
            Event::Sending(verdicts) => {
                for (id, epoch, word) in verdicts {
                    match self.hold(member, id, epoch) {
                        Some(hold) => hold.sent = Some((at, word)),
                        None => self.object(
                            "runs",
                            format!("a verdict on job {id} without a claim of epoch {epoch}"),
                        ),
                    }
                }
            }
            Event::Answered(answers) => {
                for (id, epoch, answer) in answers {
                    self.answered(member, id, epoch, answer);
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
                    self.acknowledge(number, ack);
                }
            }
            Event::Committing(numbers) => self.committing.push(numbers),
            Event::Dying(point) => {
                self.members[member].killed = Some(at);
                self.members[member].dying = Some(point);
            }
            Event::Freezing(point) => self.members[member].freezing = Some((at, point)),
            Event::Wrong(what) => self.object("errors", format!("process {member} says: {what}")),
        }
    }

    /// Notes that something must not be.
    pub(crate) fn object(&mut self, rule: &'static str, what: String) {
        self.wrong.push((rule, what));
    }

    fn hold(&mut self, member: usize, id: JobId, epoch: u64) -> Option<&mut Hold> {
        let holds = self.jobs.get_mut(&id)?;
        holds.iter_mut().rev().find(|hold| hold.epoch == epoch && hold.member == member)
    }

    fn claimed(&mut self, member: usize, at: Stamp, id: JobId, epoch: u64) {
        let holds = self.jobs.entry(id).or_default();
        if let Some(other) = holds.iter().find(|hold| hold.epoch == epoch) {
            let what =
                format!("job {id}: epoch {epoch} went to process {} and to process {member}", other.member);
            self.wrong.push(("stale", what));
        }
        let hold = Hold {
            epoch,
            member,
            claimed: at,
            started: None,
            ended: None,
            sent: None,
            applied: None,
            refused: false,
        };
        holds.push(hold);
    }

    fn answered(&mut self, member: usize, id: JobId, epoch: u64, answer: Answer) {
        let Some(hold) = self.hold(member, id, epoch) else { return };
        match (answer, hold.sent, &hold.applied) {
            (Answer::Applied, Some((sent, word)), None) => {
                hold.applied = Some(Applied { word, sent });
                self.finished += u64::from(word.is_final());
            }
            (Answer::Applied, _, _) => {
                self.object("double", format!("job {id}: a verdict of epoch {epoch} was applied twice"));
            }
            (Answer::Refused, ..) => hold.refused = true,
            (Answer::Already, ..) => {}
        }
    }

    fn acknowledge(&mut self, number: u64, ack: Ack) {
        let dispatch = self.dispatches.entry(number).or_default();
        let stood = dispatch.acks.iter().any(|ack| ack.is_stored());
        if dispatch.acks.is_empty() {
            self.acknowledged += 1;
        }
        dispatch.acks.push(ack);
        if stood && ack != Ack::Same {
            self.object(
                "lost",
                format!("job {number} was acknowledged, and then {ack:?} when it was sent again"),
            );
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
        assert_eq!(journal.wrong.pop().map(|(rule, _)| rule), Some("double"));
        journal.hear(1, 7, Event::Claimed(vec![(id, 1)]));
        assert_eq!(journal.wrong.pop().map(|(rule, _)| rule), Some("stale"));
        journal.hear(1, 8, Event::Started(id, 2));
        assert_eq!(journal.wrong.pop().map(|(rule, _)| rule), Some("runs"));
    }

    #[test]
    fn what_was_acknowledged_stays_the_same() {
        let mut journal = journal();
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Inserted), (2, Ack::Conflict)]));
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Same), (2, Ack::Inserted)]));
        assert!(journal.wrong.is_empty() && journal.acknowledged == 2);
        journal.hear(0, 1, Event::Acknowledged(vec![(1, Ack::Inserted)]));
        assert_eq!(journal.wrong.pop().map(|(rule, _)| rule), Some("lost"));
    }
}
