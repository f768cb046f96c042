//! Settle, extend, annotate: what a worker says about the jobs it holds. All of it passes the fence.

use std::time::Duration;

use windlass_core::limits::{BATCH_MAX, LOG_LINES_MAX, TEXT_MAX_BYTES, clip};
use windlass_core::{
    Failure, Held, Kept, Lease, LogLine, Nonce, Note, Ruling, SessionId, Settled, StateKind, Timestamp,
    Verdict, WhyScheduled,
};

use crate::mutant::Mutant;
use crate::store::{End, Line, Slot, State, Store, folded};

impl Store {
    pub(crate) fn settle(&mut self, verdicts: &[Verdict], now: Timestamp) -> Vec<Settled> {
        verdicts.iter().map(|verdict| self.settle_one(verdict, now)).collect()
    }

    fn settle_one(&mut self, verdict: &Verdict, now: Timestamp) -> Settled {
        if self.mutated(Mutant::ThenBeforeFence) {
            for job in &verdict.then {
                self.push_one(job, now);
            }
        }
        let Some(slot) = self.fenced(&verdict.lease) else {
            let answer = self.refused(&verdict.lease);
            if answer == Settled::AlreadyApplied
                && self.mutated(Mutant::AppliedTwice)
                && let Some(slot) = self.find(&verdict.lease.job)
            {
                self.job_mut(slot).attempts += 1;
            }
            return answer;
        };
        // First, since the job may be forgotten as it ends.
        self.job_mut(slot).settled_by = Some(folded(&verdict.lease));
        let state = self.apply(slot, &verdict.ruling, now);
        let forgetful = self.mutated(Mutant::ThenForgotten);
        for job in verdict.then.iter().filter(|_| !forgetful) {
            self.push_one(job, now);
        }
        Settled::Applied(state)
    }

    /// Tells a repeat of a verdict that was applied from one whose lease is lost.
    pub(crate) fn refused(&self, lease: &Lease) -> Settled {
        let Some(slot) = self.find(&lease.job) else { return Settled::LeaseLost };
        let job = self.job(slot);
        let runs = job.state.kind() == StateKind::Running;
        if !runs && job.epoch == lease.epoch && job.settled_by == Some(folded(lease)) {
            Settled::AlreadyApplied
        } else {
            Settled::LeaseLost
        }
    }

    fn apply(&mut self, slot: Slot, ruling: &Ruling, now: Timestamp) -> StateKind {
        let counts = match ruling {
            Ruling::Release => self.mutated(Mutant::ReleaseCounts),
            Ruling::Snooze { .. } => self.mutated(Mutant::SnoozeCounts),
            _ => true,
        };
        let job = self.job_mut(slot);
        if !matches!(ruling, Ruling::Release) {
            job.suspect = false;
        }
        if counts {
            job.attempts = job.attempts.saturating_add(1);
        }
        match ruling {
            Ruling::Complete { output } => self.finish(slot, End::Completed { output: output.clone() }, now),
            Ruling::Cancel { reason } => {
                let reason = clip(reason, TEXT_MAX_BYTES);
                self.finish(slot, End::Cancelled { reason, superseded_by: None }, now)
            }
            Ruling::Bury { error, reason } => {
                self.note_error(slot, error);
                self.finish(slot, End::Dead { reason: *reason }, now)
            }
            Ruling::Retry { after, error } => {
                self.note_error(slot, error);
                self.come_back(slot, *after, WhyScheduled::Retry, now)
            }
            Ruling::Snooze { after } => self.come_back(slot, *after, WhyScheduled::Snooze, now),
            Ruling::Release => self.release(slot, now),
        }
    }

    fn finish(&mut self, slot: Slot, end: End, now: Timestamp) -> StateKind {
        let kind = end.kind();
        self.end(slot, end, now);
        kind
    }

    fn note_error(&mut self, slot: Slot, error: &Failure) {
        self.job_mut(slot).more().last_error = Some(error.clone());
    }

    /// The end of a job whose cancellation somebody asked for while it ran, unless its own outcome won.
    fn called_off(&mut self, slot: Slot) -> Option<End> {
        if self.mutated(Mutant::CancelIgnored) {
            return None;
        }
        let reason = self.job_mut(slot).more.as_mut()?.cancel_reason.take()?;
        Some(End::Cancelled { reason, superseded_by: None })
    }

    fn come_back(&mut self, slot: Slot, after: Duration, why: WhyScheduled, now: Timestamp) -> StateKind {
        if let Some(end) = self.called_off(slot) {
            return self.finish(slot, end, now);
        }
        if self.mutated(Mutant::PlaceFreedEarly) {
            self.give_back_place(slot);
        }
        self.readmit(slot, now.saturating_add(after), why, now);
        self.job(slot).state.kind()
    }

