//! Settle, extend, annotate: what a worker says about the jobs it holds. All of it passes the fence.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sqlx::Row as _;
use windlass_core::limits::{BATCH_MAX, LOG_LINES_MAX, TEXT_MAX_BYTES, clip};
use windlass_core::{
    DeadReason, Failure, Held, Kept, Lease, LogLine, Nonce, Note, QueueName, Ruling, SessionId, Settled,
    StateKind, Timestamp, Verdict, WhyScheduled,
};

use super::Store;
use super::claim::numbers;
use super::ending::End;
use super::job::{COLUMNS, Flags, Job, Line, bits, damaged, job_columns};
use crate::error::Step;

impl Store<'_> {
    pub(crate) async fn settle(&mut self, verdicts: &[Verdict]) -> Step<Vec<Settled>> {
        let mut answers = vec![None; verdicts.len()];
        self.complete_plain(verdicts, &mut answers).await?;
        for (verdict, answer) in verdicts.iter().zip(&mut answers) {
            if answer.is_none() {
                *answer = Some(self.settle_one(verdict).await?);
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Settled::LeaseLost)).collect())
    }

    /// Completes in a few statements what is nothing but complete: nothing to push, and a job that stands in nobody's way.
    /// Others are left to [`settle_one`](Self::settle_one); so is a whole batch that names a job twice, for
    /// of two verdicts on one lease the first counts.
    async fn complete_plain(&mut self, verdicts: &[Verdict], answers: &mut [Option<Settled>]) -> Step<()> {
        let mut named = HashSet::with_capacity(verdicts.len());
        let each_once = verdicts.iter().all(|verdict| named.insert(verdict.lease.job.id));
        if !each_once {
            return Ok(());
        }
        let keeps = self.keep(StateKind::Completed).count > 0;
        let mut at = 0;
        while at < verdicts.len() {
            let first = &verdicts[at].lease;
            // Runs of verdicts on one claim, which share the queue, the epoch and the nonce; with outputs or without.
            let has_output = keeps && output(&verdicts[at]).is_some();
            let len = verdicts[at..]
                .iter()
                .take_while(|verdict| {
                    let lease = &verdict.lease;
                    is_plain(verdict)
                        && (!keeps || output(verdict).is_some() == has_output)
                        && (lease.nonce, lease.epoch) == (first.nonce, first.epoch)
                        && lease.job.queue == first.job.queue
                })
                .count();
            if len > 0 {
                let (run, answers) = (&verdicts[at..at + len], &mut answers[at..at + len]);
                let place = self.numbers(len);
                let done = self.complete_run(run, place, has_output).await?;
                if done == len {
                    answers.fill(Some(Settled::Applied(StateKind::Completed)));
                } else if done > 0 {
                    self.which_completed(&first.job.queue, place, answers).await?;
                }
                if done > 0 && !keeps {
                    self.forget_run(&first.job.queue, place, len).await?;
                } else if done > 0 && has_output {
                    self.store_outputs(run, answers).await?;
                }
            }
            at += len.max(1);
        }
        Ok(())
    }

    /// Completes a run: each job gets the number of an end, from `place` on. Returns how many were completed.
    async fn complete_run(&mut self, run: &[Verdict], place: i64, has_output: bool) -> Step<usize> {
        let Some(first) = run.first().map(|verdict| &verdict.lease) else { return Ok(0) };
        let Some(lane) = self.find_lane(&first.job.queue).await? else { return Ok(0) };
        let Ok(epoch) = i64::try_from(first.epoch) else { return Ok(0) };
        let handles = run.iter().map(|verdict| i64::try_from(verdict.lease.handle).unwrap_or(-1));
        let ids: Vec<u8> =
            run.iter().flat_map(|verdict| *verdict.lease.job.id.as_uuid().as_bytes()).collect();
        let done = sqlx::query(
            // The pluses keep the planner from the index of ids: each row is found by its number.
            "update windlass_job as job set state = 4, line = 0, place = ?3 + told.key, at = ?4, flags = flags & ~3 | ?9, \
             attempts = min(attempts + 1, 65535), session = null from json_each(?1) as told \
             where job.n = told.value and +job.id = substr(?2, 1 + 16 * told.key, 16) and +job.q = ?7 \
             and +job.state = 3 and job.epoch = ?5 and job.nonce = ?6 and job.flags & ?8 = 0",
        )
        .bind(numbers(handles))
        .bind(ids)
        .bind(place)
        .bind(self.now.as_millis())
        .bind(epoch)
        .bind(bits(first.nonce.as_u128()))
        .bind(self.queue(lane).q)
        .bind(Flags::BUSY)
        .bind(if has_output { Flags::MORE } else { 0 })
        .execute(&mut *self.conn)
        .await?
        .rows_affected();
        let running = (StateKind::Running, Line::Main);
        let completed = (StateKind::Completed, Line::Main);
        self.moved(lane, running, completed, i64::try_from(done).unwrap_or(0));
        Ok(usize::try_from(done).unwrap_or(0))
    }

    /// Which of a run were completed: each has the number that was meant for it.
    async fn which_completed(
        &mut self,
        queue: &QueueName,
        place: i64,
        answers: &mut [Option<Settled>],
    ) -> Step<()> {
        let Some(lane) = self.find_lane(queue).await? else { return Ok(()) };
        let last = place + i64::try_from(answers.len()).unwrap_or(0);
        let rows = sqlx::query(
            "select place from windlass_job where q = ?1 and state = 4 and place >= ?2 and place < ?3",
        )
        .bind(self.queue(lane).q)
        .bind(place)
        .bind(last)
        .fetch_all(&mut *self.conn)
        .await?;
        for row in &rows {
            let number: i64 = row.try_get(0)?;
            if let Some(answer) = usize::try_from(number - place).ok().and_then(|at| answers.get_mut(at)) {
                *answer = Some(Settled::Applied(StateKind::Completed));
            }
        }
        Ok(())
    }

    /// Stores the outputs of those of a run that were completed. Their flags say already that there is more of them.
    async fn store_outputs(&mut self, run: &[Verdict], answers: &[Option<Settled>]) -> Step<()> {
        // Of each its number, where it begins among the outputs (the first is 1) and how long it is.
        let (mut places, mut outputs) = (Vec::with_capacity(run.len()), Vec::new());
        for (verdict, answer) in run.iter().zip(answers) {
            if let (Some(output), Some(_)) = (output(verdict), answer) {
                places.push(format!("[{},{},{}]", verdict.lease.handle, outputs.len() + 1, output.len()));
                outputs.extend_from_slice(output);
            }
        }
        sqlx::query(
            // A part of nothing is null.
            "insert into windlass_more (n, output) select value ->> 0, coalesce(substr(?2, value ->> 1, value ->> 2), x'') from json_each(?1) \
             where true on conflict (n) do update set output = excluded.output",
        )
        .bind(format!("[{}]", places.join(",")))
        .bind(outputs)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Removes those of a run that were completed, with all that belongs to them.
    async fn forget_run(&mut self, queue: &QueueName, place: i64, len: usize) -> Step<()> {
        let Some(lane) = self.find_lane(queue).await? else { return Ok(()) };
        let q = self.queue(lane).q;
        let last = place + i64::try_from(len).unwrap_or(0);
        let mut gone = 0;
        for sql in [
            "delete from windlass_body where n in \
             (select n from windlass_job where q = ?1 and state = 4 and place >= ?2 and place < ?3)",
            "delete from windlass_more where n in \
             (select n from windlass_job where q = ?1 and state = 4 and place >= ?2 and place < ?3)",
            "delete from windlass_job where q = ?1 and state = 4 and place >= ?2 and place < ?3",
        ] {
            let done = sqlx::query(sql).bind(q).bind(place).bind(last).execute(&mut *self.conn).await?;
            gone = done.rows_affected();
        }
        self.gone(lane, StateKind::Completed, i64::try_from(gone).unwrap_or(0));
        Ok(())
    }

    /// The Running job whose lease this still is: the fence. Everything a worker says passes here.
    async fn fenced(&mut self, lease: &Lease) -> Step<Result<Job, Option<Job>>> {
        // The handle is a hint; the address decides.
        let hinted = match i64::try_from(lease.handle) {
            Ok(n) => self.load(n).await?,
            Err(_) => None,
        };
        if let Some(job) = hinted
            && job.is_leased_by(lease)
            && self.find_lane(&lease.job.queue).await?.is_some_and(|lane| self.queue(lane).q == job.q)
        {
            return Ok(Ok(job));
        }
        let Some(n) = self.find(&lease.job).await? else { return Ok(Err(None)) };
        let job = self.load(n).await?;
        Ok(match job {
            Some(job) if job.is_leased_by(lease) => Ok(job),
            other => Err(other),
        })
    }

    async fn settle_one(&mut self, verdict: &Verdict) -> Step<Settled> {
        let job = match self.fenced(&verdict.lease).await? {
            Ok(job) => job,
            Err(stored) => return Ok(refused(stored.as_ref(), &verdict.lease)),
        };
        let state = self.apply(job, &verdict.ruling).await?;
        for job in &verdict.then {
            self.push_one(job).await?;
        }
        Ok(Settled::Applied(state))
    }

    async fn apply(&mut self, before: Job, ruling: &Ruling) -> Step<StateKind> {
        let mut job = before.clone();
        job.session = None;
        job.flags.set(Flags::STARTED, false);
        if !matches!(ruling, Ruling::Release) {
            job.flags.set(Flags::SUSPECT, false);
        }
        if !matches!(ruling, Ruling::Release | Ruling::Snooze { .. }) {
            job.attempts = job.attempts.saturating_add(1);
        }
        match ruling {
            Ruling::Complete { output } => {
                self.end(&before, job, End::Completed { output: output.clone() }).await
            }
            Ruling::Cancel { reason } => {
                let reason = clip(reason, TEXT_MAX_BYTES);
                self.end(&before, job, End::Cancelled { reason, superseded_by: None }).await
            }
            Ruling::Bury { error, reason } => {
                self.note_error(&mut job, error).await?;
                self.end(&before, job, End::Dead { reason: *reason }).await
            }
            Ruling::Retry { after, error } => {
                self.note_error(&mut job, error).await?;
                self.come_back(&before, job, *after, WhyScheduled::Retry).await
            }
            Ruling::Snooze { after } => self.come_back(&before, job, *after, WhyScheduled::Snooze).await,
            Ruling::Release => self.release(&before, job).await,
        }
    }

    pub(crate) async fn note_error(&mut self, job: &mut Job, error: &Failure) -> Step<()> {
        self.open_more(job).await?;
        sqlx::query("update windlass_more set error = ?2, panicked = ?3 where n = ?1")
            .bind(job.n)
            .bind(error.message())
            .bind(i64::from(error.is_panic()))
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// The end of a job whose cancellation somebody asked for while it ran, unless its own outcome won.
    async fn called_off(&mut self, job: &mut Job) -> Step<Option<End>> {
        if !job.flags.has(Flags::CANCEL) {
            return Ok(None);
        }
        job.flags.set(Flags::CANCEL, false);
        let row = sqlx::query("select cancel_reason from windlass_more where n = ?1")
            .bind(job.n)
            .fetch_optional(&mut *self.conn)
            .await?;
        let reason: Option<String> = row.map(|row| row.try_get(0)).transpose()?.flatten();
        sqlx::query("update windlass_more set cancel_reason = null where n = ?1")
            .bind(job.n)
            .execute(&mut *self.conn)
            .await?;
        Ok(Some(End::Cancelled { reason: reason.unwrap_or_default(), superseded_by: None }))
    }

    async fn come_back(
        &mut self,
        before: &Job,
        mut job: Job,
        after: Duration,
        why: WhyScheduled,
    ) -> Step<StateKind> {
        if let Some(end) = self.called_off(&mut job).await? {
            return self.end(before, job, end).await;
        }
        let due = self.now.saturating_add(after);
        self.readmit(before, job, due, why).await
    }

    /// Ready at once at its old place; it keeps the place it holds under a limit.
    async fn release(&mut self, before: &Job, mut job: Job) -> Step<StateKind> {
        if let Some(end) = self.called_off(&mut job).await? {
            return self.end(before, job, end).await;
        }
        self.back_in_line(before, job).await
    }

    async fn back_in_line(&mut self, before: &Job, mut job: Job) -> Step<StateKind> {
        job.session = None;
        job.flags.set(Flags::STARTED, false);
        job.state = StateKind::Ready;
        job.line = if job.flags.has(Flags::SUSPECT) { Line::Suspects } else { Line::Main };
        self.save(before, &job).await?;
        Ok(StateKind::Ready)
    }

    pub(crate) async fn hand_back(&mut self, session: SessionId, nonce: Option<Nonce>) -> Step<usize> {
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            " from windlass_job as job where state = 3 and session = ?1 and (?2 is null or nonce = ?2) order by at limit ?3"
        ))
        .bind(bits(session.as_u128()))
        .bind(nonce.map(|nonce| bits(nonce.as_u128())))
        .bind(i64::try_from(BATCH_MAX).unwrap_or(i64::MAX))
        .fetch_all(&mut *self.conn)
        .await?;
        for row in &rows {
            let before = Job::of_row(row)?;
            let mut job = before.clone();
            // No verdict of this lease was applied, nor will one be.
            job.nonce = None;
            self.release(&before, job).await?;
        }
        Ok(rows.len())
    }

    /// Takes back a lease that has expired.
    pub(crate) async fn reclaim(&mut self, before: &Job) -> Step<StateKind> {
        let mut job = before.clone();
        job.nonce = None;
        job.session = None;
        let started = job.flags.has(Flags::STARTED);
        if let Some(end) = self.called_off(&mut job).await? {
            return self.end(before, job, end).await;
        }
        if started {
            job.lost += 1;
        }
        if job.lost >= windlass_core::limits::LOST_LEASES_MAX {
            return self.end(before, job, End::Dead { reason: DeadReason::Poison }).await;
        }
        job.flags.set(Flags::SUSPECT, true);
        self.back_in_line(before, job).await
    }

    pub(crate) async fn extend(
        &mut self,
        session: SessionId,
        held: &[Held],
        lease: Duration,
    ) -> Step<Vec<Kept>> {
        sqlx::query("delete from windlass_control where session = ?1")
            .bind(bits(session.as_u128()))
            .execute(&mut *self.conn)
            .await?;
        let until = self.now.saturating_add(lease).as_millis();
        let mut answers = Vec::with_capacity(held.len());
        let (mut started, mut unstarted) = (Vec::new(), Vec::new());
        let stored = self.load_many(held.iter().map(|held| &held.lease)).await?;
        for (held, job) in held.iter().zip(stored) {
            let job = match job {
                Some(job) => Some(job),
                None => self.fenced(&held.lease).await?.ok(),
            };
            let Some(job) = job.filter(|job| job.session == Some(session.as_u128())) else {
                answers.push(Kept::Lost);
                continue;
            };
            if held.started { &mut started } else { &mut unstarted }.push(job.n);
            let called_off = job.flags.has(Flags::CANCEL);
            answers.push(if called_off { Kept::CancelRequested } else { Kept::Kept });
        }
        for (jobs, flag) in [(started, Flags::STARTED), (unstarted, 0)] {
            if jobs.is_empty() {
                continue;
            }
            sqlx::query(
                "update windlass_job set at = max(at, ?2), flags = flags | ?3 where n in (select value from json_each(?1))",
            )
            .bind(numbers(jobs.into_iter()))
            .bind(until)
            .bind(flag)
            .execute(&mut *self.conn)
            .await?;
        }
        Ok(answers)
    }

    /// The jobs of leases that still stand, found by their handles. `None` is for a closer look.
    async fn load_many(&mut self, leases: impl Iterator<Item = &Lease> + Clone) -> Step<Vec<Option<Job>>> {
        let handles = leases.clone().map(|lease| i64::try_from(lease.handle).unwrap_or(-1));
        let rows = sqlx::query(concat!(
            "select ",
            job_columns!(),
            ", queue.name from json_each(?1) as told join windlass_job as job on job.n = told.value join windlass_queue as queue using (q)"
        ))
        .bind(numbers(handles))
        .fetch_all(&mut *self.conn)
        .await?;
        let mut jobs = HashMap::with_capacity(rows.len());
        for row in &rows {
            let job = Job::of_row(row)?;
            jobs.insert(job.n, (job, row.try_get::<String, _>(COLUMNS)?));
        }
        Ok(leases
            .map(|lease| {
                let (job, queue) = jobs.get(&i64::try_from(lease.handle).ok()?)?;
                (job.is_leased_by(lease) && lease.job.queue == queue.as_str()).then(|| job.clone())
            })
            .collect())
    }

    pub(crate) async fn annotate(&mut self, notes: &[Note]) -> Step<Vec<bool>> {
        let mut answers = Vec::with_capacity(notes.len());
        for note in notes {
            answers.push(self.annotate_one(note).await?);
        }
        Ok(answers)
    }

    async fn annotate_one(&mut self, note: &Note) -> Step<bool> {
        let Ok(mut job) = self.fenced(&note.lease).await? else { return Ok(false) };
        self.open_more(&mut job).await?;
        if let Some(progress) = &note.progress {
            sqlx::query("update windlass_more set percent = ?2, note = ?3 where n = ?1")
                .bind(job.n)
                .bind(i64::from(progress.percent))
                .bind(&*progress.note)
                .execute(&mut *self.conn)
                .await?;
        }
        if !note.log.is_empty() {
            let row = sqlx::query("select log from windlass_more where n = ?1").bind(job.n);
            let stored: Option<Vec<u8>> = row.fetch_one(&mut *self.conn).await?.try_get(0)?;
            let mut log = read_log(stored.as_deref().unwrap_or_default())?;
            log.extend(note.log.iter().map(|text| LogLine { at: self.now, text: text.clone() }));
            let surplus = log.len().saturating_sub(LOG_LINES_MAX);
            log.drain(..surplus);
            sqlx::query("update windlass_more set log = ?2 where n = ?1")
                .bind(job.n)
                .bind(write_log(&log))
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(true)
    }
}

