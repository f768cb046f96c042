//! The random history: what happens next, given what the oracle shows.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use windlass_core::{
    Claim, Due, Failure, JobId, JobRef, Kind, Lease, NewJob, Nonce, OnConflict, ParentFailure, QueueName,
    Record, Ruling, SessionId, Timestamp, Until,
};

use super::rng::Rng;
use crate::{Draft, draft, secs};

const QUEUES: [&str; 2] = ["mail", "other"];

/// What a worker says of a lease, by the lease's number.
pub(super) struct Settling {
    pub(super) lease: usize,
    pub(super) ruling: Ruling,
    pub(super) then: Vec<NewJob>,
}

pub(super) enum Op {
    Push(Vec<NewJob>),
    Claim(Claim),
    Settle(Vec<Settling>),
    SettleAndClaim(Vec<Settling>, Claim),
    Extend(SessionId, Vec<usize>, bool, Duration),
    Annotate(usize, u8),
    HandBack(SessionId, Option<Nonce>),
    Sweep,
    Cancel(JobRef),
    Revive(JobRef),
    RunNow(JobRef),
    Delete(JobRef),
    Pause(QueueName),
    Resume(QueueName),
    Outcomes(Vec<JobRef>),
    Advance(Duration),
}

/// Makes operations, and remembers what they may refer to.
pub(super) struct History {
    pub(super) now: Timestamp,
    rng: Rng,
    seed: u64,
    made: u64,
    sessions: [SessionId; 2],
    /// All leases given so far, with what their jobs look like.
    leases: Vec<Lease>,
    jobs: Vec<JobRef>,
    /// Jobs without key, limit and parents: they may be parents.
    plain: Vec<JobRef>,
    parents: HashSet<JobRef>,
    dues: HashSet<Timestamp>,
}

