//! SQLite: Windlass on a file, beside the bare database doing the same writes through the same driver.

use std::time::Duration;

use tokio::runtime::Runtime;
use windlass::prelude::*;
use windlass::{Durability, Keep, Retention, SqliteOptions};

use crate::options::Settings;
use crate::raw_sqlite::Raw;
use crate::report::{self, Conditions, Row};
use crate::{Measure, durable, whole};

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

/// What is measured of a file.
#[derive(Clone, Copy)]
enum What {
    Dispatch {
        in_flight: usize,
    },
    Bulk,
    Drain,
    /// The wait of a job for an idle worker, in milliseconds: on the worker's own handle or another, at p50 or p99.
    Pickup {
        two_handles: bool,
        percentile: usize,
    },
}

/// All rows, ours beside the raw limit's, at both durabilities.
pub(crate) fn rows(conditions: &Conditions) -> Vec<(Row, Measure)> {
    let mut rows = Vec::new();
    for (durability, full) in [(Durability::Full, true), (Durability::Normal, false)] {
        for (what, workload, ours, raw) in [
            (What::Dispatch { in_flight: 1 }, "dispatch, 1 in flight", "dispatch 1", Some("raw dispatch 1")),
            (
                What::Dispatch { in_flight: 64 },
                "dispatch, 64 in flight",
                "dispatch 64",
                Some("raw dispatch 64"),
            ),
            (What::Bulk, "bulk dispatch of 1,000", "bulk", Some("raw bulk")),
            (What::Drain, "drain", "drain", Some("raw drain")),
            (What::Pickup { two_handles: false, percentile: 50 }, "idle pickup p50", "pickup p50", None),
            (What::Pickup { two_handles: false, percentile: 99 }, "idle pickup p99", "pickup p99", None),
            (
                What::Pickup { two_handles: true, percentile: 50 },
                "idle pickup p50, other handle",
                "pickup p50, other",
                None,
            ),
            (
                What::Pickup { two_handles: true, percentile: 99 },
                "idle pickup p99, other handle",
                "pickup p99, other",
                None,
            ),
        ] {
            let (unit, exactly_once) = match what {
                What::Pickup { .. } => ("ms", None),
                What::Drain => ("jobs/s", Some(true)),
                _ => ("jobs/s", None),
            };
            let row = |system, name: &str, version, execution| Row {
                name: leaked(&format!("{name} {}", if full { "full" } else { "normal" })),
                engine: "sqlite",
                system,
                version,
                workload,
                settings: Conditions {
                    durability: Some(if full { "full" } else { "normal" }),
                    execution,
                    ..conditions.clone()
                },
                unit,
                samples: Vec::new(),
                exactly_once,
            };
            if let Some(raw) = raw {
                let row = row("raw sqlx", raw, report::locked(crate::LOCK, "sqlx"), "one loop");
                rows.push((
                    row,
                    Box::new(move |runtime: &Runtime, settings| raw_rate(runtime, settings, what, durability))
                        as Measure,
                ));
            }
            let row = row("windlass", ours, report::locked(crate::LOCK, "windlass"), "worker");
            rows.push((
                row,
                Box::new(move |runtime: &Runtime, settings| measure(runtime, settings, what, durability)),
            ));
        }
    }
    rows
}

/// A name for the whole run of the program.
fn leaked(name: &str) -> &'static str {
    Box::leak(name.into())
}

/// Jobs of a workload: fewer where each of them waits for the disk alone.
fn share(settings: Settings, what: What) -> usize {
    match what {
        What::Dispatch { in_flight: 1 } => settings.jobs / 100,
        What::Dispatch { .. } => settings.jobs / 4,
        What::Bulk | What::Drain => settings.jobs,
        What::Pickup { .. } => 200,
    }
    .max(10)
}

fn measure(runtime: &Runtime, settings: Settings, what: What, durability: Durability) -> f64 {
    let jobs = share(settings, what);
    runtime.block_on(async {
        let file = File::new(durability);
        let queue = file.queue().await;
        match what {
            What::Dispatch { in_flight } => rate(jobs, durable::dispatch(&queue, jobs, in_flight).await),
            What::Bulk => rate(jobs, durable::bulk(&queue, jobs).await),
            What::Drain => {
                whole::fill(&queue, jobs).await;
                rate(jobs, durable::drain(queue, jobs, settings.concurrency).await)
            }
            What::Pickup { two_handles, percentile } => {
                // A second handle shares nothing with the first but the file, as one in another process would.
                let from = if two_handles { file.queue().await } else { queue.clone() };
                let mut waits = durable::pickup(from, queue, jobs).await;
                waits.sort_unstable();
                waits[(jobs * percentile / 100).min(jobs - 1)].as_secs_f64() * 1_000.0
            }
        }
    })
}

/// The raw limit. Its transactions are as large as ours are at best: a drain settles and claims 1,000 at once.
fn raw_rate(runtime: &Runtime, settings: Settings, what: What, durability: Durability) -> f64 {
    let jobs = share(settings, what);
    runtime.block_on(async {
        let file = File::new(durability);
        let mut raw = Raw::open(&file.path(), durability).await;
        let took = match what {
            What::Dispatch { in_flight } => raw.dispatch(jobs, in_flight).await,
            What::Drain => {
                raw.bulk(jobs).await;
                raw.drain(jobs, 1_000).await
            }
            What::Bulk | What::Pickup { .. } => raw.bulk(jobs).await,
        };
        rate(jobs, took)
    })
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}
