//! The whole of Windlass: JSON codec, registry, dependencies, panic guard, time limit, leases, fenced verdicts, history.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use windlass::prelude::*;

use crate::checked::Runs;
use crate::options::Settings;

/// A payload of 100 bytes in JSON.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "noop", timeout = "30s")]
pub(crate) struct Noop {
    n: usize,
    pad: String,
}

impl Noop {
    pub(crate) fn new(n: usize) -> Self {
        // {"n":,"pad":""} takes fifteen bytes.
        let digits = n.to_string().len();
        Self { n, pad: "x".repeat(100 - 15 - digits) }
    }
}

impl Handler for Noop {
    type Deps = (Runs,);
    type Error = Fault;

    async fn handle(Self { n, .. }: Self, (runs,): (Runs,), _cx: &mut Context) -> Result<Outcome, Fault> {
        runs.count(n);
        Ok(Outcome::Done)
    }
}

#[derive(Provide)]
pub(crate) struct App {
    pub(crate) runs: Runs,
}

pub(crate) async fn fill<B: Backend>(queue: &Queue<B>, jobs: usize) {
    for from in (0..jobs).step_by(10_000) {
        let batch = (from..jobs.min(from + 10_000)).map(Noop::new);
        queue.dispatch_all(batch).await.expect("the engine takes them");
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn dispatch(runtime: &Runtime, settings: Settings) -> Duration {
    runtime.block_on(async {
        let queue = Queue::new(MemoryBackend::new());
        let begun = Instant::now();
        for n in 0..settings.jobs {
            queue.dispatch(Noop::new(n)).await.expect("memory takes it");
        }
        begun.elapsed()
    })
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) fn drain(runtime: &Runtime, settings: Settings) -> Duration {
    let runs = Runs::new(settings.jobs);
    let jobs = Registry::new(App { runs: runs.clone() }).register::<Noop>();
    let elapsed = runtime.block_on(async {
        let queue = Queue::new(MemoryBackend::new());
        fill(&queue, settings.jobs).await;
        let begun = Instant::now();
        let worker = Worker::new(queue, jobs).concurrency(settings.concurrency).until_empty();
        let report = tokio::spawn(worker.run()).await.expect("no panic").expect("a good configuration");
        let elapsed = begun.elapsed();
        assert_eq!(report.completed, settings.jobs as u64, "{report:?}");
        elapsed
    });
    runs.assert_exactly_once();
    elapsed
}
