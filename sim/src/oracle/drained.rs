//! What must come true once nothing goes wrong any more: everything that can run does, and all ends.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_core::{
    Finished, JobId, JobRef, Lease, ParentFailure, RecordState, StateKind, Timestamp, WhyBlocked,
};

use super::Oracle;
use super::shadow::{Stand, word};
use crate::jobs::Knows;

/// Jobs that were seen Ready at one look after another, and since when.
#[derive(Default)]
pub(crate) struct Queueing(BTreeMap<JobId, Timestamp>);

impl Oracle {
    /// From now on nothing goes wrong.
    pub(crate) fn heal(&mut self) {
        let now = self.now();
        self.note(&[40], || "the weather clears".to_owned());
        self.healed = Some(now);
        for peer in self.peers.values_mut() {
            peer.cut_off_until = Timestamp::MIN;
        }
    }

    /// L1 and L3: nothing stays Ready while somebody who is well has room for it.
    pub(crate) fn look_for_idlers(&mut self, queueing: &mut Queueing) {
        // By now every back-off of a worker has run out: 5 s at most.
        const SETTLED: Duration = Duration::from_secs(8);
        // Two polls, and a second for what is on its way.
        const PATIENCE: Duration = Duration::from_secs(3);
        let now = self.now();
        let Some(healed) = self.healed.filter(|healed| now.since(*healed) > SETTLED) else { return };
        let idle = self.peers.iter().find(|(_, peer)| {
            let room = peer.setup.as_ref().is_some_and(|setup| {
                // One that knows all, and has no other queue to see to.
                setup.knows == Knows::Both
                    && setup.queues.len() == crate::history::QUEUES.len()
                    && peer.active.len() < setup.concurrency
            });
            room && peer.alive && !peer.frozen && now.since(peer.since.max(healed)) > SETTLED
        });
        let Some((&idle, _)) = idle else { return queueing.0.clear() };
        let mut ready = BTreeMap::new();
        for (id, shadow) in &self.jobs {
            if shadow.stand == Stand::Waiting && !shadow.suspect {
                let record = self.engine.peek(&shadow.job);
                if record.is_some_and(|record| record.state.kind() == StateKind::Ready) {
                    ready.insert(*id, *queueing.0.get(id).unwrap_or(&now));
                }
            }
        }
        queueing.0 = ready;
        let stuck = queueing.0.iter().find(|(_, since)| now.since(**since) > PATIENCE);
        if let Some((id, _)) = stuck {
            let job = self.jobs.get(id).map(|shadow| shadow.job.clone());
            self.broken("L1", || format!("{job:?} stays Ready although client {idle} is idle"));
        }
    }

