//! Looking without touching.
//!
//! Jobs are kept in no order of their ids: an index of a million would cost half as much again as the jobs. A page of a
//! listing looks at all ids of its queues, a thousand a call, and keeps the lowest beyond its cursor.

use std::collections::{BTreeSet, HashMap};

use redis::Value;
use windlass_core::{
    At, Counts, Cursor, Error, Filter, Inspect, JobId, JobRef, Page, QueueInfo, QueueName, Record, Result,
    StateKind,
};

use crate::backend::{RedisBackend, during};
use crate::link::Arguments;
use crate::record::{Said, whole};
use crate::reply;
use crate::script::Script;

/// Records of one call: they may hold payloads and outputs.
const RECORDS_A_CALL: usize = 100;
/// Ids that a page keeps in hand: a filter that few jobs pass is not paid with a look at all ids for each of them.
const IN_HAND: usize = 5_000;

impl RedisBackend {
    /// The records of jobs of one queue, `None` where there is none.
    async fn fetch(&self, queue: &QueueName, ids: &[JobId], time: &str) -> Result<Vec<Option<Record>>> {
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.count(ids.len());
        for id in ids {
            arguments.push(id.as_uuid().as_bytes());
        }
        let answer = reply::array(self.shared.call(Script::Fetch, queue, &arguments).await?)?;
        let mut records = Vec::with_capacity(ids.len());
        for (id, found) in ids.iter().zip(answer) {
            records.push(match found {
                Value::Array(parts) => {
                    let part = |at: usize| reply::at(&parts, at).and_then(reply::bytes);
                    let said = Said {
                        error: reply::some_bytes(parts.get(2)),
                        progress: reply::some_bytes(parts.get(3)),
                        log: reply::some_bytes(parts.get(4)),
                    };
                    Some(whole(*id, queue, part(0)?, part(1)?, &said)?)
                }
                _ => None,
            });
        }
        Ok(records)
    }

    /// The lowest ids beyond a cursor in these queues, and whether there are more.
    async fn lowest(
        &self,
        queues: &[QueueName],
        after: Option<&(JobId, QueueName)>,
        time: &str,
    ) -> Result<(BTreeSet<(JobId, QueueName)>, bool)> {
        let (mut lowest, mut more) = (BTreeSet::new(), false);
        for queue in queues {
            let mut cursor = "0".to_owned();
            loop {
                let mut arguments = Arguments::new(time, &self.shared.keep);
                arguments.push(&cursor);
                let answer = reply::array(self.shared.call(Script::Scan, queue, &arguments).await?)?;
                for id in reply::bytes(reply::at(&answer, 1)?)?.chunks_exact(16) {
                    let Ok(id) = JobId::from_uuid(uuid::Uuid::from_slice(id).unwrap_or_default()) else {
                        continue;
                    };
                    let beyond = after.is_none_or(|(last, name)| (id, queue) > (*last, name));
                    let in_hand = |all: &BTreeSet<(JobId, QueueName)>| {
                        all.len() < IN_HAND
                            || all.last().is_some_and(|(last, name)| (id, queue) < (*last, name))
                    };
                    if !beyond {
                        continue;
                    }
                    if in_hand(&lowest) {
                        lowest.insert((id, queue.clone()));
                    } else {
                        more = true;
                    }
                    if lowest.len() > IN_HAND {
                        lowest.pop_last();
                        more = true;
                    }
                }
                cursor = String::from_utf8_lossy(reply::bytes(reply::at(&answer, 0)?)?).into_owned();
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok((lowest, more))
    }

    async fn page(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        Filter::validate_page(limit)?;
        let after = after.map(read_cursor).transpose()?;
        let time = self.shared.time(at).await?;
        let queues = match &filter.queue {
            Some(queue) => vec![queue.clone()],
            None => self.shared.all_queues().await?,
        };
        let (lowest, more) = self.lowest(&queues, after.as_ref(), &time).await?;
        let lowest: Vec<_> = lowest.into_iter().collect();
        let mut page = Page { records: Vec::new(), next: None };
        for some in lowest.chunks(RECORDS_A_CALL) {
            let mut found = HashMap::new();
            for queue in &queues {
                let ids: Vec<_> = some.iter().filter(|(_, name)| name == queue).map(|(id, _)| *id).collect();
                if !ids.is_empty() {
                    let records = self.fetch(queue, &ids, &time).await?;
                    found.extend(ids.into_iter().zip(records).map(|(id, record)| ((id, queue), record)));
                }
            }
            for (id, queue) in some {
                let Some(record) = found.remove(&(*id, queue)).flatten() else { continue };
                if !filter.passes(&record) {
                    continue;
                }
                if page.records.len() == limit {
                    page.next =
                        page.records.last().map(|last: &Record| write_cursor(last.body.id, &last.body.queue));
                    return Ok(page);
                }
                page.records.push(record);
            }
        }
        if more && let Some((id, queue)) = lowest.last() {
            page.next = Some(write_cursor(*id, queue));
        }
        Ok(page)
    }

    async fn find(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        let time = self.shared.time(at).await?;
        Ok(self.fetch(&job.queue, &[job.id], &time).await?.pop().flatten())
    }

    /// What a queue holds, in numbers: see `lua/look.lua`.
    pub(crate) async fn look(&self, queue: &QueueName, time: &str) -> Result<Vec<Value>> {
        let arguments = Arguments::new(time, &self.shared.keep);
        reply::array(self.shared.call(Script::Look, queue, &arguments).await?)
    }

    async fn infos(&self, at: At) -> Result<Vec<QueueInfo>> {
        let time = self.shared.time(at).await?;
        let queues = self.shared.all_queues().await?;
        let looks = futures::future::try_join_all(queues.iter().map(|queue| self.look(queue, &time))).await?;
        let mut infos = Vec::with_capacity(queues.len());
        for (name, look) in queues.into_iter().zip(looks) {
            let mut counts = Counts::default();
            for (at, state) in StateKind::ALL.into_iter().enumerate() {
                *counts.get_mut(state) = reply::number(reply::at(&look, at + 1)?)?;
            }
            infos.push(QueueInfo { name, paused: reply::number(reply::at(&look, 0)?)? > 0, counts });
        }
        Ok(infos)
    }
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

impl Inspect for RedisBackend {
    async fn get(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        during("get", self.find(job, at).await)
    }

    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        during("list", self.page(filter, after, limit, at).await)
    }

    async fn queues(&self, at: At) -> Result<Vec<QueueInfo>> {
        during("queues", self.infos(at).await)
    }
}