impl History {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Timestamp::VIRTUAL_START,
            rng: Rng::new(seed),
            seed,
            made: 0,
            sessions: [SessionId::from_u128(1), SessionId::from_u128(2)],
            leases: Vec::new(),
            jobs: Vec::new(),
            plain: Vec::new(),
            parents: HashSet::new(),
            dues: HashSet::new(),
        }
    }

    /// Hears what the oracle holds now.
    pub(super) fn look(&mut self, records: &[Record]) {
        self.jobs = records.iter().map(|record| record.body.job()).collect();
        let plain = |record: &&Record| record.body.extras.is_none();
        self.plain = records.iter().filter(plain).map(|record| record.body.job()).collect();
    }

    /// Hears of new leases.
    pub(super) fn gave<'a>(&mut self, leases: impl Iterator<Item = &'a Lease>) {
        self.leases.extend(leases.cloned());
    }

    pub(super) fn next(&mut self) -> Op {
        match self.rng.below(34) {
            0..8 => self.push(),
            8..14 => Op::Claim(self.claim()),
            14..19 => Op::Settle(self.settlings()),
            19..21 => Op::SettleAndClaim(self.settlings(), self.claim()),
            21 => self.extend(),
            22 if !self.leases.is_empty() => {
                Op::Annotate(self.lease(), u8::try_from(self.rng.below(101)).unwrap_or(0))
            }
            23 => self.hand_back(),
            24 | 25 => Op::Sweep,
            26 => Op::Cancel(self.job()),
            27 => Op::Revive(self.job()),
            28 => Op::RunNow(self.job()),
            29 if self.rng.one_in(3) => Op::Delete(self.job()),
            30 => {
                let queue = self.queue();
                if self.rng.one_in(3) { Op::Pause(queue) } else { Op::Resume(queue) }
            }
            31 => {
                let jobs = (0..self.rng.below(4)).map(|_| self.job()).collect();
                Op::Outcomes(jobs)
            }
            _ => {
                let steps = [1, 999, 1_000, 5_000, 10_000, 30_000, 60_000];
                Op::Advance(Duration::from_millis(*self.rng.pick(&steps).unwrap_or(&1)))
            }
        }
    }

    fn queue(&mut self) -> QueueName {
        QueueName::from_static(QUEUES[self.rng.below(2)])
    }

    /// A stored job, or one that nobody knows.
    fn job(&mut self) -> JobRef {
        if self.rng.one_in(12) {
            return JobRef::new(self.queue(), self.fresh_id());
        }
        let stranger = JobRef::new(QueueName::from_static("mail"), JobId::sequential(1));
        self.rng.pick(&self.jobs).cloned().unwrap_or(stranger)
    }

    fn fresh_id(&mut self) -> JobId {
        self.made += 1;
        // Scattered, so that no order of ids stands in for an order of entry.
        JobId::derived(JobId::sequential(self.seed.wrapping_add(1)), self.made, 0)
    }

    /// The number of a lease: mostly a recent one.
    fn lease(&mut self) -> usize {
        let count = self.leases.len();
        let window = if self.rng.one_in(4) { count } else { count.min(5) };
        count - 1 - self.rng.below(window)
    }

    /// A delay that makes nothing else due in the same millisecond.
    fn delay(&mut self) -> Duration {
        let choices = [secs(1), secs(5), secs(10), secs(30), secs(90)];
        let mut delay = *self.rng.pick(&choices).unwrap_or(&choices[0]);
        while !self.dues.insert(self.now.saturating_add(delay)) {
            delay += Duration::from_millis(1);
        }
        delay
    }

    fn push(&mut self) -> Op {
        if self.rng.one_in(10) && !self.jobs.is_empty() {
            // A repeat of an id, with another body.
            let job = self.job();
            return Op::Push(vec![draft().with(|body| (body.queue, body.id) = (job.queue, job.id)).build()]);
        }
        let mut batch: Vec<NewJob> = Vec::new();
        for _ in 0..=self.rng.below(3) {
            let job = self.new_job(None);
            batch.push(job.build());
        }
        Op::Push(batch)
    }

    fn simple_job(&mut self, queue: Option<QueueName>) -> Draft {
        let id = self.fresh_id();
        let queue = queue.unwrap_or_else(|| self.queue());
        let mut job = draft().id(id).with(|body| body.queue = queue);
        if self.rng.one_in(3) {
            job = job.priority(u8::try_from(self.rng.below(10)).unwrap_or(5));
        }
        job = match self.rng.below(8) {
            0 => job.kind("odd"),
            1 => job.min_reader(2),
            _ => job,
        };
        match self.rng.below(5) {
            0 => {
                let delay = self.delay();
                job.after(delay)
            }
            1 if self.rng.one_in(3) => job.due_at(Timestamp::MIN),
            _ => job,
        }
    }

    fn new_job(&mut self, queue: Option<QueueName>) -> Draft {
        let job = self.simple_job(queue);
        match self.rng.below(7) {
            0 | 1 => {
                let key = ["ada", "bob"][self.rng.below(2)];
                let conflicts = [OnConflict::Skip, OnConflict::Supersede, OnConflict::QueueOne];
                let untils = [Until::End, Until::End, Until::Start, Until::Window(secs(10))];
                job.unique(key, conflicts[self.rng.below(3)], untils[self.rng.below(4)])
            }
            2 => {
                let (key, at_most) = [("one", 1), ("two", 2)][self.rng.below(2)];
                job.limit(key, at_most)
            }
            3 => self.child(job),
            _ => job,
        }
    }

    fn child(&mut self, job: Draft) -> Draft {
        let mut parents = Vec::new();
        for _ in 0..=self.rng.below(2) {
            let queue = job.job().queue;
            let near: Vec<_> = self.plain.iter().filter(|parent| parent.queue == queue).cloned().collect();
            parents.extend(self.rng.pick(&near).cloned());
        }
        if parents.is_empty() {
            return job;
        }
        self.parents.extend(parents.iter().cloned());
        let policies = [ParentFailure::Cancel, ParentFailure::Ignore, ParentFailure::Wait];
        let policy = policies[self.rng.below(3)];
        job.parents(&parents).on_failure(policy)
    }

    fn claim(&mut self) -> Claim {
        let mut kinds = vec![(Kind::from_static("greet"), 1)];
        if self.rng.one_in(3) {
            kinds = vec![(Kind::from_static("greet"), 2), (Kind::from_static("odd"), 1)];
        }
        let mut queues = vec![QueueName::from_static("mail"), QueueName::from_static("other")];
        match self.rng.below(4) {
            0 => queues.truncate(1),
            1 => queues.reverse(),
            _ => {}
        }
        Claim {
            session: self.sessions[self.rng.below(2)],
            nonce: Nonce::from_u128(u128::from(self.rng.next()) << 64 | u128::from(self.rng.next())),
            queues,
            kinds: kinds.into_iter().collect(),
            limit: self.rng.below(5),
            ahead: self.rng.below(6).saturating_sub(3),
            suspects: !self.rng.one_in(4),
            lease: secs([1, 10, 30, 60][self.rng.below(4)]),
        }
    }

    fn settlings(&mut self) -> Vec<Settling> {
        if self.leases.is_empty() {
            return Vec::new();
        }
        (0..=self.rng.below(3)).map(|_| self.settling()).collect()
    }

    fn settling(&mut self) -> Settling {
        let lease = self.lease();
        let ruling = match self.rng.below(10) {
            0..4 => Ruling::Complete { output: self.rng.one_in(2).then(|| b"42".as_slice().into()) },
            4 => Ruling::Retry { after: self.delay(), error: Failure::new("refused") },
            5 => Ruling::Retry { after: Duration::ZERO, error: Failure::panic("index out of bounds") },
            6 => Ruling::Snooze { after: self.delay() },
            7 => crate::call_off(),
            8 => crate::bury(),
            _ => Ruling::Release,
        };
        let job = self.leases[lease].job.clone();
        let mut then = Vec::new();
        if self.rng.one_in(4) && self.plain.contains(&job) && !self.parents.contains(&job) {
            then.push(self.simple_job(Some(job.queue)).build());
        }
        Settling { lease, ruling, then }
    }

    fn extend(&mut self) -> Op {
        if self.leases.is_empty() {
            return Op::Sweep;
        }
        let leases = (0..=self.rng.below(4)).map(|_| self.lease()).collect();
        // Never shorter than any claim asks for: whether a beat can shorten a lease is an engine's own business.
        Op::Extend(self.sessions[self.rng.below(2)], leases, self.rng.one_in(2), secs(60))
    }

    fn hand_back(&mut self) -> Op {
        let nonce = if self.leases.is_empty() || self.rng.one_in(3) {
            None
        } else {
            let lease = self.lease();
            Some(self.leases[lease].nonce)
        };
        Op::HandBack(self.sessions[self.rng.below(2)], nonce)
    }
}

