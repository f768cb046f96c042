//! Transactions of a caller's: an open one holds no worker up.

use std::time::Duration;

use windlass_conformance::{Draft, Env, TransactionalEnv, complete, draft, mail};
use windlass_core::{
    At, Backend, Inspect, JobRef, OnConflict, Pushed, QueueName, Settled, StateKind, Sweep, Timestamp,
    Transactional, Until, Verdict,
};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, PgConnection};

use crate::common::{Namespace, fresh};
use crate::opening::ask;

const NOW: At = At::Instant(Timestamp::VIRTUAL_START);
/// Longer than any verb takes that waits for nobody.
const PROMPT: Duration = Duration::from_secs(5);

async fn push(backend: &PostgresBackend, job: Draft) -> Pushed {
    backend.push(&[job.build()], NOW).await.expect("push")[0]
}

async fn push_in(backend: &PostgresBackend, conn: &mut PgConnection, job: Draft) -> Pushed {
    backend.push_in(conn, &[job.build()], NOW).await.expect("push in")[0]
}

async fn state(backend: &PostgresBackend, job: &JobRef) -> StateKind {
    backend.get(job, NOW).await.expect("get").expect("the job").state.kind()
}

async fn sweep(backend: &PostgresBackend) {
    tokio::time::timeout(PROMPT, backend.sweep(&Sweep::default(), NOW))
        .await
        .expect("no wait")
        .expect("sweep");
}

/// Claims and completes what there is, promptly.
async fn work(backend: &PostgresBackend) -> usize {
    let work = async {
        let claimed = backend.claim(&ask(10), NOW).await.expect("claim").jobs;
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        let settled = backend.settle(&verdicts, NOW).await.expect("settle");
        assert!(settled.iter().all(|one| *one == Settled::Applied(StateKind::Completed)));
        settled.len()
    };
    tokio::time::timeout(PROMPT, work).await.expect("an open transaction holds no worker up")
}

async fn begin(namespace: &Namespace) -> PgConnection {
    namespace.begin().await.expect("begin")
}

#[tokio::test]
async fn an_open_push_of_each_sort_holds_no_worker_up() {
    for on_conflict in [OnConflict::Skip, OnConflict::Supersede, OnConflict::QueueOne] {
        let namespace = fresh().await;
        let backend = namespace.backend().clone();
        // One that runs and holds the key, the limit and is a parent.
        let holder = draft().unique("k", OnConflict::Skip, Until::End).limit("l", 2);
        push(&backend, holder.clone()).await;
        push(&backend, draft().limit("l", 2)).await;
        push(&backend, draft().limit("l", 2)).await;
        let claimed = backend.claim(&ask(2), NOW).await.expect("claim").jobs;
        let mut conn = begin(&namespace).await;
        let keyed = draft().unique("k", on_conflict, Until::End);
        let (limited, child) = (draft().limit("l", 2), draft().parents(&[holder.job()]));
        let answer = push_in(&backend, &mut conn, keyed.clone()).await;
        let queued = on_conflict == OnConflict::QueueOne;
        assert_eq!(answer, if queued { Pushed::Inserted } else { Pushed::Conflict(holder.job().id) });
        push_in(&backend, &mut conn, limited.clone()).await;
        push_in(&backend, &mut conn, child.clone()).await;
        push_in(&backend, &mut conn, draft().queue("other")).await;
        // The holder ends, the next in line is let in, the sweep goes round: nobody waits.
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        let settled = tokio::time::timeout(PROMPT, backend.settle(&verdicts, NOW)).await.expect("no wait");
        assert_eq!(settled.expect("settle"), [Settled::Applied(StateKind::Completed); 2]);
        sweep(&backend).await;
        assert_eq!(work(&backend).await, 1);
        namespace.commit(conn).await.expect("commit");
        // What was put off is looked at by the next sweep.
        for job in [&limited, &child] {
            assert_eq!(state(&backend, &job.job()).await, StateKind::Blocked);
        }
        sweep(&backend).await;
        assert_eq!(work(&backend).await, if queued { 3 } else { 2 }, "{on_conflict:?}");
    }
}

#[tokio::test]
async fn one_that_was_put_off_waits_for_what_it_should() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let parent = draft();
    push(&backend, parent.clone().kind("unknown")).await;
    push(&backend, draft().kind("unknown").limit("l", 1)).await;
    let holder = draft().unique("k", OnConflict::Skip, Until::End);
    push(&backend, holder.clone()).await;
    let run = backend.claim(&ask(1), NOW).await.expect("claim").jobs.remove(0);
    let mut conn = begin(&namespace).await;
    let (limited, child, behind) = (
        draft().limit("l", 1),
        draft().parents(&[parent.job()]),
        draft().unique("k", OnConflict::QueueOne, Until::End),
    );
    for job in [&limited, &child, &behind] {
        assert_eq!(push_in(&backend, &mut conn, job.clone()).await, Pushed::Inserted);
    }
    namespace.commit(conn).await.expect("commit");
    for _ in 0..2 {
        sweep(&backend).await;
        for job in [&limited, &child, &behind] {
            assert_eq!(state(&backend, &job.job()).await, StateKind::Blocked);
        }
    }
    let verdict = Verdict::new(run.lease, complete());
    backend.settle(&[verdict], NOW).await.expect("settle");
    assert_eq!(state(&backend, &behind.job()).await, StateKind::Ready);
    windlass_core::Manage::cancel(&backend, &parent.job(), "no longer", NOW).await.expect("cancel");
    assert_eq!(state(&backend, &child.job()).await, StateKind::Cancelled);
}

