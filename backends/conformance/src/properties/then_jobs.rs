//! Jobs that ride with a verdict: they exist if and only if it was applied.

use windlass_core::{Backend, JobId, NewJob, OnConflict, Ruling, Settled, StateKind, Until, Verdict};

use crate::{Env, World, bury, call_off, complete, draft, ids, release, retry, secs, snooze};

pub async fn they_exist_once_the_verdict_is_applied<E: Env>(w: &mut World<E>) {
    for ruling in [complete(), retry(secs(60)), snooze(secs(60)), call_off(), bury()] {
        w.put(draft()).await;
        let run = w.take().await;
        let then: Vec<NewJob> = vec![draft().build(), draft().after(secs(600)).build()];
        let settled = w.settle_then(&run.lease, ruling.clone(), then.clone()).await;
        assert!(matches!(settled, Settled::Applied(_)), "{ruling:?}: {settled:?}");
        w.expect(&then[0].body.job(), StateKind::Ready).await;
        w.expect(&then[1].body.job(), StateKind::Scheduled).await;
        assert_eq!(*w.record(&then[0].body.job()).await.body, *then[0].body);
        w.apply(&w.take().await.lease, complete()).await;
    }
}

pub async fn they_do_not_exist_when_the_lease_is_lost<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let stale = w.take().await;
    w.lose_leases().await;
    let then = draft().build();
    assert_eq!(w.settle_then(&stale.lease, complete(), vec![then.clone()]).await, Settled::LeaseLost);
    assert!(w.find(&then.body.job()).await.is_none());
    w.take().await;
    assert_eq!(w.settle_then(&stale.lease, complete(), vec![then.clone()]).await, Settled::LeaseLost);
    assert!(w.find(&then.body.job()).await.is_none());
}

pub async fn a_repeat_gives_rise_to_nothing_more<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.settle_then(&run.lease, complete(), vec![draft().build()]).await;
    let before = w.everything().await;
    let again = w.settle_then(&run.lease, complete(), vec![draft().build()]).await;
    assert_eq!(again, Settled::AlreadyApplied);
    assert_eq!(w.everything().await, before);
}

pub async fn only_applied_verdicts_of_a_batch_give_rise_to_jobs<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let stale = w.take().await;
    w.lose_leases().await;
    w.put(draft()).await;
    let fresh = w.claim(2).await;
    let ghost = draft().build();
    let real = draft().build();
    let verdicts = [
        Verdict { lease: stale.lease, ruling: complete(), then: vec![ghost.clone()] },
        Verdict { lease: fresh[1].lease.clone(), ruling: complete(), then: vec![real.clone()] },
    ];
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    assert_eq!(settled, [Settled::LeaseLost, Settled::Applied(StateKind::Completed)]);
    assert!(w.find(&ghost.body.job()).await.is_none());
    w.expect(&real.body.job(), StateKind::Ready).await;
}

pub async fn derived_ids_absorb_what_is_dispatched_twice<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let next = draft().id(JobId::derived(job.id, 1, 0)).build();
    w.put(next.clone()).await;
    let settled = w.settle_then(&run.lease, complete(), vec![next.clone()]).await;
    assert_eq!(settled, Settled::Applied(StateKind::Completed));
    assert_eq!(ids(&w.claim(10).await), [next.body.id]);
}

pub async fn they_obey_unique_keys_and_limits<E: Env>(w: &mut World<E>) {
    let holder = w.put(draft().unique("k", OnConflict::Skip, Until::End).after(secs(600))).await;
    w.put(draft().limit("tenant", 1)).await;
    let run = w.take().await;
    let refused = draft().unique("k", OnConflict::Skip, Until::End);
    let (first, second) = (draft().limit("tenant", 1), draft().limit("tenant", 1));
    let then = vec![refused.clone().build(), first.clone().build(), second.clone().build()];
    w.settle_then(&run.lease, complete(), then).await;
    assert!(w.find(&refused.job()).await.is_none());
    w.expect(&holder, StateKind::Scheduled).await;
    w.expect(&first.job(), StateKind::Ready).await;
    w.expect(&second.job(), StateKind::Blocked).await;
}

pub async fn one_may_take_the_key_that_the_verdict_frees<E: Env>(w: &mut World<E>) {
    w.put(draft().unique("k", OnConflict::Skip, Until::End)).await;
    let run = w.take().await;
    let next = draft().unique("k", OnConflict::Skip, Until::End);
    w.settle_then(&run.lease, complete(), vec![next.clone().build()]).await;
    w.expect(&next.job(), StateKind::Ready).await;
}

pub async fn one_may_have_the_settled_job_as_parent<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let next = draft().parents(&[job]);
    let last = draft().parents(&[next.job()]);
    w.settle_then(&run.lease, complete(), vec![next.clone().build(), last.clone().build()]).await;
    w.expect(&next.job(), StateKind::Ready).await;
    w.expect(&last.job(), StateKind::Blocked).await;
}

pub async fn jobs_for_another_queue_arrive_too<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    let there = draft().queue("other").tag("sent").build();
    w.settle_then(&run.lease, complete(), vec![there.clone()]).await;
    if !w.backend().capabilities().atomic_across_queues {
        w.sweep().await;
    }
    let record = w.record(&there.body.job()).await;
    assert_eq!((record.state.kind(), record.body), (StateKind::Ready, there.body));
    w.sweep().await;
    assert_eq!(w.everything().await.len(), 2, "an outbox delivers once");
}

pub async fn a_thousand_ride_with_one_verdict<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    let then: Vec<NewJob> = (0..1_000).map(|_| draft().build()).collect();
    let wanted: Vec<_> = then.iter().map(|job| job.body.id).collect();
    w.settle_then(&run.lease, complete(), then).await;
    assert_eq!(ids(&w.claim(1_000).await), wanted);
}

pub async fn a_release_may_give_rise_to_jobs<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let next = draft().build();
    let settled = w.settle_then(&run.lease, release(), vec![next.clone()]).await;
    assert_eq!(settled, Settled::Applied(StateKind::Ready));
    assert_eq!(ids(&w.claim(10).await), [job.id, next.body.id]);
}

pub async fn one_bad_job_refuses_the_verdicts<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft()).await;
    let runs = w.claim(2).await;
    let before = w.everything().await;
    let bad = draft().with(|body| body.max_attempts = 0).build();
    let verdicts = [
        Verdict::new(runs[0].lease.clone(), complete()),
        Verdict { lease: runs[1].lease.clone(), ruling: complete(), then: vec![draft().build(), bad] },
    ];
    let error = w.backend().settle(&verdicts, w.at()).await.expect_err("a bad job");
    assert_eq!(error.kind(), windlass_core::ErrorKind::Invalid);
    assert_eq!(w.everything().await, before);
    assert_eq!(w.apply(&runs[0].lease, Ruling::Release).await, StateKind::Ready);
}
