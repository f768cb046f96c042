//! Claim: Ready to Running.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use windlass_core::limits::ASIDE_MAX;
use windlass_core::{
    Body, Claim, Claimed, ClaimedJob, DeadReason, Error, Failure, JobId, Lease, QueueName, StateKind,
    Timestamp,
};

use super::Store;
use super::ending::End;
use super::job::{Flags, Line, id_of};
use super::queues::Lane;
use crate::error::Step;
use crate::packed;

/// What one claim call may still do beyond taking jobs.
struct Budget {
    promote: usize,
    aside: usize,
    suspects: bool,
    more: bool,
}

/// A Ready job that a claim looks at: the few things it needs of it, since every column of a row has its price.
struct Candidate {
    n: i64,
    id: JobId,
    place: i64,
    line: Line,
    created: Timestamp,
    flags: Flags,
    epoch: i64,
    k: i64,
    min_reader: u16,
    attempts: u16,
    lost: u16,
    generation: u32,
    packed: Vec<u8>,
}

/// The columns of a candidate; numbers that are small share one.
macro_rules! candidate_columns {
    () => {
        "n, id, place, created, epoch * 65536 + flags, k * 65536 + min_reader, \
         generation * 4294967296 + lost * 65536 + attempts, \
         (select packed from windlass_body as body where body.n = job.n)"
    };
}

impl Candidate {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the parts that were put together"
    )]
    fn of_row(row: &SqliteRow, line: Line) -> Step<Self> {
        let marks: i64 = row.try_get(4)?;
        let sort: i64 = row.try_get(5)?;
        let counts: i64 = row.try_get(6)?;
        Ok(Self {
            n: row.try_get(0)?,
            id: id_of(row.try_get(1)?)?,
            place: row.try_get(2)?,
            line,
            created: Timestamp::from_millis(row.try_get(3)?),
            flags: Flags(marks & 0xffff),
            epoch: marks >> 16,
            k: sort >> 16,
            min_reader: sort as u16,
            attempts: counts as u16,
            lost: (counts >> 16) as u16,
            generation: (counts >> 32) as u32,
            packed: row.try_get(7)?,
        })
    }
}

/// The kinds of a claim by their numbers, each with the newest version that its worker knows.
type Known = HashMap<i64, u16>;

fn can_run(known: &Known, k: i64, min_reader: u16) -> bool {
    known.get(&k).is_some_and(|version| min_reader <= *version)
}

/// One line of jobs that were set aside and this claim can run: its first jobs, fetched a page at a time.
struct AsideLine {
    k: i64,
    min_reader: u16,
    page: VecDeque<Candidate>,
}