#[tokio::test]
async fn a_waiting_holder_is_superseded_with_the_commit() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let keyed = || draft().unique("k", OnConflict::Supersede, Until::End);
    let (old, new) = (keyed(), keyed());
    push(&backend, old.clone()).await;
    let mut conn = begin(&namespace).await;
    assert_eq!(push_in(&backend, &mut conn, new.clone()).await, Pushed::Superseded(old.job().id));
    // Neither the old one, which may be gone, nor the new one, which may never come.
    assert_eq!(work(&backend).await, 0);
    namespace.rollback(conn).await.expect("rollback");
    assert_eq!(state(&backend, &old.job()).await, StateKind::Ready);
    let mut conn = begin(&namespace).await;
    assert_eq!(push_in(&backend, &mut conn, new.clone()).await, Pushed::Superseded(old.job().id));
    namespace.commit(conn).await.expect("commit");
    assert_eq!(state(&backend, &old.job()).await, StateKind::Cancelled);
    assert_eq!(work(&backend).await, 1);
    assert_eq!(state(&backend, &new.job()).await, StateKind::Completed);
}

#[tokio::test]
async fn a_child_is_bound_to_a_parent_that_ends_meanwhile() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let parent = draft();
    push(&backend, parent.clone()).await;
    let mut conn = begin(&namespace).await;
    let child = draft().parents(&[parent.job()]);
    push_in(&backend, &mut conn, child.clone()).await;
    assert_eq!(work(&backend).await, 1);
    namespace.commit(conn).await.expect("commit");
    sweep(&backend).await;
    assert_eq!(state(&backend, &child.job()).await, StateKind::Ready, "not stranded");
}

#[tokio::test]
async fn a_missing_parent_fails_the_transaction() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let mut conn = begin(&namespace).await;
    let orphan = draft().parents(&[draft().job()]).build();
    let error = backend.push_in(&mut conn, &[orphan], NOW).await.expect_err("no parent");
    assert_eq!(error.kind(), windlass_core::ErrorKind::NotFound);
    let error = backend.push_in(&mut conn, &[draft().build()], NOW).await.expect_err("a failed transaction");
    assert_eq!(error.kind(), windlass_core::ErrorKind::WrongState, "{error}");
    namespace.rollback(conn).await.expect("rollback");
}

#[tokio::test]
async fn children_pushed_while_their_parent_settles_are_never_stranded() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    for _ in 0..100 {
        let parent = draft();
        push(&backend, parent.clone()).await;
        let run = backend.claim(&ask(1), NOW).await.expect("claim").jobs.remove(0);
        let child = draft().queue("other").parents(&[parent.job()]);
        let verdict = [Verdict::new(run.lease, complete())];
        let batch = [child.clone().build()];
        let (pushed, settled) = tokio::join!(backend.push(&batch, NOW), backend.settle(&verdict, NOW));
        assert_eq!(pushed.expect("push"), [Pushed::Inserted]);
        assert_eq!(settled.expect("settle"), [Settled::Applied(StateKind::Completed)]);
        assert_eq!(state(&backend, &child.job()).await, StateKind::Ready);
    }
}

#[tokio::test]
async fn a_row_of_ones_own_and_a_job_are_there_together_or_not_at_all() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let table = format!("\"{}\".effect", backend.schema());
    let run = |sql: String| sqlx::AssertSqlSafe(sql);
    sqlx::raw_sql(run(format!("create table {table} (job uuid)")))
        .execute(backend.pool())
        .await
        .expect("a table");
    for commits in [true, false] {
        let mut tx = backend.pool().begin().await.expect("begin");
        let job = draft();
        sqlx::query(run(format!("insert into {table} values ($1)")))
            .bind(job.job().id.as_uuid())
            .execute(&mut *tx)
            .await
            .expect("insert");
        backend.push_in(&mut tx, &[job.clone().build()], NOW).await.expect("push in");
        if commits {
            tx.commit().await.expect("commit");
            backend.wake(&[mail(), QueueName::from_static("other")]);
        } else {
            drop(tx);
        }
        assert_eq!(backend.get(&job.job(), NOW).await.expect("get").is_some(), commits);
    }
    let effects: i64 = sqlx::query_scalar(run(format!("select count(*) from {table}")))
        .fetch_one(backend.pool())
        .await
        .expect("count");
    assert_eq!(effects, 1);
}
