//! Lone dispatches gathered into few calls.
//!
//! While few calls are on their way, a dispatch is a call of its own, in its caller's task and at once. Beyond that plain
//! dispatches to a named queue line up, and go out together as soon as enough of them stand there or a call has ended. A
//! gathered call belongs to no caller: it runs in a task of its own, so whoever stops waiting disturbs nobody else.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{Error, ErrorKind, Pushed, QueueName, Result};

use crate::backend::RedisBackend;
use crate::options::Durability;

/// Calls of a named queue that go out without waiting for company.
const ALONE: usize = 2;
/// So many in line are worth a call that waits for no other.
const ENOUGH: usize = 24;
/// Bytes of bodies in one call, beyond which no further job joins it.
const BYTES_MAX: usize = 1 << 20;

/// A plain job, packed, whose dispatcher waits for an answer.
struct Waiting {
    id: [u8; 16],
    body: Vec<u8>,
    answer: oneshot::Sender<Result<Pushed>>,
}

/// What there is of one named queue.
#[derive(Default)]
struct Line {
    under_way: usize,
    waiting: Vec<Waiting>,
}

type Lines = HashMap<(QueueName, Durability), Line>;

/// The lines of all named queues, one for each promise of durability.
#[derive(Default)]
pub(crate) struct Gather {
    lines: Mutex<Lines>,
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

/// A call under way. However it ends, what lined up meanwhile goes next.
struct Call {
    backend: RedisBackend,
    line: (QueueName, Durability),
    /// Whether it ever ran. One that did not was given up by a runtime that is ending, which takes no successor either.
    begun: bool,
    over: bool,
}

/// How a dispatch goes on.
enum Turn {
    Alone(Call, [u8; 16], Vec<u8>),
    InLine(oneshot::Receiver<Result<Pushed>>),
}

impl Gather {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisBackend {
    /// Dispatches one plain job by the server's time, alone or together with others.
    ///
    /// # Errors
    /// As a push of this job alone. When nothing is known of the call that took it along, the effect is unknown.
    pub(crate) async fn push_gathered(
        &self,
        queue: &QueueName,
        id: [u8; 16],
        body: Vec<u8>,
    ) -> Result<Pushed> {
        match self.turn(queue, id, body) {
            Turn::Alone(call, id, body) => {
                let pushed = self.push_packed(queue, &[(id, &body)], "").await;
                drop(call);
                pushed?.pop().ok_or_else(no_answer)
            }
            Turn::InLine(answer) => answer.await.unwrap_or_else(|_| Err(no_answer())),
        }
    }

    fn turn(&self, queue: &QueueName, id: [u8; 16], body: Vec<u8>) -> Turn {
        let name = (queue.clone(), self.durability);
        let call = |line| Call { backend: self.clone(), line, begun: true, over: false };
        let mut lines = self.shared.gather.lines();
        let line = lines.entry(name.clone()).or_default();
        if line.under_way < ALONE {
            line.under_way += 1;
            drop(lines);
            return Turn::Alone(call(name), id, body);
        }
        let (answer, answered) = oneshot::channel();
        line.waiting.push(Waiting { id, body, answer });
        let enough = line.waiting.len() == ENOUGH;
        if enough {
            line.under_way += 1;
        }
        drop(lines);
        if enough {
            // Its end is that of a call which sent nothing: it goes on with those who stand in line.
            drop(call(name));
        }
        Turn::InLine(answered)
    }
}

impl Call {
    /// Takes those who stand in line, in order, up to the bounds of a call; nobody: this call is over.
    fn next(&mut self) -> Vec<Waiting> {
        let mut lines = self.backend.shared.gather.lines();
        let Some(line) = lines.get_mut(&self.line) else { return Vec::new() };
        let (mut taken, mut left, mut bytes) = (Vec::with_capacity(line.waiting.len()), Vec::new(), 0);
        let mut ids = HashSet::with_capacity(line.waiting.len());
        for one in line.waiting.drain(..) {
            if one.answer.is_closed() {
                // Nobody waits for it, and it was never sent.
                continue;
            }
            let room = taken.is_empty() || (taken.len() < BATCH_MAX && bytes + one.body.len() <= BYTES_MAX);
            // An id that comes twice needs two calls: the answers differ.
            if room && left.is_empty() && ids.insert(one.id) {
                bytes += one.body.len();
                taken.push(one);
            } else {
                left.push(one);
            }
        }
        line.waiting = left;
        if taken.is_empty() {
            line.under_way -= 1;
            self.over = true;
        }
        taken
    }

    /// Carries those who stand in line until nobody does.
    async fn run(mut self) {
        self.begun = true;
        let backend = self.backend.clone();
        loop {
            let taken = self.next();
            if taken.is_empty() {
                return;
            }
            let packed: Vec<([u8; 16], &[u8])> = taken.iter().map(|one| (one.id, &one.body[..])).collect();
            let pushed = backend.push_packed(&self.line.0, &packed, "").await;
            match pushed {
                Ok(pushed) => {
                    for (one, pushed) in taken.into_iter().zip(pushed) {
                        // Whoever stopped waiting needs no answer.
                        drop(one.answer.send(Ok(pushed)));
                    }
                }
                Err(error) => {
                    for one in taken {
                        drop(one.answer.send(Err(like(&error))));
                    }
                }
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut lines = self.backend.shared.gather.lines();
        let Some(line) = lines.get_mut(&self.line) else { return };
        line.under_way -= 1;
        if line.waiting.is_empty() {
            return;
        }
        match Handle::try_current() {
            Ok(runtime) if self.begun => {
                line.under_way += 1;
                drop(lines);
                let next = Self {
                    backend: self.backend.clone(),
                    line: self.line.clone(),
                    begun: false,
                    over: false,
                };
                runtime.spawn(next.run());
            }
            // The runtime has ended, and with it whoever could carry them: dropped, they are answered so.
            _ => line.waiting.clear(),
        }
    }
}

/// The same failure for another caller.
fn like(error: &Error) -> Error {
    let same = Error::new(error.kind(), error.message());
    if error.effect() == windlass_core::Effect::Unknown { same.effect_unknown() } else { same }
}

fn no_answer() -> Error {
    Error::new(ErrorKind::Connection, "the call that took this dispatch along ended without an answer")
        .effect_unknown()
}
