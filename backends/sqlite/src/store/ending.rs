//! The end of a job, and all that its end sets free in the same step: the place under a limit, the unique key, the
//! children; and forgetting old ends.

use sqlx::Row as _;
use windlass_core::{DeadReason, JobId, Keep, ParentFailure, StateKind, Timestamp, Unique, Until};

use super::Store;
use super::job::{BLOCKED_BY_LIMIT, BLOCKED_BY_PARENTS, Flags, Job, dead_number, id_of};
use super::queues::Lane;
use crate::error::Step;

/// How a job ends.
#[derive(Clone, Debug)]
pub(crate) enum End {
    Completed { output: Option<Box<[u8]>> },
    Cancelled { reason: String, superseded_by: Option<JobId> },
    Dead { reason: DeadReason },
}

impl End {
    fn state(&self) -> StateKind {
        match self {
            Self::Completed { .. } => StateKind::Completed,
            Self::Cancelled { .. } => StateKind::Cancelled,
            Self::Dead { .. } => StateKind::Dead,
        }
    }
}

/// The end of a job whose parent will not complete.
pub(crate) fn orphaned(parent: JobId) -> End {
    End::Cancelled { reason: format!("its parent {parent} did not complete"), superseded_by: None }
}

/// A unique key in use.
pub(crate) struct Key {
    pub(crate) holder: JobId,
    /// For a window: when the key is free again, whatever became of the holder.
    pub(crate) until: Option<Timestamp>,
    /// The one job that waits for the holder's end.
    pub(crate) next: Option<JobId>,
}

impl Key {
    /// Whether the window has ended. Not under one that waits behind: it is to be let in at the holder's end.
    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        self.next.is_none() && self.until.is_some_and(|until| until <= now)
    }
}

