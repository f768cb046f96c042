//! Whole workers over SQLite: real time, a real file.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Durability, SqliteOptions, StateKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "charge", max_attempts = 5, retry = Retry::Fixed(milliseconds(1)))]
struct Charge {
    order: i64,
}

/// Writes a row in its job's own transaction, and fails in every way around it.
impl Handler for Charge {
    type Deps = (Queue<SqliteBackend>, Ran);
    type Error = Fault;

    async fn handle(
        Self { order }: Self,
        (queue, ran): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        let mut tx = queue.backend().begin().await?;
        sqlx::query("insert into charges (order_id) values (?1)")
            .bind(order)
            .execute(&mut *tx)
            .await
            .map_err(|error| Fault::bury(error.to_string()))?;
        queue.dispatch(SendReceipt { order }).within(&mut tx).await?;
        ran.0.lock().unwrap().push(order);
        let first = cx.attempt() == 1;
        match order % 5 {
            // Dropped before the commit.
            1 if first => return Err(Fault::retry("the card service timed out")),
            2 if first => panic!("in the middle of it"),
            _ => {}
        }
        let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
        match order % 5 {
            // It says that it settled, and did not commit.
            3 if first => {
                tx.rollback();
                Ok(Outcome::Settled(receipt))
            }
            // It commits, and says that it failed.
            4 => {
                tx.commit().await?;
                Err(Fault::retry("the log was full"))
            }
            _ => {
                tx.commit().await?;
                Ok(Outcome::Settled(receipt))
            }
        }
    }
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_receipt")]
struct SendReceipt {
    order: i64,
}

impl Handler for SendReceipt {
    type Deps = (Receipts,);
    type Error = Fault;

    async fn handle(
        Self { order }: Self,
        (receipts,): Self::Deps,
        _cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        assert!(receipts.0.lock().unwrap().insert(order), "a second receipt for order {order}");
        Ok(Outcome::Done)
    }
}

#[derive(Clone, Default)]
struct Ran(Arc<Mutex<Vec<i64>>>);

#[derive(Clone, Default)]
struct Receipts(Arc<Mutex<HashSet<i64>>>);

#[derive(Clone, Provide)]
struct App {
    queue: Queue<SqliteBackend>,
    ran: Ran,
    receipts: Receipts,
}

async fn open(folder: &tempfile::TempDir) -> Queue<SqliteBackend> {
    let options = SqliteOptions::new(folder.path().join("app.db")).durability(Durability::Normal);
    Queue::new(SqliteBackend::open_with(options).await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_in_the_jobs_transaction_happen_exactly_once_however_its_handler_fails() {
    const ORDERS: i64 = 100;
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder).await;
    let mut tx = queue.backend().begin().await.unwrap();
    sqlx::query("create table charges (order_id integer not null)").execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let app = App { queue: queue.clone(), ran: Ran::default(), receipts: Receipts::default() };
    queue.dispatch_all((0..ORDERS).map(|order| Charge { order })).await.unwrap();

    let jobs = Registry::new(app.clone()).register::<Charge>().register::<SendReceipt>();
    let report = Worker::new(queue.clone(), jobs).concurrency(8).until_empty().run().await.unwrap();

    let mut tx = queue.backend().begin().await.unwrap();
    let charged: Vec<i64> = sqlx::query_scalar("select order_id from charges order by order_id")
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    drop(tx);
    assert_eq!(charged, (0..ORDERS).collect::<Vec<_>>(), "one charge an order: {report:?}");
    assert_eq!(app.receipts.0.lock().unwrap().len(), 100, "one receipt an order");
    let ran = app.ran.0.lock().unwrap().len();
    assert_eq!(ran, 160, "three in five orders ran twice");
    let counts = queue.queues().await.unwrap()[0].counts;
    assert_eq!((counts.live(), counts.get(StateKind::Completed)), (0, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_leaves_another_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder).await;
    first.dispatch_all((0..50).map(|order| SendReceipt { order })).await.unwrap();
    drop(first);
    let queue = open(&folder).await;
    let app = App { queue: queue.clone(), ran: Ran::default(), receipts: Receipts::default() };
    let jobs = Registry::new(app.clone()).register::<SendReceipt>();
    let report = Worker::new(queue, jobs).concurrency(4).until_empty().run().await.unwrap();
    assert_eq!((report.completed, app.receipts.0.lock().unwrap().len()), (50, 50));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_from_another_handle_is_picked_up_by_an_idle_worker_and_its_output_read_there() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (open(&folder).await, open(&folder).await);
    let app = App { queue: here.clone(), ran: Ran::default(), receipts: Receipts::default() };
    let jobs = Registry::new(app).register::<SendReceipt>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // A poll of a minute: what is picked up sooner was heard of.
    let worker = Worker::new(here, jobs).poll(seconds(60));
    let worker = tokio::spawn(worker.run_until(async {
        let _ = stopped.await;
    }));
    for order in 0..3 {
        tokio::time::sleep(milliseconds(50)).await;
        let job = there.dispatch(SendReceipt { order }).await.unwrap();
        let ended = there.wait_for(&job, seconds(10)).await.unwrap();
        assert_eq!(ended, Some(Ended::Completed(())));
    }
    let _ = stop.send(());
    worker.await.unwrap().unwrap();
}
