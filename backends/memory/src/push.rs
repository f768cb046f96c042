//! Push: a new job into storage.

use windlass_core::{
    Body, Error, ErrorKind, JobId, JobRef, NewJob, OnConflict, ParentFailure, Pushed, Result, StateKind,
    Timestamp, WhyBlocked, WhyScheduled,
};

use crate::ending::orphaned;
use crate::mutant::Mutant;
use crate::store::{Job, More, Rank, Slot, State, Store};

/// What a push would do, decided without touching anything.
enum Plan {
    /// Nothing: this is the answer.
    Answer(Pushed),
    /// Insert, as the holder of its key if it has one.
    Insert,
    /// Cancel this waiting holder and insert.
    Supersede(JobId),
    /// Cancel this job that waits behind the holder, and wait there instead.
    SupersedeNext(JobId),
    /// Wait behind the running holder.
    Queue,
}

/// A parent that is not stored, by its place in the batch's checks.
pub(crate) fn missing_parent(parent: &JobRef) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "parent {parent} is not stored: dispatch it first, or earlier in the same batch; a finished job is kept \
             for its retention only"
        ),
    )
}

impl Store {
    pub(crate) fn push(&mut self, jobs: &[NewJob], now: Timestamp) -> Result<Vec<Pushed>> {
        for (at, job) in jobs.iter().enumerate() {
            if self.find(&job.body.job()).is_some() {
                // A repeat changes nothing, and needs no parents any more.
                continue;
            }
            for parent in job.body.parents() {
                let earlier = jobs[..at]
                    .iter()
                    .any(|other| other.body.id == parent.id && other.body.queue == parent.queue);
                if !earlier && self.find(parent).is_none() {
                    return Err(missing_parent(parent));
                }
            }
        }
        Ok(jobs.iter().map(|job| self.push_one(job, now)).collect())
    }

    /// What pushing `body` would answer now.
    pub(crate) fn peek_push(&mut self, body: &Body, now: Timestamp) -> Pushed {
        match self.plan(body, now) {
            Plan::Answer(answer) => answer,
            Plan::Insert | Plan::Queue => Pushed::Inserted,
            Plan::Supersede(old) | Plan::SupersedeNext(old) => Pushed::Superseded(old),
        }
    }

    fn plan(&mut self, body: &Body, now: Timestamp) -> Plan {
        let Some(lane) = self.find_lane(&body.queue) else { return Plan::Insert };
        if self.lane(lane).ids.contains_key(&body.id) {
            return Plan::Answer(Pushed::SameId);
        }
        let Some(unique) = body.unique() else { return Plan::Insert };
        let Some(key) = self.lane(lane).keys.get(&unique.key) else { return Plan::Insert };
        if key.is_free(now) {
            self.lane(lane).keys.remove(&unique.key);
            return Plan::Insert;
        }
        let (holder, next) = (key.holder, key.next);
        let holder_is = |store: &Self, wanted: fn(StateKind) -> bool| {
            let slot = store.lanes[lane as usize].ids.get(&holder);
            slot.is_some_and(|&slot| wanted(store.job(slot).state.kind()))
        };
        match (unique.on_conflict, next) {
            (OnConflict::Supersede, Some(next)) => Plan::SupersedeNext(next),
            (OnConflict::Supersede, None) if holder_is(self, StateKind::is_waiting) => {
                Plan::Supersede(holder)
            }
            (OnConflict::QueueOne, None) if holder_is(self, |state| state == StateKind::Running) => {
                Plan::Queue
            }
            (OnConflict::QueueOne, Some(next)) => Plan::Answer(Pushed::Conflict(next)),
            _ => Plan::Answer(Pushed::Conflict(holder)),
        }
    }

