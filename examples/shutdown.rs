//! What happens when my worker is told to stop? It claims nothing more, lets what runs finish until a deadline, then stops
//! and releases the rest: Ready for another worker at once, and nothing counted against the job.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use windlass::prelude::*;
use windlass::{Recorded, StateKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "export")]
struct Export {
    takes_millis: u64,
}

impl Handler for Export {
    type Deps = (Started,);
    type Error = Fault;

    async fn handle(
        Self { takes_millis }: Self,
        (started,): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        started.0.notify_one();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(takes_millis)) => {
                println!("  export of {takes_millis} ms: done");
                Ok(Outcome::Done)
            }
            // At the deadline the handler is told; 300 ms later its future is dropped and the job released.
            () = cx.cancelled() => {
                println!("  export of {takes_millis} ms: told to stop, {:?}", cx.stop_reason());
                std::future::pending().await
            }
        }
    }
}

#[derive(Clone)]
struct Started(Arc<Notify>);

#[derive(Clone, Provide)]
struct App {
    started: Started,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = Queue::<MemoryBackend>::connect("memory:").await?;
    let started = Started(Arc::default());
    let jobs = Registry::new(App { started: started.clone() }).register::<Export>();

    let short = queue.dispatch(Export { takes_millis: 200 }).await?;
    let long = queue.dispatch(Export { takes_millis: 3_600_000 }).await?;
    let never_started = queue.dispatch(Export { takes_millis: 1 }).await?;

    // In a service this future is `shutdown_signal()`: SIGTERM or Ctrl-C.
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let worker = Worker::new(queue.clone(), jobs)
        .concurrency(2)
        .shutdown_deadline(Duration::from_millis(500))
        .run_until(async move { stopped.notified().await });
    let worker = tokio::spawn(worker);

    started.0.notified().await;
    println!("stopping while two exports run and one waits");
    let asked = tokio::time::Instant::now();
    stop.notify_one();
    let report = worker.await??;
    println!(
        "stopped after {:?}: {} completed, {} released",
        asked.elapsed(),
        report.completed,
        report.released
    );
    assert!(asked.elapsed() < seconds(2));

    assert_eq!(queue.wait_for(&short, Duration::ZERO).await?, Some(Ended::Completed(())));
    for job in [&long, &never_started] {
        let Some(Recorded::Ready(ready)) = queue.find(job).await? else { panic!("it should be Ready") };
        let history = &ready.state().history;
        assert_eq!((history.attempts, history.lost_leases), (0, 0));
    }
    let ready = queue.queues().await?[0].counts.get(StateKind::Ready);
    println!("{ready} exports are Ready for the next worker");
    assert_eq!(ready, 2);
    Ok(())
}
