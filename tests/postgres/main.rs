//! The library over Postgres: real workers, real processes' worth of handles, a private server.
//!
//! `WINDLASS_TEST_POSTGRES_URL` says where it is; `cargo xtask test` starts one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Migrate, PostgresOptions, StateKind};
use windlass_postgres::sqlx::{self, AssertSqlSafe, PgPool};

fn url() -> String {
    std::env::var("WINDLASS_TEST_POSTGRES_URL").expect(
        "no Postgres to test against: run the tests with `cargo xtask test`, or start servers with `cargo xtask servers up` \
         and set WINDLASS_TEST_POSTGRES_URL as it says",
    )
}

/// A namespace of its own, and a table of the application's in it.
struct World {
    queue: Queue<PostgresBackend>,
    table: String,
}

impl World {
    async fn fresh() -> Self {
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let options = PostgresOptions::new().schema(schema.clone()).max_connections(10);
        let backend = PostgresBackend::connect_with(&url(), options).await.unwrap();
        backend.migrate().await.unwrap();
        let table = format!("{schema}.charge");
        let create = format!("create table {table} (order_id bigint not null)");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(backend.pool()).await.unwrap();
        Self { queue: Queue::new(backend), table }
    }

    fn pool(&self) -> &PgPool {
        self.queue.backend().pool()
    }

    async fn charges(&self) -> Vec<i64> {
        let sql = format!("select order_id from {} order by order_id", self.table);
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(self.pool()).await.unwrap()
    }

    async fn count(&self, state: StateKind) -> u64 {
        self.queue.queues().await.unwrap().iter().map(|queue| queue.counts.get(state)).sum()
    }

    /// Ends the test: drops the namespace.
    async fn done(self) {
        self.queue.backend().drop_namespace().await.unwrap();
    }
}

/// Writes one row in the transaction that completes it. What it does besides depends on the order.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "charge", queue = "billing", max_attempts = 20, retry = Retry::Fixed(milliseconds(10)))]
struct Charge {
    order: i64,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "receipt", queue = "mail")]
struct SendReceipt {
    order: i64,
}

#[derive(Clone, Provide)]
struct App {
    queue: Queue<PostgresBackend>,
    table: Arc<str>,
    receipts: Arc<AtomicU32>,
}

async fn write(tx: &mut sqlx::PgConnection, table: &str, order: i64) -> Result<(), Fault> {
    let sql = format!("insert into {table} values ($1)");
    sqlx::query(AssertSqlSafe(sql)).bind(order).execute(tx).await.map_err(Fault::retry)?;
    Ok(())
}

impl Handler for Charge {
    type Deps = (Queue<PostgresBackend>, Arc<str>);
    type Error = Fault;

    async fn handle(
        Self { order }: Self,
        (queue, table): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        let mut tx = queue.backend().pool().begin().await.map_err(Fault::retry)?;
        write(&mut tx, &table, order).await?;
        queue.dispatch(SendReceipt { order }).within(&mut tx).await?;
        let first = cx.attempt() == 1;
        if order % 5 == 1 && first {
            // Dropped before the completion.
            return Err(Fault::retry("the card service timed out"));
        }
        let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
        if order % 5 == 2 && first {
            tx.rollback().await.map_err(Fault::retry)?;
            return Ok(Outcome::Settled(receipt));
        }
        if order % 5 == 3 && first {
            panic!("with the transaction open");
        }
        tx.commit().await.map_err(Fault::retry)?;
        if order % 5 == 4 {
            return Err(Fault::retry("after the commit"));
        }
        Ok(Outcome::Settled(receipt))
    }
}

impl Handler for SendReceipt {
    type Deps = (Arc<AtomicU32>,);
    type Error = Fault;

    async fn handle(_: Self, (receipts,): Self::Deps, _cx: &mut Context) -> Result<Outcome, Fault> {
        receipts.fetch_add(1, Ordering::Relaxed);
        Ok(Outcome::Done)
    }
}

