//! Outcomes: how jobs ended, at once or when the first one does.

use windlass_core::{Backend, Finished, Manage, Ruling, StateKind};

use crate::{Env, World, bury, call_off, complete, draft, retry, secs};

/// Longer than any engine takes to notice, and long enough that a test which waits it out has failed.
const LONG: std::time::Duration = std::time::Duration::from_secs(30);

pub async fn each_job_has_its_own_answer<E: Env>(w: &mut World<E>) {
    let mut jobs = Vec::new();
    for ruling in [Ruling::Complete { output: Some(b"42".as_slice().into()) }, call_off(), bury()] {
        jobs.push(w.put(draft()).await);
        w.apply(&w.take().await.lease, ruling).await;
    }
    jobs.push(draft().job());
    jobs.push(w.put(draft().after(secs(60))).await);
    jobs.push(jobs[0].clone());
    let output = Some(Finished::Completed { output: Some(b"42".as_slice().into()), codec: 0 });
    let wanted = [
        output.clone(),
        Some(Finished::Cancelled { reason: "the customer left".to_owned() }),
        Some(Finished::Dead {
            reason: windlass_core::DeadReason::Buried,
            error: Some(windlass_core::Failure::new("smtp said 550")),
        }),
        Some(Finished::Missing),
        None,
        output,
    ];
    assert_eq!(w.backend().outcomes(&jobs, LONG, w.at()).await.expect("outcomes"), wanted);
    assert_eq!(w.backend().outcomes(&[], LONG, w.at()).await.expect("outcomes"), []);
}

pub async fn a_job_on_its_way_has_none<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let none = async || {
        let outcomes = w.backend().outcomes(std::slice::from_ref(&job), secs(0), w.at()).await;
        assert_eq!(outcomes.expect("outcomes"), [None]);
    };
    none().await;
    let run = w.take().await;
    none().await;
    w.apply(&run.lease, retry(secs(60))).await;
    none().await;
}

pub async fn whoever_waits_hears_of_the_end<E: Env>(w: &mut World<E>) {
    for ruling in [complete(), call_off(), bury()] {
        let job = w.put(draft()).await;
        let other = w.put(draft().after(secs(60))).await;
        let run = w.take().await;
        let (backend, at, jobs) = (w.env().second().await, w.at(), [other, job]);
        let waiter = tokio::spawn(async move { backend.outcomes(&jobs, LONG, at).await });
        // Whether the waiter is already waiting or not, it must hear.
        tokio::task::yield_now().await;
        w.apply(&run.lease, ruling).await;
        let outcomes = waiter.await.expect("the waiter").expect("outcomes");
        assert!(outcomes[0].is_none() && outcomes[1].is_some(), "{outcomes:?}");
    }
}

pub async fn whoever_waits_hears_of_a_cancellation<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let (backend, at, jobs) = (w.backend().clone(), w.at(), [job.clone()]);
    let waiter = tokio::spawn(async move { backend.outcomes(&jobs, LONG, at).await });
    tokio::task::yield_now().await;
    w.backend().cancel(&job, "no longer", w.at()).await.expect("cancel");
    let outcomes = waiter.await.expect("the waiter").expect("outcomes");
    assert_eq!(outcomes, [Some(Finished::Cancelled { reason: "no longer".to_owned() })]);
}

pub async fn a_wait_for_an_outcome_ends<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let short = std::time::Duration::from_millis(20);
    let outcomes = tokio::time::timeout(LONG, w.backend().outcomes(&[job], short, w.at())).await;
    assert_eq!(outcomes.expect("it ends by itself").expect("outcomes"), [None]);
}

pub async fn a_dropped_wait_costs_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let jobs = [job.clone()];
    for _ in 0..5 {
        let waiting = w.backend().outcomes(&jobs, LONG, w.at());
        let dropped = tokio::time::timeout(std::time::Duration::from_millis(1), waiting).await;
        assert!(dropped.is_err(), "nothing has ended yet");
    }
    w.apply(&w.take().await.lease, complete()).await;
    w.expect(&job, StateKind::Completed).await;
}
