//! Two engines, one random history: every answer and every record must be the same.
//!
//! One of the two is the oracle (the memory engine). A history is made from a seed, so a divergence can be replayed.
//! It stays within what the contract decides: no two jobs are due in the same millisecond, and no end lets in
//! waiting jobs of two sorts at once, since the order of those is an engine's own business. What is an engine's own
//! as well (lease handles, hints such as `more`, whether a Ready job is parked) is not compared.

mod history;
mod invariants;
mod rng;

use std::fmt::Debug;

use windlass_core::{
    At, Backend, Claimed, Error, ErrorKind, Filter, Held, Inspect, Lease, Manage, Note, Progress, Record,
    RecordState, Result as CoreResult, Sweep, Swept, Verdict,
};

use crate::world::list_all;
use history::{History, Op, Settling};
pub use invariants::check;

/// Applies `ops` random operations made from `seed` to two fresh, virtually timed stores and compares every answer,
/// and after each operation every record and the list of queues. Checks the [invariants](check) as it goes.
///
/// # Errors
/// The first divergence, with the history that led to it.
pub async fn compare<A, B>(oracle: &A, subject: &B, seed: u64, ops: usize) -> Result<(), String>
where
    A: Backend + Inspect + Manage,
    B: Backend + Inspect + Manage,
{
    let mut pair = Pair { oracle, subject, history: History::new(seed), leases: Vec::new() };
    let mut told = Vec::new();
    for _ in 0..ops {
        let op = pair.history.next();
        told.push(op.to_string());
        if let Err(difference) = pair.step(&op).await {
            let story = told.iter().enumerate().map(|(at, op)| format!("{at:4}  {op}\n")).collect::<String>();
            return Err(format!("seed {seed}, operation {}: {difference}\n{story}", told.len() - 1));
        }
    }
    Ok(())
}

struct Pair<'a, A, B> {
    oracle: &'a A,
    subject: &'a B,
    history: History,
    /// Every lease ever given, as each of the two gave it: the oldest are stale.
    leases: Vec<(Lease, Lease)>,
}