fn registry(app: App) -> Registry<App> {
    Registry::new(app).register::<Charge>().register::<SendReceipt>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_and_completion_happen_together_exactly_once() {
    const ORDERS: i64 = 200;
    let world = World::fresh().await;
    for order in 0..ORDERS {
        world.queue.dispatch(Charge { order }).await.unwrap();
    }
    let app =
        App { queue: world.queue.clone(), table: world.table.as_str().into(), receipts: Arc::default() };
    let worker = || {
        Worker::new(world.queue.clone(), registry(app.clone()))
            .queues(["billing", "mail"])
            .concurrency(8)
            .poll(milliseconds(50))
            .until_empty()
            .run()
    };
    let (one, two) = tokio::join!(worker(), worker());
    let report = (one.unwrap(), two.unwrap());
    assert_eq!(world.charges().await, (0..ORDERS).collect::<Vec<_>>(), "one row an order: {report:?}");
    assert_eq!(world.count(StateKind::Completed).await, 2 * 200, "every charge and every receipt");
    assert_eq!(app.receipts.load(Ordering::Relaxed), 200, "one receipt an order");
    world.done().await;
}

#[tokio::test]
async fn a_dispatch_within_a_transaction_exists_with_its_commit() {
    let world = World::fresh().await;
    let mut tx = world.pool().begin().await.unwrap();
    write(&mut tx, &world.table, 1).await.unwrap();
    let sent = world.queue.dispatch(SendReceipt { order: 1 }).within(&mut tx).await.unwrap();
    assert!(world.queue.get(sent.job_ref()).await.unwrap().is_none(), "not before");
    tx.rollback().await.unwrap();
    assert!(world.queue.get(sent.job_ref()).await.unwrap().is_none(), "and not after a rollback");
    let mut tx = world.pool().begin().await.unwrap();
    write(&mut tx, &world.table, 2).await.unwrap();
    let sent = world.queue.dispatch(SendReceipt { order: 2 }).within(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert!(world.queue.get(sent.job_ref()).await.unwrap().is_some());
    assert_eq!(world.charges().await, [2]);
    world.done().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_worker_picks_up_what_another_process_dispatches() {
    let world = World::fresh().await;
    let options = PostgresOptions::new().schema(world.queue.backend().schema()).max_connections(4);
    let theirs = Queue::new(PostgresBackend::connect_with(&url(), options).await.unwrap());
    let app = App { queue: theirs.clone(), table: world.table.as_str().into(), receipts: Arc::default() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::new(theirs, registry(app.clone())).queues(["mail"]).poll(seconds(5));
    let running = tokio::spawn(worker.run_until(async move {
        let _ = stopped.await;
    }));
    for order in 0..10 {
        let sent = world.queue.dispatch(SendReceipt { order }).await.unwrap();
        let ended = world.queue.wait_for(&sent, Duration::from_secs(20)).await.unwrap();
        assert!(matches!(ended, Some(Ended::Completed(()))), "order {order} was not picked up");
        assert_eq!(app.receipts.load(Ordering::Relaxed), u32::try_from(order).unwrap() + 1);
    }
    stop.send(()).unwrap();
    assert_eq!(running.await.unwrap().unwrap().completed, 10);
    world.done().await;
}

#[tokio::test]
async fn the_engine_is_chosen_by_its_url() {
    let world = World::fresh().await;
    let address = format!("{}?schema={}", url(), world.queue.backend().schema());
    for scheme in ["postgres", "postgresql"] {
        let address = address.replacen("postgres://", &format!("{scheme}://"), 1);
        let queue = Queue::<AnyBackend>::connect(&address).await.unwrap();
        assert_eq!(queue.backend().engine_name(), "postgres");
        queue.dispatch(SendReceipt { order: 1 }).await.unwrap();
    }
    assert_eq!(world.count(StateKind::Ready).await, 2);
    world.done().await;
}