    /// Ready at once at its old place; it keeps the place it holds under a limit.
    fn release(&mut self, slot: Slot, now: Timestamp) -> StateKind {
        if let Some(end) = self.called_off(slot) {
            return self.finish(slot, end, now);
        }
        self.back_in_line(slot);
        StateKind::Ready
    }

    pub(crate) fn hand_back(&mut self, session: SessionId, nonce: Option<Nonce>, now: Timestamp) -> usize {
        let wanted = |slot: &Slot, store: &Self| match &store.job(*slot).state {
            State::Running(run) => {
                (run.session == session || store.mutated(Mutant::HandsBackOthers))
                    && nonce.is_none_or(|nonce| nonce == run.nonce)
            }
            _ => false,
        };
        let slots: Vec<Slot> = self
            .lanes
            .iter()
            .flat_map(|lane| lane.leases.iter().map(|(_, slot)| *slot))
            .filter(|slot| wanted(slot, self))
            .take(BATCH_MAX)
            .collect();
        for slot in &slots {
            self.release(*slot, now);
        }
        slots.len()
    }

    /// Running to Ready, at the place in line it was claimed from.
    fn back_in_line(&mut self, slot: Slot) {
        let job = self.job(slot);
        let State::Running(run) = &job.state else { return };
        let (rank, line) = (run.rank, if job.suspect { Line::Suspects } else { Line::Main });
        self.leave(slot);
        self.enter(slot, State::Ready { rank, line });
    }

    /// Takes back a lease that has expired.
    pub(crate) fn reclaim(&mut self, slot: Slot, now: Timestamp) -> StateKind {
        if let Some(end) = self.called_off(slot) {
            return self.finish(slot, end, now);
        }
        if self.mutated(Mutant::SweepDrops) {
            self.leave(slot);
            self.forget(slot);
            return StateKind::Ready;
        }
        let (all, none) = (self.mutated(Mutant::AheadCounts), self.mutated(Mutant::LossNotCounted));
        let immune = self.mutated(Mutant::PoisonIgnored);
        let job = self.job_mut(slot);
        if matches!(&job.state, State::Running(run) if (run.started || all) && !none) {
            job.lost_leases += 1;
        }
        if job.lost_leases >= windlass_core::limits::LOST_LEASES_MAX && !immune {
            return self.finish(slot, End::Dead { reason: windlass_core::DeadReason::Poison }, now);
        }
        job.suspect = true;
        self.back_in_line(slot);
        StateKind::Ready
    }

    pub(crate) fn extend(
        &mut self,
        session: SessionId,
        held: &[Held],
        lease: Duration,
        now: Timestamp,
    ) -> Vec<Kept> {
        self.control.remove(&session);
        held.iter().map(|held| self.extend_one(session, held, lease, now)).collect()
    }

    fn extend_one(&mut self, session: SessionId, held: &Held, lease: Duration, now: Timestamp) -> Kept {
        let Some(slot) = self.fenced(&held.lease) else {
            if self.mutated(Mutant::ExtendRevives) && self.find(&held.lease.job).is_some() {
                return Kept::Kept;
            }
            return Kept::Lost;
        };
        let silent = self.mutated(Mutant::CancelUntold);
        let job = &mut self.jobs[slot as usize];
        let State::Running(run) = &mut job.state else { return Kept::Lost };
        if run.session != session {
            return Kept::Lost;
        }
        let leases = &mut self.lanes[job.lane as usize].leases;
        leases.remove(&(run.until, slot));
        run.until = run.until.max(now.saturating_add(lease));
        run.started |= held.started;
        leases.insert((run.until, slot));
        if job.cancel_requested() && !silent { Kept::CancelRequested } else { Kept::Kept }
    }

    pub(crate) fn annotate(&mut self, notes: &[Note], now: Timestamp) -> Vec<bool> {
        notes.iter().map(|note| self.annotate_one(note, now)).collect()
    }

    fn annotate_one(&mut self, note: &Note, now: Timestamp) -> bool {
        let loose = self.mutated(Mutant::NoteUnfenced);
        let slot = self.fenced(&note.lease).or_else(|| loose.then(|| self.find(&note.lease.job)).flatten());
        let Some(slot) = slot else { return false };
        let more = self.job_mut(slot).more();
        if let Some(progress) = &note.progress {
            more.progress = Some(progress.clone());
        }
        more.log.extend(note.log.iter().map(|text| LogLine { at: now, text: text.clone() }));
        let surplus = more.log.len().saturating_sub(LOG_LINES_MAX);
        more.log.drain(..surplus);
        true
    }
}
