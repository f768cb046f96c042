//! Looking without touching.

use std::ops::Bound;

use windlass_core::{
    Cursor, DeadReason, Error, Filter, Finished, JobId, JobRef, Page, QueueInfo, QueueName, Record,
    RecordState, Result, Timestamp,
};

use crate::store::{End, Job, Line, State, Store};

impl Store {
    pub(crate) fn get(&self, job: &JobRef) -> Option<Record> {
        self.find(job).map(|slot| record(self.job(slot)))
    }

    pub(crate) fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize) -> Result<Page> {
        let after = after.map(read_cursor).transpose()?;
        // Merge the named queues by id: each is ordered, so a page costs what it shows.
        let mut records: Vec<Record> = Vec::new();
        let start = match &after {
            None => Bound::Unbounded,
            Some((id, _)) => Bound::Included(*id),
        };
        let mut heads: Vec<_> = self
            .lanes
            .iter()
            .filter(|lane| filter.queue.as_ref().is_none_or(|queue| *queue == lane.name))
            .map(|lane| (&lane.name, lane.ids.range((start, Bound::Unbounded)).peekable()))
            .collect();
        loop {
            let next = heads
                .iter_mut()
                .enumerate()
                .filter_map(|(at, (name, ids))| ids.peek().map(|(id, _)| (**id, (*name).clone(), at)))
                .min();
            let Some((id, name, at)) = next else { return Ok(Page { records, next: None }) };
            let Some((_, &slot)) = heads[at].1.next() else { continue };
            if after.as_ref().is_some_and(|(last, queue)| (id, &name) <= (*last, queue)) {
                continue;
            }
            let record = record(self.job(slot));
            if !filter.passes(&record) {
                continue;
            }
            if records.len() == limit {
                let next = records.last().map(|last| write_cursor(last.body.id, &last.body.queue));
                return Ok(Page { records, next });
            }
            records.push(record);
        }
    }

    pub(crate) fn queues(&self) -> Vec<QueueInfo> {
        let mut queues: Vec<_> = self
            .lanes
            .iter()
            .map(|lane| QueueInfo { name: lane.name.clone(), paused: lane.paused, counts: lane.counts })
            .collect();
        queues.sort_by(|a, b| a.name.cmp(&b.name));
        queues
    }

    pub(crate) fn finished(&self, job: &JobRef) -> Option<Finished> {
        let Some(slot) = self.find(job) else { return Some(Finished::Missing) };
        let job = self.job(slot);
        let State::Ended(ended) = &job.state else { return None };
        Some(match &ended.end {
            End::Completed { output } => {
                Finished::Completed { output: output.clone(), codec: job.body.codec }
            }
            End::Cancelled { reason, .. } => Finished::Cancelled { reason: reason.clone() },
            End::Dead { reason } => Finished::Dead { reason: *reason, error: last_error(job) },
        })
    }

    /// When the next scheduled job of these queues is due.
    pub(crate) fn next_due(&self, queues: &[QueueName]) -> Option<Timestamp> {
        let lanes = queues.iter().filter_map(|name| self.find_lane(name));
        let lanes = lanes.map(|lane| &self.lanes[lane as usize]).filter(|lane| !lane.paused);
        lanes.filter_map(|lane| lane.scheduled.first_key_value()).map(|((due, _), _)| *due).min()
    }

    /// Whether a claim of these queues might bring something.
    pub(crate) fn has_work(&self, queues: &[QueueName]) -> bool {
        queues.iter().any(|name| {
            self.find_lane(name).is_some_and(|lane| {
                let lane = &self.lanes[lane as usize];
                !lane.paused && !lane.ready.is_empty()
            })
        })
    }
}

fn last_error(job: &Job) -> Option<windlass_core::Failure> {
    job.more.as_ref().and_then(|more| more.last_error.clone())
}

fn write_cursor(id: JobId, queue: &QueueName) -> Cursor {
    Cursor(format!("{id}/{queue}").into())
}

fn read_cursor(cursor: &Cursor) -> Result<(JobId, QueueName)> {
    let parts = cursor.0.split_once('/');
    parts
        .and_then(|(id, queue)| Some((id.parse().ok()?, QueueName::new(queue).ok()?)))
        .ok_or_else(|| Error::invalid("cursor is not one that a listing of this engine returned"))
}

fn record(job: &Job) -> Record {
    let state = match &job.state {
        State::Blocked { why, .. } => RecordState::Blocked { why: *why },
        State::Scheduled { due, why, .. } => RecordState::Scheduled { due: *due, why: *why },
        State::Ready { line, .. } => RecordState::Ready { parked: *line == Line::Parked },
        State::Running(run) => RecordState::Running {
            session: run.session,
            since: run.since,
            lease_until: run.until,
            started: run.started,
            cancel_requested: job.cancel_requested(),
        },
        State::Ended(ended) => match &ended.end {
            End::Completed { output } => RecordState::Completed { at: ended.at, output: output.clone() },
            End::Cancelled { reason, superseded_by } => {
                RecordState::Cancelled { at: ended.at, reason: reason.clone(), superseded_by: *superseded_by }
            }
            End::Dead { reason } => {
                let reason: DeadReason = *reason;
                RecordState::Dead { at: ended.at, reason }
            }
        },
    };
    Record {
        body: job.body.clone(),
        state,
        created_at: job.created_at,
        attempts: job.attempts,
        lost_leases: job.lost_leases,
        generation: job.generation,
        epoch: job.epoch,
        last_error: last_error(job),
        progress: job.more.as_ref().and_then(|more| more.progress.clone()),
        log: job.more.as_ref().map(|more| more.log.clone()).unwrap_or_default(),
    }
}