fn is_plain(verdict: &Verdict) -> bool {
    matches!(verdict.ruling, Ruling::Complete { .. }) && verdict.then.is_empty()
}

fn output(verdict: &Verdict) -> Option<&[u8]> {
    match &verdict.ruling {
        Ruling::Complete { output } => output.as_deref(),
        _ => None,
    }
}

/// Tells a repeat of a verdict that was applied from one whose lease is lost.
fn refused(stored: Option<&Job>, lease: &Lease) -> Settled {
    match stored {
        Some(job)
            if job.state != StateKind::Running
                && job.epoch() == lease.epoch
                && job.nonce == Some(lease.nonce.as_u128()) =>
        {
            Settled::AlreadyApplied
        }
        _ => Settled::LeaseLost,
    }
}

/// Log lines as they are stored: of each the instant, the length of the text, the text.
fn write_log(log: &[LogLine]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in log {
        out.extend(line.at.as_millis().to_le_bytes());
        out.extend(u32::try_from(line.text.len()).unwrap_or(0).to_le_bytes());
        out.extend(line.text.as_bytes());
    }
    out
}

pub(crate) fn read_log(mut stored: &[u8]) -> windlass_core::Result<Vec<LogLine>> {
    let mut log = Vec::new();
    while !stored.is_empty() {
        let short = || damaged("its log ends early");
        let (at, rest) = stored.split_first_chunk::<8>().ok_or_else(short)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or_else(short)?;
        let text = std::str::from_utf8(text).map_err(|_| damaged("its log is not UTF-8"))?;
        log.push(LogLine { at: Timestamp::from_millis(i64::from_le_bytes(*at)), text: text.into() });
        stored = rest;
    }
    Ok(log)
}
