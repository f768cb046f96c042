//! How do I chain jobs? A job that comes out of another one rides with its verdict (`then`); a job that waits for others
//! names them as its parents (`after`).

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{ParentFailure, StateKind};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn line(&self, text: String) {
        println!("  {text}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone, Provide)]
struct App {
    log: Log,
}

/// Cuts a film into parts, and has each part encoded.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "split", retry = Retry::Fixed(seconds(5)))]
struct Split {
    film: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "encode", max_attempts = 1)]
struct Encode {
    part: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "publish")]
struct Publish;

impl Handler for Split {
    type Deps = (Log,);
    type Error = Fault;

    async fn handle(Self { film }: Self, (log,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        // These two exist if and only if this run is recorded as Completed.
        cx.then(Encode { part: format!("{film}/1") })?;
        cx.then_with(Encode { part: format!("{film}/2") }, |encode| encode.delay(minutes(1)))?;
        if cx.attempt() == 1 {
            log.line(format!("split {film}: failed half way, so it leaves nothing behind"));
            return Err(Fault::retry("the disk was full"));
        }
        log.line(format!("split {film}"));
        Ok(Outcome::Done)
    }
}

impl Handler for Encode {
    type Deps = (Log,);
    type Error = Fault;

    async fn handle(Self { part }: Self, (log,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Fault> {
        if part == "broken" {
            return Err(Fault::bury("not a film"));
        }
        log.line(format!("encode {part}"));
        Ok(Outcome::Done)
    }
}

impl Handler for Publish {
    type Deps = (Log,);
    type Error = Fault;

    async fn handle(_: Self, (log,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Fault> {
        log.line("publish".to_owned());
        Ok(Outcome::Done)
    }
}

#[tokio::main]
async fn main() -> windlass::Result<()> {
    let queue = Queue::<MemoryBackend>::fake();
    let app = App { log: Log::default() };
    let log = app.log.clone();
    let jobs = Registry::new(app).register::<Split>().register::<Encode>().register::<Publish>();

    println!("then: jobs that ride with a verdict");
    queue.dispatch(Split { film: "dune".to_owned() }).await?;
    let drained = queue.drain(&jobs).await;
    drained.assert_clean();
    assert_eq!((drained.completed, drained.retried), (3, 1));
    assert_eq!(
        log.take(),
        [
            "split dune: failed half way, so it leaves nothing behind",
            "split dune",
            "encode dune/1",
            "encode dune/2"
        ]
    );

    println!("after: a job that waits for its parents");
    let one = queue.dispatch(Encode { part: "alien/1".to_owned() }).delay(hours(2)).await?;
    let two = queue.dispatch(Encode { part: "alien/2".to_owned() }).await?;
    let publish = queue.dispatch(Publish).after(one.job_ref()).after(two.job_ref()).await?;
    assert_eq!(state(&queue, &publish).await?, StateKind::Blocked);
    queue.drain(&jobs).await.assert_clean();
    assert_eq!(log.take(), ["encode alien/2", "encode alien/1", "publish"]);

    println!("a parent that fails calls its children off, unless they say otherwise");
    let broken = queue.dispatch(Encode { part: "broken".to_owned() }).await?;
    let strict = queue.dispatch(Publish).after(broken.job_ref()).await?;
    let lenient =
        queue.dispatch(Publish).after(broken.job_ref()).on_parent_failure(ParentFailure::Ignore).await?;
    queue.drain(&jobs).await;
    assert_eq!(state(&queue, &strict).await?, StateKind::Cancelled);
    assert_eq!(state(&queue, &lenient).await?, StateKind::Completed);
    assert_eq!(log.take(), ["publish"]);
    Ok(())
}

async fn state<J: Job>(
    queue: &Queue<MemoryBackend>,
    job: &windlass::Dispatched<J>,
) -> windlass::Result<StateKind> {
    Ok(queue.get(job.job_ref()).await?.expect("it is stored").state())
}
