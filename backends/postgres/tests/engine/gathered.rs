//! Lone dispatches of many tasks at once: gathered into few transactions, and each answered for itself.

use std::time::Duration;

use windlass_conformance::{Draft, Env, TransactionalEnv, draft};
use windlass_core::{At, Backend, Inspect, Pushed, Result, StateKind, Transactional};
use windlass_postgres::PostgresBackend;

use crate::common::{Namespace, options, with};
use crate::stretches::{PROMPT, count};

const AT: At = At::Server;

async fn namespace() -> Namespace {
    with(options().virtual_time(false).max_connections(4).listen(false)).await
}

/// Dispatches jobs in a task each.
fn dispatch(backend: &PostgresBackend, drafts: &[Draft]) -> Vec<tokio::task::JoinHandle<Result<Pushed>>> {
    let one = |draft: &Draft| {
        let (backend, job) = (backend.clone(), draft.clone().build());
        tokio::spawn(async move { backend.push(&[job], AT).await.map(|pushed| pushed[0]) })
    };
    drafts.iter().map(one).collect()
}

#[tokio::test]
async fn many_at_once_are_stored_once_each_in_few_transactions() {
    let namespace = namespace().await;
    let backend = namespace.backend();
    let drafts: Vec<_> = (0..500).map(|_| draft()).collect();
    // Every one twice: of the two one is new.
    let twice = [&drafts[..], &drafts[..]].concat();
    let mut inserted = 0;
    for task in dispatch(backend, &twice) {
        match task.await.expect("a task").expect("push") {
            Pushed::Inserted => inserted += 1,
            other => assert_eq!(other, Pushed::SameId),
        }
    }
    assert_eq!((inserted, count(backend, "job").await), (500, 500));
    // One row of counts a call that stored something.
    let calls = count(backend, "moved").await;
    assert!(calls < 250, "{calls} transactions for 500 jobs");
}

#[tokio::test]
async fn whoever_stops_waiting_takes_no_other_along() {
    let namespace = namespace().await;
    let backend = namespace.backend();
    let drafts: Vec<_> = (0..300).map(|_| draft()).collect();
    let mut kept = Vec::new();
    for (at, task) in dispatch(backend, &drafts).into_iter().enumerate() {
        // At different points of their way.
        if at % 7 == 0 {
            tokio::task::yield_now().await;
        }
        if at % 3 == 0 {
            task.abort();
        } else {
            kept.push((at, task));
        }
    }
    for (at, task) in kept {
        let pushed = tokio::time::timeout(PROMPT, task).await.expect("an answer").expect("a task");
        assert_eq!(pushed.expect("push"), Pushed::Inserted, "job {at}");
    }
    // The line is empty and moves on.
    let last = draft();
    let pushed = backend.push(&[last.build()], AT).await.expect("push");
    assert_eq!(pushed, [Pushed::Inserted]);
}

#[tokio::test]
async fn one_that_must_wait_or_is_refused_holds_up_and_fails_no_other() {
    let namespace = namespace().await;
    let backend = namespace.backend();
    let held = draft();
    let mut conn = namespace.begin().await.expect("begin");
    backend.push_in(&mut conn, &[held.clone().build()], AT).await.expect("push in");
    // JSON of the server's has no such letter.
    let refused = draft().tag("nul \0");
    let mut drafts: Vec<_> = (0..100).map(|_| draft()).collect();
    drafts.insert(50, held.clone());
    drafts.insert(70, refused.clone());
    let tasks = dispatch(backend, &drafts);
    let mut waiting = None;
    for (draft, task) in drafts.iter().zip(tasks) {
        if draft.job() == held.job() {
            waiting = Some(task);
            continue;
        }
        let pushed = tokio::time::timeout(PROMPT, task).await.expect("no wait").expect("a task");
        if draft.job() == refused.job() {
            assert_eq!(pushed.expect_err("no such letter").effect(), windlass_core::Effect::NotApplied);
        } else {
            assert_eq!(pushed.expect("push"), Pushed::Inserted);
        }
    }
    let waiting = waiting.expect("its task");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "it waits for the transaction that is about to store it");
    namespace.commit(conn).await.expect("commit");
    let pushed = tokio::time::timeout(PROMPT, waiting).await.expect("an answer").expect("a task");
    assert_eq!(pushed.expect("push"), Pushed::SameId);
    assert_eq!(count(backend, "job").await, 101);
}

#[tokio::test]
async fn delayed_jobs_and_those_of_several_queues_go_together_too() {
    let namespace = namespace().await;
    let backend = namespace.backend();
    let drafts: Vec<_> = (0..90)
        .map(|at| match at % 3 {
            0 => draft(),
            1 => draft().queue("other"),
            _ => draft().after(Duration::from_secs(60)),
        })
        .collect();
    for task in dispatch(backend, &drafts) {
        assert_eq!(task.await.expect("a task").expect("push"), Pushed::Inserted);
    }
    for (at, draft) in drafts.iter().enumerate() {
        let record = backend.get(&draft.job(), AT).await.expect("get").expect("the job");
        let wanted = if at % 3 == 2 { StateKind::Scheduled } else { StateKind::Ready };
        assert_eq!(record.state.kind(), wanted, "job {at}");
    }
}
