//! What the workers of a history run: jobs that do as their payload says, and tell the oracle.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Job, Provide, Retry, Upgrade};

use crate::oracle::{Said, Stage};
use crate::seat::Seat;

/// What a job does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) enum Deed {
    Quick,
    /// So many pauses of so many milliseconds each; stops when it is told to.
    Long(u16, u16),
    /// The same, deaf to being told.
    Deaf(u16, u16),
    /// Fails so many times, then finishes.
    Fail(u16),
    Panic(u16),
    /// Snoozes for so many milliseconds until the oracle has seen so many runs.
    Snooze(u16, u16),
    /// Finishes, and wants so many jobs then.
    Then(u8),
    /// Writes progress and lines.
    Log(u8),
    Bury,
    GiveUp,
    /// Kills its worker, always.
    Poison,
}

/// The kind that every worker knows.
#[derive(Clone, Serialize, Deserialize, Job, Debug)]
#[job(name = "act", max_attempts = 4, retry = Retry::exponential(seconds(2), seconds(8)))]
pub(crate) struct Act {
    pub(crate) deed: Deed,
}

/// A kind that some workers do not know.
#[derive(Clone, Serialize, Deserialize, Job, Debug)]
#[job(name = "odd", max_attempts = 4, retry = Retry::Fixed(seconds(1)))]
pub(crate) struct Odd {
    pub(crate) deed: Deed,
}

/// The same kind in its next version, which those who know the first cannot read.
#[derive(Clone, Serialize, Deserialize, Job, Debug)]
#[job(
    name = "odd", version = 2, min_reader = 2, max_attempts = 4, retry = Retry::Fixed(seconds(1)),
    upgrades = &[Upgrade::via::<Odd>(1)]
)]
pub(crate) struct NewOdd {
    pub(crate) what: Deed,
}

impl From<Odd> for NewOdd {
    fn from(old: Odd) -> Self {
        Self { what: old.deed }
    }
}

/// Which versions of [`Odd`] a worker knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Knows {
    Nothing,
    First,
    Both,
}

/// What a handler needs to know of where it runs.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) stage: Stage,
    pub(crate) seat: Arc<Seat>,
    pub(crate) client: u32,
}

#[derive(Clone, Provide)]
pub(crate) struct App {
    pub(crate) place: Place,
}

impl Handler for Act {
    type Deps = (Place,);
    type Error = Fault;

    async fn handle(job: Self, (place,): (Place,), cx: &mut Context) -> Result<Outcome, Fault> {
        perform(&job.deed, &place, cx).await
    }
}

impl Handler for Odd {
    type Deps = (Place,);
    type Error = Fault;

    async fn handle(job: Self, (place,): (Place,), cx: &mut Context) -> Result<Outcome, Fault> {
        perform(&job.deed, &place, cx).await
    }
}

impl Handler for NewOdd {
    type Deps = (Place,);
    type Error = Fault;

    async fn handle(job: Self, (place,): (Place,), cx: &mut Context) -> Result<Outcome, Fault> {
        perform(&job.what, &place, cx).await
    }
}

async fn perform(deed: &Deed, place: &Place, cx: &mut Context) -> Result<Outcome, Fault> {
    let stage = &place.stage;
    let run = stage.lock().begin(place.client, &cx.job_ref(), cx.fence().epoch, cx.payload());
    // Its end is noted however it ends: returned, panicked or dropped.
    let run = Running { stage: stage.clone(), run };
    let said = |said| stage.lock().said(run.run, said);
    let done = || {
        said(Said::Done);
        Ok(Outcome::Done)
    };
    let fail = |text: &str| {
        said(Said::Failed);
        Err(Fault::retry(text.to_owned()))
    };
    match *deed {
        Deed::Long(steps, pause) => {
            for _ in 0..steps {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(Duration::from_millis(pause.into())) => {}
                    () = cx.cancelled() => {
                        stage.lock().step(run.run);
                        return fail("told to stop");
                    }
                }
                stage.lock().step(run.run);
            }
            done()
        }
        Deed::Deaf(steps, pause) => {
            for _ in 0..steps {
                tokio::time::sleep(Duration::from_millis(pause.into())).await;
                stage.lock().step(run.run);
            }
            done()
        }
        Deed::Fail(times) if cx.attempt() <= times => {
            tokio::task::yield_now().await;
            fail("told to fail")
        }
        Deed::Panic(times) if cx.attempt() <= times => {
            said(Said::Failed);
            panic!("told to panic")
        }
        Deed::Quick | Deed::Fail(_) | Deed::Panic(_) => done(),
        Deed::Snooze(times, millis) => {
            if cx.fence().epoch <= u64::from(times) {
                said(Said::Snoozed);
                return Ok(Outcome::Snooze(Duration::from_millis(millis.into())));
            }
            done()
        }
        Deed::Then(count) => {
            for _ in 0..count {
                cx.then_with(Act { deed: Deed::Quick }, |dispatch| dispatch.on("bulk"))?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            done()
        }
        Deed::Log(lines) => {
            for line in 0..lines {
                cx.log(format!("line {line}")).await?;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            if let Err(error) = cx.progress(50, "half-way").await {
                said(Said::Failed);
                return Err(error.into());
            }
            done()
        }
        Deed::Bury => {
            said(Said::Failed);
            Err(Fault::bury("told to bury"))
        }
        Deed::GiveUp => {
            said(Said::GaveUp);
            Ok(Outcome::Cancel("told to give up".to_owned()))
        }
        Deed::Poison => {
            place.seat.kill();
            std::future::pending().await
        }
    }
}

struct Running {
    stage: Stage,
    run: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stage.lock().ended(self.run);
    }
}