struct Shown<'a>(&'a NewJob);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = &self.0.body;
        write!(f, "{} {} p{}", body.job(), body.kind, body.priority.get())?;
        if self.0.due != Due::Now {
            write!(f, " due {:?}", self.0.due)?;
        }
        if let Some(unique) = body.unique() {
            write!(f, " {unique:?}")?;
        }
        if let Some(limit) = body.limit() {
            write!(f, " {limit:?}")?;
        }
        match &body.extras {
            Some(extras) if !extras.parents.is_empty() => {
                write!(f, " parents {:?} or {:?}", extras.parents, extras.on_parent_failure)
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Settling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lease {} {:?}", self.lease, self.ruling)?;
        self.then.iter().try_for_each(|job| write!(f, " then {}", Shown(job)))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settlings = |f: &mut fmt::Formatter<'_>, all: &[Settling]| {
            f.write_str("settle")?;
            all.iter().try_for_each(|settling| write!(f, " [{settling}]"))
        };
        let claim = |f: &mut fmt::Formatter<'_>, claim: &Claim| {
            let Claim { queues, limit, ahead, suspects, lease, .. } = claim;
            let kinds: Vec<_> = claim.kinds.iter().collect();
            write!(f, "claim {limit}+{ahead} of {queues:?} {kinds:?} suspects: {suspects} for {lease:?}")
        };
        match self {
            Self::Push(jobs) => {
                f.write_str("push")?;
                jobs.iter().try_for_each(|job| write!(f, " [{}]", Shown(job)))
            }
            Self::Claim(asked) => claim(f, asked),
            Self::Settle(all) => settlings(f, all),
            Self::SettleAndClaim(all, asked) => {
                settlings(f, all)?;
                f.write_str(" and ")?;
                claim(f, asked)
            }
            Self::Extend(session, leases, started, lease) => {
                write!(f, "extend {leases:?} of {session} started: {started} for {lease:?}")
            }
            Self::Annotate(lease, percent) => write!(f, "annotate lease {lease} with {percent} %"),
            Self::HandBack(session, nonce) => write!(f, "hand back {session} {nonce:?}"),
            Self::Sweep => f.write_str("sweep"),
            Self::Cancel(job) => write!(f, "cancel {job}"),
            Self::Revive(job) => write!(f, "revive {job}"),
            Self::RunNow(job) => write!(f, "run now {job}"),
            Self::Delete(job) => write!(f, "delete {job}"),
            Self::Pause(queue) => write!(f, "pause {queue}"),
            Self::Resume(queue) => write!(f, "resume {queue}"),
            Self::Outcomes(jobs) => write!(f, "outcomes of {jobs:?}"),
            Self::Advance(by) => write!(f, "advance by {by:?}"),
        }
    }
}
