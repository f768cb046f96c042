//! What the list of waiting jobs must cope with: entries whose jobs have left it, and ids that come twice.

mod support;

use std::time::Duration;

use windlass_conformance::draft;
use windlass_core::{
    At, Backend, Cancelling, Claim, Inspect, Kind, Manage, NewJob, Nonce, OnConflict, QueueName, SessionId,
    StateKind, Until, Wake,
};
use windlass_redis::RedisBackend;

const MAIL: QueueName = QueueName::from_static("mail");
const AT: At = At::Server;

fn claim(limit: usize) -> Claim {
    Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit,
        ahead: 0,
        suspects: true,
        lease: Duration::from_secs(30),
    }
}

async fn ready(backend: &RedisBackend) -> u64 {
    backend.queues(AT).await.expect("queues")[0].counts.get(StateKind::Ready)
}

async fn cancel(backend: &RedisBackend, job: &NewJob) {
    let cancelled = backend.cancel(&job.body.job(), "no longer", AT).await.expect("cancel");
    assert_eq!(cancelled, Cancelling::Cancelled);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_cancelled_jobs_is_passed_in_a_few_claims() {
    // Five thousand cancellations at once take a while on a busy machine.
    let backend = support::open(support::options().response_timeout(Duration::from_secs(60))).await;
    let mut crowd = Vec::new();
    for _ in 0..5 {
        let batch: Vec<NewJob> = (0..1_000).map(|_| draft().build()).collect();
        backend.push(&batch, AT).await.expect("push");
        crowd.extend(batch);
    }
    futures::future::join_all(crowd.iter().map(|job| cancel(&backend, job))).await;
    assert_eq!(ready(&backend).await, 0);
    let (first, second) = (draft().build(), draft().build());
    backend.push(&[first.clone(), second.clone()], AT).await.expect("push");
    assert_eq!(ready(&backend).await, 2);
    let mut found = None;
    for _ in 0..10 {
        let claimed = backend.claim(&claim(1), AT).await.expect("claim");
        if let Some(job) = claimed.jobs.first() {
            found = Some(job.body.id);
            break;
        }
        assert!(claimed.more, "it stopped at a bound of its own and must say so");
    }
    assert_eq!(found, Some(first.body.id));
    let rest = backend.claim(&claim(10), AT).await.expect("claim").jobs;
    assert_eq!(rest.iter().map(|job| job.body.id).collect::<Vec<_>>(), [second.body.id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_is_cancelled_deleted_and_pushed_again_runs_once() {
    let backend = support::open(support::options()).await;
    let (before, job, after) = (draft().build(), draft().build(), draft().build());
    backend.push(&[before, job.clone()], AT).await.expect("push");
    cancel(&backend, &job).await;
    backend.delete(&job.body.job(), AT).await.expect("delete");
    backend.push(&[after, job.clone()], AT).await.expect("push");
    assert_eq!(ready(&backend).await, 3);
    let mut ran = Vec::new();
    for _ in 0..5 {
        ran.extend(
            backend.claim(&claim(2), AT).await.expect("claim").jobs.into_iter().map(|job| job.body.id),
        );
    }
    assert_eq!(ran.len(), 3);
    assert_eq!(ran.iter().filter(|id| **id == job.body.id).count(), 1);
    assert_eq!(ready(&backend).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeper_is_woken_though_a_cancelled_job_stands_in_the_list() {
    let backend = support::open(support::options()).await;
    let job = draft().build();
    backend.push(std::slice::from_ref(&job), AT).await.expect("push");
    cancel(&backend, &job).await;
    let sleeping = backend.clone();
    let sleeper = tokio::spawn(async move {
        sleeping.wait(SessionId::random(), &[MAIL], None, Duration::from_secs(20)).await
    });
    // Long enough that it has looked and lies down; that it sleeps cannot be seen from outside.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sleeper.is_finished(), "there is nothing to do");
    backend.push(&[draft().build()], AT).await.expect("push");
    let wake =
        tokio::time::timeout(Duration::from_secs(5), sleeper).await.expect("at once").expect("the sleeper");
    assert_eq!(wake.expect("wait"), Wake::Work);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn debouncing_leaves_a_list_that_does_not_grow_with_every_push() {
    let backend = support::open(support::options()).await;
    for _ in 0..50 {
        let job = draft().unique("k", OnConflict::Supersede, Until::Start).after(Duration::from_secs(60));
        backend.push(&[job.build()], AT).await.expect("push");
    }
    let counts = backend.queues(AT).await.expect("queues")[0].counts;
    assert_eq!((counts.get(StateKind::Scheduled), counts.get(StateKind::Cancelled)), (1, 49));
    assert!(backend.claim(&claim(10), AT).await.expect("claim").jobs.is_empty());
}