impl<A, B> Pair<'_, A, B>
where
    A: Backend + Inspect + Manage,
    B: Backend + Inspect + Manage,
{
    async fn step(&mut self, op: &Op) -> Result<(), String> {
        self.apply(op).await?;
        let at = self.at();
        let oracle = all(self.oracle, at).await?;
        let subject = all(self.subject, at).await?;
        for (oracle, subject) in oracle.iter().zip(&subject) {
            same("a record", oracle, subject)?;
        }
        same("the number of records", &oracle.len(), &subject.len())?;
        check(&oracle)?;
        same("the queues", &queues(self.oracle, at).await?, &queues(self.subject, at).await?)?;
        self.history.look(&oracle);
        Ok(())
    }

    fn at(&self) -> At {
        At::Instant(self.history.now)
    }

    async fn apply(&mut self, op: &Op) -> Result<(), String> {
        let (a, b, at) = (self.oracle, self.subject, self.at());
        match op {
            Op::Push(jobs) => answers(a.push(jobs, at).await, b.push(jobs, at).await),
            Op::Claim(claim) => {
                let (oracle, subject) = (a.claim(claim, at).await, b.claim(claim, at).await);
                self.claimed(oracle, subject)
            }
            Op::Settle(settlings) => {
                let (oracle, subject) = self.verdicts(settlings);
                answers(a.settle(&oracle, at).await, b.settle(&subject, at).await)
            }
            Op::SettleAndClaim(settlings, claim) => {
                let (oracle, subject) = self.verdicts(settlings);
                let oracle = a.settle_and_claim(&oracle, claim, at).await;
                let subject = b.settle_and_claim(&subject, claim, at).await;
                let (settled_a, oracle) = apart(oracle);
                let (settled_b, subject) = apart(subject);
                answers(settled_a, settled_b)?;
                self.claimed(oracle, subject)
            }
            Op::Extend(session, leases, started, lease) => {
                let held = |of: fn(&(Lease, Lease)) -> &Lease| -> Vec<Held> {
                    let lease = |at: &usize| of(&self.leases[*at]).clone();
                    leases.iter().map(|at| Held { lease: lease(at), started: *started }).collect()
                };
                let (oracle, subject) = (held(|pair| &pair.0), held(|pair| &pair.1));
                let oracle = a.extend(*session, &oracle, *lease, at).await;
                answers(oracle, b.extend(*session, &subject, *lease, at).await)
            }
            Op::Annotate(lease, percent) => {
                let note = |lease: &Lease| {
                    let mut note = Note::new(lease.clone());
                    note.progress = Some(Progress::new(*percent, "under way"));
                    note.push_line("a line");
                    [note]
                };
                let (oracle, subject) = &self.leases[*lease];
                answers(a.annotate(&note(oracle), at).await, b.annotate(&note(subject), at).await)
            }
            Op::HandBack(session, nonce) => {
                answers(a.hand_back(*session, *nonce, at).await, b.hand_back(*session, *nonce, at).await)
            }
            Op::Sweep => {
                let sweep = Sweep::default();
                answers(a.sweep(&sweep, at).await.map(told), b.sweep(&sweep, at).await.map(told))
            }
            Op::Cancel(job) => {
                answers(a.cancel(job, "no longer", at).await, b.cancel(job, "no longer", at).await)
            }
            Op::Revive(job) => answers(a.revive(job, at).await, b.revive(job, at).await),
            Op::RunNow(job) => answers(a.run_now(job, at).await, b.run_now(job, at).await),
            Op::Delete(job) => answers(a.delete(job, at).await, b.delete(job, at).await),
            Op::Pause(queue) => answers(a.pause(queue, at).await, b.pause(queue, at).await),
            Op::Resume(queue) => answers(a.resume(queue, at).await, b.resume(queue, at).await),
            Op::Outcomes(jobs) => {
                let none = std::time::Duration::ZERO;
                answers(a.outcomes(jobs, none, at).await, b.outcomes(jobs, none, at).await)
            }
            Op::Advance(by) => {
                self.history.now = self.history.now.saturating_add(*by);
                answers(a.now(self.at()).await, b.now(self.at()).await)
            }
        }
    }

    /// The verdicts, with the lease that each engine gave.
    fn verdicts(&self, settlings: &[Settling]) -> (Vec<Verdict>, Vec<Verdict>) {
        let verdict = |settling: &Settling, lease: &Lease| Verdict {
            lease: lease.clone(),
            ruling: settling.ruling.clone(),
            then: settling.then.clone(),
        };
        settlings
            .iter()
            .map(|settling| {
                let (oracle, subject) = &self.leases[settling.lease];
                (verdict(settling, oracle), verdict(settling, subject))
            })
            .unzip()
    }

    fn claimed(&mut self, oracle: CoreResult<Claimed>, subject: CoreResult<Claimed>) -> Result<(), String> {
        let leases = |claimed: &CoreResult<Claimed>| -> Vec<Lease> {
            claimed.iter().flat_map(|claimed| claimed.jobs.iter().map(|job| job.lease.clone())).collect()
        };
        let given: Vec<_> = leases(&oracle).into_iter().zip(leases(&subject)).collect();
        answers(oracle.map(plain), subject.map(plain))?;
        self.history.gave(given.iter().map(|(oracle, _)| oracle));
        self.leases.extend(given);
        Ok(())
    }
}

fn apart<S>(both: CoreResult<(S, Claimed)>) -> (CoreResult<S>, CoreResult<Claimed>) {
    match both {
        Ok((settled, claimed)) => (Ok(settled), Ok(claimed)),
        Err(error) => {
            let twin = Error::new(error.kind(), error.message());
            (Err(error), Err(twin))
        }
    }
}

/// A claim's answer without what is an engine's own.
fn plain(mut claimed: Claimed) -> Claimed {
    claimed.more = false;
    for job in &mut claimed.jobs {
        job.lease.handle = 0;
    }
    claimed
}

/// A sweep's answer without what is an engine's own.
fn told(swept: Swept) -> Swept {
    Swept { more: false, relayed: 0, ..swept }
}

async fn all<E: Inspect>(engine: &E, at: At) -> Result<Vec<Record>, String> {
    let mut records =
        list_all(engine, &Filter::default(), 1_000, at).await.map_err(|error| error.to_string())?;
    for record in &mut records {
        if let RecordState::Ready { parked } = &mut record.state {
            *parked = false;
        }
    }
    Ok(records)
}

async fn queues<E: Inspect>(engine: &E, at: At) -> Result<Vec<(String, bool)>, String> {
    let queues = engine.queues(at).await.map_err(|error| error.to_string())?;
    Ok(queues.into_iter().map(|queue| (queue.name.to_string(), queue.paused)).collect())
}

fn answers<T: PartialEq + Debug>(oracle: CoreResult<T>, subject: CoreResult<T>) -> Result<(), String> {
    let kind = |error: Error| -> ErrorKind { error.kind() };
    same("the answer", &oracle.map_err(kind), &subject.map_err(kind))
}

fn same<T: PartialEq + Debug>(what: &str, oracle: &T, subject: &T) -> Result<(), String> {
    if oracle == subject {
        return Ok(());
    }
    Err(format!("{what} differs\n oracle:  {oracle:?}\n subject: {subject:?}"))
}
