//! What many do at once, beyond what the suite asks: races that need this engine's locks.

use windlass_conformance::{Env, draft};
use windlass_core::{At, Backend, Inspect, Pushed, StateKind, Timestamp};

use crate::common::fresh;

const NOW: At = At::Instant(Timestamp::VIRTUAL_START);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_at_once_take_no_more_places_than_there_are() {
    let namespace = fresh().await;
    let mut handles = Vec::new();
    for _ in 0..8 {
        handles.push(namespace.second().await);
    }
    for round in 1..=25_u64 {
        let key = format!("tenant {round}");
        // The first one makes the limit's row; one place is left for the eight.
        let limited = || [draft().limit(&key, 2).build()];
        assert_eq!(namespace.backend().push(&limited(), NOW).await.expect("push"), [Pushed::Inserted]);
        let tasks: Vec<_> = handles
            .iter()
            .map(|backend| {
                let (backend, jobs) = (backend.clone(), limited());
                tokio::spawn(async move { backend.push(&jobs, NOW).await.expect("push") })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.expect("a pusher"), [Pushed::Inserted]);
        }
        let counts = namespace.backend().queues(NOW).await.expect("queues")[0].counts;
        assert_eq!((counts.get(StateKind::Ready), counts.get(StateKind::Blocked)), (2 * round, 7 * round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_at_once_with_ids_in_common_store_each_once() {
    let namespace = fresh().await;
    for _ in 0..10 {
        let jobs: Vec<_> = (0..50).map(|_| draft().build()).collect();
        let mut tasks = Vec::new();
        for task in 0..6 {
            let (backend, mut jobs) = (namespace.second().await, jobs.clone());
            if task % 2 == 0 {
                jobs.reverse();
            }
            tasks.push(tokio::spawn(async move { backend.push(&jobs, NOW).await.expect("push") }));
        }
        let mut inserted = 0;
        for task in tasks {
            let pushed = task.await.expect("a pusher");
            inserted += pushed.iter().filter(|pushed| **pushed == Pushed::Inserted).count();
        }
        assert_eq!(inserted, 50);
    }
    let counts = namespace.backend().queues(NOW).await.expect("queues")[0].counts;
    assert_eq!(counts.get(StateKind::Ready), 500);
}
