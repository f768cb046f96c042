//! Operators' verbs.

use windlass_core::limits::{TEXT_MAX_BYTES, clip};
use windlass_core::{Cancelling, Error, ErrorKind, JobRef, QueueName, StateKind, WhyScheduled};

use super::Store;
use super::ending::End;
use super::job::{Flags, Job, bits};
use crate::error::Step;

impl Store<'_> {
    pub(crate) async fn cancel(&mut self, job: &JobRef, reason: &str) -> Step<Cancelling> {
        let Some(before) = self.stored(job).await? else { return Ok(Cancelling::Missing) };
        let reason = clip(reason, TEXT_MAX_BYTES);
        match before.state {
            state if state.is_final() => Ok(Cancelling::AlreadyEnded(state)),
            StateKind::Running => {
                let mut job = before.clone();
                self.open_more(&mut job).await?;
                // The first reason stands.
                sqlx::query(
                    "update windlass_more set cancel_reason = coalesce(cancel_reason, ?2) where n = ?1",
                )
                .bind(job.n)
                .bind(reason)
                .execute(&mut *self.conn)
                .await?;
                job.flags.set(Flags::CANCEL, true);
                self.save(&before, &job).await?;
                sqlx::query("insert or ignore into windlass_control (session) values (?1)")
                    .bind(bits(job.session().as_u128()))
                    .execute(&mut *self.conn)
                    .await?;
                Ok(Cancelling::Requested)
            }
            _ => {
                self.end(&before, before.clone(), End::Cancelled { reason, superseded_by: None }).await?;
                Ok(Cancelling::Cancelled)
            }
        }
    }

    pub(crate) async fn revive(&mut self, job: &JobRef) -> Step<()> {
        let before = self.in_state(job, StateKind::Dead, "revive").await?;
        if let Some(unique) = self.unique_of(&before).await? {
            let key = self.key(before.q, &unique.key).await?;
            if let Some(key) = key.filter(|key| key.holder != before.id && !key.is_free(self.now)) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("cannot revive {job}: job {} holds its unique key", key.holder),
                )
                .into());
            }
            self.hold_key(&before, &unique).await?;
        }
        let mut alive = before.clone();
        alive.generation += 1;
        (alive.attempts, alive.lost) = (0, 0);
        alive.flags.set(Flags::SUSPECT | Flags::CANCEL, false);
        if alive.flags.has(Flags::MORE) {
            // A cancellation that lost against the end of the last generation is not asked of this one.
            sqlx::query("update windlass_more set cancel_reason = null where n = ?1")
                .bind(alive.n)
                .execute(&mut *self.conn)
                .await?;
        }
        let now = self.now;
        self.readmit(&before, alive, now, WhyScheduled::Delay).await?;
        Ok(())
    }

    pub(crate) async fn run_now(&mut self, job: &JobRef) -> Step<()> {
        let before = self.in_state(job, StateKind::Scheduled, "run now").await?;
        let now = self.now;
        self.readmit(&before, before.clone(), now, WhyScheduled::Delay).await?;
        Ok(())
    }

    pub(crate) async fn delete(&mut self, job: &JobRef) -> Step<()> {
        let stored = self.stored(job).await?.ok_or_else(|| not_found(job))?;
        if !stored.state.is_final() {
            return Err(Error::new(
                ErrorKind::WrongState,
                format!("cannot delete {job}: it is {}, cancel it first", stored.state.as_str()),
            )
            .into());
        }
        let lane = self.lane_of(&stored).await?;
        self.prune(lane, &stored).await
    }

    pub(crate) async fn pause(&mut self, queue: &QueueName, paused: bool) -> Step<()> {
        let lane = self.open_lane(queue).await?;
        sqlx::query("update windlass_queue set paused = ?2 where q = ?1")
            .bind(self.queue(lane).q)
            .bind(paused)
            .execute(&mut *self.conn)
            .await?;
        self.set_paused(lane, paused);
        Ok(())
    }

    async fn stored(&mut self, job: &JobRef) -> Step<Option<Job>> {
        match self.find(job).await? {
            Some(n) => self.load(n).await,
            None => Ok(None),
        }
    }

    async fn in_state(&mut self, job: &JobRef, wanted: StateKind, verb: &str) -> Step<Job> {
        let stored = self.stored(job).await?.ok_or_else(|| not_found(job))?;
        if stored.state == wanted {
            return Ok(stored);
        }
        Err(Error::new(
            ErrorKind::WrongState,
            format!("cannot {verb} {job}: it is {}, not {}", stored.state.as_str(), wanted.as_str()),
        )
        .into())
    }
}

fn not_found(job: &JobRef) -> Error {
    Error::new(ErrorKind::NotFound, format!("no job {job} is stored"))
}
