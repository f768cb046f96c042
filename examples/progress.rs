//! How do people see how far a job has come? It reports progress and writes a log of its own; both are stored with it, and
//! anybody can read them while it runs.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "import")]
struct Import {
    rows: u32,
}

impl Handler for Import {
    type Deps = (Steps,);
    type Error = Fault;

    async fn handle(Self { rows }: Self, (steps,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        for quarter in 1..=4u8 {
            let row = rows * u32::from(quarter) / 4;
            // A line costs nothing by itself: it is sent with the next progress, the twentieth line, or the end.
            cx.log(format!("rows up to {row} are in")).await?;
            // Progress costs a round trip.
            cx.progress(quarter * 25, &format!("row {row} of {rows}")).await?;
            let (go_on, wait) = tokio::sync::oneshot::channel();
            let _ = steps.0.send(go_on).await;
            let _ = wait.await;
        }
        Ok(Outcome::Done)
    }
}

/// Lets `main` look after each step, so that this example prints the same every time.
#[derive(Clone)]
struct Steps(mpsc::Sender<tokio::sync::oneshot::Sender<()>>);

#[derive(Clone, Provide)]
struct App {
    steps: Steps,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = Queue::<MemoryBackend>::connect("memory:").await?;
    let (sender, mut steps) = mpsc::channel(1);
    let jobs = Registry::new(App { steps: Steps(sender) }).register::<Import>();
    let import = queue.dispatch(Import { rows: 1_000 }).await?;
    let worker = tokio::spawn(Worker::new(queue.clone(), jobs).at_most_jobs(1).run());

    let mut seen = Vec::new();
    while seen.len() < 4
        && let Some(go_on) = steps.recv().await
    {
        let record = queue.find(&import).await?.expect("it is running");
        let progress = record.history().progress.clone().expect("it has reported");
        println!("{:>3} %  {}  ({})", progress.percent, progress.note, record.state().as_str());
        seen.push(progress.percent);
        let _ = go_on.send(());
    }
    worker.await??;
    assert_eq!(seen, [25, 50, 75, 100]);

    let record = queue.find(&import).await?.expect("it is kept for a day");
    let lines: Vec<&str> = record.history().log.iter().map(|line| &*line.text).collect();
    println!("{lines:#?}");
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[3], "rows up to 1000 are in");
    Ok(())
}
