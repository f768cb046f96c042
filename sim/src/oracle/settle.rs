//! What must be true of a settle: the fence, one outcome a lease, and what comes then.

use windlass_core::{Claimed, JobId, Lease, Record, Ruling, Settled, StateKind, Verdict};

use super::Oracle;
use super::shadow::{Stand, word};

impl Oracle {
    /// Whether a lease stands.
    pub(super) fn stands(&self, lease: &Lease) -> bool {
        self.jobs.get(&lease.job.id).is_some_and(|shadow| match &shadow.stand {
            Stand::Running(hold) => hold.lease.epoch == lease.epoch && hold.lease.nonce == lease.nonce,
            _ => false,
        })
    }

    /// The records of jobs whose lease does not stand: a verdict on them must change nothing.
    pub(crate) fn before_settle(&self, verdicts: &[Verdict]) -> Vec<(JobId, Option<Record>)> {
        let stale = verdicts.iter().filter(|verdict| !self.stands(&verdict.lease));
        stale.map(|verdict| verdict.lease.job.id).map(|id| (id, self.peek(id))).collect()
    }

    pub(crate) fn settled(
        &mut self,
        client: u32,
        verdicts: &[Verdict],
        settled: &[Settled],
        before: Vec<(JobId, Option<Record>)>,
        claimed: Option<&Claimed>,
    ) {
        for (verdict, settled) in verdicts.iter().zip(settled) {
            self.settles_one(client, verdict, *settled);
        }
        let touched = |id: JobId| {
            let applied = verdicts.iter().zip(settled);
            let applied = applied.filter(|(_, settled)| matches!(settled, Settled::Applied(_)));
            let again = claimed.is_some_and(|claimed| claimed.jobs.iter().any(|job| job.body.id == id));
            again || applied.map(|(verdict, _)| verdict.lease.job.id).any(|applied| applied == id)
        };
        for (id, before) in before {
            // A blocked job may be let in by another verdict of the batch.
            let blocked = before.as_ref().is_some_and(|before| before.state.kind() == StateKind::Blocked);
            if !blocked && !touched(id) {
                let mut after = self.peek(id);
                if let (Some(before), Some(after), Some(_)) = (&before, &mut after, claimed)
                    && before.state.kind().is_waiting()
                    && after.state.kind().is_waiting()
                {
                    // The claim makes what is due ready.
                    after.state = before.state.clone();
                }
                self.expect(before == after, "S7", || {
                    format!("a stale verdict changed {id}: from {before:?} to {after:?}")
                });
            }
        }
        if claimed.is_none() {
            for verdict in verdicts {
                self.look(verdict.lease.job.id);
            }
            self.step_taken();
        }
    }

    pub(super) fn settles_one(&mut self, client: u32, verdict: &Verdict, settled: Settled) {
        let (lease, now) = (&verdict.lease, self.now());
        let id = lease.job.id;
        let code = match settled {
            Settled::Applied(kind) => kind as u64,
            Settled::AlreadyApplied => 8,
            Settled::LeaseLost => 9,
        };
        self.note(&[4, client.into(), word(id), lease.epoch, code], || {
            format!(
                "client {client} settles {} of epoch {}: {} is {settled:?}",
                lease.job,
                lease.epoch,
                short(&verdict.ruling)
            )
        });
        let stands = self.stands(lease);
        let Some(shadow) = self.jobs.get(&id).cloned() else { return };
        if !stands {
            let refused = !matches!(settled, Settled::Applied(_));
            self.expect(refused, "S7", || format!("a stale verdict on {} was applied", lease.job));
            let repeat = shadow.settled_by == Some((lease.epoch, lease.nonce)) && shadow.epoch == lease.epoch;
            let want = if repeat { Settled::AlreadyApplied } else { Settled::LeaseLost };
            self.expect(settled == want || !refused, "S7", || {
                format!("a stale verdict on {} is {settled:?}, not {want:?}", lease.job)
            });
            return self.then_is(verdict, false);
        }
        self.verdict_applied(client, verdict);
        let called_off = shadow.cancel;
        let (kind, wait) = match &verdict.ruling {
            Ruling::Complete { .. } => (StateKind::Completed, None),
            Ruling::Cancel { .. } => (StateKind::Cancelled, None),
            Ruling::Bury { .. } => (StateKind::Dead, None),
            _ if called_off => (StateKind::Cancelled, None),
            Ruling::Retry { after, .. } | Ruling::Snooze { after } => (StateKind::Scheduled, Some(*after)),
            Ruling::Release => (StateKind::Ready, None),
        };
        let waits = wait.is_some_and(|wait| wait.is_zero());
        let is = match settled {
            Settled::Applied(is) if is == kind => true,
            Settled::Applied(is) => waits && is.is_waiting(),
            _ => false,
        };
        let check = if called_off { "S18" } else { "S8" };
        self.expect(is, check, || {
            format!("a verdict on {} is {settled:?}, not {}", lease.job, kind.as_str())
        });
        let counts = !matches!(verdict.ruling, Ruling::Release | Ruling::Snooze { .. });
        let release = matches!(verdict.ruling, Ruling::Release);
        if let Some(shadow) = self.shadow(id) {
            shadow.settled_by = Some((lease.epoch, lease.nonce));
            shadow.attempts += u16::from(counts);
            shadow.suspect &= release;
            if !release {
                shadow.lost_at_once = 0;
            }
            if kind == StateKind::Cancelled {
                shadow.cancel = false;
            }
            if let Some(wait) = wait {
                shadow.due = now.saturating_add(wait);
            }
        }
        let ended = matches!(kind, StateKind::Completed | StateKind::Cancelled | StateKind::Dead);
        self.stand(id, if ended { Stand::Ended(kind, now) } else { Stand::Waiting });
        self.then_is(verdict, true);
    }

    /// `then` jobs exist if and only if their verdict was applied.
    pub(super) fn then_is(&mut self, verdict: &Verdict, applied: bool) {
        let now = self.now();
        for job in &verdict.then {
            let (id, known) = (job.body.id, self.jobs.contains_key(&job.body.id));
            let stored = self.engine.peek(&job.body.job()).is_some();
            // A repeat finds them, and a verdict that was never applied brings nothing.
            self.expect(stored == (applied || known), "then", || {
                let (is, was) = if stored { ("exists", "refused") } else { ("is missing", "applied") };
                format!("{} {is} although the verdict on {} was {was}", job.body.job(), verdict.lease.job)
            });
            if stored && !known {
                self.insert(&job.body, job.due.resolve(now));
                self.acknowledged.insert(id);
            }
        }
    }
}

fn short(ruling: &Ruling) -> String {
    match ruling {
        Ruling::Complete { .. } => "complete".to_owned(),
        Ruling::Retry { after, .. } => format!("retry after {after:?}"),
        Ruling::Snooze { after } => format!("snooze for {after:?}"),
        Ruling::Cancel { .. } => "cancel".to_owned(),
        Ruling::Bury { .. } => "bury".to_owned(),
        Ruling::Release => "release".to_owned(),
    }
}
