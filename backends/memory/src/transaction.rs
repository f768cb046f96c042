//! Transactions over memory: what a database's transaction promises, for tests of code that uses one.
//!
//! Optimistic: verbs are answered against the store as it is and take effect together at the commit, which fails if
//! one of the answers would no longer be given.

use windlass_core::{
    At, Error, ErrorKind, NewJob, Pushed, Result, Settled, StateKind, Transactional, Verdict,
};

use crate::MemoryBackend;
use crate::push::missing_parent;

enum Op {
    Push(NewJob, Pushed),
    Settle(Verdict),
}

/// A transaction over a [`MemoryBackend`]. Dropped without a [`commit`](Self::commit), it changes nothing.
pub struct MemoryTransaction {
    backend: MemoryBackend,
    ops: Vec<Op>,
    at: Option<At>,
}

impl MemoryBackend {
    /// Begins a transaction.
    #[must_use]
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction { backend: self.clone(), ops: Vec::new(), at: None }
    }
}

impl MemoryTransaction {
    /// Makes everything that was done in it true at once.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when a lease was lost or an answer to a push no longer holds; nothing is changed then.
    pub async fn commit(self) -> Result<()> {
        let Some(at) = self.at else { return Ok(()) };
        {
            let mut store = self.backend.lock();
            let now = store.tick(at)?;
            for op in &self.ops {
                let stands = match op {
                    Op::Push(job, answer) => store.peek_push(&job.body, now) == *answer,
                    Op::Settle(verdict) => store.fenced(&verdict.lease).is_some(),
                };
                if !stands {
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "the transaction cannot commit: a lease was lost or a pushed job met another since",
                    ));
                }
            }
            for op in &self.ops {
                match op {
                    Op::Push(job, _) => {
                        store.push_one(job, now);
                    }
                    Op::Settle(verdict) => {
                        store.settle(std::slice::from_ref(verdict), now);
                    }
                }
            }
        }
        self.backend.ring();
        Ok(())
    }

    /// Forgets everything that was done in it, as dropping it does.
    pub fn rollback(self) {
        drop(self);
    }

    fn pushed_before(&self, job: &NewJob) -> Option<Pushed> {
        self.ops.iter().find_map(|op| {
            let Op::Push(earlier, _) = op else { return None };
            let (earlier, job) = (&earlier.body, &job.body);
            if earlier.queue != job.queue {
                return None;
            }
            if earlier.id == job.id {
                return Some(Pushed::SameId);
            }
            let same_key =
                job.unique().is_some_and(|unique| earlier.unique().is_some_and(|key| key.key == unique.key));
            same_key.then_some(Pushed::Conflict(earlier.id))
        })
    }

    fn has_pushed(&self, parent: &windlass_core::JobRef) -> bool {
        self.ops.iter().any(
            |op| matches!(op, Op::Push(job, _) if job.body.id == parent.id && job.body.queue == parent.queue),
        )
    }
}

impl Transactional for MemoryBackend {
    type Conn = MemoryTransaction;

    async fn push_in(&self, conn: &mut MemoryTransaction, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        conn.at = Some(at);
        let begun = conn.ops.len();
        let answers = self.stage(conn, jobs, at);
        if answers.is_err() {
            // All of the batch or nothing of it, even if the caller commits all the same.
            conn.ops.truncate(begun);
        }
        answers
    }

    async fn settle_in(
        &self,
        conn: &mut MemoryTransaction,
        verdicts: &[Verdict],
        at: At,
    ) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        conn.at = Some(at);
        let mut store = self.lock();
        store.tick(at)?;
        let mut answers = Vec::with_capacity(verdicts.len());
        for verdict in verdicts {
            let repeated =
                conn.ops.iter().any(|op| matches!(op, Op::Settle(earlier) if earlier.lease == verdict.lease));
            answers.push(match store.fenced(&verdict.lease) {
                Some(_) if repeated => Settled::AlreadyApplied,
                None => store.refused(&verdict.lease),
                Some(slot) => {
                    conn.ops.push(Op::Settle(verdict.clone()));
                    Settled::Applied(promised_state(verdict, store.job(slot).cancel_requested()))
                }
            });
        }
        Ok(answers)
    }
}

impl MemoryBackend {
    fn stage(&self, conn: &mut MemoryTransaction, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let answer =
                match conn.pushed_before(job) {
                    Some(answer) => answer,
                    None => {
                        let mut store = self.lock();
                        let now = store.tick(at)?;
                        let repeat = store.find(&job.body.job()).is_some();
                        if let Some(parent) = job.body.parents().iter().find(|parent| {
                            !repeat && !conn.has_pushed(parent) && store.find(parent).is_none()
                        }) {
                            return Err(missing_parent(parent));
                        }
                        store.peek_push(&job.body, now)
                    }
                };
            if matches!(answer, Pushed::Inserted | Pushed::Superseded(_)) {
                conn.ops.push(Op::Push(job.clone(), answer));
            }
            answers.push(answer);
        }
        Ok(answers)
    }
}

/// The state that a verdict leads to when it commits, unless somebody asks for a cancellation meanwhile.
fn promised_state(verdict: &Verdict, cancel_requested: bool) -> StateKind {
    use windlass_core::Ruling;
    match verdict.ruling {
        Ruling::Complete { .. } => StateKind::Completed,
        Ruling::Cancel { .. } => StateKind::Cancelled,
        Ruling::Retry { .. } | Ruling::Snooze { .. } | Ruling::Release if cancel_requested => {
            StateKind::Cancelled
        }
        Ruling::Retry { .. } | Ruling::Snooze { .. } => StateKind::Scheduled,
        Ruling::Bury { .. } => StateKind::Dead,
        Ruling::Release => StateKind::Ready,
    }
}
