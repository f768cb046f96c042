//! A durable engine: what dispatching costs one by one, with many in flight and in bulk, how fast a worker drains, and how
//! soon an idle worker picks a job up.

use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use windlass::Engine;
use windlass::prelude::*;

use crate::checked::Runs;
use crate::whole::Noop;

/// Dispatches `jobs` jobs with `in_flight` of them on their way at once.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) async fn dispatch<B: Engine>(queue: &Queue<B>, jobs: usize, in_flight: usize) -> Duration {
    let begun = Instant::now();
    stream::iter(0..jobs)
        .map(|n| async move { queue.dispatch(Noop::new(n)).await.expect("the engine takes it") })
        .buffer_unordered(in_flight)
        .for_each(|_| std::future::ready(()))
        .await;
    let took = begun.elapsed();
    assert_eq!(waiting(queue).await, jobs as u64, "every dispatch is stored once");
    took
}

/// Dispatches `jobs` jobs in batches of a thousand.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) async fn bulk<B: Engine>(queue: &Queue<B>, jobs: usize) -> Duration {
    let begun = Instant::now();
    queue.dispatch_all((0..jobs).map(Noop::new)).await.expect("the engine takes them");
    let took = begun.elapsed();
    assert_eq!(waiting(queue).await, jobs as u64, "every dispatch is stored once");
    took
}

async fn waiting<B: Engine>(queue: &Queue<B>) -> u64 {
    let queues = queue.queues().await.expect("counts");
    queues.iter().map(|queue| queue.counts.live()).sum()
}

/// Drains what was filled in before, from the worker's start to its end.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
pub(crate) async fn drain<B: Engine>(queue: Queue<B>, jobs: usize, concurrency: usize) -> Duration {
    let runs = Runs::new(jobs);
    let registry = Registry::new(crate::whole::App { runs: runs.clone() }).register::<Noop>();
    let begun = Instant::now();
    let worker = Worker::new(queue, registry).concurrency(concurrency).until_empty();
    let report = tokio::spawn(worker.run()).await.expect("no panic").expect("a good configuration");
    let took = begun.elapsed();
    assert_eq!(report.completed, jobs as u64, "{report:?}");
    runs.assert_exactly_once();
    took
}

/// How long each of `jobs` jobs waits for an idle worker: from before its dispatch to the start of its handler. The jobs
/// come one by one, 20 ms apart.
pub(crate) async fn pickup<B: Engine>(from: Queue<B>, to: Queue<B>, jobs: usize) -> Vec<Duration> {
    let (started, mut starts) = mpsc::unbounded_channel();
    let registry = Registry::new(Ears { started }).register::<Ping>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(Worker::new(to, registry).concurrency(4).run_until(async {
        let _ = stopped.await;
    }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut waits = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        waits.push(ping(&from, &mut starts).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _ = stop.send(());
    worker.await.expect("no panic").expect("a good configuration");
    waits
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
async fn ping<B: Engine>(queue: &Queue<B>, starts: &mut mpsc::UnboundedReceiver<Instant>) -> Duration {
    let sent = Instant::now();
    queue.dispatch(Ping).await.expect("the engine takes it");
    starts.recv().await.expect("the worker lives") - sent
}

#[derive(serde::Serialize, serde::Deserialize, Job)]
#[job(name = "ping")]
struct Ping;

#[derive(Clone, Provide)]
struct Ears {
    started: mpsc::UnboundedSender<Instant>,
}

impl Handler for Ping {
    type Deps = (mpsc::UnboundedSender<Instant>,);
    type Error = Fault;

    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    async fn handle(_: Self, (started,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Fault> {
        let _ = started.send(Instant::now());
        Ok(Outcome::Done)
    }
}
