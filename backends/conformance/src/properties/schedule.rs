//! Due times: delays, instants, and who makes what is due Ready.

use windlass_core::{Backend, RecordState, StateKind, Sweep, Timestamp, WhyScheduled};

use crate::{Env, World, complete, draft, ids, secs, snooze};

pub async fn a_delayed_job_is_due_exactly_then<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().after(secs(10))).await;
    let due = w.now.saturating_add(secs(10));
    let wanted = RecordState::Scheduled { due, why: WhyScheduled::Delay };
    assert_eq!(w.record(&job).await.state, wanted);
    w.now = Timestamp::from_millis(due.as_millis() - 1);
    w.nothing_to_claim().await;
    assert_eq!(w.sweep().await.promoted, 0);
    assert_eq!(w.record(&job).await.state, wanted);
    w.now = due;
    assert_eq!(w.take().await.body.id, job.id);
}

pub async fn a_sweep_promotes_what_is_due<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().after(secs(10))).await;
    let later = w.put(draft().after(secs(11))).await;
    w.advance(secs(10));
    assert_eq!(w.sweep().await.promoted, 1);
    w.expect(&job, StateKind::Ready).await;
    w.expect(&later, StateKind::Scheduled).await;
    assert_eq!(w.sweep().await.promoted, 0);
}

pub async fn an_instant_that_has_passed_means_at_once<E: Env>(w: &mut World<E>) {
    let past = w.put(draft().due_at(Timestamp::from_millis(w.now.as_millis() - 1))).await;
    let now = w.put(draft().due_at(w.now)).await;
    let dawn = w.put(draft().due_at(Timestamp::MIN)).await;
    let zero = w.put(draft().after(secs(0))).await;
    for job in [&past, &now, &dawn, &zero] {
        w.expect(job, StateKind::Ready).await;
    }
    assert_eq!(ids(&w.claim(9).await), [past.id, now.id, dawn.id, zero.id]);
}

pub async fn a_snooze_or_retry_is_due_exactly_then<E: Env>(w: &mut World<E>) {
    for ruling in [snooze(secs(10)), crate::retry(secs(10))] {
        let job = w.put(draft()).await;
        w.apply(&w.take().await.lease, ruling).await;
        let due = w.now.saturating_add(secs(10));
        w.now = Timestamp::from_millis(due.as_millis() - 1);
        w.nothing_to_claim().await;
        w.now = due;
        let run = w.take().await;
        assert_eq!(run.body.id, job.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn the_last_instant_is_clamped_and_never_due<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().due_at(Timestamp::MAX)).await;
    let far = w.put(draft().after(windlass_core::limits::DELAY_MAX)).await;
    w.advance(secs(365 * 24 * 60 * 60));
    w.nothing_to_claim().await;
    let due = Timestamp::MAX;
    assert_eq!(w.record(&job).await.state, RecordState::Scheduled { due, why: WhyScheduled::Delay });
    w.expect(&far, StateKind::Scheduled).await;
}

pub async fn a_part_of_a_millisecond_makes_nothing_early<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().after(std::time::Duration::from_nanos(1))).await;
    w.nothing_to_claim().await;
    w.advance(std::time::Duration::from_millis(1));
    assert_eq!(w.take().await.body.id, job.id);
}

pub async fn a_sweep_promotes_a_bounded_number<E: Env>(w: &mut World<E>) {
    let batch: Vec<_> = (0..5).map(|_| draft().after(secs(1)).build()).collect();
    w.push_all(&batch).await;
    w.advance(secs(1));
    for wanted in [2, 2, 1] {
        let swept = w.backend().sweep(&Sweep { limit: 2 }, w.at()).await.expect("sweep");
        assert_eq!(swept.promoted, wanted);
        assert!(wanted < 2 || swept.more, "it stopped at its limit");
    }
    assert_eq!(w.claim(10).await.len(), 5);
}

pub async fn a_flood_of_due_jobs_is_claimed_in_due_order<E: Env>(w: &mut World<E>) {
    let mut wanted = Vec::new();
    for part in 0..3_u64 {
        // Pushed last to first, so that the due time alone can order them.
        let mut batch: Vec<_> = (0..500).map(|at| draft().after(secs(1 + part * 500 + at)).build()).collect();
        wanted.extend(batch.iter().map(|job| job.body.id));
        batch.reverse();
        w.push_all(&batch).await;
    }
    w.advance(secs(2_000));
    let mut got = Vec::new();
    for _ in 0..20 {
        let claimed = w.claim_as(&w.ask(500)).await;
        got.extend(ids(&claimed.jobs));
        if !claimed.more && claimed.jobs.is_empty() {
            break;
        }
    }
    assert_eq!(got, wanted);
}

pub async fn delays_of_one_queue_do_not_wait_for_another<E: Env>(w: &mut World<E>) {
    let batch: Vec<_> = (0..10).map(|_| draft().queue("busy").after(secs(1)).build()).collect();
    w.push_all(&batch).await;
    let job = w.put(draft().after(secs(2))).await;
    w.advance(secs(2));
    assert_eq!(w.take().await.body.id, job.id);
}
