//! What a job was told to do, and whether its end is one that this can lead to.

use serde::Deserialize;
use windlass_core::{Body, DeadReason, RecordState, Ruling, Verdict};

use super::Oracle;
use super::shadow::Shadow;
use crate::jobs::Deed;

/// The payload of either kind, read without the library.
#[derive(Deserialize)]
struct Script {
    #[serde(alias = "what")]
    deed: Deed,
}

/// What the job is told to do; `None` when nobody can read it.
pub(super) fn deed(body: &Body) -> Option<Deed> {
    serde_json::from_slice::<Script>(&body.payload).ok().map(|script| script.deed)
}

impl Shadow {
    /// How many jobs this run leaves behind when it completes.
    fn wants(&self) -> usize {
        match self.deed {
            Some(Deed::Then(count)) => count.into(),
            _ => 0,
        }
    }

    /// Whether an attempt may fail that is not told to: it is stopped, takes too long, or the engine fails it.
    fn may_fail(&self) -> bool {
        matches!(self.deed, Some(Deed::Long(..) | Deed::Deaf(..) | Deed::Log(_)))
    }

    /// Whether it is told to fail as often as it may try.
    fn must_fail(&self) -> bool {
        matches!(self.deed, Some(Deed::Fail(times) | Deed::Panic(times)) if times >= self.body.max_attempts)
    }

    /// Whether its script can lead to this end.
    fn can_end(&self, state: &RecordState) -> bool {
        match state {
            RecordState::Completed { .. } => match self.deed {
                None | Some(Deed::Bury | Deed::GiveUp | Deed::Poison) => false,
                _ => !self.must_fail(),
            },
            RecordState::Cancelled { reason, superseded_by, .. } => {
                superseded_by.is_some()
                    || reason.starts_with("its parent")
                    || self.called_off
                    || self.deadline.is_some()
                    || self.deed == Some(Deed::GiveUp)
            }
            RecordState::Dead { reason, .. } => match reason {
                DeadReason::Undecodable => self.deed.is_none(),
                DeadReason::Buried => self.deed == Some(Deed::Bury),
                DeadReason::Poison => self.lost >= windlass_core::limits::LOST_LEASES_MAX,
                DeadReason::AttemptsExhausted => {
                    self.attempts >= self.body.max_attempts && (self.must_fail() || self.may_fail())
                }
                _ => false,
            },
            _ => true,
        }
    }
}

impl Oracle {
    /// A completion brings what its handler wanted then, and nothing else does.
    pub(super) fn brings_what_it_wants(&mut self, verdict: &Verdict) {
        let Some(shadow) = self.jobs.get(&verdict.lease.job.id) else { return };
        let wants = if matches!(verdict.ruling, Ruling::Complete { .. }) { shadow.wants() } else { 0 };
        let brings = verdict.then.len();
        self.expect(brings == wants, "then", || {
            format!("the verdict on {} brings {brings} jobs, not {wants}", verdict.lease.job)
        });
    }

    /// S8 and S20: each job that has ended has done so in a way that its script can lead to.
    pub(crate) fn ended_as_told(&mut self) {
        let wrong = self.jobs.values().find_map(|shadow| {
            let state = self.engine.peek(&shadow.job)?.state;
            (!shadow.can_end(&state)).then(|| (shadow.job.clone(), shadow.deed.clone(), state))
        });
        if let Some((job, deed, state)) = wrong {
            self.broken("S8", || format!("{job} was told {deed:?}, and is {state:?}"));
        }
    }
}