    /// Jobs that have not ended, but for those that wait for a dead parent to be revived.
    pub(crate) fn live(&mut self) -> Vec<JobRef> {
        let waiting: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, shadow)| !matches!(shadow.stand, Stand::Ended(..)))
            .map(|(id, _)| *id)
            .collect();
        let mut live = Vec::new();
        for id in waiting {
            self.look(id);
            let Some(shadow) = self.jobs.get(&id) else { continue };
            if matches!(shadow.stand, Stand::Ended(..)) || self.waits_for_the_dead(id) {
                continue;
            }
            live.push(shadow.job.clone());
        }
        live
    }

    fn waits_for_the_dead(&self, id: JobId) -> bool {
        let Some(shadow) = self.jobs.get(&id) else { return false };
        let policy = shadow.body.extras.as_ref().map(|extras| extras.on_parent_failure);
        let blocked = matches!(
            self.engine.peek(&shadow.job).map(|record| record.state),
            Some(RecordState::Blocked { why: WhyBlocked::Parents(_) })
        );
        let dead = |parent: &JobRef| {
            let stand = self.jobs.get(&parent.id).map(|parent| &parent.stand);
            let dead = matches!(stand, Some(Stand::Ended(StateKind::Dead, _)));
            // Or for one that waits itself, whatever is to happen should that one fail.
            (dead && policy == Some(ParentFailure::Wait)) || self.waits_for_the_dead(parent.id)
        };
        blocked && shadow.body.parents().iter().any(dead)
    }

    /// S1: what was acknowledged has ended.
    pub(crate) fn finish(&mut self) {
        let lost = self.acknowledged.iter().find(|id| !self.jobs.contains_key(id)).copied();
        if let Some(lost) = lost {
            self.broken("S1", || format!("{lost} was acknowledged, and is not stored"));
        }
        self.look_at_all();
        self.ended_as_told();
    }

    pub(crate) fn too_late(&mut self, live: &[JobRef], time: Duration) {
        let first = live.first().cloned();
        let record = first.as_ref().and_then(|job| self.engine.peek(job));
        self.broken("L1", || {
            format!(
                "{} jobs have not ended {time:?} after all was well, such as {first:?}: {record:?}",
                live.len()
            )
        });
    }

    /// In a history where one job kills its workers and nothing else goes wrong, nobody else dies, or loses more than the
    /// one lease that makes it a suspect between two verdicts: one for each time that an operator let the poison loose.
    pub(crate) fn spare_the_innocent(&mut self, poison: JobId) {
        let most = 1 + self.jobs.get(&poison).map_or(0, |shadow| shadow.generation);
        let harmed = self
            .jobs
            .iter()
            .find(|(id, shadow)| **id != poison && u32::from(shadow.most_lost_at_once) > most);
        if let Some(job) = harmed.map(|(_, shadow)| shadow.job.clone()) {
            self.broken("S19", || format!("{job} lost more than one lease to one poison job"));
        }
    }

    pub(crate) fn knows(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    /// S3: what was refused for certain each time was never stored.
    pub(crate) fn refused_for_certain(&mut self, ids: &[JobId]) {
        let stored = ids.iter().find(|id| self.knows(**id)).copied();
        if let Some(stored) = stored {
            self.broken("S3", || format!("{stored} was refused for certain, and is stored"));
        }
    }

    /// Notes that a dispatch was acknowledged.
    pub(crate) fn acknowledge(&mut self, id: JobId) {
        self.acknowledged.insert(id);
        let known = self.jobs.contains_key(&id);
        self.expect(known, "S1", || format!("{id} was acknowledged, and is not stored"));
    }

    /// Whoever waits for a job hears how it ended, once it has.
    pub(crate) fn outcomes(&mut self, client: u32, jobs: &[JobRef], outcomes: &[Option<Finished>]) {
        for (job, outcome) in jobs.iter().zip(outcomes) {
            self.look(job.id);
            let heard = match outcome {
                None => None,
                Some(Finished::Completed { .. }) => Some(StateKind::Completed),
                Some(Finished::Cancelled { .. }) => Some(StateKind::Cancelled),
                Some(Finished::Dead { .. }) => Some(StateKind::Dead),
                Some(Finished::Missing) => {
                    return self.broken("S1", || format!("{job} was stored and is gone"));
                }
            };
            self.note(&[14, client.into(), word(job.id), heard.map_or(0, |kind| kind as u64)], || {
                format!("client {client} waits for {job} and hears: {heard:?}")
            });
            let ended = match self.jobs.get(&job.id).map(|shadow| &shadow.stand) {
                Some(Stand::Ended(kind, _)) => Some(*kind),
                _ => None,
            };
            self.expect(heard == ended, "S8", || format!("{job} has ended as {ended:?}, not as {heard:?}"));
        }
    }

    /// What an operator may point at.
    pub(crate) fn refs(&self) -> Vec<JobRef> {
        self.jobs.values().map(|shadow| shadow.job.clone()).collect()
    }

    /// Jobs that may be parents: those that hold no key and no place, even when they wait for ever.
    pub(crate) fn possible_parents(&self) -> Vec<JobRef> {
        let plain = self
            .jobs
            .values()
            .filter(|shadow| shadow.body.unique().is_none() && shadow.body.limit().is_none());
        plain.map(|shadow| shadow.job.clone()).collect()
    }

    pub(crate) fn dead(&self) -> Vec<JobRef> {
        let dead = |stand: &Stand| matches!(stand, Stand::Ended(StateKind::Dead, _));
        self.jobs.values().filter(|shadow| dead(&shadow.stand)).map(|shadow| shadow.job.clone()).collect()
    }

    /// Leases of old, and those that stand.
    pub(crate) fn leases(&self) -> (Vec<Lease>, Vec<Lease>) {
        let stands = self.running.iter().filter_map(|id| match &self.jobs.get(id)?.stand {
            Stand::Running(hold) => Some(hold.lease.clone()),
            _ => None,
        });
        (self.past.clone(), stands.collect())
    }
}
