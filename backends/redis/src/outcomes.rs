//! Waiting for how jobs end.

use std::time::Duration;

use redis::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use windlass_core::{At, Finished, JobRef, QueueName, Result};

use crate::backend::RedisBackend;
use crate::envelope;
use crate::link::Arguments;
use crate::notify::Event;
use crate::push::by_queue;
use crate::record::Raw;
use crate::reply;
use crate::script::Script;

/// How often a wait looks again although nothing was told: a message can be lost with its connection.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl RedisBackend {
    pub(crate) async fn outcomes_of(
        &self,
        jobs: &[JobRef],
        max_wait: Duration,
        at: At,
    ) -> Result<Vec<Option<Finished>>> {
        let time = self.shared.time(at).await?;
        let deadline = Instant::now() + max_wait;
        let groups = by_queue(jobs, |job| &job.queue);
        // Listens before it looks, so that no end falls between.
        let mut events = None;
        if !max_wait.is_zero() && !jobs.is_empty() {
            let keys: Vec<_> = groups.iter().map(|(queue, _)| self.shared.keys.of(queue)).collect();
            let channels: Vec<&str> = keys.iter().map(|keys| keys.ends()).collect();
            events = Some(self.shared.notify.listen(&self.shared.route, &channels).await?);
        }
        loop {
            let mut found = vec![None; jobs.len()];
            let left = deadline.saturating_duration_since(Instant::now());
            for (queue, places) in &groups {
                let ended = self.ended(queue, jobs, places, left, &time).await?;
                for (place, end) in places.iter().zip(ended) {
                    found[*place] = end;
                }
            }
            let Some(events) = &mut events else { return Ok(found) };
            if found.is_empty() || found.iter().any(Option::is_some) || left.is_zero() {
                return Ok(found);
            }
            // Until one of them is told, or it is time to look again.
            let until = deadline.min(Instant::now() + LOOK_EVERY);
            loop {
                match tokio::time::timeout_at(until, events.recv()).await {
                    Ok(Ok(Event::Message { payload, .. })) if !names_one(&payload, jobs) => {}
                    Ok(Err(RecvError::Closed)) => {
                        tokio::time::sleep_until(until).await;
                        break;
                    }
                    _ => break,
                }
            }
        }
    }

    async fn ended(
        &self,
        queue: &QueueName,
        jobs: &[JobRef],
        places: &[usize],
        wait: Duration,
        time: &str,
    ) -> Result<Vec<Option<Finished>>> {
        let mut arguments = Arguments::new(time, &self.shared.keep);
        // A little longer than it waits: an end that is told in vain costs little.
        let told_for = if wait.is_zero() { 0 } else { envelope::millis(wait).saturating_add(1_000) };
        arguments.count(places.len()).number(told_for);
        for place in places {
            arguments.push(jobs[*place].id.as_uuid().as_bytes());
        }
        let answer = reply::array(self.shared.call(Script::Outcomes, queue, &arguments).await?)?;
        let mut ended = Vec::with_capacity(places.len());
        for (place, found) in places.iter().zip(&answer) {
            ended.push(match found {
                Value::Array(parts) => {
                    let (body, record) =
                        (reply::bytes(reply::at(parts, 0)?)?, reply::bytes(reply::at(parts, 1)?)?);
                    let (_, body) = envelope::read(body, jobs[*place].id, queue)?;
                    Raw::read(record)?.finished(body.codec, reply::some_bytes(parts.get(2)))?
                }
                other if reply::bytes(other)?.is_empty() => Some(Finished::Missing),
                _ => None,
            });
        }
        Ok(ended)
    }
}

/// Whether a message tells of one of these jobs' end.
fn names_one(payload: &[u8], jobs: &[JobRef]) -> bool {
    payload.chunks_exact(16).any(|id| jobs.iter().any(|job| job.id.as_uuid().as_bytes() == id))
}
