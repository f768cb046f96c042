//! Lone dispatches gathered into few calls.
//!
//! While few calls are on their way, a dispatch is a call of its own, in its caller's task and at once. Beyond that plain
//! dispatches line up, and go out together as soon as enough of them stand there or a call has ended. A gathered call belongs
//! to no caller: it runs in a task of its own, so whoever stops waiting disturbs nobody else.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{At, Effect, Error, ErrorKind, NewJob, Pushed, Result};

use crate::PostgresBackend;

/// Calls that go out without waiting for company.
const ALONE: usize = 2;
/// So many in line are worth a call that waits for no other.
const ENOUGH: usize = 32;
/// Bytes of payloads in one call, beyond which no further job joins it.
const BYTES_MAX: usize = 1 << 20;

/// A plain job whose dispatcher waits for an answer.
struct Waiting {
    job: NewJob,
    answer: oneshot::Sender<Result<Pushed>>,
}

#[derive(Default)]
struct Line {
    under_way: usize,
    waiting: Vec<Waiting>,
}

/// The line of a backend.
#[derive(Default)]
pub(crate) struct Gather {
    line: Mutex<Line>,
}

impl Gather {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way. However it ends, what lined up meanwhile goes next.
struct Call {
    backend: PostgresBackend,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Handed to the runtime, which has not begun with it.
    Spawned,
    UnderWay,
    Over,
}

/// How a dispatch goes on.
enum Turn {
    Alone(Call),
    InLine(oneshot::Receiver<Result<Pushed>>),
}

impl PostgresBackend {
    /// Dispatches one plain job by the server's time, alone or together with others.
    ///
    /// # Errors
    /// As a push of this job alone. When nothing is known of the call that took it along, the effect is unknown.
    pub(crate) async fn push_gathered(&self, job: &NewJob) -> Result<Pushed> {
        match self.turn(job) {
            Turn::Alone(call) => {
                let pushed = self.push_now(std::slice::from_ref(job), At::Server).await;
                drop(call);
                pushed?.pop().ok_or_else(no_answer)
            }
            Turn::InLine(answer) => answer.await.unwrap_or_else(|_| Err(no_answer())),
        }
    }

    fn turn(&self, job: &NewJob) -> Turn {
        let call = || Call { backend: self.clone(), stage: Stage::UnderWay };
        let mut line = self.shared.gather.line();
        if line.under_way < ALONE {
            line.under_way += 1;
            drop(line);
            return Turn::Alone(call());
        }
        let (answer, answered) = oneshot::channel();
        line.waiting.push(Waiting { job: job.clone(), answer });
        let enough = line.waiting.len() == ENOUGH;
        if enough {
            line.under_way += 1;
        }
        drop(line);
        if enough {
            // Its end is that of a call which sent nothing: it goes on with those who stand in line.
            drop(call());
        }
        Turn::InLine(answered)
    }
}

impl Call {
    /// Takes those who stand in line, in order, up to the bounds of a call; nobody: this call is over.
    fn next(&mut self) -> (Vec<NewJob>, Vec<oneshot::Sender<Result<Pushed>>>) {
        let mut line = self.backend.shared.gather.line();
        let (mut jobs, mut answers) = (Vec::new(), Vec::new());
        let (mut left, mut bytes) = (Vec::new(), 0);
        let mut ids = HashSet::new();
        for Waiting { job, answer } in line.waiting.drain(..) {
            if answer.is_closed() {
                // Nobody waits for it, and it was never sent.
                continue;
            }
            let size = job.body.payload.len();
            let room = jobs.is_empty() || (jobs.len() < BATCH_MAX && bytes + size <= BYTES_MAX);
            // An id that comes twice needs two calls: the answers differ.
            if room && left.is_empty() && ids.insert(job.body.id) {
                bytes += size;
                jobs.push(job);
                answers.push(answer);
            } else {
                left.push(Waiting { job, answer });
            }
        }
        line.waiting = left;
        if jobs.is_empty() {
            line.under_way -= 1;
            self.stage = Stage::Over;
        }
        (jobs, answers)
    }

    /// Carries those who stand in line until nobody does.
    async fn run(mut self) {
        self.stage = Stage::UnderWay;
        loop {
            let (jobs, answers) = self.next();
            if jobs.is_empty() {
                return;
            }
            match self.backend.push_together(&jobs).await {
                // Whoever stopped waiting needs no answer.
                Ok(pushed) => {
                    answers.into_iter().zip(pushed).for_each(|(answer, one)| drop(answer.send(Ok(one))));
                }
                Err(error) if is_of_one(&error) => self.one_by_one(jobs, answers),
                Err(error) => answers.into_iter().for_each(|answer| drop(answer.send(Err(like(&error))))),
            }
        }
    }

    /// One of them held or failed the others: each goes alone.
    fn one_by_one(&self, jobs: Vec<NewJob>, answers: Vec<oneshot::Sender<Result<Pushed>>>) {
        for (job, answer) in jobs.into_iter().zip(answers) {
            let backend = self.backend.clone();
            tokio::spawn(async move {
                let pushed = backend.push_now(&[job], At::Server).await;
                drop(answer.send(pushed.and_then(|mut pushed| pushed.pop().ok_or_else(no_answer))));
            });
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.stage == Stage::Over {
            return;
        }
        let mut line = self.backend.shared.gather.line();
        line.under_way -= 1;
        if line.waiting.is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if self.stage == Stage::UnderWay => {
                line.under_way += 1;
                drop(line);
                let next = Self { backend: self.backend.clone(), stage: Stage::Spawned };
                runtime.spawn(next.run());
            }
            // The runtime has ended, and with it whoever could carry them: dropped, they are answered so.
            _ => line.waiting.clear(),
        }
    }
}

/// Whether a failure may be the doing of one job of a batch, and nothing was stored.
fn is_of_one(error: &Error) -> bool {
    let of_all = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Connection | ErrorKind::Config);
    !of_all && error.effect() == Effect::NotApplied
}

/// The same failure for another caller.
fn like(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.message()).during(PostgresBackend::NAME_OF_ENGINE, "push");
    if error.effect() == Effect::Unknown { same.effect_unknown() } else { same }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Connection, "the call that took this dispatch along ended without an answer")
        .during(PostgresBackend::NAME_OF_ENGINE, "push")
        .effect_unknown()
}
