//! Comparing the store with what should be: each job after each step, and everything together now and then.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use windlass_core::{Filter, Inspect, JobId, QueueName, Record, RecordState, StateKind, Until, WhyBlocked};

use super::Oracle;
use super::shadow::{Stand, ended_at};

impl Oracle {
    pub(super) fn peek(&self, id: JobId) -> Option<Record> {
        self.jobs.get(&id).and_then(|shadow| self.engine.peek(&shadow.job))
    }

    /// Compares a job's record with its shadow.
    pub(super) fn look(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id).map(|shadow| shadow.job.clone()) else { return };
        match self.engine.peek(&job) {
            Some(record) => self.compare(&record),
            None => self.broken("S1", || format!("{job} was stored and is gone")),
        }
    }

    /// Hears of a waiting job that was called off by a successor or a parent.
    pub(super) fn called_off(&mut self, id: JobId) {
        let record = self.peek(id).filter(|record| record.state.kind() == StateKind::Cancelled);
        let waits = self.jobs.get(&id).is_some_and(|shadow| shadow.stand == Stand::Waiting);
        if let Some(record) = record.filter(|_| waits) {
            self.compare(&record);
        }
    }

    pub(super) fn compare(&mut self, record: &Record) {
        let Some(shadow) = self.jobs.get(&record.body.id) else {
            return self
                .broken("S2", || format!("{} is stored, and nobody dispatched it", record.body.job()));
        };
        let job = shadow.job.clone();
        let same = Arc::ptr_eq(&record.body, &shadow.body) || *record.body == *shadow.body;
        if !same {
            return self.broken("S2", || format!("{job} is not what was dispatched"));
        }
        if (record.epoch, record.generation) != (shadow.epoch, shadow.generation) {
            let want = (shadow.epoch, shadow.generation);
            let is = (record.epoch, record.generation);
            return self.broken("S5", || format!("{job} has (epoch, generation) {is:?}, not {want:?}"));
        }
        if (record.attempts, record.lost_leases) != (shadow.attempts, shadow.lost) {
            let want = (shadow.attempts, shadow.lost);
            let is = (record.attempts, record.lost_leases);
            return self
                .broken("S21", || format!("{job} counts (attempts, lost leases) {is:?}, not {want:?}"));
        }
        let state = &record.state;
        match (&shadow.stand, state) {
            (
                Stand::Running(hold),
                RecordState::Running { session, lease_until, started, cancel_requested, .. },
            ) => {
                let is = (*session, *lease_until, *started, *cancel_requested);
                let want = (hold.session, hold.until, hold.started, shadow.cancel);
                if is != want {
                    self.broken("S6", || format!("{job} is leased as {is:?}, not {want:?}"));
                }
            }
            (Stand::Ended(kind, at), _) => {
                if state.kind() != *kind || ended_at(state) != Some(*at) {
                    let kind = *kind;
                    self.broken("S8", || {
                        format!("{job} had ended as {}, and is now {state:?}", kind.as_str())
                    });
                }
            }
            (Stand::Waiting, RecordState::Cancelled { at, reason, superseded_by }) => {
                let called_off = superseded_by.is_some() || reason.starts_with("its parent");
                let at = *at;
                if !called_off {
                    let reason = reason.clone();
                    return self.broken("S8", || format!("{job} was cancelled by nobody: {reason}"));
                }
                self.stand(record.body.id, Stand::Ended(StateKind::Cancelled, at));
            }
            (Stand::Waiting, _) if state.kind().is_waiting() => {}
            (stand, _) => {
                let stand = format!("{stand:?}");
                self.broken("S8", || format!("{job} is {state:?}, and should be {stand}"));
            }
        }
    }

    pub(super) fn all_records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut after = None;
        loop {
            let page = self.engine.list(&Filter::default(), after.as_ref(), 1_000, self.at()).now_or_never();
            let Some(Ok(page)) = page else { return records };
            records.extend(page.records);
            match page.next {
                Some(next) => after = Some(next),
                None => return records,
            }
        }
    }

    /// Compares everything that is stored with what should be.
    pub(crate) fn look_at_all(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let records = self.all_records();
        for record in &records {
            self.compare(record);
        }
        if records.len() != self.jobs.len() {
            let gone = self.jobs.values().find(|shadow| self.engine.peek(&shadow.job).is_none());
            let gone = gone.map(|shadow| shadow.job.clone());
            self.broken("S1", || format!("{gone:?} was stored and is gone"));
        }
        self.recount(&records);
        self.look_at_keys(&records);
        self.look_at_limits(&records);
    }

    /// S21: the counts of the queues are the counts of their jobs.
    pub(super) fn recount(&mut self, records: &[Record]) {
        let Some(Ok(queues)) = self.engine.queues(self.at()).now_or_never() else { return };
        for queue in queues {
            for kind in StateKind::ALL {
                let of = |record: &&Record| record.body.queue == queue.name && record.state.kind() == kind;
                let counted = records.iter().filter(of).count() as u64;
                let said = queue.counts.get(kind);
                self.expect(counted == said, "S21", || {
                    format!(
                        "queue {} says it has {said} {} jobs, and has {counted}",
                        queue.name,
                        kind.as_str()
                    )
                });
            }
        }
    }

    /// S13: one live holder a key, and one behind it.
    pub(super) fn look_at_keys(&mut self, records: &[Record]) {
        let mut holders: BTreeMap<(&QueueName, &str), (u32, u32)> = BTreeMap::new();
        for record in records.iter().filter(|record| !record.state.kind().is_final()) {
            let Some(unique) = record.body.unique() else { continue };
            let (holders, behind) = holders.entry((&record.body.queue, &unique.key)).or_default();
            let waits = record.state == RecordState::Blocked { why: WhyBlocked::Unique };
            *behind += u32::from(waits);
            *holders += u32::from(!waits && unique.until == Until::End);
        }
        if let Some((key, count)) = holders.iter().find(|(_, (holders, behind))| *holders > 1 || *behind > 1)
        {
            self.broken("S13", || format!("the key {key:?} has {count:?} (holders, jobs behind)"));
        }
    }

    /// S16: no limit is exceeded.
    pub(super) fn look_at_limits(&mut self, records: &[Record]) {
        let mut taken: BTreeMap<(&QueueName, &str), (u32, u32)> = BTreeMap::new();
        for record in records {
            let Some(limit) = record.body.limit() else { continue };
            let in_place = matches!(record.state.kind(), StateKind::Ready | StateKind::Running);
            let entry = taken.entry((&record.body.queue, &limit.key)).or_insert((0, limit.at_most));
            entry.0 += u32::from(in_place);
        }
        if let Some((key, (taken, most))) = taken.iter().find(|(_, (taken, most))| taken > most) {
            self.broken("S16", || format!("{taken} jobs are in under the limit {key:?} of {most}"));
        }
    }
}
