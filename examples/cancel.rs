//! How do I call a job off? One that waits is Cancelled at once and never starts. One that runs is told, has a grace to
//! tidy up, and either its own outcome is recorded or the cancellation, never both.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Cancelling, StateKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "crawl")]
struct Crawl {
    site: String,
}

impl Handler for Crawl {
    type Deps = (Started,);
    type Error = Fault;

    async fn handle(Self { site }: Self, (started,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        let mut pages = 0;
        loop {
            println!("  page {pages} of {site}");
            started.0.notify_one();
            tokio::select! {
                () = tokio::time::sleep(seconds(60)) => pages += 1,
                // Without this the future is dropped once the grace is over, 5 s unless the worker was told otherwise.
                () = cx.cancelled() => {
                    println!("  asked to stop: {:?}; tidying up", cx.stop_reason());
                    return Err(Fault::retry("stopped half way")); // with a request pending: Cancelled, not retried
                }
            }
        }
    }
}

/// Rung when a handler has started.
#[derive(Clone)]
struct Started(std::sync::Arc<tokio::sync::Notify>);

#[derive(Clone, Provide)]
struct App {
    started: Started,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = Queue::<MemoryBackend>::connect("memory:").await?;
    let started = Started(std::sync::Arc::default());
    let jobs = Registry::new(App { started: started.clone() }).register::<Crawl>();

    println!("a job that waits");
    let waiting = queue.dispatch(Crawl { site: "example.org".to_owned() }).delay(hours(1)).await?;
    assert_eq!(queue.cancel(waiting.job_ref(), "the customer left").await?, Cancelling::Cancelled);
    let ended = queue.wait_for(&waiting, seconds(1)).await?;
    println!("  {ended:?}");
    assert_eq!(ended, Some(Ended::Cancelled { reason: "the customer left".to_owned() }));

    println!("a job that runs");
    let running = queue.dispatch(Crawl { site: "example.com".to_owned() }).await?;
    let worker = tokio::spawn(Worker::new(queue.clone(), jobs).at_most_jobs(1).run());
    started.0.notified().await;
    assert_eq!(queue.cancel(running.job_ref(), "too slow").await?, Cancelling::Requested);
    let ended = queue.wait_for(&running, seconds(2)).await?;
    println!("  {ended:?}");
    assert_eq!(ended, Some(Ended::Cancelled { reason: "too slow".to_owned() }));

    println!("a job that has ended");
    let again = queue.cancel(running.job_ref(), "once more").await?;
    println!("  {again:?}");
    assert_eq!(again, Cancelling::AlreadyEnded(StateKind::Cancelled));

    let report = worker.await??;
    assert_eq!((report.started, report.cancelled), (1, 1));
    Ok(())
}
