//! Upkeep: due jobs, expired leases, retention, windows of unique keys, sessions that are gone.

use sqlx::Row as _;
use windlass_core::{QueueName, StateKind, Sweep, Swept};

use super::Store;
use super::claim::numbers;
use super::job::{Flags, Job, job_columns};
use super::queues::Lane;
use crate::error::Step;

impl Store<'_> {
    pub(crate) async fn sweep(&mut self, sweep: Sweep) -> Step<Swept> {
        let mut swept = Swept::default();
        let (mut promote, mut reclaim, mut prune) = (sweep.limit, sweep.limit, sweep.limit);
        for lane in self.all_lanes().await? {
            let promoted = self.promote(lane, promote).await?;
            promote -= promoted;
            swept.promoted += promoted as u64;
            reclaim -= self.reclaim_expired(lane, reclaim, &mut swept).await?;
            for kind in [StateKind::Completed, StateKind::Cancelled, StateKind::Dead] {
                let pruned = self.prune_ended(lane, kind, prune).await?;
                prune -= pruned;
                swept.pruned += pruned as u64;
            }
            self.drop_windows(lane, sweep.limit).await?;
        }
        swept.more = promote == 0 || reclaim == 0 || prune == 0;
        sqlx::query(
            "delete from windlass_control as control where not exists (select 1 from windlass_job where state = 3 and session = control.session)",
        )
        .execute(&mut *self.conn)
        .await?;
        Ok(swept)
    }

    async fn all_lanes(&mut self) -> Step<Vec<Lane>> {
        let rows =
            sqlx::query("select name from windlass_queue order by q").fetch_all(&mut *self.conn).await?;
        let mut lanes = Vec::with_capacity(rows.len());
        for row in &rows {
            lanes.extend(self.find_lane(&QueueName::new(row.try_get::<&str, _>(0)?)?).await?);
        }
        Ok(lanes)
    }

    async fn reclaim_expired(&mut self, lane: Lane, bound: usize, swept: &mut Swept) -> Step<usize> {
        if bound == 0 || self.count(lane, StateKind::Running) == 0 {
            return Ok(0);
        }
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from windlass_job as job where state = 3 and q = ?1 and at <= ?2 order by at limit ?3"
        ))
        .bind(self.queue(lane).q)
        .bind(self.now.as_millis())
        .bind(i64::try_from(bound).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.conn)
        .await?;
        for row in &rows {
            match self.reclaim(&Job::of_row(row)?).await? {
                StateKind::Cancelled => swept.cancelled += 1,
                StateKind::Dead => swept.buried += 1,
                _ => swept.reclaimed += 1,
            }
        }
        Ok(rows.len())
    }

    /// Forgets the oldest ends of one sort beyond the count that is kept, then those that are too old.
    async fn prune_ended(&mut self, lane: Lane, state: StateKind, bound: usize) -> Step<usize> {
        const PAGE: usize = 256;
        let stored = u64::try_from(self.count(lane, state)).unwrap_or(0);
        let surplus = usize::try_from(stored.saturating_sub(self.keep(state).count)).unwrap_or(usize::MAX);
        let mut pruned = 0;
        // Where nothing is in excess, the oldest alone says whether any is too old.
        let mut look = 1;
        while pruned < bound && stored > pruned as u64 {
            let left = surplus.saturating_sub(pruned);
            let page = left.clamp(look, PAGE).min(bound - pruned);
            let forgotten = self.prune_page(lane, state, page, left).await?;
            pruned += forgotten;
            if forgotten < page {
                break;
            }
            look = PAGE;
        }
        Ok(pruned)
    }

    /// Forgets what is in excess or too old among the `page` oldest ends. Returns how many.
    async fn prune_page(&mut self, lane: Lane, state: StateKind, page: usize, surplus: usize) -> Step<usize> {
        let age = self.keep(state).age;
        // Ends are written in the order of time, so those that are too old stand in front as well.
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from windlass_job as job where state = ?2 and state >= 4 and q = ?1 order by place limit ?3"
        ))
        .bind(self.queue(lane).q)
        .bind(state as i64)
        .bind(i64::try_from(page).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.conn)
        .await?;
        let mut plain = Vec::new();
        let mut pruned = 0;
        for row in &rows {
            let job = Job::of_row(row)?;
            if pruned >= surplus && job.at.saturating_add(age) > self.now {
                break;
            }
            if job.flags.has(Flags::PARENT | Flags::MORE) {
                self.prune(lane, &job).await?;
            } else {
                plain.push(job.n);
            }
            pruned += 1;
        }
        if !plain.is_empty() {
            let count = i64::try_from(plain.len()).unwrap_or(i64::MAX);
            let plain = numbers(plain.into_iter());
            for sql in [
                "delete from windlass_body where n in (select value from json_each(?1))",
                "delete from windlass_job where n in (select value from json_each(?1))",
            ] {
                sqlx::query(sql).bind(plain.clone()).execute(&mut *self.conn).await?;
            }
            self.gone(lane, state, count);
        }
        Ok(pruned)
    }

    async fn drop_windows(&mut self, lane: Lane, bound: usize) -> Step<()> {
        sqlx::query(
            "delete from windlass_unique_key where (q, key) in (select q, key from windlass_unique_key where q = ?1 and until <= ?2 \
             and next is null limit ?3)",
        )
        .bind(self.queue(lane).q)
        .bind(self.now.as_millis())
        .bind(i64::try_from(bound).unwrap_or(i64::MAX))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }
}
