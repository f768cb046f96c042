//! What must be true of a lease while it lasts, when it is handed back, and when it is lost.

use std::time::Duration;

use windlass_core::limits::{BATCH_MAX, LOST_LEASES_MAX};
use windlass_core::{
    DeadReason, Held, JobId, Kept, Nonce, Note, Record, RecordState, SessionId, StateKind, Swept,
};

use super::Oracle;
use super::shadow::{Stand, word};

impl Oracle {
    pub(crate) fn extended(
        &mut self,
        client: u32,
        session: SessionId,
        held: &[Held],
        lasts: Duration,
        kept: &[Kept],
    ) {
        let now = self.now();
        for (held, kept) in held.iter().zip(kept) {
            let (lease, id) = (&held.lease, held.lease.job.id);
            let stands = self.stands(lease);
            let until = now.saturating_add(lasts);
            self.note(&[5, client.into(), word(id), lease.epoch, *kept as u64], || {
                format!("client {client} extends {} of epoch {}: {kept:?}", lease.job, lease.epoch)
            });
            let Some(shadow) = self.jobs.get_mut(&id) else { continue };
            let cancel = shadow.cancel;
            let mut own = false;
            if stands && let Stand::Running(hold) = &mut shadow.stand {
                own = hold.session == session;
                if own {
                    hold.until = hold.until.max(until);
                    hold.started |= held.started;
                    shadow.last_until = hold.until;
                }
            }
            let want = match (stands && own, cancel) {
                (false, _) => Kept::Lost,
                (true, true) => Kept::CancelRequested,
                (true, false) => Kept::Kept,
            };
            let check = if stands && own { "S18" } else { "S7" };
            self.expect(*kept == want, check, || {
                format!("an extend of {} says {kept:?}, not {want:?}", lease.job)
            });
        }
        // Only now: a beat may name an old lease of a job beside its present one.
        for held in held {
            self.look(held.lease.job.id);
        }
        self.step_taken();
    }

    pub(crate) fn handed_back(
        &mut self,
        client: u32,
        session: SessionId,
        nonce: Option<Nonce>,
        handed: usize,
    ) {
        let now = self.now();
        self.note(&[6, client.into(), handed as u64], || {
            format!(
                "client {client} hands back {handed} ({})",
                if nonce.is_some() { "one claim" } else { "all" }
            )
        });
        let ids: Vec<JobId> = self
            .running
            .iter()
            .filter(|id| {
                self.jobs.get(id).is_some_and(|shadow| match &shadow.stand {
                    Stand::Running(hold) => {
                        hold.session == session && nonce.is_none_or(|nonce| nonce == hold.lease.nonce)
                    }
                    _ => false,
                })
            })
            .copied()
            .collect();
        let want = ids.len().min(BATCH_MAX);
        self.expect(handed == want, "S7", || format!("{handed} jobs were handed back, not {want}"));
        for id in ids {
            self.comes_back(id, now);
            self.look(id);
        }
        let held: Vec<JobId> = self.running.iter().copied().collect();
        for id in held {
            self.look(id);
        }
        self.step_taken();
    }

    /// Running to Ready, or Cancelled when somebody had asked for it.
    pub(super) fn comes_back(&mut self, id: JobId, now: windlass_core::Timestamp) {
        let Some(shadow) = self.shadow(id) else { return };
        let called_off = std::mem::take(&mut shadow.cancel);
        let stand = if called_off { Stand::Ended(StateKind::Cancelled, now) } else { Stand::Waiting };
        self.stand(id, stand);
    }

    pub(crate) fn before_annotate(&self, notes: &[Note]) -> Vec<Option<Record>> {
        notes.iter().map(|note| self.peek(note.lease.job.id)).collect()
    }

    pub(crate) fn annotated(
        &mut self,
        client: u32,
        notes: &[Note],
        taken: &[bool],
        before: Vec<Option<Record>>,
    ) {
        for ((note, taken), before) in notes.iter().zip(taken).zip(before) {
            let (lease, stands) = (&note.lease, self.stands(&note.lease));
            self.note(&[7, client.into(), word(lease.job.id), u64::from(*taken)], || {
                format!("client {client} annotates {}: {taken}", lease.job)
            });
            self.expect(*taken == stands, "S7", || {
                format!("a note on {} is {taken}, not {stands}", lease.job)
            });
            let after = self.peek(lease.job.id);
            self.expect(stands || before == after, "S7", || format!("a stale note changed {}", lease.job));
        }
        self.step_taken();
    }

    pub(crate) fn swept(&mut self, client: u32, swept: Swept) {
        let now = self.now();
        let expired: Vec<JobId> = self
            .running
            .iter()
            .filter(|id| {
                let stand = self.jobs.get(id).map(|shadow| &shadow.stand);
                matches!(stand, Some(Stand::Running(hold)) if hold.until <= now)
            })
            .copied()
            .collect();
        let took = swept.reclaimed + swept.cancelled + swept.buried;
        if took + swept.promoted > 0 {
            self.note(&[8, client.into(), took, swept.promoted], || {
                format!("client {client} sweeps: {swept:?}")
            });
        }
        for id in &expired {
            self.loses_lease(*id);
        }
        let want = expired.len() as u64;
        // Also those that must not have been taken.
        let held: Vec<JobId> = self.running.iter().chain(&expired).copied().collect();
        for id in held {
            self.look(id);
        }
        self.expect(took == want, "S9", || {
            format!("a sweep took {took} leases back, and {want} had expired")
        });
        self.step_taken();
    }

    pub(super) fn loses_lease(&mut self, id: JobId) {
        let now = self.now();
        let Some(Stand::Running(hold)) = self.jobs.get(&id).map(|shadow| shadow.stand.clone()) else {
            return;
        };
        self.could_lapse(&hold);
        if let Some(healed) = self.healed
            && hold.until > healed
        {
            // Every seat sweeps once in three seconds, calls take no time now, and an empty seat is taken within three.
            let late = now.since(hold.until);
            self.expect(late <= Duration::from_secs(8), "L2", || {
                format!("{} was taken back {late:?} after the end of its lease", hold.lease.job)
            });
        }
        let Some(shadow) = self.shadow(id) else { return };
        if shadow.cancel {
            return self.comes_back(id, now);
        }
        shadow.lost += u16::from(hold.started);
        shadow.lost_at_once += u16::from(hold.started);
        shadow.most_lost_at_once = shadow.most_lost_at_once.max(shadow.lost_at_once);
        let poison = shadow.lost >= LOST_LEASES_MAX;
        if !poison {
            shadow.suspect = true;
        }
        let stand = if poison { Stand::Ended(StateKind::Dead, now) } else { Stand::Waiting };
        self.note(&[9, word(id)], || {
            format!("  {} lost its lease of client {}", hold.lease.job, hold.client)
        });
        self.stand(id, stand);
        if poison {
            let record = self.peek(id);
            let right = matches!(
                record.map(|record| record.state),
                Some(RecordState::Dead { reason: DeadReason::Poison, .. })
            );
            self.expect(right, "S19", || {
                format!("{} lost its lease three times, and goes on", hold.lease.job)
            });
        }
    }
}
