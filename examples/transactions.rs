//! How do a job's effects and its completion happen together, or not at all? The handler completes its own job within the
//! transaction that holds its writes.
//!
//! Transactions of the memory engine hold jobs alone, so the handler's own write is here a job that it dispatches within the
//! transaction. On SQLite it is any row, through `&mut *tx`: see `tests/e2e/sqlite.rs`.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "charge", retry = Retry::Fixed(seconds(10)))]
struct Charge {
    order: u64,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_receipt")]
struct SendReceipt {
    order: u64,
}

impl Handler for Charge {
    type Deps = (Queue<MemoryBackend>,);
    type Error = Fault;

    async fn handle(Self { order }: Self, (queue,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        let mut tx = queue.backend().begin();
        queue.dispatch(SendReceipt { order }).within(&mut tx).await?;

        if order == 2 && cx.attempt() == 1 {
            // Dropped without a commit: nothing was written, and the error is tried again as any other.
            return Err(Fault::retry("the card service timed out"));
        }

        let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
        if order == 3 && cx.attempt() == 1 {
            // It says that it settled, and did not commit. The worker offers a retry under the same lease, which is
            // applied because the fence still stands: the job runs again.
            tx.rollback();
            return Ok(Outcome::Settled(receipt));
        }
        tx.commit().await?;
        if order == 4 {
            // It did commit, and then fails. The retry under the same lease is refused: the job stays Completed.
            return Err(Fault::retry("the log was full"));
        }
        Ok(Outcome::Settled(receipt))
    }
}

impl Handler for SendReceipt {
    type Deps = ();
    type Error = Fault;

    async fn handle(Self { order }: Self, (): (), _cx: &mut Context) -> Result<Outcome, Fault> {
        println!("  receipt for order {order}");
        Ok(Outcome::Done)
    }
}

#[derive(Clone, Provide)]
struct App {
    queue: Queue<MemoryBackend>,
}

#[tokio::main]
async fn main() -> windlass::Result<()> {
    let queue = Queue::<MemoryBackend>::fake();
    let jobs = Registry::new(App { queue: queue.clone() }).register::<Charge>().register::<SendReceipt>();

    for order in 1..=4 {
        println!("order {order}");
        let charge = queue.dispatch(Charge { order }).await?;
        queue.drain(&jobs).await;
        assert_eq!(queue.wait_for(&charge, seconds(0)).await?, Some(Ended::Completed(())));
    }
    // However often a handler ran, each order has one receipt.
    let receipts: Vec<u64> =
        queue.dispatched::<SendReceipt>().get().iter().map(|receipt| receipt.order).collect();
    assert_eq!(receipts, [1, 2, 3, 4]);

    // Dispatching within a transaction: the job exists if and only if it commits.
    let mut tx = queue.backend().begin();
    queue.dispatch(SendReceipt { order: 5 }).within(&mut tx).await?;
    tx.rollback();
    queue.assert_dispatched_times::<SendReceipt>(4);
    Ok(())
}
