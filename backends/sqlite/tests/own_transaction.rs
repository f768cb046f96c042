//! A transaction on the engine's own connection: the user's tables and the queue in one file, true together.

mod common;

use std::time::Duration;

use common::Folder;
use windlass_conformance::draft;
use windlass_core::{At, Backend, Inspect, Pushed, Transactional};
use windlass_sqlite::SqliteBackend;

const AT: At = At::Server;

async fn orders(folder: &Folder) -> i64 {
    let mut conn = common::connect(&folder.path("app.db")).await;
    sqlx::query_scalar("select count(*) from orders").fetch_one(&mut conn).await.expect("a count")
}

async fn app(folder: &Folder) -> SqliteBackend {
    let backend = folder.open("app.db").await;
    let mut conn = common::connect(&folder.path("app.db")).await;
    sqlx::query("create table orders (id integer primary key)").execute(&mut conn).await.expect("a table");
    backend
}

#[tokio::test]
async fn an_order_and_its_job_are_stored_together_or_not_at_all() {
    let folder = Folder::new();
    let backend = app(&folder).await;
    for (end, wanted) in [("rollback", 0), ("drop", 0), ("commit", 1)] {
        let job = draft();
        let mut tx = backend.begin().await.expect("begin");
        sqlx::query("insert into orders default values").execute(&mut *tx).await.expect("an order");
        let pushed = backend.push_in(&mut tx, &[job.clone().build()], AT).await.expect("push in");
        assert_eq!(pushed, [Pushed::Inserted]);
        match end {
            "rollback" => tx.rollback(),
            "commit" => tx.commit().await.expect("commit"),
            _ => drop(tx),
        }
        let stored = backend.get(&job.job(), AT).await.expect("get").is_some();
        assert_eq!((orders(&folder).await, stored), (wanted, wanted == 1), "{end}");
    }
}

#[tokio::test]
async fn a_refused_push_leaves_the_users_own_writes_alone() {
    let folder = Folder::new();
    let backend = app(&folder).await;
    let mut tx = backend.begin().await.expect("begin");
    sqlx::query("insert into orders default values").execute(&mut *tx).await.expect("an order");
    let orphan = draft().parents(&[draft().job()]).build();
    let error = backend.push_in(&mut tx, &[draft().build(), orphan], AT).await.expect_err("no such parent");
    assert_eq!(error.kind(), windlass_core::ErrorKind::NotFound);
    tx.commit().await.expect("commit");
    assert_eq!(orders(&folder).await, 1);
    assert!(backend.queues(AT).await.expect("queues").iter().all(|queue| queue.counts.live() == 0));
}

#[tokio::test]
async fn others_wait_while_it_is_open_and_go_on_after_it() {
    let folder = Folder::new();
    let backend = app(&folder).await;
    let tx = backend.begin().await.expect("begin");
    let other = backend.clone();
    let mut push = tokio::spawn(async move { other.push(&[draft().build()], AT).await });
    let early = tokio::time::timeout(Duration::from_millis(100), &mut push).await;
    assert!(early.is_err(), "the writer is lent");
    assert_eq!(backend.queues(AT).await.expect("reading goes on"), []);
    drop(tx);
    assert_eq!(push.await.expect("no panic").expect("push"), [Pushed::Inserted]);
}

#[tokio::test]
async fn a_commit_wakes_a_sleeping_worker() {
    let folder = Folder::new();
    let backend = app(&folder).await;
    let sleeper = backend.clone();
    let sleeper = tokio::spawn(async move {
        let queues = [windlass_conformance::mail()];
        sleeper.wait(windlass_core::SessionId::from_u128(1), &queues, None, Duration::from_secs(30)).await
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut tx = backend.begin().await.expect("begin");
    backend.push_in(&mut tx, &[draft().build()], AT).await.expect("push in");
    tx.commit().await.expect("commit");
    assert_eq!(sleeper.await.expect("no panic").expect("wait"), windlass_core::Wake::Work);
}

#[tokio::test]
async fn a_transaction_that_is_held_for_ever_makes_another_process_time_out() {
    let folder = Folder::new();
    let backend = app(&folder).await;
    let impatient = folder.options("app.db").busy_timeout(Duration::from_millis(50));
    let other = SqliteBackend::open_with(impatient).await.expect("open");
    let tx = backend.begin().await.expect("begin");
    let error = other.push(&[draft().build()], AT).await.expect_err("the lock is held");
    assert_eq!(error.kind(), windlass_core::ErrorKind::Timeout, "{error}");
    assert_eq!(error.effect(), windlass_core::Effect::NotApplied);
    drop(tx);
    assert_eq!(other.push(&[draft().build()], AT).await.expect("push"), [Pushed::Inserted]);
}
