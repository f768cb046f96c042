//! Operators' verbs.

use windlass_core::limits::{TEXT_MAX_BYTES, clip};
use windlass_core::{
    Cancelling, Error, ErrorKind, JobRef, QueueName, Result, StateKind, Timestamp, WhyScheduled,
};

use crate::mutant::Mutant;
use crate::store::{End, Slot, State, Store};

impl Store {
    pub(crate) fn cancel(&mut self, job: &JobRef, reason: &str, now: Timestamp) -> Cancelling {
        let Some(slot) = self.find(job) else { return Cancelling::Missing };
        let reason = clip(reason, TEXT_MAX_BYTES);
        let deaf = self.mutated(Mutant::CancelledRuns);
        let job = self.job_mut(slot);
        match &job.state {
            State::Ended(ended) => Cancelling::AlreadyEnded(ended.end.kind()),
            State::Running(run) => {
                let session = run.session;
                // The first reason stands.
                job.more().cancel_reason.get_or_insert(reason);
                self.control.insert(session);
                Cancelling::Requested
            }
            _ if deaf => Cancelling::Cancelled,
            _ => {
                self.end(slot, End::Cancelled { reason, superseded_by: None }, now);
                Cancelling::Cancelled
            }
        }
    }

    pub(crate) fn revive(&mut self, job: &JobRef, now: Timestamp) -> Result<()> {
        let slot = self.in_state(job, StateKind::Dead, "revive")?;
        let dead = self.job(slot);
        if let Some(unique) = dead.body.unique().cloned() {
            let (lane, id) = (dead.lane, dead.body.id);
            if let Some(key) = self.lane(lane).keys.get(&unique.key)
                && key.holder != id
                && !key.is_free(now)
            {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("cannot revive {job}: job {} holds its unique key", key.holder),
                ));
            }
            self.hold_key(slot);
        }
        let (reset, keep) = (self.mutated(Mutant::EpochReset), self.mutated(Mutant::AttemptsKept));
        let job = self.job_mut(slot);
        job.generation += 1;
        if reset {
            job.epoch = 0;
        }
        if !keep {
            job.attempts = 0;
        }
        job.lost_leases = 0;
        job.suspect = false;
        if let Some(more) = &mut job.more {
            // A cancellation that lost against the end of the last generation is not asked of this one.
            more.cancel_reason = None;
        }
        self.readmit(slot, now, WhyScheduled::Delay, now);
        Ok(())
    }

    pub(crate) fn run_now(&mut self, job: &JobRef, now: Timestamp) -> Result<()> {
        let slot = self.in_state(job, StateKind::Scheduled, "run now")?;
        self.readmit(slot, now, WhyScheduled::Delay, now);
        Ok(())
    }

    pub(crate) fn delete(&mut self, job: &JobRef, now: Timestamp) -> Result<()> {
        let slot = self.find(job).ok_or_else(|| not_found(job))?;
        let state = self.job(slot).state.kind();
        if !state.is_final() {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("cannot delete {job}: it is {}, cancel it first", state.as_str()),
            ));
        }
        self.prune(slot, now);
        Ok(())
    }

    pub(crate) fn set_paused(&mut self, queue: &QueueName, paused: bool) {
        let lane = self.open_lane(queue);
        self.lane(lane).paused = paused;
    }

    fn in_state(&self, job: &JobRef, wanted: StateKind, verb: &str) -> Result<Slot> {
        let slot = self.find(job).ok_or_else(|| not_found(job))?;
        let state = self.job(slot).state.kind();
        if state == wanted {
            return Ok(slot);
        }
        Err(Error::new(
            ErrorKind::WrongState,
            format!("cannot {verb} {job}: it is {}, not {}", state.as_str(), wanted.as_str()),
        ))
    }
}

fn not_found(job: &JobRef) -> Error {
    Error::new(ErrorKind::NotFound, format!("no job {job} is stored"))
}
