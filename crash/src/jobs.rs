//! The jobs, and their handlers: each says that it starts and what it is about to answer, before it does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass_core::JobId;

use crate::effects::Books;
use crate::plan::{Act, LINGERS, Plan};
use crate::points::{Point, Trapped};
use crate::wire::{Answer, Event, Word};

/// The back-off of all of them: long enough to be seen, and short beside a lease.
pub(crate) const AGAIN: Retry = Retry::Fixed(Duration::from_millis(50));

/// A job of the plan.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "crash_work", retry = AGAIN)]
pub(crate) struct Work {
    pub(crate) number: u64,
}

/// A job of the plan that gives its epoch back.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "crash_sum", retry = AGAIN, output = u64)]
pub(crate) struct Sum {
    pub(crate) number: u64,
}

/// A job that rode with the verdict of another.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "crash_child", retry = AGAIN, max_attempts = 5)]
pub(crate) struct Child {
    pub(crate) of: u64,
}

/// What handlers need.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) plan: Plan,
    pub(crate) trapped: Trapped,
}

#[derive(Clone, Provide)]
pub(crate) struct Container {
    pub(crate) scene: Scene,
    pub(crate) books: Books,
}

/// One execution, from its start to what it is about to answer.
pub(crate) struct Execution<'a> {
    scene: &'a Scene,
    pub(crate) id: JobId,
    pub(crate) epoch: u64,
    /// What it is about to answer: nothing, if it is dropped.
    word: Word,
}

impl Drop for Execution<'_> {
    fn drop(&mut self) {
        self.scene.trapped.tell(&Event::Ending(self.id, self.epoch, self.word));
    }
}

impl<'a> Execution<'a> {
    pub(crate) fn start(scene: &'a Scene, cx: &Context) -> Self {
        let (id, epoch) = (cx.id(), cx.fence().epoch);
        scene.trapped.tell(&Event::Started(id, epoch));
        scene.trapped.pass(Point::InHandler);
        Self { scene, id, epoch, word: Word::Release }
    }

    /// It is about to answer so.
    pub(crate) fn ends(mut self, word: Word) {
        self.word = word;
    }

    /// It is about to settle itself, in a transaction.
    pub(crate) fn sends(&self, word: Word) {
        self.scene.trapped.tell(&Event::Sending(vec![(self.id, self.epoch, word)]));
    }

    /// What became of that.
    pub(crate) fn hears(&self, answer: Answer) {
        self.scene.trapped.tell(&Event::Answered(vec![(self.id, self.epoch, answer)]));
    }
}

/// A planned failure.
pub(crate) fn planned() -> Fault {
    Fault::retry("it was planned to fail")
}

impl Handler for Work {
    type Deps = (Scene,);
    type Error = Fault;

    async fn handle(Self { number }: Self, (scene,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        let execution = Execution::start(&scene, cx);
        let act = scene.plan.act(number);
        if act == Act::Linger && cx.fence().epoch > 1 {
            tokio::time::sleep(LINGERS).await;
        }
        if !act.takes().is_zero() {
            tokio::time::sleep(act.takes()).await;
        }
        let failed = if cx.is_last_attempt() { Word::Exhausted } else { Word::Retry };
        match act {
            Act::Fail if cx.attempt() == 1 => {
                execution.ends(failed);
                Err(planned())
            }
            Act::FailAlways => {
                execution.ends(failed);
                Err(planned())
            }
            Act::Panic if cx.attempt() == 1 => {
                execution.ends(failed);
                std::panic::panic_any("it was planned to panic");
            }
            Act::Snooze if cx.fence().epoch == 1 => {
                execution.ends(Word::Snooze);
                Ok(Outcome::Snooze(milliseconds(50)))
            }
            Act::Cancel => {
                execution.ends(Word::Cancel);
                Ok(Outcome::Cancel("it was planned so".to_owned()))
            }
            Act::Bury => {
                execution.ends(Word::Bury);
                Err(Fault::bury("it was planned to be buried"))
            }
            Act::Then(children) => {
                let own = cx.queue_name().to_string();
                for child in 0..children {
                    // The first one into its parent's queue, the others into another.
                    let other = crate::plan::QUEUES.into_iter().find(|name| *name != own);
                    let queue = if child == 0 { own.as_str() } else { other.unwrap_or(&own) };
                    cx.then_with(Child { of: number }, |child| child.on(queue))?;
                }
                execution.ends(Word::Complete);
                Ok(Outcome::Done)
            }
            Act::Fail
            | Act::Panic
            | Act::Snooze
            | Act::Done
            | Act::Slow(_)
            | Act::Linger
            | Act::Output
            | Act::Effect(_) => {
                execution.ends(Word::Complete);
                Ok(Outcome::Done)
            }
        }
    }
}

impl Handler for Sum {
    type Deps = (Scene,);
    type Error = Fault;

    async fn handle(_: Self, (scene,): Self::Deps, cx: &mut Context) -> Result<Outcome<u64>, Fault> {
        let execution = Execution::start(&scene, cx);
        execution.ends(Word::Complete);
        Ok(Outcome::Value(cx.fence().epoch))
    }
}

impl Handler for Child {
    type Deps = (Scene,);
    type Error = Fault;

    async fn handle(_: Self, (scene,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        let execution = Execution::start(&scene, cx);
        execution.ends(Word::Complete);
        Ok(Outcome::Done)
    }
}

/// The points on both sides of a handler.
pub(crate) struct Around(pub(crate) Trapped);

#[windlass::async_trait]
impl Middleware for Around {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        self.0.pass(Point::BeforeHandler);
        let ending = next.run(cx).await;
        self.0.pass(Point::AfterHandler);
        ending
    }
}
