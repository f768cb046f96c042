//! Jobs that several handles dispatch, claim and settle at once while something goes wrong around them: every verb is
//! repeated as a worker would, and in the end each job has ended once.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use windlass_conformance::{complete, draft};
use windlass_core::{
    At, Backend, Effect, Error, ErrorKind, Filter, Inspect, JobId, NewJob, Pushed, Result, Settled,
    StateKind, Verdict,
};
use windlass_postgres::PostgresBackend;

use crate::opening::ask;

const AT: At = At::Server;
/// Tries of one verb, 10 ms apart.
const TRIES: u32 = 3_000;

/// What went wrong, by verb, kind and effect, and how often.
#[derive(Clone, Default)]
pub(crate) struct Failures(Arc<Mutex<BTreeMap<String, u32>>>);

impl Failures {
    fn note(&self, error: &Error) {
        let what = format!("{} {:?} {:?}", error.operation(), error.kind(), error.effect());
        *self.0.lock().expect("not poisoned").entry(what).or_default() += 1;
    }

    /// How often that kind came, with that effect.
    pub(crate) fn count(&self, kind: ErrorKind, effect: Effect) -> u32 {
        let wanted = format!(" {kind:?} {effect:?}");
        let failures = self.0.lock().expect("not poisoned");
        failures.iter().filter(|(what, _)| what.ends_with(&wanted)).map(|(_, count)| count).sum()
    }

    /// How often anything went wrong.
    pub(crate) fn all(&self) -> u32 {
        self.0.lock().expect("not poisoned").values().sum()
    }
}

impl std::fmt::Debug for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lock().expect("not poisoned").fmt(f)
    }
}

/// Repeats a verb until it works, as long as its failures say that it may.
async fn insist<T>(failures: &Failures, verb: impl AsyncFn() -> Result<T>) -> T {
    for _ in 0..TRIES {
        match verb().await {
            Ok(answer) => return answer,
            Err(error) => {
                assert!(error.is_retryable(), "not worth another try: {error}");
                failures.note(&error);
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never worked again: {failures:?}");
}

/// Dispatches a share of the jobs, in batches of all sizes.
async fn dispatch(backend: PostgresBackend, jobs: Vec<NewJob>, failures: Failures) {
    let mut rest = &jobs[..];
    let mut size = 1;
    while !rest.is_empty() {
        let (batch, others) = rest.split_at(size.min(rest.len()));
        let pushed = insist(&failures, async || backend.push(batch, AT).await).await;
        let fine = |pushed: &Pushed| !matches!(pushed, Pushed::Conflict(_));
        assert!(pushed.len() == batch.len() && pushed.iter().all(fine), "{pushed:?}");
        rest = others;
        size = size % 20 + 3;
    }
}

/// Claims and settles until all have ended. A claim whose answer was lost is handed back.
async fn work(backend: PostgresBackend, ended: Arc<Mutex<HashSet<JobId>>>, all: usize, failures: Failures) {
    while ended.lock().expect("not poisoned").len() < all {
        let claim = ask(16);
        let claimed = match backend.claim(&claim, AT).await {
            Ok(claimed) => claimed.jobs,
            Err(error) => {
                assert!(error.is_retryable(), "not worth another try: {error}");
                failures.note(&error);
                if error.effect() == Effect::Unknown {
                    insist(&failures, async || backend.hand_back(claim.session, Some(claim.nonce), AT).await)
                        .await;
                }
                Vec::new()
            }
        };
        if claimed.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        let settled = insist(&failures, async || backend.settle(&verdicts, AT).await).await;
        for (verdict, settled) in verdicts.iter().zip(settled) {
            let id = verdict.lease.job.id;
            // A batch that was in doubt is sent again as a whole, so its verdicts may have been applied before.
            let applied = matches!(settled, Settled::Applied(_) | Settled::AlreadyApplied);
            assert!(applied, "job {id}: {settled:?}, and nobody else had its lease");
            assert!(ended.lock().expect("not poisoned").insert(id), "job {id} ended twice");
        }
    }
}

/// Has `count` jobs dispatched, claimed and settled by each of `backends` at once, and checks by `truth` that each ended
/// once and that nothing else is left. Returns what went wrong on the way.
pub(crate) async fn through(backends: &[PostgresBackend], truth: &PostgresBackend, count: usize) -> Failures {
    let (failures, ended) = (Failures::default(), Arc::new(Mutex::new(HashSet::new())));
    let jobs: Vec<NewJob> = (0..count).map(|_| draft().build()).collect();
    let all = async {
        let mut tasks = tokio::task::JoinSet::new();
        for (share, backend) in jobs.chunks(count.div_ceil(backends.len())).zip(backends) {
            tasks.spawn_local(dispatch(backend.clone(), share.to_vec(), failures.clone()));
            tasks.spawn_local(work(backend.clone(), Arc::clone(&ended), count, failures.clone()));
        }
        while let Some(task) = tasks.join_next().await {
            task.expect("nothing lost and nothing twice");
        }
    };
    tokio::task::LocalSet::new().run_until(all).await;
    let queues = insist(&failures, async || truth.queues(AT).await).await;
    assert_eq!(queues.iter().map(|queue| queue.counts.live()).sum::<u64>(), 0, "{queues:?}");
    let (mut stored, mut after) = (HashSet::new(), None);
    loop {
        let page = truth.list(&Filter::default(), after.as_ref(), 1_000, AT).await.expect("a listing");
        for record in page.records {
            let ended = (record.state.kind(), record.attempts, record.lost_leases);
            assert_eq!(ended, (StateKind::Completed, 1, 0), "{record:?}");
            assert!(stored.insert(record.body.id));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        stored.len() as u64,
        queues.iter().map(|queue| queue.counts.get(StateKind::Completed)).sum::<u64>()
    );
    assert!(jobs.iter().all(|job| stored.contains(&job.body.id)), "all that were dispatched");
    failures
}
