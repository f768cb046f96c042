//! apalis with its SQLite storage, at the settings at which it was fastest: WAL, `synchronous=NORMAL`, a pool of four, batches
//! of 100 fetched by a worker that polls every 100 ms.

use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use tokio::runtime::Runtime;

use crate::checked::Runs;
use crate::options::Settings;

/// A payload of 100 bytes in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Noop {
    n: usize,
    pad: String,
}

impl Noop {
    fn new(n: usize) -> Self {
        // {"n":,"pad":""} takes fifteen bytes.
        Self { n, pad: "x".repeat(100 - 15 - n.to_string().len()) }
    }
}

struct File {
    pool: SqlitePool,
    _folder: tempfile::TempDir,
}

impl File {
    async fn new() -> Self {
        let target = std::env::current_exe().ok().and_then(|exe| exe.parent().map(std::path::Path::to_owned));
        let folder = tempfile::tempdir_in(target.unwrap_or_default()).expect("a folder");
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("jobs.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(10));
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.expect("a pool");
        SqliteStorage::setup(&pool).await.expect("a schema");
        Self { pool, _folder: folder }
    }

    fn storage(&self, batch: usize) -> SqliteStorage<Noop> {
        SqliteStorage::new(&self.pool).with_config(Config::default().queue("bench").batch_size(batch))
    }
}

/// One push after the other, from one task.
pub(crate) fn push(runtime: &Runtime, settings: Settings) -> Duration {
    runtime.block_on(async {
        let file = File::new().await;
        let mut storage = file.storage(10);
        let begun = Instant::now();
        for n in 0..settings.jobs {
            storage.push(Noop::new(n)).await.expect("it is stored");
        }
        begun.elapsed()
    })
}

async fn fill(file: &File, jobs: usize) {
    let mut storage = file.storage(500);
    for from in (0..jobs).step_by(500) {
        let batch = (from..jobs.min(from + 500)).map(Noop::new).collect();
        storage.push_bulk(batch).await.expect("they are stored");
    }
}

/// Batches of 500.
pub(crate) fn bulk(runtime: &Runtime, settings: Settings) -> Duration {
    runtime.block_on(async {
        let file = File::new().await;
        let begun = Instant::now();
        fill(&file, settings.jobs).await;
        begun.elapsed()
    })
}

async fn handle(job: Noop, runs: Data<Runs>, worker: WorkerContext) -> Result<(), BoxDynError> {
    std::hint::black_box(&job.pad);
    if runs.count_last(job.n) {
        worker.stop()?;
    }
    Ok(())
}

/// A worker from its start until it has run all jobs. At most 5,000 of them: it slows down with its backlog.
pub(crate) fn drain(runtime: &Runtime, settings: Settings) -> Duration {
    let jobs = settings.jobs;
    let runs = Runs::new(jobs);
    let took = runtime.block_on(async {
        let file = File::new().await;
        fill(&file, jobs).await;
        let begun = Instant::now();
        let storage = file.storage(100).poll_with_interval(Duration::from_millis(100));
        let worker = WorkerBuilder::new("peer").backend(storage).data(runs.clone()).build(handle);
        worker.run().await.expect("the worker runs");
        begun.elapsed()
    });
    runs.assert_exactly_once();
    took
}