    /// Pushes one valid job. A parent that is not stored counts as one that failed.
    pub(crate) fn push_one(&mut self, job: &NewJob, now: Timestamp) -> Pushed {
        let body = &job.body;
        if self.mutated(Mutant::SameIdReplaces)
            && let Some(slot) = self.find(&body.job())
        {
            self.job_mut(slot).body = body.clone();
        }
        let plan = self.plan(body, now);
        let answer = match plan {
            Plan::Answer(answer) => return answer,
            Plan::Insert | Plan::Queue => Pushed::Inserted,
            Plan::Supersede(old) | Plan::SupersedeNext(old) => Pushed::Superseded(old),
        };
        if let Pushed::Superseded(old) = answer
            && let Some(slot) = self.find(&JobRef::new(body.queue.clone(), old))
            && !self.mutated(Mutant::SupersededLives)
        {
            let reason = format!("superseded by {}", body.id);
            self.end(slot, crate::store::End::Cancelled { reason, superseded_by: Some(body.id) }, now);
        }
        let slot = self.take_in(job, now);
        let failed = self.bind_parents(slot);
        match plan {
            Plan::Queue | Plan::SupersedeNext(_) => self.wait_behind(slot, job.due.resolve(now)),
            _ => {
                self.hold_key(slot);
                self.admit(slot, job.due.resolve(now), WhyScheduled::Delay, now);
            }
        }
        if let Some(parent) = failed {
            self.end(slot, orphaned(parent), now);
        }
        answer
    }

    /// Puts the job into the slab, in no index yet.
    fn take_in(&mut self, job: &NewJob, now: Timestamp) -> Slot {
        let lane = self.open_lane(&job.body.queue);
        let deadline = job.body.extras.as_ref().and_then(|extras| extras.deadline);
        let more = deadline
            .map(|deadline| Box::new(More { deadline: Some(deadline.resolve(now)), ..More::default() }));
        if let Some(recorded) = &mut self.recorded {
            recorded.take_in(job.body.clone(), now, job.due.resolve(now));
        }
        self.insert(Job {
            body: job.body.clone(),
            // A placeholder that `enter` replaces before anyone can look.
            state: State::Blocked { why: WhyBlocked::Unique, rank: Rank::new(job.body.priority, 0) },
            more,
            created_at: now,
            epoch: 0,
            generation: 0,
            lane,
            attempts: 0,
            lost_leases: 0,
            suspect: false,
            settled_by: None,
        })
    }

    /// Blocks a job behind the running holder of its unique key.
    fn wait_behind(&mut self, slot: Slot, due: Timestamp) {
        let sequence = self.next_sequence();
        let job = self.job_mut(slot);
        job.more().due = Some(due);
        let (lane, id, rank) = (job.lane, job.body.id, Rank::new(job.body.priority, sequence));
        let key = job.body.unique().map(|unique| unique.key.clone()).unwrap_or_default();
        if let Some(key) = self.lane(lane).keys.get_mut(&key) {
            key.next = Some(id);
        }
        self.enter(slot, State::Blocked { why: WhyBlocked::Unique, rank });
    }

    /// Counts the parents that a new job waits for. Returns one whose failure calls the job off.
    fn bind_parents(&mut self, slot: Slot) -> Option<JobId> {
        let body = self.job(slot).body.clone();
        let policy = self.parent_failure_policy(slot);
        let mut failed = None;
        let mut waits_for = Vec::new();
        for parent in body.parents() {
            match self.find(parent).map(|slot| (slot, self.job(slot).state.kind())) {
                Some((_, StateKind::Completed)) => {}
                None | Some((_, StateKind::Dead | StateKind::Cancelled))
                    if policy == ParentFailure::Ignore => {}
                Some((parent, StateKind::Dead)) if policy == ParentFailure::Wait => waits_for.push(parent),
                None | Some((_, StateKind::Dead | StateKind::Cancelled)) => failed = Some(parent.id),
                Some((parent, _)) => waits_for.push(parent),
            }
        }
        waits_for.sort_unstable();
        waits_for.dedup();
        if !waits_for.is_empty() {
            self.job_mut(slot).more().parents_left = u32::try_from(waits_for.len()).unwrap_or(u32::MAX);
            for parent in waits_for {
                self.job_mut(parent).more().children.push((slot, body.id));
            }
        }
        failed
    }
}
