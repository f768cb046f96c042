//! How do I get something back from a job? It has an output type, and whoever dispatched it can wait for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{DeadReason, Recorded};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Quote {
    cents: u64,
    carrier: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "quote_shipping", output = Quote, max_attempts = 1)]
struct QuoteShipping {
    grams: u64,
}

impl Handler for QuoteShipping {
    type Deps = ();
    type Error = Fault;

    async fn handle(Self { grams }: Self, (): (), _cx: &mut Context) -> Result<Outcome<Quote>, Fault> {
        if grams > 30_000 {
            return Err(Fault::bury("nobody carries this"));
        }
        Ok(Outcome::Value(Quote { cents: 300 + grams / 10, carrier: "snail".to_owned() }))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = Queue::<MemoryBackend>::connect("memory:").await?;

    let small = queue.dispatch(QuoteShipping { grams: 500 }).await?;
    let heavy = queue.dispatch(QuoteShipping { grams: 40_000 }).await?;

    // Nobody has run it yet: after the wait the answer is `None`, and the job is still there.
    assert_eq!(queue.wait_for(&small, Duration::from_millis(20)).await?, None);

    let jobs = Registry::new(()).register::<QuoteShipping>();
    let worker = tokio::spawn(Worker::new(queue.clone(), jobs).at_most_jobs(2).run());

    // The type of the output follows from the type of the job.
    let quote: Option<Quote> = queue.wait_for(&small, seconds(2)).await?.and_then(Ended::completed);
    println!("{quote:?}");
    assert_eq!(quote, Some(Quote { cents: 350, carrier: "snail".to_owned() }));

    // A job that ends otherwise says how.
    match queue.wait_for(&heavy, seconds(2)).await? {
        Some(Ended::Dead { reason: DeadReason::Buried, error: Some(error) }) => {
            println!("no quote: {}", error.message());
            assert_eq!(error.message(), "nobody carries this");
        }
        other => panic!("it should be buried: {other:?}"),
    }

    // The output is stored with the job, and can be read as long as the job is kept: 10,000 of them, for a day.
    let Some(Recorded::Completed(completed)) = queue.find(&small).await? else { panic!("it has completed") };
    assert_eq!(completed.output()?.cents, 350);

    worker.await??;
    Ok(())
}
