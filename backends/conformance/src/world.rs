//! The bench on which a property works: the engine, a virtual clock that the property moves, and short forms of the
//! verbs for properties whose subject is something else. What a short form promises it asserts.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_core::{
    At, Backend, Claim, Claimed, ClaimedJob, Counts, DeadReason, Failure, Filter, Inspect, JobId, JobRef,
    Kind, Kinds, Lease, NewJob, Nonce, Pushed, QueueName, Record, Result, Retention, Ruling, SessionId,
    Settled, StateKind, Sweep, Swept, Timestamp, Verdict,
};

use crate::Env;

/// How long the leases of [`World::ask`] last.
pub const LEASE: Duration = Duration::from_secs(30);

/// How long an engine's counts may lag before a property fails: the contract says a few seconds.
const COUNTS_LAG: Duration = Duration::from_secs(10);

/// An engine under test and the time in its namespace.
#[derive(Debug)]
pub struct World<E: Env> {
    env: E,
    backend: E::Backend,
    server_timed: bool,
    /// What the virtual clock shows.
    pub now: Timestamp,
    /// The session of [`ask`](Self::ask).
    pub session: SessionId,
}

impl<E: Env> World<E> {
    pub(crate) fn new(env: E) -> Self {
        let backend = env.backend().clone();
        let session = SessionId::random();
        Self { env, backend, server_timed: false, now: Timestamp::VIRTUAL_START, session }
    }

    /// The environment.
    pub fn env(&self) -> &E {
        &self.env
    }

    /// The engine.
    pub fn backend(&self) -> &E::Backend {
        &self.backend
    }

    /// Goes on with a fresh namespace that has this retention.
    pub async fn use_retention(&mut self, retention: Retention) {
        self.backend = self.env.with_retention(retention).await;
    }

    /// Goes on with a fresh namespace that is timed by its server.
    pub async fn use_server_time(&mut self) {
        self.backend = self.env.server_timed().await;
        self.server_timed = true;
    }

    /// The time of the next verb.
    pub fn at(&self) -> At {
        if self.server_timed { At::Server } else { At::Instant(self.now) }
    }

