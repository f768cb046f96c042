//! What the tests share: a job that does as its payload says, a journal it writes to, and a world with a clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use windlass::prelude::*;
use windlass::{Dispatched, MemoryBackend, Recorded, Report, StateKind, VirtualClock};

use super::engine::Far;

/// What handlers did, in order.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|one| *one == line).count()
    }
}

/// What an [`Act`] does.
#[derive(Clone, Serialize, Deserialize, PartialEq, Debug)]
pub(crate) enum Do {
    Finish,
    Sleep(Duration),
    /// Ignores cancellation.
    SleepDeaf(Duration),
    Fail(String),
    /// Fails so many times, then finishes.
    FailTimes(u16),
    Panic(String),
    Snooze(Duration),
    /// Snoozes until it was created so long ago.
    SnoozeUntil(Duration),
    GiveUp(String),
    Bury(String),
    RetryAfter(Duration),
    CancelByError(String),
    /// Dispatches this `then`, and then does the other.
    Then(String, Box<Do>),
    Log(u16),
}

#[derive(Clone, Serialize, Deserialize, Job, PartialEq, Debug)]
#[job(name = "act", max_attempts = 3, retry = Retry::Fixed(seconds(10)))]
pub(crate) struct Act {
    pub(crate) name: String,
    pub(crate) act: Do,
}

pub(crate) fn act(name: &str, act: Do) -> Act {
    Act { name: name.to_owned(), act }
}

pub(crate) fn finish(name: &str) -> Act {
    act(name, Do::Finish)
}

impl Handler for Act {
    type Deps = (Journal,);
    type Error = Fault;

    async fn handle(
        Self { name, act }: Self,
        (journal,): (Journal,),
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        journal.write(name.clone());
        let mut act = act;
        loop {
            return match act {
                Do::Sleep(time) => {
                    tokio::select! {
                        () = tokio::time::sleep(time) => Ok(Outcome::Done),
                        () = cx.cancelled() => {
                            journal.write(format!("{name} told to stop: {:?}", cx.stop_reason()));
                            Err(Fault::retry("told to stop"))
                        }
                    }
                }
                Do::SleepDeaf(time) => {
                    let mut alive = Alive { journal: journal.clone(), name: name.clone(), dropped: true };
                    tokio::time::sleep(time).await;
                    alive.dropped = false;
                    journal.write(format!("{name} woke"));
                    Ok(Outcome::Done)
                }
                Do::Fail(text) => Err(Fault::retry(text)),
                Do::FailTimes(times) if cx.attempt() <= times => {
                    Err(Fault::retry(format!("failure {}", cx.attempt())))
                }
                Do::Finish | Do::FailTimes(_) => Ok(Outcome::Done),
                Do::Panic(text) => panic!("{text}"),
                Do::Snooze(time) => Ok(Outcome::Snooze(time)),
                Do::SnoozeUntil(age) => {
                    let age_now = cx.queue().virtual_clock().unwrap().now().since(cx.created_at());
                    if age_now < age { Ok(Outcome::Snooze(seconds(5))) } else { Ok(Outcome::Done) }
                }
                Do::GiveUp(reason) => Ok(Outcome::Cancel(reason)),
                Do::Bury(text) => Err(Fault::bury(text)),
                Do::RetryAfter(time) => Err(Fault::retry_after(time, "busy")),
                Do::CancelByError(text) => Err(Fault::cancel(text)),
                Do::Then(next, rest) => {
                    cx.then(finish(&next))?;
                    act = *rest;
                    continue;
                }
                Do::Log(lines) => {
                    for n in 0..lines {
                        cx.log(format!("line {n}")).await?;
                    }
                    Ok(Outcome::Done)
                }
            };
        }
    }
}

/// Writes when its future is dropped half-way.
struct Alive {
    journal: Journal,
    name: String,
    dropped: bool,
}

impl Drop for Alive {
    fn drop(&mut self) {
        if self.dropped {
            self.journal.write(format!("{} dropped", self.name));
        }
    }
}

#[derive(Clone, Provide)]
pub(crate) struct App {
    pub(crate) journal: Journal,
}

/// A queue, a clock, a journal, and a registry that knows [`Act`].
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) queue: Queue<MemoryBackend>,
    pub(crate) clock: VirtualClock,
    pub(crate) journal: Journal,
    pub(crate) jobs: Registry<App>,
}

impl World {
    pub(crate) fn new() -> Self {
        let queue = Queue::<MemoryBackend>::fake();
        let clock = queue.virtual_clock().unwrap().clone();
        let journal = Journal::default();
        let jobs = Registry::new(App { journal: journal.clone() }).register::<Act>();
        Self { queue, clock, journal, jobs }
    }

    /// A worker on this queue, with short times.
    pub(crate) fn worker(&self) -> Worker<MemoryBackend> {
        Worker::new(self.queue.clone(), self.jobs.clone()).lease(seconds(30)).poll(seconds(1))
    }

    /// The same queue over a wire.
    pub(crate) fn far(&self) -> (Far, Worker<Far>) {
        let far = Far::new(self.queue.backend().clone());
        let queue = Queue::new(far.clone()).clock(self.clock.clone());
        (far, Worker::new(queue, self.jobs.clone()).lease(seconds(30)).poll(seconds(1)))
    }

    /// Lets time pass for the queue and for tokio alike, a tenth of a second at a time.
    pub(crate) async fn pass(&self, time: Duration) {
        const STEP: Duration = Duration::from_millis(100);
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(STEP);
            self.clock.advance(step);
            tokio::time::sleep(step).await;
            left -= step;
        }
    }

    pub(crate) async fn find<J: Job>(&self, job: &Dispatched<J>) -> Recorded<J> {
        self.queue.find(job).await.unwrap().expect("the job is stored")
    }

    pub(crate) async fn state<J: Job>(&self, job: &Dispatched<J>) -> StateKind {
        self.find(job).await.state()
    }

    pub(crate) async fn dispatch(&self, job: Act) -> Dispatched<Act> {
        self.queue.dispatch(job).await.unwrap()
    }
}

/// A worker on a task of its own, and the switch that stops it.
pub(crate) struct Working {
    stop: tokio::sync::oneshot::Sender<()>,
    task: JoinHandle<windlass::Result<Report>>,
}

pub(crate) fn start<B: windlass::Engine>(worker: Worker<B>) -> Working {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(worker.run_until(async {
        let _ = stopped.await;
    }));
    Working { stop, task }
}

impl Working {
    /// Stops it gracefully.
    pub(crate) async fn stop(self) -> Report {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap()
    }

    /// Sends the signal only.
    pub(crate) fn signal(self) -> JoinHandle<windlass::Result<Report>> {
        let _ = self.stop.send(());
        self.task
    }

    /// Kills it: everything it runs is dropped, nothing is settled or handed back.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}
