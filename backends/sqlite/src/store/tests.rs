//! That no verb's work grows with the backlog: steps of SQLite's virtual machine, which repeat exactly, unlike time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::SqliteConnection;
use windlass_core::{
    At, Body, Claim, Due, Held, JobId, Kind, NewJob, Nonce, QueueName, Retention, Ruling, SessionId, Sweep,
    Timestamp, Verdict,
};

use super::{Cache, Store};
use crate::file;
use crate::options::SqliteOptions;

const MAIL: QueueName = QueueName::from_static("mail");

struct Bench {
    conn: SqliteConnection,
    cache: Cache,
    steps: Arc<AtomicU64>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options =
            SqliteOptions::new(folder.path().join("jobs.db")).durability(crate::options::Durability::Normal);
        let mut conn = file::open(&options, true).await.expect("open");
        file::migrate(&mut conn, Duration::ZERO).await.expect("migrate");
        let steps = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps);
        let mut handle = conn.lock_handle().await.expect("the handle");
        handle.set_progress_handler(1, move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(handle);
        Self { conn, cache: Cache::default(), steps, _folder: folder }
    }

    /// Runs a step in a transaction of its own. Returns its answer, and how many steps of the machine it took.
    async fn run<T>(&mut self, step: impl AsyncFnOnce(&mut Store<'_>) -> crate::error::Step<T>) -> (T, u64) {
        let before = self.steps.load(Ordering::Relaxed);
        let retention = Retention::default();
        let mut store = Store::open(&mut self.conn, &mut self.cache, retention, Timestamp::MIN, true)
            .await
            .expect("begin");
        store.tick(At::Instant(Timestamp::VIRTUAL_START)).expect("tick");
        let answer = step(&mut store).await.expect("the step");
        store.close(true).await.expect("commit");
        (answer, self.steps.load(Ordering::Relaxed) - before)
    }

    async fn push(&mut self, jobs: u64, due: Due) -> u64 {
        let mut steps = 0;
        let mut left = jobs;
        while left > 0 {
            let now = left.min(1_000);
            let batch: Vec<NewJob> = (0..now)
                .map(|_| {
                    NewJob::new(Body::new(JobId::fresh(), MAIL, Kind::from_static("greet"), *b"{}")).due(due)
                })
                .collect();
            steps = self.run(async |store| store.push(&batch).await).await.1;
            left -= now;
        }
        steps
    }

    /// The steps of each verb on sixty-four jobs, by name.
    async fn measure(&mut self) -> Vec<(&'static str, u64)> {
        let session = SessionId::from_u128(1);
        let claim = Claim {
            session,
            nonce: Nonce::random(),
            queues: vec![MAIL],
            kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
            limit: 64,
            ahead: 0,
            suspects: true,
            lease: Duration::from_secs(30),
        };
        let batch: Vec<NewJob> = (0..64)
            .map(|_| NewJob::new(Body::new(JobId::fresh(), MAIL, Kind::from_static("greet"), *b"{}")))
            .collect();
        let (_, push) = self.run(async |store| store.push(&batch).await).await;
        let (claimed, claim) = self.run(async |store| store.claim(&claim).await).await;
        assert_eq!(claimed.jobs.len(), 64);
        let held: Vec<Held> =
            claimed.jobs.iter().map(|job| Held { lease: job.lease.clone(), started: true }).collect();
        let lease = Duration::from_secs(30);
        let (_, extend) = self.run(async |store| store.extend(session, &held, lease).await).await;
        let (done, retried) = held.split_at(32);
        let mut verdicts: Vec<Verdict> = done
            .iter()
            .map(|held| Verdict::new(held.lease.clone(), Ruling::Complete { output: None }))
            .collect();
        let (_, complete) = self.run(async |store| store.settle(&verdicts).await).await;
        verdicts = retried
            .iter()
            .map(|held| Verdict::new(held.lease.clone(), Ruling::Snooze { after: lease }))
            .collect();
        let (_, snooze) = self.run(async |store| store.settle(&verdicts).await).await;
        let (_, sweep) = self.run(async |store| store.sweep(Sweep::default()).await).await;
        let job = batch[0].body.job();
        let (_, cancel) = self.run(async |store| store.cancel(&job, "no longer").await).await;
        vec![
            ("push", push),
            ("claim", claim),
            ("extend", extend),
            ("complete", complete),
            ("snooze", snooze),
            ("sweep", sweep),
            ("cancel", cancel),
        ]
    }
}

#[tokio::test]
async fn no_verb_works_harder_because_there_is_a_backlog() {
    let mut bench = Bench::new().await;
    bench.push(1_000, Due::Now).await;
    bench.push(1_000, Due::After(Duration::from_secs(3_600))).await;
    // Once to make queues, kinds and statements known.
    bench.measure().await;
    let few = bench.measure().await;
    bench.push(60_000, Due::Now).await;
    bench.push(30_000, Due::After(Duration::from_secs(3_600))).await;
    let many = bench.measure().await;
    for ((verb, few), (_, many)) in few.iter().zip(&many) {
        println!("{verb:<10} {few:>6} steps with 2,000 waiting, {many:>6} with 92,000");
        assert!(*many <= few + few / 10 + 50, "{verb}: {few} steps, {many} with a backlog");
    }
}
