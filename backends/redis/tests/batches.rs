//! Batches. Of verdicts: plain completions are written together, and no later verdict of the batch may see them as not yet
//! written. Of leases: jobs that were claimed together share a record and an entry among the leases, and each is its own all
//! the same.

mod support;

use std::time::Duration;

use windlass_conformance::{complete, draft, release, retry, secs};
use windlass_core::{
    At, Backend, Claim, ClaimedJob, Held, Inspect, JobId, Kept, Kind, Lease, NewJob, Nonce, QueueName,
    SessionId, Settled, StateKind, Sweep, Timestamp, Verdict,
};
use windlass_redis::RedisBackend;

const AT: At = At::Server;
const MAIL: QueueName = QueueName::from_static("mail");

/// So long after the start of virtual time.
fn at(seconds: u64) -> At {
    At::Instant(Timestamp::VIRTUAL_START.saturating_add(secs(seconds)))
}

fn claim(limit: usize) -> Claim {
    Claim {
        session: SessionId::from_u128(1),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit,
        ahead: 0,
        suspects: true,
        lease: secs(30),
    }
}

/// An engine with so many jobs waiting, in order.
async fn with_jobs(count: usize) -> (RedisBackend, Vec<NewJob>, support::Names) {
    let names = support::Names(support::fresh_name());
    let backend = support::open(support::options().namespace(names.0.clone())).await;
    // Ids that fall: where places were lost, ids would put the jobs in order.
    let ids = (1..=count as u64).rev().map(JobId::sequential);
    let jobs: Vec<_> = ids.map(|id| draft().id(id).build()).collect();
    backend.push(&jobs, at(0)).await.expect("push");
    (backend, jobs, names)
}

async fn take(backend: &RedisBackend, claim: &Claim, at: At) -> Vec<ClaimedJob> {
    backend.claim(claim, at).await.expect("claim").jobs
}

/// The next jobs, one claim each.
async fn one_by_one(backend: &RedisBackend, now: At) -> Vec<JobId> {
    let mut ids = Vec::new();
    while let Some(job) = take(backend, &claim(1), now).await.pop() {
        ids.push(job.body.id);
    }
    ids
}

async fn settle_one(backend: &RedisBackend, lease: &Lease, now: At) -> Settled {
    let verdict = Verdict::new(lease.clone(), complete());
    backend.settle(&[verdict], now).await.expect("settle")[0]
}

