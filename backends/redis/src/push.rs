//! Push: new jobs into storage, one script a named queue.

use windlass_core::{At, Due, Error, ErrorKind, JobId, NewJob, Pushed, QueueName, Result};

use crate::backend::RedisBackend;
use crate::envelope;
use crate::link::Arguments;
use crate::reply;
use crate::script::Script;

/// The places of a batch's items, by named queue, in the order in which the queues come.
pub(crate) fn by_queue<'a, T>(
    items: &'a [T],
    queue: impl Fn(&'a T) -> &'a QueueName,
) -> Vec<(&'a QueueName, Vec<usize>)> {
    let mut groups: Vec<(&QueueName, Vec<usize>)> = Vec::new();
    for (at, item) in items.iter().enumerate() {
        let name = queue(item);
        match groups.iter_mut().find(|(other, _)| *other == name) {
            Some((_, places)) => places.push(at),
            None => groups.push((name, vec![at])),
        }
    }
    groups
}

/// When a job is due, as scripts read it.
pub(crate) fn due(due: Due) -> String {
    match due {
        Due::Now => String::new(),
        Due::After(delay) => format!("a{}", envelope::millis(delay)),
        Due::At(instant) => format!("t{}", instant.as_millis()),
    }
}

/// Refuses parents in another named queue: no step spans two.
pub(crate) fn check_parents(job: &NewJob) -> Result<()> {
    match job.body.parents().iter().find(|parent| parent.queue != job.body.queue) {
        None => Ok(()),
        Some(parent) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "parent {parent} is in another named queue: on this engine it must be in `{}`",
                job.body.queue
            ),
        )),
    }
}

impl RedisBackend {
    pub(crate) async fn push_all(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        jobs.iter().try_for_each(check_parents)?;
        let time = self.shared.time(at).await?;
        if let ([job], true) = (jobs, time.is_empty())
            && is_plain(job)
        {
            let queue = &job.body.queue;
            self.shared.register(queue).await?;
            let id = job.body.id.as_uuid().into_bytes();
            return Ok(vec![self.push_gathered(queue, id, envelope::write(&job.body)).await?]);
        }
        let groups = by_queue(jobs, |job| &job.body.queue);
        let mut answers = vec![Pushed::Inserted; jobs.len()];
        for (done, (queue, places)) in groups.iter().enumerate() {
            let of_queue: Vec<&NewJob> = places.iter().map(|at| &jobs[*at]).collect();
            let pushed = self.push_one_queue(queue, &of_queue, &time).await;
            // Another queue's jobs are stored already.
            let pushed = if done > 0 { pushed.map_err(Error::effect_unknown)? } else { pushed? };
            for (at, answer) in places.iter().zip(pushed) {
                answers[*at] = answer;
            }
        }
        Ok(answers)
    }

    async fn push_one_queue(&self, queue: &QueueName, jobs: &[&NewJob], time: &str) -> Result<Vec<Pushed>> {
        self.shared.register(queue).await?;
        if jobs.iter().all(|job| is_plain(job)) && differ(jobs) {
            let bodies: Vec<_> = jobs.iter().map(|job| envelope::write(&job.body)).collect();
            let ids = jobs.iter().map(|job| job.body.id.as_uuid().into_bytes());
            let packed: Vec<_> = ids.zip(bodies.iter().map(Vec::as_slice)).collect();
            return self.push_packed(queue, &packed, time).await;
        }
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.count(jobs.len()).push("0");
        for job in jobs {
            arguments.push(job.body.id.as_uuid().as_bytes());
        }
        for job in jobs {
            arguments.push(envelope::write(&job.body));
        }
        for job in jobs {
            arguments.push(due(job.due));
        }
        let answer = self.shared.call(Script::Push, queue, &arguments).await?;
        self.durable(queue).await?;
        let answers = reply::array(answer)?;
        if answers.len() != jobs.len() {
            return Err(strange());
        }
        answers.iter().map(|answer| pushed(reply::bytes(answer)?)).collect()
    }

    /// Pushes plain jobs whose ids differ: each its id, and its body as `envelope` writes it.
    pub(crate) async fn push_packed(
        &self,
        queue: &QueueName,
        jobs: &[([u8; 16], &[u8])],
        time: &str,
    ) -> Result<Vec<Pushed>> {
        let mut arguments = Arguments::default();
        arguments.push(time);
        for (id, _) in jobs {
            arguments.push(id);
        }
        for (_, body) in jobs {
            arguments.push(body);
        }
        let keys = self.shared.keys.of(queue);
        let answer = self.shared.route.call(Script::PushPlain, &keys.plain, &arguments).await?;
        self.durable(queue).await?;
        match reply::bytes(&answer)? {
            b"I" => Ok(vec![Pushed::Inserted; jobs.len()]),
            letters if letters.len() == jobs.len() => {
                letters.iter().map(|letter| pushed(&[*letter])).collect()
            }
            _ => Err(strange()),
        }
    }

    /// Pushes jobs that rode with a verdict of another named queue: bodies as they are stored there.
    pub(crate) async fn push_riders(
        &self,
        queue: &QueueName,
        riders: &[(&[u8], &[u8], String)],
        time: &str,
    ) -> Result<()> {
        self.shared.register(queue).await?;
        let mut arguments = Arguments::new(time, &self.shared.keep);
        arguments.count(riders.len()).push("1");
        for (id, ..) in riders {
            arguments.push(id);
        }
        for (_, body, _) in riders {
            arguments.push(body);
        }
        for (.., due) in riders {
            arguments.push(due);
        }
        self.shared.call(Script::Push, queue, &arguments).await?;
        self.durable(queue).await
    }
}

/// Whether a job needs nothing looked up but its id.
fn is_plain(job: &NewJob) -> bool {
    job.due == Due::Now && envelope::is_plain(&job.body)
}

fn differ(jobs: &[&NewJob]) -> bool {
    let mut ids: Vec<JobId> = jobs.iter().map(|job| job.body.id).collect();
    ids.sort_unstable();
    ids.windows(2).all(|pair| pair[0] != pair[1])
}

fn pushed(answer: &[u8]) -> Result<Pushed> {
    let other = |id: &[u8]| {
        uuid::Uuid::from_slice(id).ok().and_then(|id| JobId::from_uuid(id).ok()).ok_or_else(strange)
    };
    match answer {
        b"I" => Ok(Pushed::Inserted),
        b"S" => Ok(Pushed::SameId),
        [b'C', id @ ..] => Ok(Pushed::Conflict(other(id)?)),
        [b'U', id @ ..] => Ok(Pushed::Superseded(other(id)?)),
        _ => Err(strange()),
    }
}

fn strange() -> Error {
    Error::new(ErrorKind::Unexpected, "the server's answer to a push is not understood").effect_unknown()
}