impl Store<'_> {
    pub(crate) async fn claim(&mut self, claim: &Claim) -> Step<Claimed> {
        let mut known = Known::new();
        for (kind, version) in claim.kinds.iter() {
            if let Some(k) = self.find_kind(kind).await? {
                known.insert(k, version);
            }
        }
        let mut jobs = Vec::new();
        let mut budget =
            Budget { promote: ASIDE_MAX, aside: ASIDE_MAX, suspects: claim.suspects, more: false };
        let mut wake_at: Option<Timestamp> = None;
        for name in &claim.queues {
            let Some(lane) = self.find_lane(name).await? else { continue };
            if self.queue(lane).paused {
                continue;
            }
            self.claim_from(lane, name, claim, &known, &mut budget, &mut jobs).await?;
            if let Some(due) = self.next_due(lane).await? {
                wake_at = Some(wake_at.map_or(due, |earlier| earlier.min(due)));
            }
        }
        Ok(Claimed { jobs, more: budget.more, wake_at, now: self.now })
    }

    async fn claim_from(
        &mut self,
        lane: Lane,
        name: &QueueName,
        claim: &Claim,
        known: &Known,
        budget: &mut Budget,
        jobs: &mut Vec<ClaimedJob>,
    ) -> Step<()> {
        let promoted = self.promote(lane, budget.promote).await?;
        budget.promote -= promoted;
        budget.more |= budget.promote == 0;
        let mut taken = Vec::new();
        if budget.suspects && jobs.len() < claim.limit && self.suspects(lane) > 0 {
            // Not past the page: a queue full of suspects that nobody here can run must not slow every claim.
            let page = self.line(lane, Line::Suspects, i64::MIN, ASIDE_MAX).await?;
            if let Some(suspect) = page.into_iter().find(|found| can_run(known, found.k, found.min_reader)) {
                budget.suspects = false;
                taken.push(suspect);
            }
        }
        let wanted = (claim.limit + claim.ahead).saturating_sub(jobs.len());
        if taken.len() < wanted {
            self.choose(lane, known, wanted, budget, &mut taken).await?;
        }
        let taken = self.readable(taken, name).await?;
        let first = jobs.len();
        self.take(lane, claim, first, &taken).await?;
        for (found, body) in taken {
            let deadline = if found.flags.has(Flags::MORE) { self.deadline(found.n).await? } else { None };
            jobs.push(claimed(claim, jobs.len() >= claim.limit, deadline, &found, body));
        }
        let ready = self.count(lane, StateKind::Ready) - self.suspects(lane) - self.aside(lane);
        if jobs.len() >= claim.limit + claim.ahead {
            budget.more |= ready > 0 || (self.aside(lane) > 0 && self.has_aside(lane, known).await?);
        }
        Ok(())
    }

    /// Those whose bytes can be read. The others are Dead, with their bytes kept: they would be claimed for ever.
    async fn readable(&mut self, taken: Vec<Candidate>, queue: &QueueName) -> Step<Vec<(Candidate, Body)>> {
        let mut readable = Vec::with_capacity(taken.len());
        for found in taken {
            match packed::unpack(queue.clone(), found.id, &found.packed) {
                Ok(body) => readable.push((found, body)),
                Err(error) => self.bury_unreadable(found.n, &error).await?,
            }
        }
        Ok(readable)
    }

    async fn bury_unreadable(&mut self, n: i64, error: &Error) -> Step<()> {
        let Some(before) = self.load(n).await? else { return Ok(()) };
        let mut job = before.clone();
        // Which key and which limit it has is lost with its bytes. The key is found by its holder; a place under a limit
        // stays taken until the job is deleted by hand.
        sqlx::query("delete from windlass_unique_key where q = ?1 and holder = ?2 and next is null")
            .bind(job.q)
            .bind(&job.id.as_uuid().as_bytes()[..])
            .execute(&mut *self.conn)
            .await?;
        job.flags.set(Flags::KEYED | Flags::KEYED_TO_START | Flags::LIMITED, false);
        tracing::error!(job = %job.id, %error, "a stored job cannot be read; it is dead, and its bytes are kept");
        self.note_error(&mut job, &Failure::new(error.message())).await?;
        self.end(&before, job, End::Dead { reason: DeadReason::Undecodable }).await?;
        Ok(())
    }

    /// Chooses from the ordinary line and from those set aside, in order, until `wanted` are there. What cannot be run and
    /// stands in front is set aside, within the budget.
    async fn choose(
        &mut self,
        lane: Lane,
        known: &Known,
        wanted: usize,
        budget: &mut Budget,
        taken: &mut Vec<Candidate>,
    ) -> Step<()> {
        let mut aside = if self.aside(lane) > 0 { self.aside_lines(lane, known).await? } else { Vec::new() };
        let mut heads = BinaryHeap::new();
        for (at, line) in aside.iter().enumerate() {
            heads.extend(line.page.front().map(|head| Reverse((head.place, at))));
        }
        let mut from = i64::MIN;
        let mut page: VecDeque<Candidate> = VecDeque::new();
        let mut exhausted = false;
        while taken.len() < wanted {
            if page.is_empty() && !exhausted {
                let left = wanted - taken.len();
                page = self.line(lane, Line::Main, from, left).await?.into();
                exhausted = page.len() < left;
                from = page.back().map_or(from, |last| last.place);
            }
            // What was set aside keeps its place in line.
            if let Some(&Reverse((place, at))) = heads.peek()
                && page.front().is_none_or(|head| place < head.place)
            {
                heads.pop();
                let line = &mut aside[at];
                taken.extend(line.page.pop_front());
                if line.page.is_empty() {
                    let (k, min_reader) = (line.k, line.min_reader);
                    line.page = self.aside_page(lane, k, min_reader, place).await?;
                }
                heads.extend(line.page.front().map(|head| Reverse((head.place, at))));
                continue;
            }
            let Some(head) = page.pop_front() else { return Ok(()) };
            if can_run(known, head.k, head.min_reader) {
                taken.push(head);
            } else if budget.aside == 0 {
                budget.more = true;
                return Ok(());
            } else {
                budget.aside -= 1;
                self.set_aside(lane, &head).await?;
            }
        }
        Ok(())
    }

    /// The next jobs of a line, those after `from`.
    async fn line(&mut self, lane: Lane, line: Line, from: i64, limit: usize) -> Step<Vec<Candidate>> {
        let rows = sqlx::query(concat!(
            "select ",
            candidate_columns!(),
            " from windlass_job as job where state = 2 and q = ?1 and line = ?2 and place > ?3 order by place limit ?4"
        ))
        .bind(self.queue(lane).q)
        .bind(line as i64)
        .bind(from)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(|row| Candidate::of_row(row, line)).collect()
    }

    /// Moves a job aside that this claim cannot run; it keeps its place among those aside.
    async fn set_aside(&mut self, lane: Lane, found: &Candidate) -> Step<()> {
        sqlx::query("update windlass_job set line = 2 where n = ?1")
            .bind(found.n)
            .execute(&mut *self.conn)
            .await?;
        self.moved(lane, (StateKind::Ready, found.line), (StateKind::Ready, Line::Aside), 1);
        Ok(())
    }

    async fn deadline(&mut self, n: i64) -> Step<Option<Timestamp>> {
        let row = sqlx::query("select deadline from windlass_more where n = ?1")
            .bind(n)
            .fetch_optional(&mut *self.conn)
            .await?;
        let deadline = row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()?.flatten();
        Ok(deadline.map(Timestamp::from_millis))
    }

    /// The sorts of jobs that stand aside: kind and oldest reader. One step of the index each, however many jobs.
    async fn aside_sorts(&mut self, lane: Lane) -> Step<Vec<(i64, u16)>> {
        let mut sorts = Vec::new();
        let (mut k, mut min_reader) = (i64::MIN, 0_u16);
        loop {
            let row = sqlx::query(
                "select k, min_reader from windlass_job where state = 2 and line = 2 and q = ?1 and (k, min_reader) > (?2, ?3) \
                 order by k, min_reader limit 1",
            )
            .bind(self.queue(lane).q)
            .bind(k)
            .bind(i64::from(min_reader))
            .fetch_optional(&mut *self.conn)
            .await?;
            let Some(row) = row else { return Ok(sorts) };
            (k, min_reader) = (row.try_get(0)?, row.try_get(1)?);
            sorts.push((k, min_reader));
        }
    }

    async fn has_aside(&mut self, lane: Lane, known: &Known) -> Step<bool> {
        Ok(self.aside_sorts(lane).await?.iter().any(|(k, min_reader)| can_run(known, *k, *min_reader)))
    }

    async fn aside_lines(&mut self, lane: Lane, known: &Known) -> Step<Vec<AsideLine>> {
        let mut lines = Vec::new();
        for (k, min_reader) in self.aside_sorts(lane).await? {
            if can_run(known, k, min_reader) {
                let page = self.aside_page(lane, k, min_reader, i64::MIN).await?;
                lines.push(AsideLine { k, min_reader, page });
            }
        }
        Ok(lines)
    }

    async fn aside_page(
        &mut self,
        lane: Lane,
        k: i64,
        min_reader: u16,
        from: i64,
    ) -> Step<VecDeque<Candidate>> {
        const PAGE: i64 = 64;
        let rows = sqlx::query(concat!(
            "select ",
            candidate_columns!(),
            " from windlass_job as job where state = 2 and line = 2 and q = ?1 and k = ?2 and min_reader = ?3 and place > ?4 \
             order by place limit ?5"
        ))
        .bind(self.queue(lane).q)
        .bind(k)
        .bind(i64::from(min_reader))
        .bind(from)
        .bind(PAGE)
        .fetch_all(&mut *self.conn)
        .await?;
        rows.iter().map(|row| Candidate::of_row(row, Line::Aside)).collect()
    }

    /// Ready to Running for all of these, with new epochs and the claim's nonce. The first is number `first` of its claim.
    async fn take(
        &mut self,
        lane: Lane,
        claim: &Claim,
        first: usize,
        taken: &[(Candidate, Body)],
    ) -> Step<()> {
        let at_once = claim.limit.saturating_sub(first).min(taken.len());
        let (started, ahead) = taken.split_at(at_once);
        for (jobs, flag) in [(started, Flags::STARTED), (ahead, 0)] {
            if jobs.is_empty() {
                continue;
            }
            sqlx::query(
                "update windlass_job set state = 3, line = 0, epoch = epoch + 1, flags = (flags & ~2) | ?2, at = ?3, \
                 since = ?4, session = ?5, nonce = ?6 where n in (select value from json_each(?1))",
            )
            .bind(numbers(jobs.iter().map(|(found, _)| found.n)))
            .bind(flag)
            .bind(self.now.saturating_add(claim.lease).as_millis())
            .bind(self.now.as_millis())
            .bind(super::job::bits(claim.session.as_u128()))
            .bind(super::job::bits(claim.nonce.as_u128()))
            .execute(&mut *self.conn)
            .await?;
        }
        for (found, _) in taken {
            self.moved(lane, (StateKind::Ready, found.line), (StateKind::Running, Line::Main), 1);
            if found.flags.has(Flags::KEYED_TO_START)
                && let Some(job) = self.load(found.n).await?
            {
                self.free_key_at_start(&job).await?;
            }
        }
        Ok(())
    }
}

/// Numbers as a JSON array, for `json_each`.
pub(crate) fn numbers(numbers: impl Iterator<Item = i64>) -> String {
    let mut json = String::from("[");
    for (at, number) in numbers.enumerate() {
        if at > 0 {
            json.push(',');
        }
        json.push_str(&number.to_string());
    }
    json.push(']');
    json
}

fn claimed(
    claim: &Claim,
    ahead: bool,
    deadline: Option<Timestamp>,
    found: &Candidate,
    body: Body,
) -> ClaimedJob {
    ClaimedJob {
        lease: Lease {
            job: body.job(),
            epoch: u64::try_from(found.epoch).unwrap_or(0) + 1,
            nonce: claim.nonce,
            handle: u64::try_from(found.n).unwrap_or(0),
        },
        body: Arc::new(body),
        attempts: found.attempts,
        lost_leases: found.lost,
        generation: found.generation,
        created_at: found.created,
        deadline,
        ahead,
        suspect: found.flags.has(Flags::SUSPECT),
    }
}
