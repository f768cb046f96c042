//! Looking without touching.

use uuid::Uuid;
use windlass_core::limits::PAGE_MAX;
use windlass_core::{
    At, Cursor, Error, Filter, Inspect, JobId, JobRef, Page, QueueInfo, QueueName, Record, Result, StateKind,
};

use crate::PostgresBackend;
use crate::backend::instant;
use crate::call::Operation;
use crate::rows::{self, column};

impl Inspect for PostgresBackend {
    async fn get(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        let (at, queue, id) = (instant(at), job.queue.as_str(), *job.id.as_uuid());
        let rows = self
            .shared
            .caller
            .rows(Operation::read("get"), &self.shared.sql.get, |query| {
                query.bind(at).bind(queue.to_owned()).bind(id)
            })
            .await?;
        rows.first().map(rows::record).transpose()
    }

    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        Filter::validate_page(limit)?;
        let (after_id, after_queue) = after.map(read_cursor).transpose()?.unzip();
        let queue = filter.queue.as_ref().map(|queue| queue.as_str().to_owned());
        let states: Vec<i16> = filter.states.iter().map(|state| *state as i16).collect();
        let kind = filter.kind.as_ref().map(|kind| kind.as_str().to_owned());
        // With nothing to leave out, no more is looked at than is shown.
        let bound =
            if states.is_empty() && kind.is_none() && filter.tag.is_none() { limit } else { PAGE_MAX };
        let at = instant(at);
        let rows = self
            .shared
            .caller
            .rows(Operation::read("list"), &self.shared.sql.list, |query| {
                query
                    .bind(at)
                    .bind(queue.clone())
                    .bind(&states)
                    .bind(kind.clone())
                    .bind(filter.tag.clone())
                    .bind(after_id)
                    .bind(after_queue.clone())
                    .bind(i32::try_from(bound).unwrap_or(i32::MAX))
            })
            .await?;
        let mut records = Vec::new();
        let mut next = None;
        for row in &rows {
            let passes: bool = column(row, "passes")?;
            if passes && records.len() == limit {
                next = records.last().map(cursor_after);
                break;
            }
            let record = rows::record(row)?;
            let looked: i64 = column(row, "looked")?;
            if column(row, "is_last")? && looked >= i64::try_from(bound).unwrap_or(i64::MAX) {
                next = Some(cursor_after(&record));
            }
            if passes {
                records.push(record);
            }
        }
        Ok(Page { records, next })
    }

    async fn queues(&self, at: At) -> Result<Vec<QueueInfo>> {
        let at = instant(at);
        let rows = self
            .shared
            .caller
            .rows(Operation::read("queues"), &self.shared.sql.queues, |query| query.bind(at))
            .await?;
        rows.iter()
            .map(|row| {
                let name = QueueName::new(column::<&str>(row, "queue")?)?;
                let mut counts = windlass_core::Counts::default();
                for (state, n) in StateKind::ALL.into_iter().zip(column::<Vec<i64>>(row, "counts")?) {
                    *counts.get_mut(state) = u64::try_from(n).unwrap_or_default();
                }
                Ok(QueueInfo { name, paused: column(row, "paused")?, counts })
            })
            .collect()
    }
}

fn cursor_after(record: &Record) -> Cursor {
    Cursor(format!("{}/{}", record.body.id, record.body.queue).into())
}

fn read_cursor(cursor: &Cursor) -> Result<(Uuid, String)> {
    let parts = cursor.0.split_once('/');
    parts
        .and_then(|(id, queue)| {
            Some((*id.parse::<JobId>().ok()?.as_uuid(), QueueName::new(queue).ok()?.as_str().to_owned()))
        })
        .ok_or_else(|| Error::invalid("cursor is not one that a listing of this engine returned"))
}
