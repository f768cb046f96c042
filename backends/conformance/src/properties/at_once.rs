//! Many workers and dispatchers at once: what holds for one must hold for all of them together.

use std::collections::{HashMap, HashSet};

use windlass_core::{
    Backend, Cancelling, Claim, JobId, Manage, Nonce, OnConflict, Pushed, SessionId, Settled, StateKind,
    Until, Verdict,
};

use crate::{Env, LEASE, World, bury, complete, draft, mail, release, retry, secs};

const TASKS: usize = 6;

fn ask<E: Env>(w: &World<E>, limit: usize) -> Claim {
    Claim { session: SessionId::random(), ..w.ask(limit) }
}

fn next(claim: &Claim) -> Claim {
    Claim { nonce: Nonce::random(), ..claim.clone() }
}

/// Claims and completes until a few claims in a row bring nothing. Returns each (job, epoch) it ran.
async fn drain<B: Backend>(backend: B, claim: Claim, at: windlass_core::At) -> Vec<(JobId, u64)> {
    let mut ran = Vec::new();
    let mut empty = 0;
    while empty < 5 {
        let claimed = backend.claim(&next(&claim), at).await.expect("claim").jobs;
        empty = if claimed.is_empty() { empty + 1 } else { 0 };
        ran.extend(claimed.iter().map(|job| (job.body.id, job.lease.epoch)));
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        for settled in backend.settle(&verdicts, at).await.expect("settle") {
            assert_eq!(settled, Settled::Applied(StateKind::Completed));
        }
        tokio::task::yield_now().await;
    }
    ran
}

pub async fn each_job_runs_once<E: Env>(w: &mut World<E>) {
    let at = w.at();
    let pushers: Vec<_> = (0..3)
        .map(|_| {
            let backend = w.backend().clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    let batch: Vec<_> = (0..10).map(|_| draft().build()).collect();
                    let pushed = backend.push(&batch, at).await.expect("push");
                    assert_eq!(pushed, vec![Pushed::Inserted; 10]);
                }
            })
        })
        .collect();
    let mut workers = Vec::new();
    for _ in 0..TASKS {
        workers.push(tokio::spawn(drain(w.env().second().await, ask(w, 7), at)));
    }
    for pusher in pushers {
        pusher.await.expect("a pusher");
    }
    let mut ran = Vec::new();
    for worker in workers {
        ran.extend(worker.await.expect("a worker"));
    }
    ran.extend(drain(w.backend().clone(), ask(w, 100), at).await);
    let unique: HashSet<_> = ran.iter().collect();
    assert_eq!((ran.len(), unique.len()), (600, 600), "each job once");
    assert!(ran.iter().all(|(_, epoch)| *epoch == 1));
    assert_eq!(w.counts(&mail()).await.live(), 0);
}

pub async fn no_epoch_is_given_twice<E: Env>(w: &mut World<E>) {
    for _ in 0..10 {
        w.put(draft()).await;
    }
    let at = w.at();
    let mut workers = Vec::new();
    for worker in 0..TASKS {
        let (backend, claim) = (w.env().second().await, ask(w, 3));
        workers.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            for _ in 0..30 {
                let claimed = backend.claim(&next(&claim), at).await.expect("claim").jobs;
                seen.extend(claimed.iter().map(|job| (job.body.id, job.lease.epoch)));
                let ruling = if worker % 2 == 0 { release() } else { retry(secs(0)) };
                let verdicts: Vec<_> =
                    claimed.into_iter().map(|job| Verdict::new(job.lease, ruling.clone())).collect();
                for settled in backend.settle(&verdicts, at).await.expect("settle") {
                    assert!(matches!(settled, Settled::Applied(_)), "{settled:?}");
                }
            }
            seen
        }));
    }
    let mut epochs: HashMap<JobId, Vec<u64>> = HashMap::new();
    for worker in workers {
        for (job, epoch) in worker.await.expect("a worker") {
            epochs.entry(job).or_default().push(epoch);
        }
    }
    for record in w.everything().await {
        let mut given = epochs.remove(&record.body.id).unwrap_or_default();
        given.sort_unstable();
        assert_eq!(given, (1..=record.epoch).collect::<Vec<_>>(), "no gap and no double");
    }
}

pub async fn one_of_many_verdicts_counts<E: Env>(w: &mut World<E>) {
    for _ in 0..20 {
        let job = w.put(draft()).await;
        let run = w.take().await;
        let at = w.at();
        let mut tasks = Vec::new();
        for task in 0..TASKS {
            let (backend, lease) = (w.env().second().await, run.lease.clone());
            tasks.push(tokio::spawn(async move {
                let ruling = if task % 2 == 0 { complete() } else { bury() };
                let then = vec![draft().kind("effect").build()];
                backend.settle(&[Verdict { lease, ruling, then }], at).await.expect("settle")[0]
            }));
        }
        let mut applied = Vec::new();
        for task in tasks {
            match task.await.expect("a worker") {
                Settled::Applied(state) => applied.push(state),
                other => assert_eq!(other, Settled::AlreadyApplied),
            }
        }
        assert_eq!(applied, [w.state(&job).await]);
    }
    let all = w.everything().await;
    assert_eq!(all.iter().filter(|record| record.body.kind == *"effect").count(), 20);
}

