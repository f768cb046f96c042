//! What must be true of a claim: what is handed out stood Ready, in order, within its limits, to somebody who can run it.

use windlass_core::{Claim, Claimed, ClaimedJob, JobId, ParentFailure, StateKind};

use super::Oracle;
use super::shadow::{Hold, Shadow, Stand, word};

impl Oracle {
    pub(crate) fn claimed(&mut self, client: u32, claim: &Claim, claimed: &Claimed) {
        self.owner(client, claim.session);
        self.note(&[2, client.into(), claimed.jobs.len() as u64, u64::from(claimed.more)], || {
            let Claim { limit, ahead, suspects, queues, .. } = claim;
            let names: Vec<_> = queues.iter().map(ToString::to_string).collect();
            format!(
                "client {client} claims {limit}+{ahead} of {} (suspects: {suspects}): {} jobs",
                names.join(","),
                claimed.jobs.len()
            )
        });
        let most = claim.limit + claim.ahead;
        let given = claimed.jobs.len();
        self.expect(given <= most, "S16", || format!("{given} jobs for a claim of {most}"));
        let suspects = claimed.jobs.iter().filter(|job| job.suspect).count();
        self.expect(suspects <= usize::from(claim.suspects), "S19", || {
            format!("{suspects} suspects in one claim that may have {}", u32::from(claim.suspects))
        });
        for job in &claimed.jobs {
            self.takes_job(client, claim, job);
        }
        for job in &claimed.jobs {
            self.look(job.body.id);
        }
        self.step_taken();
    }

    pub(super) fn takes_job(&mut self, client: u32, claim: &Claim, job: &ClaimedJob) {
        let (id, now, epoch) = (job.body.id, self.now(), job.lease.epoch);
        self.note(&[3, word(id), epoch, u64::from(job.suspect)], || {
            let suspect = if job.suspect { ", a suspect" } else { "" };
            format!("  client {client} gets {} in epoch {epoch}{suspect}", job.lease.job)
        });
        if !self.jobs.contains_key(&id) {
            return self.broken("S2", || format!("{} was claimed, and nobody dispatched it", job.lease.job));
        }
        // What called it off since the last look (a parent, a successor) shows in no record any more: it runs.
        let Some(shadow) = self.jobs.get(&id).cloned() else { return };
        self.expect(*job.body == *shadow.body, "S2", || format!("{} is not what was dispatched", shadow.job));
        let known = claim.kinds.can_run(&job.body.kind, job.body.min_reader);
        self.expect(known, "S20", || {
            format!("client {client} got {}, of a kind or version it does not know", shadow.job)
        });
        self.expect(epoch > shadow.epoch, "S5", || {
            format!("{} was claimed in epoch {epoch} after {}", shadow.job, shadow.epoch)
        });
        self.expect(job.lease.nonce == claim.nonce, "S5", || format!("{} has a foreign nonce", shadow.job));
        self.stood_ready(&shadow);
        let counts = (job.attempts, job.lost_leases, job.generation, job.suspect);
        let want = (shadow.attempts, shadow.lost, shadow.generation, shadow.suspect);
        self.expect(counts == want, "S21", || {
            format!(
                "{} comes with (attempts, lost, generation, suspect) {counts:?}, not {want:?}",
                shadow.job
            )
        });
        self.in_order(&shadow);
        let hold = Hold {
            lease: job.lease.clone(),
            session: claim.session,
            client,
            until: now.saturating_add(claim.lease),
            lasts: claim.lease,
            started: !job.ahead,
            delivered: false,
        };
        self.past.push(job.lease.clone());
        if let Some(shadow) = self.shadow(id) {
            shadow.epoch = epoch;
        }
        self.stand(id, Stand::Running(hold));
        self.within_limit(&shadow);
    }

    /// Whether a job that was claimed could be: S6, S8, S17, S18, its due time, its parents.
    pub(super) fn stood_ready(&mut self, shadow: &Shadow) {
        let (now, job) = (self.now(), &shadow.job);
        match &shadow.stand {
            Stand::Waiting => {}
            Stand::Running(hold) => {
                let check = if hold.until > now { "S6" } else { "S9" };
                self.broken(check, || format!("{job} was claimed while client {} has it", hold.client));
            }
            Stand::Ended(kind, _) => {
                let check = if *kind == StateKind::Cancelled { "S18" } else { "S8" };
                self.broken(check, || {
                    format!("{job} was claimed although it had ended as {}", kind.as_str())
                });
            }
        }
        let paused = self.paused.contains(&job.queue);
        self.expect(!paused, "S17", || format!("{job} was claimed from a paused queue"));
        self.expect(shadow.due <= now, "S15", || {
            format!("{job} was claimed at {now}, due at {}", shadow.due)
        });
        let policy = shadow.body.extras.as_ref().map(|extras| extras.on_parent_failure);
        for parent in shadow.body.parents() {
            self.called_off(parent.id);
            let stand = self.jobs.get(&parent.id).map(|parent| parent.stand.clone());
            let ready = match stand {
                Some(Stand::Ended(StateKind::Completed, _)) => true,
                Some(Stand::Ended(..)) => policy == Some(ParentFailure::Ignore),
                // A parent that was revived after it had completed or was ignored is none of ours.
                Some(_) => self.jobs.get(&parent.id).is_some_and(|parent| parent.generation > 0),
                None => false,
            };
            self.expect(ready, "parents", || {
                format!("{job} was claimed before its parent {parent} was done")
            });
        }
    }

    pub(super) fn within_limit(&mut self, shadow: &Shadow) {
        let Some(limit) = shadow.body.limit() else { return };
        let key = (shadow.job.queue.clone(), limit.key.clone());
        let runs = |id: &&JobId| self.running.contains(id);
        let running = self.by_limit.get(&key).map_or(0, |ids| ids.iter().filter(runs).count());
        self.expect(running <= limit.at_most as usize, "S16", || {
            format!("{running} jobs run under the limit {:?} of {}", limit.key, limit.at_most)
        });
    }

    /// S15: a plain job that is claimed for the first time stands before all others of its sort. It holds with any number
    /// of workers, since a claim is one step.
    pub(super) fn in_order(&mut self, shadow: &Shadow) {
        if !shadow.plain || shadow.epoch > 0 {
            return;
        }
        let now = self.now();
        let Some(fresh) = self.fresh.get(&shadow.job.queue) else { return };
        let at_once = |shadow: &Shadow| shadow.due <= shadow.created;
        let place = |shadow: &Shadow| {
            let due = if at_once(shadow) { shadow.created } else { shadow.due };
            (due, shadow.order)
        };
        let passed_over = fresh.iter().filter_map(|id| self.jobs.get(id)).find(|other| {
            let higher = other.body.priority > shadow.body.priority && other.due <= now;
            let level = other.body.priority == shadow.body.priority;
            let earlier = at_once(other) == at_once(shadow) && place(other) < place(shadow);
            other.job != shadow.job && (higher || (level && earlier))
        });
        if let Some(other) = passed_over.map(|other| other.job.clone()) {
            self.broken("S15", || format!("{} was claimed before {other}", shadow.job));
        }
    }
}
