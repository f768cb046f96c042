//! apalis with its memory storage: a channel of values, no encoding, no lease, nothing kept of a finished task.

use std::time::{Duration, Instant};

use apalis::prelude::*;
use tokio::runtime::Runtime;

use crate::checked::Runs;
use crate::options::Settings;

/// A payload of 100 bytes: a number and its padding, as it lies in memory.
#[derive(Clone, Debug)]
struct Noop {
    n: usize,
    pad: [u8; 92],
}

impl Noop {
    fn new(n: usize) -> Self {
        Self { n, pad: [b'x'; 92] }
    }
}

async fn fill(jobs: usize) -> MemoryStorage<Noop> {
    let mut storage = MemoryStorage::new();
    for n in 0..jobs {
        storage.push(Noop::new(n)).await.expect("memory takes it");
    }
    storage
}

async fn handle(job: Noop, runs: Data<Runs>, worker: WorkerContext) -> Result<(), BoxDynError> {
    std::hint::black_box(&job.pad);
    if runs.count_last(job.n) {
        worker.stop()?;
    }
    Ok(())
}

pub(crate) fn push(runtime: &Runtime, settings: Settings) -> Duration {
    runtime.block_on(async {
        let begun = Instant::now();
        let storage = fill(settings.jobs).await;
        let took = begun.elapsed();
        drop(storage);
        took
    })
}

/// Fills a storage, and times the worker that drains it. The worker is driven by the thread that starts it, as in
/// `#[tokio::main]`: put on a task of its own it is slower yet with spawned tasks.
macro_rules! drain {
    ($runtime:ident, $settings:ident, $($how:tt)*) => {{
        let runs = Runs::new($settings.jobs);
        let took = $runtime.block_on(async {
            let storage = fill($settings.jobs).await;
            let begun = Instant::now();
            let builder = WorkerBuilder::new("peer").backend(storage).data(runs.clone());
            let worker = builder$($how)*.build(handle);
            worker.run().await.expect("the worker runs");
            begun.elapsed()
        });
        runs.assert_exactly_once();
        took
    }};
}

/// Each task spawned, without a bound.
pub(crate) fn spawned(runtime: &Runtime, settings: Settings) -> Duration {
    drain!(runtime, settings, .parallelize(tokio::spawn))
}

/// Each task spawned, so many at once.
pub(crate) fn bounded(runtime: &Runtime, settings: Settings) -> Duration {
    let at_once = settings.concurrency;
    drain!(runtime, settings, .concurrency(at_once).parallelize(tokio::spawn))
}

/// As shipped: all tasks polled by the worker's own task.
pub(crate) fn inline(runtime: &Runtime, settings: Settings) -> Duration {
    drain!(runtime, settings,)
}
