//! Push: a new job into storage.

use windlass_core::{
    Body, Error, ErrorKind, JobId, JobRef, NewJob, OnConflict, ParentFailure, Pushed, StateKind, Timestamp,
    WhyScheduled,
};

use super::Store;
use super::ending::{End, orphaned};
use super::job::{BLOCKED_BY_KEY, Flags, Job};
use super::queues::Lane;
use crate::error::Step;

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

fn missing_parent(parent: &JobRef) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "parent {parent} is not stored: dispatch it first, or earlier in the same batch; a finished job is kept \
             for its retention only"
        ),
    )
}

/// Whether nothing about a job needs a look at another.
pub(crate) fn is_plain(body: &Body) -> bool {
    body.extras.as_ref().is_none_or(|extras| {
        extras.unique.is_none()
            && extras.limit.is_none()
            && extras.parents.is_empty()
            && extras.deadline.is_none()
    })
}

impl Store<'_> {
    /// Pushes valid jobs in this order.
    pub(crate) async fn push(&mut self, jobs: &[NewJob]) -> Step<Vec<Pushed>> {
        self.check_parents(jobs).await?;
        let mut answers = Vec::with_capacity(jobs.len());
        let mut rest = jobs;
        while let Some(first) = rest.first() {
            // Plain jobs of one queue go in together.
            let plain = rest
                .iter()
                .take_while(|job| is_plain(&job.body) && job.body.queue == first.body.queue)
                .count();
            if plain > 0 {
                let (batch, after) = rest.split_at(plain);
                self.insert_plain(batch, &mut answers).await?;
                rest = after;
            } else {
                answers.push(self.push_one(first).await?);
                rest = &rest[1..];
            }
        }
        Ok(answers)
    }

    /// Refuses a batch that names a parent which is not there, before anything is written.
    async fn check_parents(&mut self, jobs: &[NewJob]) -> Step<()> {
        for (at, job) in jobs.iter().enumerate() {
            if job.body.parents().is_empty() || self.find(&job.body.job()).await?.is_some() {
                // A repeat changes nothing, and needs no parents any more.
                continue;
            }
            for parent in job.body.parents() {
                let earlier = jobs[..at]
                    .iter()
                    .any(|other| other.body.id == parent.id && other.body.queue == parent.queue);
                if !earlier && self.find(parent).await?.is_none() {
                    return Err(missing_parent(parent).into());
                }
            }
        }
        Ok(())
    }

    async fn plan(&mut self, lane: Lane, body: &Body) -> Step<Plan> {
        if self.find_in(lane, body.id).await?.is_some() {
            return Ok(Plan::Answer(Pushed::SameId));
        }
        let Some(unique) = body.unique() else { return Ok(Plan::Insert) };
        let q = self.queue(lane).q;
        let Some(key) = self.key(q, &unique.key).await?.filter(|key| !key.is_free(self.now)) else {
            return Ok(Plan::Insert);
        };
        let holder = match self.find_in(lane, key.holder).await? {
            Some(n) => self.load(n).await?.map(|job| job.state),
            None => None,
        };
        Ok(match (unique.on_conflict, key.next) {
            (OnConflict::Supersede, Some(next)) => Plan::SupersedeNext(next),
            (OnConflict::Supersede, None) if holder.is_some_and(StateKind::is_waiting) => {
                Plan::Supersede(key.holder)
            }
            (OnConflict::QueueOne, None) if holder == Some(StateKind::Running) => Plan::Queue,
            (OnConflict::QueueOne, Some(next)) => Plan::Answer(Pushed::Conflict(next)),
            _ => Plan::Answer(Pushed::Conflict(key.holder)),
        })
    }

    /// Pushes one valid job. A parent that is not stored counts as one that failed.
    pub(crate) async fn push_one(&mut self, job: &NewJob) -> Step<Pushed> {
        let body = &*job.body;
        let lane = self.open_lane(&body.queue).await?;
        let plan = self.plan(lane, body).await?;
        let answer = match plan {
            Plan::Answer(answer) => return Ok(answer),
            Plan::Insert | Plan::Queue => Pushed::Inserted,
            Plan::Supersede(old) | Plan::SupersedeNext(old) => Pushed::Superseded(old),
        };
        if let Pushed::Superseded(old) = answer
            && let Some(n) = self.find_in(lane, old).await?
            && let Some(old) = self.load(n).await?
        {
            let reason = format!("superseded by {}", body.id);
            let end = End::Cancelled { reason, superseded_by: Some(body.id) };
            self.end(&old.clone(), old, end).await?;
        }
        let due = job.due.resolve(self.now);
        let mut row = self.take_in(lane, body).await?;
        let failed = self.bind_parents(&mut row, body).await?;
        let before = row.clone();
        match (&plan, body.unique()) {
            (Plan::Queue | Plan::SupersedeNext(_), Some(unique)) => {
                self.set_due(&mut row, due).await?;
                self.set_next(row.q, &unique.key, Some(row.id)).await?;
                let sequence = self.next_number();
                (row.why, row.place) = (BLOCKED_BY_KEY, row.rank(sequence));
                self.save(&before, &row).await?;
            }
            (_, unique) => {
                if let Some(unique) = unique {
                    self.hold_key(&row, unique).await?;
                }
                self.admit(&mut row, due, WhyScheduled::Delay).await?;
                self.save(&before, &row).await?;
            }
        }
        if let Some(parent) = failed {
            self.end(&row.clone(), row, orphaned(parent)).await?;
        }
        Ok(answer)
    }

    /// Writes the row of a new job, Blocked until `push_one` says where it goes.
    async fn take_in(&mut self, lane: Lane, body: &Body) -> Step<Job> {
        let mut job = self.insert_blocked(lane, body).await?;
        let deadline = body.extras.as_ref().and_then(|extras| extras.deadline);
        if let Some(deadline) = deadline {
            let deadline: Timestamp = deadline.resolve(self.now);
            self.open_more(&mut job).await?;
            sqlx::query("update windlass_more set deadline = ?2 where n = ?1")
                .bind(job.n)
                .bind(deadline.as_millis())
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(job)
    }

    /// Counts the parents that a new job waits for. Returns one whose failure calls the job off.
    async fn bind_parents(&mut self, job: &mut Job, body: &Body) -> Step<Option<JobId>> {
        let policy = body.extras.as_ref().map_or(ParentFailure::Cancel, |extras| extras.on_parent_failure);
        let mut failed = None;
        let mut waits_for = Vec::new();
        for parent in body.parents() {
            let stored = match self.find(parent).await? {
                Some(n) => self.load(n).await?,
                None => None,
            };
            match stored.map(|parent| (parent.n, parent.state)) {
                Some((_, StateKind::Completed)) => {}
                None | Some((_, StateKind::Dead | StateKind::Cancelled))
                    if policy == ParentFailure::Ignore => {}
                Some((n, StateKind::Dead)) if policy == ParentFailure::Wait => waits_for.push(n),
                None | Some((_, StateKind::Dead | StateKind::Cancelled)) => failed = Some(parent.id),
                Some((n, _)) => waits_for.push(n),
            }
        }
        waits_for.sort_unstable();
        waits_for.dedup();
        if waits_for.is_empty() {
            return Ok(failed);
        }
        self.open_more(job).await?;
        job.flags.set(Flags::CHILD, true);
        sqlx::query("update windlass_more set parents_left = ?2 where n = ?1")
            .bind(job.n)
            .bind(i64::try_from(waits_for.len()).unwrap_or(i64::MAX))
            .execute(&mut *self.conn)
            .await?;
        for parent in waits_for {
            self.add_child(parent, job.n).await?;
            sqlx::query("update windlass_job set flags = flags | ?2 where n = ?1")
                .bind(parent)
                .bind(Flags::PARENT)
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(failed)
    }
}
