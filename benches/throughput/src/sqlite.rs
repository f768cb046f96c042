//! SQLite: Windlass on a file, beside the bare database doing the same writes through the same driver.

use std::time::Duration;

use tokio::runtime::Runtime;
use windlass::prelude::*;
use windlass::{Durability, Keep, Retention, SqliteOptions};

use crate::options::Settings;
use crate::{durable, raw_sqlite, whole};

/// A database in a folder of its own.
pub(crate) struct File {
    folder: tempfile::TempDir,
    durability: Durability,
}

impl File {
    pub(crate) fn new(durability: Durability) -> Self {
        // Beside the build, on a disk: a temporary folder may be in memory, where a sync costs nothing.
        let target = std::env::current_exe().ok().and_then(|exe| exe.parent().map(std::path::Path::to_owned));
        let folder = tempfile::tempdir_in(target.unwrap_or_default()).expect("a folder");
        Self { folder, durability }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("jobs.db")
    }

    /// History is kept: more than any run here leaves.
    async fn queue(&self) -> Queue<SqliteBackend> {
        let completed = Keep::new(100_000_000, Duration::from_secs(24 * 60 * 60));
        let options = SqliteOptions::new(self.path())
            .durability(self.durability)
            .retention(Retention { completed, ..Retention::default() });
        Queue::new(SqliteBackend::open_with(options).await.expect("a database"))
    }
}

pub(crate) fn dispatch(runtime: &Runtime, jobs: usize, in_flight: usize, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        rate(jobs, durable::dispatch(&file.queue().await, jobs, in_flight).await)
    })
}

pub(crate) fn bulk(runtime: &Runtime, jobs: usize, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        rate(jobs, durable::bulk(&file.queue().await, jobs).await)
    })
}

pub(crate) fn drain(runtime: &Runtime, settings: Settings, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        let queue = file.queue().await;
        whole::fill(&queue, settings.jobs).await;
        rate(settings.jobs, durable::drain(queue, settings.jobs, settings.concurrency).await)
    })
}

/// The p50 and the p99, in milliseconds.
pub(crate) fn pickup(
    runtime: &Runtime,
    jobs: usize,
    durability: Durability,
    two_handles: bool,
) -> (f64, f64) {
    runtime.block_on(async {
        let file = File::new(durability);
        let to = file.queue().await;
        // A second handle shares nothing with the first but the file, as one in another process would.
        let from = if two_handles { file.queue().await } else { to.clone() };
        let mut waits = durable::pickup(from, to, jobs).await;
        waits.sort_unstable();
        let at =
            |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)].as_secs_f64() * 1_000.0;
        (at(50), at(99))
    })
}

pub(crate) fn raw_bulk(runtime: &Runtime, jobs: usize, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        let mut raw = raw_sqlite::Raw::open(&file.path(), durability).await;
        rate(jobs, raw.bulk(jobs).await)
    })
}

pub(crate) fn raw_dispatch(runtime: &Runtime, jobs: usize, together: usize, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        let mut raw = raw_sqlite::Raw::open(&file.path(), durability).await;
        rate(jobs, raw.dispatch(jobs, together).await)
    })
}

pub(crate) fn raw_drain(runtime: &Runtime, settings: Settings, durability: Durability) -> f64 {
    runtime.block_on(async {
        let file = File::new(durability);
        let mut raw = raw_sqlite::Raw::open(&file.path(), durability).await;
        raw.bulk(settings.jobs).await;
        rate(settings.jobs, raw.drain(settings.jobs, 512).await)
    })
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}