    /// Moves the virtual clock.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.saturating_add(by);
    }

    /// Pushes one job.
    pub async fn push(&self, job: impl Into<NewJob>) -> Pushed {
        let pushed = self.push_all(&[job.into()]).await;
        assert_eq!(pushed.len(), 1, "one answer for one job");
        pushed[0]
    }

    /// Pushes a batch.
    pub async fn push_all(&self, jobs: &[NewJob]) -> Vec<Pushed> {
        self.backend.push(jobs, self.at()).await.expect("push")
    }

    /// Pushes one job that must be stored, and says where it is.
    pub async fn put(&self, job: impl Into<NewJob>) -> JobRef {
        let job = job.into();
        let address = job.body.job();
        assert_eq!(self.push(job).await, Pushed::Inserted);
        address
    }

    /// A claim by this world's session: of `mail`, of every job of kind `greet` in version 1, a suspect among them.
    pub fn ask(&self, limit: usize) -> Claim {
        Claim {
            session: self.session,
            nonce: Nonce::random(),
            queues: vec![mail()],
            kinds: Kinds::from_iter([(Kind::from_static("greet"), 1)]),
            limit,
            ahead: 0,
            suspects: true,
            lease: LEASE,
        }
    }

    /// Claims.
    pub async fn claim_as(&self, claim: &Claim) -> Claimed {
        self.backend.claim(claim, self.at()).await.expect("claim")
    }

    /// Claims at most so many jobs of `mail`.
    pub async fn claim(&self, limit: usize) -> Vec<ClaimedJob> {
        self.claim_as(&self.ask(limit)).await.jobs
    }

    /// Claims the next job of `mail`; there must be one.
    pub async fn take(&self) -> ClaimedJob {
        let mut jobs = self.claim(1).await;
        assert_eq!(jobs.len(), 1, "one job to claim");
        jobs.remove(0)
    }

    /// Asserts that there is nothing to claim in `mail`.
    pub async fn nothing_to_claim(&self) {
        assert_eq!(ids(&self.claim(10).await), [], "nothing to claim");
    }

    /// Settles one run.
    pub async fn settle(&self, lease: &Lease, ruling: Ruling) -> Settled {
        self.settle_then(lease, ruling, Vec::new()).await
    }

    /// Settles one run that gives rise to jobs.
    pub async fn settle_then(&self, lease: &Lease, ruling: Ruling, then: Vec<NewJob>) -> Settled {
        let verdict = Verdict { lease: lease.clone(), ruling, then };
        let settled = self.backend.settle(&[verdict], self.at()).await.expect("settle");
        assert_eq!(settled.len(), 1, "one answer for one verdict");
        settled[0]
    }

    /// Settles one run whose verdict must be applied, and says what state that led to.
    pub async fn apply(&self, lease: &Lease, ruling: Ruling) -> StateKind {
        match self.settle(lease, ruling).await {
            Settled::Applied(state) => state,
            other => panic!("the verdict should be applied, not {other:?}"),
        }
    }

    /// One round of upkeep.
    pub async fn sweep(&self) -> Swept {
        self.backend.sweep(&Sweep::default(), self.at()).await.expect("sweep")
    }

    /// Lets every lease of the usual length expire and takes them back.
    pub async fn lose_leases(&mut self) -> Swept {
        self.advance(LEASE);
        self.sweep().await
    }

    /// The job as it is stored, or `None`.
    pub async fn find(&self, job: &JobRef) -> Option<Record> {
        self.backend.get(job, self.at()).await.expect("get")
    }

    /// The job as it is stored.
    pub async fn record(&self, job: &JobRef) -> Record {
        self.find(job).await.expect("the job is stored")
    }

    /// The state of a stored job.
    pub async fn state(&self, job: &JobRef) -> StateKind {
        self.record(job).await.state.kind()
    }

    /// Asserts the state of a stored job.
    pub async fn expect(&self, job: &JobRef, state: StateKind) {
        assert_eq!(self.state(job).await, state, "state of {job}");
    }

    /// Every record that passes, page after page.
    pub async fn list(&self, filter: &Filter, page: usize) -> Vec<Record> {
        list_all(&self.backend, filter, page, self.at()).await.expect("list")
    }

    /// Every record.
    pub async fn everything(&self) -> Vec<Record> {
        self.list(&Filter::default(), 1_000).await
    }

    /// The kept counts of a named queue; zero of everything when it is not known.
    pub async fn counts(&self, queue: &QueueName) -> Counts {
        let queues = self.backend.queues(self.at()).await.expect("queues");
        queues.into_iter().find(|info| info.name == *queue).map(|info| info.counts).unwrap_or_default()
    }

    /// Asserts that the counts the engine keeps are those of its listing. They may lag by a few seconds.
    pub(crate) async fn check_counts(&self) {
        let mut listed: BTreeMap<QueueName, Counts> = BTreeMap::new();
        for record in self.everything().await {
            *listed.entry(record.body.queue.clone()).or_default().get_mut(record.state.kind()) += 1;
        }
        let deadline = tokio::time::Instant::now() + COUNTS_LAG;
        loop {
            let queues = self.backend.queues(self.at()).await.expect("queues");
            let names: Vec<_> = queues.iter().map(|info| &info.name).collect();
            assert!(names.is_sorted(), "queues come by name: {names:?}");
            let kept: BTreeMap<_, _> = queues
                .into_iter()
                .filter(|info| info.counts != Counts::default())
                .map(|info| (info.name, info.counts))
                .collect();
            if kept == listed {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "kept counts {kept:?} differ from the listing {listed:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every record that passes, page after page.
pub(crate) async fn list_all<B: Inspect>(
    backend: &B,
    filter: &Filter,
    page: usize,
    at: At,
) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut after = None;
    loop {
        let found = backend.list(filter, after.as_ref(), page, at).await?;
        assert!(found.records.len() <= page, "a page of {page} holds {}", found.records.len());
        records.extend(found.records);
        match found.next {
            None => return Ok(records),
            next => after = next,
        }
    }
}

/// The named queue of most properties.
#[must_use]
pub fn mail() -> QueueName {
    QueueName::from_static("mail")
}

/// So many seconds.
#[must_use]
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The ids of claimed jobs, in order.
#[must_use]
pub fn ids(jobs: &[ClaimedJob]) -> Vec<JobId> {
    jobs.iter().map(|job| job.body.id).collect()
}

/// It is done, without output.
#[must_use]
pub fn complete() -> Ruling {
    Ruling::Complete { output: None }
}

/// It failed and is due again so much later.
#[must_use]
pub fn retry(after: Duration) -> Ruling {
    Ruling::Retry { after, error: Failure::new("smtp said 451") }
}

/// It wants to run again so much later.
#[must_use]
pub fn snooze(after: Duration) -> Ruling {
    Ruling::Snooze { after }
}

/// It is no longer wanted.
#[must_use]
pub fn call_off() -> Ruling {
    Ruling::Cancel { reason: "the customer left".to_owned() }
}

/// It failed for good.
#[must_use]
pub fn bury() -> Ruling {
    Ruling::Bury { error: Failure::new("smtp said 550"), reason: DeadReason::Buried }
}

/// It was not run.
#[must_use]
pub fn release() -> Ruling {
    Ruling::Release
}
