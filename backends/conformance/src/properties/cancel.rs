//! Cancel: a waiting job never starts; of a running one exactly one of the cancellation and its own outcome wins.

use windlass_core::{
    Backend, Cancelling, Finished, Held, JobRef, Kept, Manage, RecordState, Ruling, StateKind,
};

use crate::{Env, LEASE, World, bury, call_off, complete, draft, release, retry, secs, snooze};

async fn cancel<E: Env>(w: &World<E>, job: &JobRef) -> Cancelling {
    w.backend().cancel(job, "the customer left", w.at()).await.expect("cancel")
}

async fn is_called_off<E: Env>(w: &World<E>, job: &JobRef) {
    let reason = "the customer left".to_owned();
    let wanted = RecordState::Cancelled { at: w.now, reason: reason.clone(), superseded_by: None };
    assert_eq!(w.record(job).await.state, wanted);
    let outcomes = w.backend().outcomes(std::slice::from_ref(job), secs(0), w.at()).await;
    assert_eq!(outcomes.expect("outcomes"), [Some(Finished::Cancelled { reason })]);
}

pub async fn a_waiting_job_never_starts<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft().kind("unknown")).await;
    let waiting =
        [draft(), draft().after(secs(10)), draft().parents(&[parent]), draft().limit("one", 1).priority(9)];
    let mut jobs = vec![w.put(draft().kind("unknown").limit("one", 1)).await];
    for job in waiting {
        jobs.push(w.put(job).await);
    }
    w.advance(secs(1));
    for job in &jobs {
        assert_eq!(cancel(w, job).await, Cancelling::Cancelled, "{job}");
        is_called_off(w, job).await;
    }
    w.advance(secs(60));
    w.sweep().await;
    w.nothing_to_claim().await;
}

pub async fn a_retrying_job_never_starts_again<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.apply(&w.take().await.lease, retry(secs(5))).await;
    assert_eq!(cancel(w, &job).await, Cancelling::Cancelled);
    w.advance(secs(60));
    w.nothing_to_claim().await;
    assert_eq!(w.record(&job).await.attempts, 1);
}

pub async fn a_running_job_is_told_at_its_next_beat<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.put(draft()).await;
    let runs = w.claim(2).await;
    assert_eq!(cancel(w, &job).await, Cancelling::Requested);
    let RecordState::Running { cancel_requested, .. } = w.record(&job).await.state else {
        panic!("it runs on")
    };
    assert!(cancel_requested);
    let held: Vec<_> = runs.iter().map(|run| Held { lease: run.lease.clone(), started: true }).collect();
    for _ in 0..2 {
        let kept = w.backend().extend(w.session, &held, LEASE, w.at()).await.expect("extend");
        assert_eq!(kept, [Kept::CancelRequested, Kept::Kept]);
    }
    assert_eq!(w.apply(&runs[0].lease, call_off()).await, StateKind::Cancelled);
}

pub async fn a_requested_job_keeps_its_lease<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    w.advance(LEASE / 2);
    cancel(w, &job).await;
    let held = [Held { lease: run.lease.clone(), started: true }];
    let kept = w.backend().extend(w.session, &held, LEASE, w.at()).await.expect("extend");
    assert_eq!(kept, [Kept::CancelRequested]);
    w.advance(LEASE / 2);
    let swept = w.sweep().await;
    assert_eq!((swept.reclaimed, swept.cancelled), (0, 0), "it lasts for another lease");
    w.expect(&job, StateKind::Running).await;
}

pub async fn its_own_outcome_wins_the_race<E: Env>(w: &mut World<E>) {
    for (ruling, state) in [(complete(), StateKind::Completed), (bury(), StateKind::Dead)] {
        let job = w.put(draft()).await;
        let run = w.take().await;
        assert_eq!(cancel(w, &job).await, Cancelling::Requested);
        assert_eq!(w.apply(&run.lease, ruling).await, state);
        w.expect(&job, state).await;
        assert_eq!(cancel(w, &job).await, Cancelling::AlreadyEnded(state));
    }
}

pub async fn a_job_that_would_come_back_is_cancelled_instead<E: Env>(w: &mut World<E>) {
    let rulings: [(Ruling, u16); 3] = [(retry(secs(5)), 1), (snooze(secs(5)), 0), (release(), 0)];
    for (ruling, attempts) in rulings {
        let job = w.put(draft()).await;
        let run = w.take().await;
        cancel(w, &job).await;
        w.advance(secs(1));
        assert_eq!(w.apply(&run.lease, ruling.clone()).await, StateKind::Cancelled, "{ruling:?}");
        is_called_off(w, &job).await;
        assert_eq!(w.record(&job).await.attempts, attempts, "{ruling:?}");
    }
    w.advance(secs(60));
    w.nothing_to_claim().await;
}

pub async fn a_job_that_is_handed_back_is_cancelled_instead<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    cancel(w, &job).await;
    w.backend().hand_back(w.session, None, w.at()).await.expect("hand back");
    is_called_off(w, &job).await;
}

pub async fn a_lost_lease_with_a_request_is_cancelled<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    cancel(w, &job).await;
    let swept = w.lose_leases().await;
    assert_eq!((swept.cancelled, swept.reclaimed, swept.buried), (1, 0, 0));
    is_called_off(w, &job).await;
    w.nothing_to_claim().await;
}

pub async fn an_ended_or_missing_job_is_left_alone<E: Env>(w: &mut World<E>) {
    let ends =
        [(complete(), StateKind::Completed), (call_off(), StateKind::Cancelled), (bury(), StateKind::Dead)];
    for (ruling, state) in ends {
        let job = w.put(draft()).await;
        w.apply(&w.take().await.lease, ruling).await;
        let before = w.record(&job).await;
        w.advance(secs(1));
        assert_eq!(cancel(w, &job).await, Cancelling::AlreadyEnded(state));
        assert_eq!(w.record(&job).await, before);
    }
    assert_eq!(cancel(w, &draft().job()).await, Cancelling::Missing);
    assert_eq!(cancel(w, &draft().queue("never-seen").job()).await, Cancelling::Missing);
}

pub async fn asking_twice_is_as_asking_once<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    assert_eq!(cancel(w, &job).await, Cancelling::Requested);
    assert_eq!(cancel(w, &job).await, Cancelling::Requested);
    w.apply(&run.lease, release()).await;
    is_called_off(w, &job).await;
    assert_eq!(cancel(w, &job).await, Cancelling::AlreadyEnded(StateKind::Cancelled));
}

pub async fn a_request_does_not_outlive_its_run<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    cancel(w, &job).await;
    assert_eq!(w.apply(&run.lease, bury()).await, StateKind::Dead);
    w.backend().revive(&job, w.at()).await.expect("revive");
    let run = w.take().await;
    let held = [Held { lease: run.lease.clone(), started: true }];
    let kept = w.backend().extend(w.session, &held, LEASE, w.at()).await.expect("extend");
    assert_eq!(kept, [Kept::Kept], "nobody asked for the end of this generation");
    assert_eq!(w.apply(&run.lease, retry(secs(5))).await, StateKind::Scheduled);
}

pub async fn a_long_reason_is_clipped<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let text = format!("\0{}", "é".repeat(10_000));
    w.backend().cancel(&job, &text, w.at()).await.expect("cancel");
    let RecordState::Cancelled { reason, .. } = w.record(&job).await.state else { panic!("cancelled") };
    assert_eq!(reason, windlass_core::limits::clip(&text, windlass_core::limits::TEXT_MAX_BYTES));
}
