//! Admission: where a job that is not running goes next.
//!
//! The one place that knows the order of the gates: parents, the unique key's running holder, the due time, the
//! concurrency limit, then the line.

use sqlx::Row as _;
use windlass_core::{ConcurrencyLimit, StateKind, Timestamp, WhyScheduled};

use super::Store;
use super::claim::numbers;
use super::job::{BLOCKED_BY_LIMIT, BLOCKED_BY_PARENTS, Flags, Job, Line, job_columns, scheduled_number};
use super::queues::Lane;
use crate::error::Step;

impl Store<'_> {
    /// Decides where a job that waits for no key goes, and takes the place under its limit that it needs there. The row is
    /// the caller's to save.
    pub(crate) async fn admit(&mut self, job: &mut Job, due: Timestamp, why: WhyScheduled) -> Step<()> {
        let sequence = self.next_number();
        job.line = Line::Main;
        if job.flags.has(Flags::CHILD) && self.parents_left(job.n).await? > 0 {
            self.set_due(job, due).await?;
            (job.state, job.why, job.place) = (StateKind::Blocked, BLOCKED_BY_PARENTS, job.rank(sequence));
            return Ok(());
        }
        if due > self.now {
            (job.state, job.why, job.place, job.at) =
                (StateKind::Scheduled, scheduled_number(why), sequence, due);
            return Ok(());
        }
        job.place = job.rank(sequence);
        if job.flags.has(Flags::LIMITED) && !self.take_place(job).await? {
            (job.state, job.why) = (StateKind::Blocked, BLOCKED_BY_LIMIT);
            return Ok(());
        }
        line_up(job);
        Ok(())
    }

    pub(crate) async fn parents_left(&mut self, n: i64) -> Step<u32> {
        let row = sqlx::query("select parents_left from windlass_more where n = ?1")
            .bind(n)
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    pub(crate) async fn set_due(&mut self, job: &mut Job, due: Timestamp) -> Step<()> {
        self.open_more(job).await?;
        sqlx::query("update windlass_more set due = ?2 where n = ?1")
            .bind(job.n)
            .bind(due.as_millis())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Takes a place under the job's limit, or joins those who wait for one. Jobs that wait already go first, so that one
    /// which fails and comes back at once cannot keep them out.
    async fn take_place(&mut self, job: &Job) -> Step<bool> {
        let Some(limit) = self.body(job).await?.limit().cloned() else { return Ok(true) };
        let taken = self.places_taken(job.q, &limit.key).await?;
        if taken >= i64::from(limit.at_most) || self.first_waiting(job.q, &limit.key).await?.is_some() {
            sqlx::query("insert into windlass_waiting (q, key, place, n) values (?1, ?2, ?3, ?4)")
                .bind(job.q)
                .bind(limit.key)
                .bind(job.place)
                .bind(job.n)
                .execute(&mut *self.conn)
                .await?;
            return Ok(false);
        }
        self.set_places(job.q, &limit.key, taken + 1).await?;
        Ok(true)
    }

    async fn places_taken(&mut self, q: i64, key: &str) -> Step<i64> {
        let row = sqlx::query("select taken from windlass_places where q = ?1 and key = ?2")
            .bind(q)
            .bind(key)
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
    }

    async fn set_places(&mut self, q: i64, key: &str, taken: i64) -> Step<()> {
        let sql = if taken > 0 {
            "insert into windlass_places (q, key, taken) values (?1, ?2, ?3) on conflict do update set taken = excluded.taken"
        } else {
            "delete from windlass_places where q = ?1 and key = ?2"
        };
        sqlx::query(sql).bind(q).bind(key).bind(taken).execute(&mut *self.conn).await?;
        Ok(())
    }

    async fn first_waiting(&mut self, q: i64, key: &str) -> Step<Option<Job>> {
        let row = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from windlass_waiting as waiting join windlass_job as job using (n) where waiting.q = ?1 and waiting.key = ?2 \
             order by waiting.place limit 1"
        ))
        .bind(q)
        .bind(key)
        .fetch_optional(&mut *self.conn)
        .await?;
        row.map(|row| Job::of_row(&row)).transpose()
    }

    /// Moves a job from the state it is in to the gates, giving back the place that it held.
    pub(crate) async fn readmit(
        &mut self,
        before: &Job,
        mut job: Job,
        due: Timestamp,
        why: WhyScheduled,
    ) -> Step<StateKind> {
        let limit = self.limit_of(&job).await?;
        if before.holds_place()
            && let Some(limit) = &limit
        {
            self.give_back_place(job.q, &limit.key).await?;
        }
        self.admit(&mut job, due, why).await?;
        self.save(before, &job).await?;
        if before.holds_place()
            && let Some(limit) = &limit
        {
            self.fill_places(job.q, &limit.key).await?;
            // The first to be let in may be the job itself.
            if let Some(now) = self.load(job.n).await? {
                return Ok(now.state);
            }
        }
        Ok(job.state)
    }

    pub(crate) async fn limit_of(&mut self, job: &Job) -> Step<Option<ConcurrencyLimit>> {
        if !job.flags.has(Flags::LIMITED) {
            return Ok(None);
        }
        Ok(self.body(job).await?.limit().cloned())
    }

    /// Gives back a place under a limit. `fill_places` must follow once its job stands elsewhere.
    pub(crate) async fn give_back_place(&mut self, q: i64, key: &str) -> Step<()> {
        let taken = self.places_taken(q, key).await?;
        self.set_places(q, key, taken - 1).await
    }

    /// Takes a job off the list of those that wait for a place.
    pub(crate) async fn wait_no_more(&mut self, job: &Job, key: &str) -> Step<()> {
        sqlx::query("delete from windlass_waiting where q = ?1 and key = ?2 and place = ?3")
            .bind(job.q)
            .bind(key)
            .bind(job.place)
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Lets in those who wait for a place under a limit, first come first served within a priority.
    pub(crate) async fn fill_places(&mut self, q: i64, key: &str) -> Step<()> {
        while let Some(first) = self.first_waiting(q, key).await? {
            let taken = self.places_taken(q, key).await?;
            let limit = self.limit_of(&first).await?;
            if limit.is_none_or(|limit| taken >= i64::from(limit.at_most)) {
                return Ok(());
            }
            self.wait_no_more(&first, key).await?;
            self.set_places(q, key, taken + 1).await?;
            let mut job = first.clone();
            job.place = job.rank(self.next_number());
            line_up(&mut job);
            self.save(&first, &job).await?;
        }
        Ok(())
    }

    /// Makes Ready what is due in a queue, at most `bound` jobs. Returns how many.
    pub(crate) async fn promote(&mut self, lane: Lane, bound: usize) -> Step<usize> {
        if bound == 0 || self.count(lane, StateKind::Scheduled) == 0 {
            return Ok(0);
        }
        let rows = sqlx::query(
            "select n, flags from windlass_job where state = 1 and q = ?1 and at <= ?2 order by at, place limit ?3",
        )
        .bind(self.queue(lane).q)
        .bind(self.now.as_millis())
        .bind(i64::try_from(bound).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.conn)
        .await?;
        let mut due = Vec::with_capacity(rows.len());
        for row in &rows {
            due.push((row.try_get(0)?, Flags(row.try_get(1)?)));
        }
        let mut rest = &due[..];
        while let Some((n, flags)) = rest.first() {
            if flags.has(Flags::LIMITED | Flags::CHILD) {
                self.promote_one(*n).await?;
                rest = &rest[1..];
                continue;
            }
            let plain =
                rest.iter().take_while(|(_, flags)| !flags.has(Flags::LIMITED | Flags::CHILD)).count();
            self.promote_plain(lane, &rest[..plain]).await?;
            rest = &rest[plain..];
        }
        Ok(due.len())
    }

    async fn promote_one(&mut self, n: i64) -> Step<()> {
        let Some(before) = self.load(n).await? else { return Ok(()) };
        let mut job = before.clone();
        let now = self.now;
        self.admit(&mut job, now, WhyScheduled::Delay).await?;
        self.save(&before, &job).await
    }

    /// Jobs that no gate but time holds up go into line together, in this order.
    async fn promote_plain(&mut self, lane: Lane, jobs: &[(i64, Flags)]) -> Step<()> {
        let first = self.numbers(jobs.len());
        // The place is that of `rank`; the line of a suspect is numbered as its mark is.
        sqlx::query(
            "update windlass_job as job set state = 2, line = job.flags & 1, \
             place = ((9 - job.priority) << 59) | (?2 + told.key) from json_each(?1) as told where job.n = told.value",
        )
        .bind(numbers(jobs.iter().map(|(n, _)| *n)))
        .bind(first)
        .execute(&mut *self.conn)
        .await?;
        let suspects = jobs.iter().filter(|(_, flags)| flags.has(Flags::SUSPECT)).count();
        for (line, count) in [(Line::Main, jobs.len() - suspects), (Line::Suspects, suspects)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.moved(lane, (StateKind::Scheduled, Line::Main), (StateKind::Ready, line), count);
        }
        Ok(())
    }

    /// When the next Scheduled job of a queue is due.
    pub(crate) async fn next_due(&mut self, lane: Lane) -> Step<Option<Timestamp>> {
        if self.count(lane, StateKind::Scheduled) == 0 {
            return Ok(None);
        }
        let row = sqlx::query("select at from windlass_job where state = 1 and q = ?1 order by at limit 1")
            .bind(self.queue(lane).q)
            .fetch_optional(&mut *self.conn)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?.map(Timestamp::from_millis))
    }

    /// Lets a Blocked job in: what it waited for is over.
    pub(crate) async fn unblock(&mut self, before: &Job) -> Step<()> {
        let row = sqlx::query("select due from windlass_more where n = ?1")
            .bind(before.n)
            .fetch_optional(&mut *self.conn)
            .await?;
        let due: Option<i64> = row.map(|row| row.try_get(0)).transpose()?.flatten();
        let mut job = before.clone();
        let due = due.map_or(self.now, Timestamp::from_millis);
        self.admit(&mut job, due, WhyScheduled::Delay).await?;
        self.save(before, &job).await
    }
}

fn line_up(job: &mut Job) {
    job.state = StateKind::Ready;
    job.line = if job.flags.has(Flags::SUSPECT) { Line::Suspects } else { Line::Main };
}
