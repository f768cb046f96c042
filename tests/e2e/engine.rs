//! A memory engine behind a wire: its calls take time, and any of them can be made to hang.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass::MemoryBackend;
use windlass::core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Cursor, Filter, Finished, Held, Inspect, JobRef,
    Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed, QueueInfo, QueueName, Record,
    Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

/// How long a call that hangs takes: longer than any test.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(1_000_000);

/// How long the calls of each sort take, half of it on the way there and half on the way back.
#[derive(Clone, Debug)]
pub(crate) struct Far {
    inner: MemoryBackend,
    delays: Arc<Delays>,
}

/// For how long, and what is called before.
type Freeze = (Duration, Box<dyn FnOnce() + Send>);

#[derive(Default)]
struct Delays {
    freeze: Mutex<Option<Freeze>>,
    settle: AtomicU64,
    claim: AtomicU64,
    extend: AtomicU64,
    wait: AtomicU64,
    annotate: AtomicU64,
    /// How many waits are still answered with a call for control that nobody made, and how many were made in all.
    false_alarms: AtomicU64,
    waits: AtomicU64,
}

impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delays").finish_non_exhaustive()
    }
}

impl Far {
    pub(crate) fn new(inner: MemoryBackend) -> Self {
        Self { inner, delays: Arc::default() }
    }

    pub(crate) fn settles_take(&self, time: Duration) {
        set(&self.delays.settle, time);
    }

    pub(crate) fn claims_take(&self, time: Duration) {
        set(&self.delays.claim, time);
    }

    pub(crate) fn extends_take(&self, time: Duration) {
        set(&self.delays.extend, time);
    }

    pub(crate) fn waits_take(&self, time: Duration) {
        set(&self.delays.wait, time);
    }

    /// Within the next call that settles, the worker's process stands still for so long. `first` is called before.
    pub(crate) fn freezes_while_it_settles(&self, time: Duration, first: impl FnOnce() + Send + 'static) {
        *self.delays.freeze.lock().unwrap() = Some((time, Box::new(first)));
    }

    async fn freeze(&self) {
        let freeze = self.delays.freeze.lock().unwrap().take();
        if let Some((time, first)) = freeze {
            first();
            tokio::time::advance(time).await;
        }
    }

    /// Answers so many waits at once with a call for control that nobody made.
    pub(crate) fn cries_wolf(&self, times: u64) {
        self.delays.false_alarms.store(times, Ordering::Relaxed);
    }

    /// How many waits were made.
    pub(crate) fn waits(&self) -> u64 {
        self.delays.waits.load(Ordering::Relaxed)
    }

    pub(crate) fn notes_take(&self, time: Duration) {
        set(&self.delays.annotate, time);
    }
}

fn set(delay: &AtomicU64, time: Duration) {
    delay.store(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
}

/// A call over the wire. Once sent it happens, also when nobody waits for its answer any more.
async fn both_ways<T: Send + 'static>(
    delay: &AtomicU64,
    call: impl Future<Output = T> + Send + 'static,
) -> T {
    let millis = delay.load(Ordering::Relaxed);
    if millis == 0 {
        return call.await;
    }
    let way = Duration::from_millis(millis) / 2;
    let sent = tokio::spawn(async move {
        tokio::time::sleep(way).await;
        call.await
    });
    let answer = sent.await.unwrap();
    tokio::time::sleep(way).await;
    answer
}

impl Backend for Far {
    const NAME: &'static str = "far";

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        self.inner.push(jobs, at).await
    }
    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        let (inner, claim) = (self.inner.clone(), claim.clone());
        both_ways(&self.delays.claim, async move { inner.claim(&claim, at).await }).await
    }
    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        self.freeze().await;
        let (inner, verdicts) = (self.inner.clone(), verdicts.to_vec());
        both_ways(&self.delays.settle, async move { inner.settle(&verdicts, at).await }).await
    }
    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        self.freeze().await;
        let (inner, verdicts, claim) = (self.inner.clone(), verdicts.to_vec(), claim.clone());
        both_ways(&self.delays.settle, async move { inner.settle_and_claim(&verdicts, &claim, at).await })
            .await
    }
    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        let (inner, held) = (self.inner.clone(), held.to_vec());
        both_ways(&self.delays.extend, async move { inner.extend(session, &held, lease, at).await }).await
    }
    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> Result<usize> {
        self.inner.hand_back(session, nonce, at).await
    }
    async fn annotate(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        let (inner, notes) = (self.inner.clone(), notes.to_vec());
        both_ways(&self.delays.annotate, async move { inner.annotate(&notes, at).await }).await
    }
    async fn sweep(&self, sweep: &Sweep, at: At) -> Result<Swept> {
        self.inner.sweep(sweep, at).await
    }
    async fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Result<Vec<Option<Finished>>> {
        self.inner.outcomes(jobs, max_wait, at).await
    }
    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        self.delays.waits.fetch_add(1, Ordering::Relaxed);
        let left = |times: u64| times.checked_sub(1);
        if self.delays.false_alarms.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
            return Ok(Wake::Control);
        }
        let (inner, queues) = (self.inner.clone(), queues.to_vec());
        both_ways(&self.delays.wait, async move { inner.wait(session, &queues, due, max).await }).await
    }
    async fn now(&self, at: At) -> Result<Timestamp> {
        self.inner.now(at).await
    }
}

impl Inspect for Far {
    async fn get(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        self.inner.get(job, at).await
    }
    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        self.inner.list(filter, after, limit, at).await
    }
    async fn queues(&self, at: At) -> Result<Vec<QueueInfo>> {
        self.inner.queues(at).await
    }
}

impl Manage for Far {
    async fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        self.inner.cancel(job, reason, at).await
    }
    async fn revive(&self, job: &JobRef, at: At) -> Result<()> {
        self.inner.revive(job, at).await
    }
    async fn run_now(&self, job: &JobRef, at: At) -> Result<()> {
        self.inner.run_now(job, at).await
    }
    async fn delete(&self, job: &JobRef, at: At) -> Result<()> {
        self.inner.delete(job, at).await
    }
    async fn pause(&self, queue: &QueueName, at: At) -> Result<()> {
        self.inner.pause(queue, at).await
    }
    async fn resume(&self, queue: &QueueName, at: At) -> Result<()> {
        self.inner.resume(queue, at).await
    }
}

impl Migrate for Far {
    async fn pending(&self) -> Result<Vec<Migration>> {
        self.inner.pending().await
    }
    async fn migrate(&self) -> Result<Vec<Migration>> {
        self.inner.migrate().await
    }
}
