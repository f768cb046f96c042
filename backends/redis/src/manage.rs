//! The operators' verbs.

use redis::Value;
use windlass_core::limits::{TEXT_MAX_BYTES, clip};
use windlass_core::{At, Cancelling, Error, ErrorKind, JobId, JobRef, Manage, QueueName, Result, StateKind};

use crate::backend::{RedisBackend, during};
use crate::link::Arguments;
use crate::record::state_of;
use crate::reply;
use crate::script::Script;

/// What a verb came to.
enum Came {
    Ok,
    Missing,
    Ended(StateKind),
    WrongState(StateKind),
    Conflict(JobId),
    Requested { session: Vec<u8>, now: Vec<u8> },
    Cancelled,
}

impl RedisBackend {
    async fn manage(&self, verb: &str, queue: &QueueName, id: &[u8], reason: &str, at: At) -> Result<Came> {
        let time = self.shared.time(at).await?;
        let mut arguments = Arguments::new(&time, &self.shared.keep);
        arguments.push(verb).push(id).push(reason);
        let answer = reply::array(self.shared.call(Script::Manage, queue, &arguments).await?)?;
        came(&answer)
    }

    async fn manage_job(&self, verb: &str, job: &JobRef, at: At) -> Result<()> {
        let shown = verb.replace("run", "run now");
        match self.manage(verb, &job.queue, job.id.as_uuid().as_bytes(), "", at).await? {
            Came::Missing => Err(Error::new(ErrorKind::NotFound, format!("no job {job} is stored"))),
            Came::WrongState(state) => {
                let hint = if verb == "delete" { "cancel it first" } else { "nothing was changed" };
                let text = format!("cannot {shown} {job}: it is {}; {hint}", state.as_str());
                Err(Error::new(ErrorKind::WrongState, text))
            }
            Came::Conflict(holder) => {
                let text = format!("cannot {shown} {job}: job {holder} holds its unique key");
                Err(Error::new(ErrorKind::Conflict, text))
            }
            _ => Ok(()),
        }
    }

    async fn set_paused(&self, verb: &str, queue: &QueueName, at: At) -> Result<()> {
        // The time first: a queue that is refused must not be listed.
        self.shared.time(at).await?;
        self.shared.register(queue).await?;
        self.manage(verb, queue, b"", "", at).await.map(drop)
    }

    async fn cancel_job(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        let reason = clip(reason, TEXT_MAX_BYTES);
        match self.manage("cancel", &job.queue, job.id.as_uuid().as_bytes(), &reason, at).await? {
            Came::Cancelled => Ok(Cancelling::Cancelled),
            Came::Ended(state) => Ok(Cancelling::AlreadyEnded(state)),
            Came::Requested { session, now } => {
                // A hint: its worker hears of it at its next beat in any case.
                drop(self.say_control(&session, &now).await);
                Ok(Cancelling::Requested)
            }
            _ => Ok(Cancelling::Missing),
        }
    }

    async fn say_control(&self, session: &[u8], now: &[u8]) -> Result<()> {
        let control = &*self.shared.keys.control;
        let route = &self.shared.route;
        route.send(control, redis::cmd("ZADD").arg(control).arg(now).arg(session)).await?;
        route.send(control, redis::cmd("PUBLISH").arg(control).arg(session)).await.map(drop)
    }
}

fn came(answer: &[Value]) -> Result<Came> {
    let more = || reply::at(answer, 1).and_then(reply::bytes);
    let state = || state_of(more()?.first().copied().unwrap_or_default());
    Ok(match reply::bytes(reply::at(answer, 0)?)? {
        b"ok" => Came::Ok,
        b"missing" => Came::Missing,
        b"ended" => Came::Ended(state()?),
        b"state" => Came::WrongState(state()?),
        b"conflict" => {
            let id = uuid::Uuid::from_slice(more()?).unwrap_or_default();
            Came::Conflict(JobId::from_uuid(id)?)
        }
        b"requested" => {
            Came::Requested { session: more()?.to_vec(), now: reply::bytes(reply::at(answer, 2)?)?.to_vec() }
        }
        b"cancelled" => Came::Cancelled,
        _ => {
            return Err(
                Error::new(ErrorKind::Unexpected, "the server's answer is not understood").effect_unknown()
            );
        }
    })
}

impl Manage for RedisBackend {
    async fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        during("cancel", self.cancel_job(job, reason, at).await)
    }

    async fn revive(&self, job: &JobRef, at: At) -> Result<()> {
        during("revive", self.manage_job("revive", job, at).await)
    }

    async fn run_now(&self, job: &JobRef, at: At) -> Result<()> {
        during("run now", self.manage_job("run", job, at).await)
    }

    async fn delete(&self, job: &JobRef, at: At) -> Result<()> {
        during("delete", self.manage_job("delete", job, at).await)
    }

    async fn pause(&self, queue: &QueueName, at: At) -> Result<()> {
        during("pause", self.set_paused("pause", queue, at).await)
    }

    async fn resume(&self, queue: &QueueName, at: At) -> Result<()> {
        during("resume", self.set_paused("resume", queue, at).await)
    }
}