impl Store<'_> {
    /// Ends a job, whatever state it is in, and those that its end calls off. `before` is its row as it is stored, `job`
    /// the row with what else has changed.
    pub(crate) async fn end(&mut self, before: &Job, job: Job, end: End) -> Step<StateKind> {
        let state = end.state();
        // A worklist, not recursion: a chain of children may be long.
        let mut pending = Vec::new();
        self.end_one(before, job, end, &mut pending).await?;
        while let Some((n, end)) = pending.pop() {
            // Forgetting an old end may have called it off meanwhile.
            if let Some(child) = self.load(n).await?
                && child.state == StateKind::Blocked
            {
                self.end_one(&child.clone(), child, end, &mut pending).await?;
            }
        }
        Ok(state)
    }

    async fn end_one(
        &mut self,
        before: &Job,
        mut job: Job,
        end: End,
        pending: &mut Vec<(i64, End)>,
    ) -> Step<()> {
        let limit = self.limit_of(&job).await?;
        if let Some(limit) = &limit
            && before.state == StateKind::Blocked
            && before.why == BLOCKED_BY_LIMIT
        {
            self.wait_no_more(before, &limit.key).await?;
        }
        job.state = end.state();
        job.place = self.next_number();
        job.at = self.now;
        job.session = None;
        job.flags.set(Flags::STARTED, false);
        self.write_end(&mut job, end).await?;
        self.save(before, &job).await?;
        if let Some(limit) = &limit {
            if before.holds_place() {
                self.give_back_place(job.q, &limit.key).await?;
            }
            // Also when it only waited for a place: it may have stood in the way of one with a larger number.
            self.fill_places(job.q, &limit.key).await?;
        }
        if job.flags.has(Flags::KEYED) {
            self.free_key(&job).await?;
        }
        if job.flags.has(Flags::PARENT) {
            self.tell_children(&job, pending).await?;
        }
        if self.keep(job.state).count == 0 {
            let lane = self.lane_of(&job).await?;
            self.prune_one(lane, &job, pending).await?;
        }
        Ok(())
    }

    async fn write_end(&mut self, job: &mut Job, end: End) -> Step<()> {
        match end {
            End::Completed { output: None } => {}
            End::Completed { output: Some(output) } => {
                self.open_more(job).await?;
                sqlx::query("update windlass_more set output = ?2 where n = ?1")
                    .bind(job.n)
                    .bind(output.into_vec())
                    .execute(&mut *self.conn)
                    .await?;
            }
            End::Cancelled { reason, superseded_by } => {
                self.open_more(job).await?;
                sqlx::query("update windlass_more set reason = ?2, superseded_by = ?3 where n = ?1")
                    .bind(job.n)
                    .bind(reason)
                    .bind(superseded_by.map(|id| id.as_uuid().as_bytes().to_vec()))
                    .execute(&mut *self.conn)
                    .await?;
            }
            End::Dead { reason } => job.why = dead_number(reason),
        }
        Ok(())
    }

    pub(crate) async fn unique_of(&mut self, job: &Job) -> Step<Option<Unique>> {
        if !job.flags.has(Flags::KEYED) {
            return Ok(None);
        }
        Ok(self.body(job).await?.unique().cloned())
    }

    pub(crate) async fn key(&mut self, q: i64, key: &str) -> Step<Option<Key>> {
        let row =
            sqlx::query("select holder, until, next from windlass_unique_key where q = ?1 and key = ?2")
                .bind(q)
                .bind(key)
                .fetch_optional(&mut *self.conn)
                .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Key {
            holder: id_of(row.try_get(0)?)?,
            until: row.try_get::<Option<i64>, _>(1)?.map(Timestamp::from_millis),
            next: row.try_get::<Option<&[u8]>, _>(2)?.map(id_of).transpose()?,
        }))
    }

    pub(crate) async fn drop_key(&mut self, q: i64, key: &str) -> Step<()> {
        sqlx::query("delete from windlass_unique_key where q = ?1 and key = ?2")
            .bind(q)
            .bind(key)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    pub(crate) async fn set_next(&mut self, q: i64, key: &str, next: Option<JobId>) -> Step<()> {
        sqlx::query("update windlass_unique_key set next = ?3 where q = ?1 and key = ?2")
            .bind(q)
            .bind(key)
            .bind(next.map(|id| id.as_uuid().as_bytes().to_vec()))
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Makes a job the holder of its unique key.
    pub(crate) async fn hold_key(&mut self, job: &Job, unique: &Unique) -> Step<()> {
        let until = match unique.until {
            Until::Window(window) => Some(job.created.saturating_add(window).as_millis()),
            Until::End | Until::Start => None,
        };
        sqlx::query("insert or replace into windlass_unique_key (q, key, holder, until, next) values (?1, ?2, ?3, ?4, null)")
            .bind(job.q)
            .bind(&unique.key)
            .bind(&job.id.as_uuid().as_bytes()[..])
            .bind(until)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Frees the unique key of a job that ended, and lets in the one that waits behind it.
    async fn free_key(&mut self, job: &Job) -> Step<()> {
        let Some(unique) = self.unique_of(job).await? else { return Ok(()) };
        let Some(key) = self.key(job.q, &unique.key).await? else { return Ok(()) };
        if key.holder != job.id {
            if key.next == Some(job.id) {
                self.set_next(job.q, &unique.key, None).await?;
            }
            return Ok(());
        }
        if key.until.is_none_or(|until| until <= self.now) {
            self.drop_key(job.q, &unique.key).await?;
        } else if key.next.is_some() {
            self.set_next(job.q, &unique.key, None).await?;
        }
        let Some(next) = key.next else { return Ok(()) };
        let lane = self.lane_of(job).await?;
        if let Some(n) = self.find_in(lane, next).await?
            && let Some(next) = self.load(n).await?
            && let Some(unique) = self.unique_of(&next).await?
        {
            self.hold_key(&next, &unique).await?;
            self.unblock(&next).await?;
        }
        Ok(())
    }

    /// Frees a unique key that its holder keeps only until it starts.
    pub(crate) async fn free_key_at_start(&mut self, job: &Job) -> Step<()> {
        let Some(unique) = self.unique_of(job).await? else { return Ok(()) };
        if self.key(job.q, &unique.key).await?.is_some_and(|key| key.holder == job.id) {
            self.drop_key(job.q, &unique.key).await?;
        }
        Ok(())
    }

    async fn children(&mut self, n: i64) -> Step<Vec<i64>> {
        let rows = sqlx::query("delete from windlass_child where parent = ?1 returning child")
            .bind(n)
            .fetch_all(&mut *self.conn)
            .await?;
        let mut children = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        // What a delete returns has no order.
        children.sort_unstable();
        Ok(children)
    }

    pub(crate) async fn add_child(&mut self, parent: i64, child: i64) -> Step<()> {
        sqlx::query("insert or ignore into windlass_child (parent, child) values (?1, ?2)")
            .bind(parent)
            .bind(child)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    async fn tell_children(&mut self, parent: &Job, pending: &mut Vec<(i64, End)>) -> Step<()> {
        for n in self.children(parent.n).await? {
            let Some(child) = self.load(n).await?.filter(|child| child.state == StateKind::Blocked) else {
                continue;
            };
            let policy = self
                .body(&child)
                .await?
                .extras
                .map_or(ParentFailure::Cancel, |extras| extras.on_parent_failure);
            match (parent.state, policy) {
                (StateKind::Completed, _) | (_, ParentFailure::Ignore) => self.parent_done(&child).await?,
                (StateKind::Dead, ParentFailure::Wait) => self.add_child(parent.n, n).await?,
                _ => pending.push((n, orphaned(parent.id))),
            }
        }
        Ok(())
    }

    async fn parent_done(&mut self, child: &Job) -> Step<()> {
        sqlx::query("update windlass_more set parents_left = max(parents_left - 1, 0) where n = ?1")
            .bind(child.n)
            .execute(&mut *self.conn)
            .await?;
        // One that waits behind a unique key as well goes on waiting for that.
        if child.why == BLOCKED_BY_PARENTS && self.parents_left(child.n).await? == 0 {
            self.unblock(child).await?;
        }
        Ok(())
    }

    pub(crate) fn keep(&self, state: StateKind) -> Keep {
        match state {
            StateKind::Cancelled => self.retention.cancelled,
            StateKind::Dead => self.retention.dead,
            _ => self.retention.completed,
        }
    }

    /// Forgets an ended job. Children that still wait for it (for a revival) are called off: it cannot come back.
    pub(crate) async fn prune(&mut self, lane: Lane, job: &Job) -> Step<()> {
        let mut pending = Vec::new();
        self.prune_one(lane, job, &mut pending).await?;
        while let Some((n, end)) = pending.pop() {
            if let Some(child) = self.load(n).await?
                && child.state == StateKind::Blocked
            {
                self.end_one(&child.clone(), child, end, &mut pending).await?;
            }
        }
        Ok(())
    }

    async fn prune_one(&mut self, lane: Lane, job: &Job, pending: &mut Vec<(i64, End)>) -> Step<()> {
        self.forget(lane, job).await?;
        if job.flags.has(Flags::PARENT) {
            let children = self.children(job.n).await?;
            pending.extend(children.into_iter().map(|child| (child, orphaned(job.id))));
        }
        Ok(())
    }
}