pub async fn one_of_many_pushes_of_an_id_is_stored<E: Env>(w: &mut World<E>) {
    for _ in 0..10 {
        let job = draft().build();
        let at = w.at();
        let mut tasks = Vec::new();
        for _ in 0..TASKS {
            let (backend, job) = (w.env().second().await, job.clone());
            tasks.push(tokio::spawn(async move { backend.push(&[job], at).await.expect("push")[0] }));
        }
        let mut inserted = 0;
        for task in tasks {
            match task.await.expect("a pusher") {
                Pushed::Inserted => inserted += 1,
                other => assert_eq!(other, Pushed::SameId),
            }
        }
        assert_eq!(inserted, 1);
    }
    assert_eq!(w.everything().await.len(), 10);
}

pub async fn a_key_has_one_holder_and_one_behind<E: Env>(w: &mut World<E>) {
    let at = w.at();
    let mut tasks = Vec::new();
    for on_conflict in [OnConflict::Skip, OnConflict::Supersede, OnConflict::QueueOne] {
        for _ in 0..2 {
            let (backend, claim) = (w.env().second().await, ask(w, 2));
            tasks.push(tokio::spawn(async move {
                for _ in 0..25 {
                    let job = draft().unique("k", on_conflict, Until::End).build();
                    backend.push(&[job], at).await.expect("push");
                    let claimed = backend.claim(&next(&claim), at).await.expect("claim").jobs;
                    assert!(claimed.len() <= 1, "two holders of one key: {claimed:?}");
                    let verdicts: Vec<_> =
                        claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
                    backend.settle(&verdicts, at).await.expect("settle");
                }
            }));
        }
    }
    for task in tasks {
        task.await.expect("a task");
    }
    drain(w.backend().clone(), ask(w, 10), at).await;
    assert_eq!(w.counts(&mail()).await.live(), 0, "nobody is left behind a key");
    w.put(draft().unique("k", OnConflict::Skip, Until::End)).await;
}

pub async fn a_limit_is_never_exceeded<E: Env>(w: &mut World<E>) {
    for _ in 0..60 {
        w.put(draft().limit("tenant", 3)).await;
    }
    let at = w.at();
    let running = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(0));
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (backend, claim, running) = (w.env().second().await, ask(w, 2), running.clone());
        tasks.push(tokio::spawn(async move {
            use std::sync::atomic::Ordering::SeqCst;
            for _ in 0..60 {
                let claimed = backend.claim(&next(&claim), at).await.expect("claim").jobs;
                let count = i64::try_from(claimed.len()).unwrap_or(i64::MAX);
                let now = running.fetch_add(count, SeqCst) + count;
                assert!(now <= 3, "{now} run at once");
                tokio::task::yield_now().await;
                running.fetch_sub(count, SeqCst);
                let ruling = if task == 0 { release() } else { complete() };
                let verdicts: Vec<_> =
                    claimed.into_iter().map(|job| Verdict::new(job.lease, ruling.clone())).collect();
                backend.settle(&verdicts, at).await.expect("settle");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a worker");
    }
    let rest = drain(w.backend().clone(), ask(w, 10), at).await;
    assert_eq!(w.counts(&mail()).await.live(), 0, "none is stuck; {} were left to the end", rest.len());
}

pub async fn a_cancellation_and_a_claim_never_both_win<E: Env>(w: &mut World<E>) {
    for _ in 0..30 {
        let job = w.put(draft()).await;
        let at = w.at();
        let (backend, address) = (w.env().second().await, job.clone());
        let canceller =
            tokio::spawn(async move { backend.cancel(&address, "no longer", at).await.expect("cancel") });
        let claimed = w.claim(1).await;
        match (canceller.await.expect("the canceller"), &claimed[..]) {
            (Cancelling::Cancelled, []) => w.expect(&job, StateKind::Cancelled).await,
            (Cancelling::Requested, [run]) => {
                assert_eq!(w.apply(&run.lease, release()).await, StateKind::Cancelled);
            }
            other => panic!("both or neither won: {other:?}"),
        }
    }
}

pub async fn sweeps_at_once_reclaim_each_lease_once<E: Env>(w: &mut World<E>) {
    let batch: Vec<_> = (0..40).map(|_| draft().build()).collect();
    w.push_all(&batch).await;
    w.claim(40).await;
    w.advance(LEASE);
    let at = w.at();
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let backend = w.env().second().await;
        tasks.push(tokio::spawn(async move {
            let mut reclaimed = 0;
            for _ in 0..10 {
                let sweep = windlass_core::Sweep { limit: 7 };
                reclaimed += backend.sweep(&sweep, at).await.expect("sweep").reclaimed;
            }
            reclaimed
        }));
    }
    let mut reclaimed = 0;
    for task in tasks {
        reclaimed += task.await.expect("a sweeper");
    }
    assert_eq!(reclaimed, 40);
    assert!(w.everything().await.iter().all(|record| record.lost_leases == 1));
}

pub async fn pushes_of_keys_in_opposite_orders_do_not_lock_up<E: Env>(w: &mut World<E>) {
    let at = w.at();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let backend = w.env().second().await;
        tasks.push(tokio::spawn(async move {
            for _ in 0..10 {
                let mut batch: Vec<_> = (0..10)
                    .map(|key| {
                        let key = format!("key {key}");
                        draft().unique(&key, OnConflict::Supersede, Until::End).limit(&key, 1).build()
                    })
                    .collect();
                if task % 2 == 0 {
                    batch.reverse();
                }
                backend.push(&batch, at).await.expect("push");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a pusher");
    }
    assert_eq!(w.counts(&mail()).await.live(), 10, "one for each key");
}