async fn sweep(backend: &RedisBackend, limit: usize, now: At) -> u64 {
    backend.sweep(&Sweep { limit }, now).await.expect("sweep").reclaimed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leases_of_a_batch_lapse_one_by_one() {
    let (backend, _, names) = with_jobs(6).await;
    let first = claim(6);
    let runs = take(&backend, &first, at(0)).await;
    let leases: Vec<_> = runs.iter().map(|run| run.lease.clone()).collect();
    assert_eq!(names.left("ru").await, 1, "they are a batch");
    let held: Vec<_> = [2, 4].map(|n: usize| Held { lease: leases[n].clone(), started: true }).into();
    assert_eq!(
        backend.extend(first.session, &held, secs(30), at(20)).await.expect("extend"),
        [Kept::Kept; 2]
    );
    assert_eq!(settle_one(&backend, &leases[0], at(25)).await, Settled::Applied(StateKind::Completed));
    assert_eq!(sweep(&backend, 100, at(29)).await, 0);
    assert_eq!(sweep(&backend, 100, at(31)).await, 3);
    for n in [1, 3, 5] {
        let record = backend.get(&leases[n].job, at(31)).await.expect("get").expect("it is stored");
        assert_eq!((record.state.kind(), record.lost_leases), (StateKind::Ready, 1));
        assert_eq!(settle_one(&backend, &leases[n], at(31)).await, Settled::LeaseLost);
    }
    assert_eq!(sweep(&backend, 100, at(49)).await, 0, "two were extended");
    assert_eq!(settle_one(&backend, &leases[2], at(49)).await, Settled::Applied(StateKind::Completed));
    assert_eq!(sweep(&backend, 100, at(51)).await, 1);
    assert_eq!(settle_one(&backend, &leases[4], at(51)).await, Settled::LeaseLost);
    for set in ["l", "ru", "rc"] {
        assert_eq!(names.left(set).await, 0, "nothing is left of the batch in {set}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_sweep_takes_a_lapsed_batch_in_parts() {
    let (backend, _, names) = with_jobs(7).await;
    assert_eq!(take(&backend, &claim(7), at(0)).await.len(), 7);
    for taken in [2, 2, 2, 1, 0] {
        assert_eq!(sweep(&backend, 2, at(31)).await, taken);
    }
    assert_eq!(names.left("ru").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_a_batch_come_back_to_their_own_places() {
    let (backend, jobs, names) = with_jobs(9).await;
    let first = claim(6);
    let runs = take(&backend, &first, at(0)).await;
    let back = [4, 1, 3].map(|n: usize| Verdict::new(runs[n].lease.clone(), release()));
    backend.settle(&back, at(1)).await.expect("settle");
    assert_eq!(backend.hand_back(first.session, Some(first.nonce), at(1)).await.expect("hand back"), 3);
    for set in ["l", "ru", "rc"] {
        assert_eq!(names.left(set).await, 0, "{set}");
    }
    let order: Vec<_> = jobs.iter().map(|job| job.body.id).collect();
    assert_eq!(one_by_one(&backend, at(2)).await, order);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_batch_of_a_nonce_is_handed_back() {
    let (backend, _, names) = with_jobs(10).await;
    let (first, second) = (claim(5), claim(5));
    let kept = take(&backend, &first, at(0)).await;
    assert_eq!(take(&backend, &second, at(0)).await.len(), 5);
    let elsewhere = SessionId::from_u128(2);
    assert_eq!(backend.hand_back(elsewhere, None, at(1)).await.expect("hand back"), 0);
    assert_eq!(backend.hand_back(second.session, Some(second.nonce), at(1)).await.expect("hand back"), 5);
    for run in &kept {
        assert_eq!(settle_one(&backend, &run.lease, at(1)).await, Settled::Applied(StateKind::Completed));
    }
    assert_eq!(names.left("ru").await, 0);
    let counts = backend.queues(at(1)).await.expect("queues")[0].counts;
    assert_eq!((counts.get(StateKind::Running), counts.get(StateKind::Ready)), (0, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_otherwise_leaves_its_batch_too() {
    let (backend, _, names) = with_jobs(8).await;
    let runs = take(&backend, &claim(8), at(0)).await;
    let verdicts: Vec<_> = runs
        .iter()
        .enumerate()
        .map(|(n, run)| {
            let ruling = if n % 2 == 0 { complete() } else { retry(Duration::from_secs(60)) };
            Verdict::new(run.lease.clone(), ruling)
        })
        .collect();
    // The same verdicts twice, so that the second half are repeats.
    let twice: Vec<_> = verdicts.iter().chain(&verdicts).cloned().collect();
    let settled = backend.settle(&twice, at(1)).await.expect("settle");
    assert!(settled[8..].iter().all(|settled| *settled == Settled::AlreadyApplied), "{settled:?}");
    for set in ["l", "ru", "rc"] {
        assert_eq!(names.left(set).await, 0, "{set}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_sees_what_those_before_it_in_the_batch_did() {
    let backend = support::open(support::options()).await;
    let jobs: Vec<_> = (0..3).map(|_| draft().build()).collect();
    backend.push(&jobs, AT).await.expect("push");
    let claim = Claim {
        session: SessionId::random(),
        nonce: Nonce::random(),
        queues: vec![MAIL],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 3,
        ahead: 0,
        suspects: true,
        lease: secs(30),
    };
    let runs = backend.claim(&claim, AT).await.expect("claim").jobs;
    let lease = |at: usize| runs[at].lease.clone();
    // The child waits for a job that completes earlier in the same batch, which must not strand it.
    let child = draft().parents(&[lease(0).job]);
    let address = child.job();
    let verdicts = [
        Verdict::new(lease(0), complete()),
        Verdict { then: vec![child.build()], ..Verdict::new(lease(1), complete()) },
        Verdict::new(lease(2), complete()),
        Verdict::new(lease(2), retry(secs(5))),
        Verdict::new(lease(0), retry(secs(5))),
    ];
    let settled = backend.settle(&verdicts, AT).await.expect("settle");
    let done = Settled::Applied(StateKind::Completed);
    assert_eq!(settled, [done, done, done, Settled::AlreadyApplied, Settled::AlreadyApplied]);
    let record = backend.get(&address, AT).await.expect("get").expect("the child is stored");
    assert_eq!(record.state.kind(), StateKind::Ready);
}
