//! What happens when a job fails? It backs off and is tried again, until its attempts are used up or its error says
//! otherwise; what failed for good is Dead, and can be revived.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{DeadReason, Failure, Recorded, StateKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "fetch", max_attempts = 4, retry = Retry::List(&[seconds(1), seconds(10)]))]
struct Fetch {
    status: u16,
}

impl Handler for Fetch {
    type Deps = ();
    type Error = Fault;

    async fn handle(Self { status }: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
        println!("  attempt {} meets {status}", cx.attempt());
        match status {
            // Any error with `?` or `Fault::retry` is left to the job's policy: after 1 s, then every 10 s.
            500 if cx.attempt() < 3 => Err(Fault::retry("the server failed")),
            // The callee says when to come back.
            429 if cx.attempt() < 2 => Err(Fault::retry_after(minutes(2), "too many requests")),
            // Trying again is of no use: Dead, for somebody to look at.
            404 => Err(Fault::bury("there is no such page")),
            // The job is no longer wanted: Cancelled, nobody need look.
            410 => Err(Fault::cancel("the page is gone on purpose")),
            // Not a failure at all: run me again later. Counts no attempt, so this one would snooze for ever.
            503 if cx.metadata("patience") != Some("none") => Ok(Outcome::Snooze(hours(1))),
            // Fails on every attempt, until none is left.
            502 | 503 => Err(Fault::retry("the gateway failed")),
            _ => Ok(Outcome::Done),
        }
    }
}

#[tokio::main]
async fn main() -> windlass::Result<()> {
    // A fake queue has virtual time: four minutes of back-off pass in no time at all.
    let queue = Queue::<MemoryBackend>::fake();
    let jobs = Registry::new(()).register::<Fetch>();

    for (status, ends, attempts, takes) in [
        (200, StateKind::Completed, 1, Duration::ZERO),
        (500, StateKind::Completed, 3, seconds(1 + 10)),
        (429, StateKind::Completed, 2, minutes(2)),
        (404, StateKind::Dead, 1, Duration::ZERO),
        (410, StateKind::Cancelled, 1, Duration::ZERO),
        (502, StateKind::Dead, 4, seconds(1 + 10 + 10)),
    ] {
        println!("status {status}");
        let fetch = queue.dispatch(Fetch { status }).await?;
        let drained = queue.drain(&jobs).await;
        let record = queue.find(&fetch).await?.expect("a finished job is kept for a day");
        println!("  ends {} after {:?}", record.state().as_str(), drained.elapsed);
        assert_eq!((record.state(), record.history().attempts), (ends, attempts));
        assert_eq!(drained.elapsed, takes);
    }

    // What is Dead says why, and comes back with all its attempts when somebody asks for it.
    let hopeless = queue.dispatch(Fetch { status: 503 }).metadata("patience", "none").max_attempts(1).await?;
    queue.drain(&jobs).await;
    let Some(Recorded::Dead(dead)) = queue.find(&hopeless).await? else { panic!("it should be dead") };
    assert_eq!(dead.state().reason, DeadReason::AttemptsExhausted);
    let why = dead.state().history.last_error.as_ref().map(Failure::message);
    println!("dead: {}", why.unwrap_or_default());
    assert_eq!(why, Some("the gateway failed"));

    queue.revive(hopeless.job_ref()).await?;
    let record = queue.find(&hopeless).await?.expect("it is Ready now");
    println!("revived: {}, generation {}", record.state().as_str(), record.history().generation);
    assert_eq!((record.state(), record.history().generation), (StateKind::Ready, 1));
    Ok(())
}
