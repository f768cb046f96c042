//! What must be true of handlers: when they run, how long, how many at once, and what is said of them afterwards.

use std::time::Duration;

use windlass_core::{JobRef, Ruling, Timestamp, Verdict};

use super::Oracle;
use super::shadow::{Stand, word};
use crate::seat::CANCEL_GRACE;

/// One start of a handler.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) job: JobRef,
    pub(super) epoch: u64,
    pub(super) client: u32,
    pub(super) since: Timestamp,
    pub(super) said: Option<Said>,
    pub(super) told: Option<Timestamp>,
    pub(super) suspect: bool,
}

/// What a handler said as it returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Said {
    Done,
    Failed,
    Snoozed,
    GaveUp,
}

/// How late a timer may be noticed.
const SLACK: Duration = Duration::from_millis(5);

impl Oracle {
    /// A handler begins.
    pub(crate) fn begin(&mut self, client: u32, job: &JobRef, epoch: u64, payload: &[u8]) -> usize {
        let (run, now) = (self.runs.len(), self.now());
        self.note(&[30, client.into(), word(job.id), epoch], || {
            format!("client {client} starts {job} in epoch {epoch}")
        });
        let mut suspect = false;
        match self.jobs.get(&job.id) {
            None => self.broken("S2", || format!("{job} was started, and nobody dispatched it")),
            Some(shadow) => {
                suspect = shadow.suspect && shadow.epoch == epoch;
                let same = *shadow.body.payload == *payload;
                let claimed = shadow.epoch >= epoch;
                self.expect(same, "S2", || format!("{job} was started with another payload"));
                self.expect(claimed, "S5", || {
                    format!("{job} was started in epoch {epoch}, which was not given")
                });
            }
        }
        let again = self.run_of.insert((job.id, epoch), run).is_some();
        self.expect(!again, "S5", || format!("{job} was started twice in epoch {epoch}"));
        self.runs.push(Run { job: job.clone(), epoch, client, since: now, said: None, told: None, suspect });
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.active.insert(run);
            let (runs, most) = (peer.active.len(), peer.setup.as_ref().map_or(0, |setup| setup.concurrency));
            self.expect(runs <= most, "concurrency", || {
                format!("client {client} runs {runs} jobs at once, and may run {most}")
            });
        }
        self.within_lease(run, false);
        self.step(run);
        run
    }

    /// A handler is still at it: within its lease, and within the grace of a cancellation.
    pub(crate) fn step(&mut self, run: usize) {
        let now = self.now();
        let Some(Run { job, client, told, since, .. }) = self.runs.get(run) else { return };
        let (job, client, told, since) = (job.clone(), *client, *told, *since);
        let Some(peer) = self.peers.get(&client).filter(|peer| peer.alive) else { return };
        // One that stood still may take a step before it notices.
        let excused = now.since(peer.thawed) <= SLACK;
        self.within_lease(run, excused);
        let Some(shadow) = self.jobs.get(&job.id) else { return };
        let (limit, deadline) = (shadow.body.timeout.get(), shadow.deadline);
        let in_time = limit.is_none_or(|limit| now.since(since) <= limit + SLACK)
            && deadline.is_none_or(|deadline| now.since(deadline) <= SLACK);
        self.expect(excused || in_time, "time limit", || {
            format!("client {client} still runs {job}, which may take {limit:?} and until {deadline:?}")
        });
        let patience = CANCEL_GRACE + Duration::from_secs(1);
        let patient = told.is_none_or(|told| now.since(told) <= patience);
        self.expect(excused || patient, "S18", || {
            format!("client {client} still runs {job}, which is called off")
        });
    }

    /// S12: a handler runs within its lease only, by the engine's clock.
    pub(super) fn within_lease(&mut self, run: usize, excused: bool) {
        let now = self.now();
        let Some(Run { job, epoch, client, .. }) = self.runs.get(run) else { return };
        let (job, epoch, client) = (job.clone(), *epoch, *client);
        let Some(shadow) = self.jobs.get(&job.id) else { return };
        let until = match &shadow.stand {
            Stand::Running(hold) if shadow.epoch == epoch => hold.until,
            _ if shadow.epoch == epoch => shadow.last_until,
            _ => Timestamp::MIN,
        };
        self.expect(excused || now <= until, "S12", || {
            format!("client {client} runs {job} of epoch {epoch}, whose lease ended at {until}")
        });
    }

    pub(crate) fn said(&mut self, run: usize, said: Said) {
        if let Some(run) = self.runs.get_mut(run) {
            run.said = Some(said);
        }
    }

    /// A handler's future is gone: it returned, panicked, or was dropped.
    pub(crate) fn ended(&mut self, run: usize) {
        let Some(Run { job, epoch, client, said, .. }) = self.runs.get(run) else { return };
        let (job, epoch, client, said) = (job.clone(), *epoch, *client, *said);
        self.note(&[31, client.into(), word(job.id), epoch, said.map_or(9, |said| said as u64)], || {
            let said = said.map_or("is dropped".to_owned(), |said| format!("says {said:?}"));
            format!("client {client}: {job} of epoch {epoch} {said}")
        });
        if let Some(peer) = self.peers.get_mut(&client) {
            peer.active.remove(&run);
        }
    }

    /// A verdict is what its handler said.
    pub(super) fn verdict_applied(&mut self, client: u32, verdict: &Verdict) {
        let key = (verdict.lease.job.id, verdict.lease.epoch);
        let said = self.run_of.get(&key).map(|run| self.runs[*run].said);
        self.brings_what_it_wants(verdict);
        let (ruling, job) = (&verdict.ruling, &verdict.lease.job);
        let fits = match said {
            None => !matches!(ruling, Ruling::Complete { .. }),
            Some(None) => !matches!(ruling, Ruling::Complete { .. } | Ruling::Snooze { .. }),
            Some(Some(Said::Done)) => matches!(ruling, Ruling::Complete { .. }),
            Some(Some(Said::Failed)) => matches!(ruling, Ruling::Retry { .. } | Ruling::Bury { .. }),
            Some(Some(Said::Snoozed)) => matches!(ruling, Ruling::Snooze { .. }),
            Some(Some(Said::GaveUp)) => matches!(ruling, Ruling::Cancel { .. }),
        };
        self.expect(fits, "verdicts", || {
            format!("client {client} says {ruling:?} of {job}, whose handler said {said:?}")
        });
    }
}
