//! Leases: how long they last, what extends them, what becomes of those that lapse.

use windlass_core::{Backend, Held, Kept, Lease, QueueName, RecordState, StateKind, Timestamp};

use crate::{Env, LEASE, World, complete, draft, ids, release, retry, secs};

async fn beat<E: Env>(w: &World<E>, lease: &Lease, started: bool) -> Kept {
    let held = Held { lease: lease.clone(), started };
    w.backend().extend(w.session, &[held], LEASE, w.at()).await.expect("extend")[0]
}

async fn lease_until<E: Env>(w: &World<E>, lease: &Lease) -> Timestamp {
    match w.record(&lease.job).await.state {
        RecordState::Running { lease_until, .. } => lease_until,
        other => panic!("should run: {other:?}"),
    }
}

pub async fn a_lease_expires_at_its_end_and_not_before<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let end = lease_until(w, &run.lease).await;
    assert_eq!(end, w.now.saturating_add(LEASE));
    w.now = Timestamp::from_millis(end.as_millis() - 1);
    assert_eq!(w.sweep().await.reclaimed, 0);
    w.expect(&job, StateKind::Running).await;
    w.now = end;
    assert_eq!(w.sweep().await.reclaimed, 1);
    w.expect(&job, StateKind::Ready).await;
}

pub async fn an_expired_lease_is_left_to_the_sweep<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.advance(LEASE * 2);
    w.nothing_to_claim().await;
    w.expect(&run.lease.job, StateKind::Running).await;
    assert_eq!(w.sweep().await.reclaimed, 1);
    assert_eq!(w.take().await.body.id, run.body.id);
}

pub async fn a_lost_lease_is_counted_and_makes_a_suspect<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    let swept = w.lose_leases().await;
    assert_eq!((swept.reclaimed, swept.buried, swept.cancelled), (1, 0, 0));
    let record = w.record(&job).await;
    assert_eq!((record.attempts, record.lost_leases), (0, 1));
    assert!(matches!(record.state, RecordState::Ready { .. }));
    let again = w.take().await;
    assert_eq!((again.lost_leases, again.suspect, again.lease.epoch), (1, true, 2));
}

pub async fn an_extend_lasts_from_now<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.advance(LEASE - secs(1));
    assert_eq!(beat(w, &run.lease, true).await, Kept::Kept);
    let end = lease_until(w, &run.lease).await;
    assert_eq!(end, w.now.saturating_add(LEASE));
    w.now = Timestamp::from_millis(end.as_millis() - 1);
    assert_eq!(w.sweep().await.reclaimed, 0);
    w.now = end;
    assert_eq!(w.sweep().await.reclaimed, 1);
    assert_eq!(beat(w, &run.lease, true).await, Kept::Lost);
}

pub async fn an_expired_lease_can_still_be_kept<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.advance(LEASE * 3);
    assert_eq!(beat(w, &run.lease, true).await, Kept::Kept);
    assert_eq!(w.sweep().await.reclaimed, 0);
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn what_an_extend_does_not_name_lapses<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft()).await;
    let runs = w.claim(2).await;
    w.advance(LEASE / 2);
    beat(w, &runs[0].lease, true).await;
    w.advance(LEASE / 2);
    assert_eq!(w.sweep().await.reclaimed, 1);
    w.expect(&runs[0].lease.job, StateKind::Running).await;
    w.expect(&runs[1].lease.job, StateKind::Ready).await;
}

pub async fn a_beat_is_answered_in_its_order<E: Env>(w: &mut World<E>) {
    for _ in 0..3 {
        w.put(draft()).await;
    }
    w.put(draft().queue("other")).await;
    let mut both = w.ask(10);
    both.queues.push(QueueName::from_static("other"));
    let runs = w.claim_as(&both).await.jobs;
    w.apply(&runs[1].lease, complete()).await;
    let held: Vec<_> =
        runs.iter().rev().map(|run| Held { lease: run.lease.clone(), started: true }).collect();
    let kept = w.backend().extend(w.session, &held, LEASE, w.at()).await.expect("extend");
    assert_eq!(kept, [Kept::Kept, Kept::Kept, Kept::Lost, Kept::Kept]);
    assert_eq!(w.backend().extend(w.session, &[], LEASE, w.at()).await.expect("extend"), []);
}

pub async fn a_longer_lease_is_as_long_as_asked<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let mut ask = w.ask(1);
    ask.lease = windlass_core::limits::LEASE_MAX;
    let run = w.claim_as(&ask).await.jobs.remove(0);
    assert_eq!(lease_until(w, &run.lease).await, w.now.saturating_add(ask.lease));
    w.put(draft()).await;
    ask = w.ask(1);
    ask.lease = windlass_core::limits::LEASE_MIN;
    let short = w.claim_as(&ask).await.jobs.remove(0);
    w.advance(secs(1));
    assert_eq!(w.sweep().await.reclaimed, 1);
    w.expect(&short.lease.job, StateKind::Ready).await;
}

pub async fn a_reclaimed_job_keeps_its_place<E: Env>(w: &mut World<E>) {
    let first = w.put(draft()).await;
    let second = w.put(draft()).await;
    w.take().await;
    w.lose_leases().await;
    let urgent = w.put(draft().priority(9)).await;
    // Suspects go first of all.
    assert_eq!(ids(&w.claim(3).await), [first.id, urgent.id, second.id]);
}

pub async fn a_job_ahead_counts_no_lost_lease_until_it_started<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let mut ask = w.ask(0);
    ask.ahead = 1;
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), [job.id]);
    assert_eq!(w.lose_leases().await.reclaimed, 1);
    assert_eq!(w.record(&job).await.lost_leases, 0);
    let again = w.take().await;
    assert_eq!((again.lost_leases, again.suspect), (0, true));
}

pub async fn a_job_ahead_counts_a_lost_lease_once_a_beat_names_it_started<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let mut ask = w.ask(0);
    ask.ahead = 1;
    let run = w.claim_as(&ask).await.jobs.remove(0);
    assert_eq!(beat(w, &run.lease, false).await, Kept::Kept);
    let started =
        |record: windlass_core::Record| matches!(record.state, RecordState::Running { started: true, .. });
    assert!(!started(w.record(&job).await));
    assert_eq!(beat(w, &run.lease, true).await, Kept::Kept);
    assert!(started(w.record(&job).await));
    assert_eq!(beat(w, &run.lease, false).await, Kept::Kept);
    assert!(started(w.record(&job).await), "what has started stays started");
    w.lose_leases().await;
    assert_eq!(w.record(&job).await.lost_leases, 1);
}

pub async fn a_sweep_takes_back_a_bounded_number<E: Env>(w: &mut World<E>) {
    for _ in 0..5 {
        w.put(draft()).await;
    }
    w.claim(5).await;
    w.advance(LEASE);
    let mut total = 0;
    for wanted in [2, 2, 1] {
        let swept = w.backend().sweep(&windlass_core::Sweep { limit: 2 }, w.at()).await.expect("sweep");
        assert_eq!(swept.reclaimed, wanted);
        assert!(wanted < 2 || swept.more, "it stopped at its limit");
        total += swept.reclaimed;
    }
    assert_eq!(total, 5);
    assert_eq!(w.sweep().await.reclaimed, 0);
}

pub async fn a_second_handle_reclaims_what_the_first_lost<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    w.advance(LEASE);
    let other = w.env().second().await;
    let swept = other.sweep(&windlass_core::Sweep::default(), w.at()).await.expect("sweep");
    assert_eq!(swept.reclaimed, 1);
    w.expect(&job, StateKind::Ready).await;
}

pub async fn a_release_or_a_retry_after_an_expiry_counts_no_loss<E: Env>(w: &mut World<E>) {
    for ruling in [release(), retry(secs(0))] {
        let job = w.put(draft().priority(9)).await;
        let run = w.take().await;
        w.advance(LEASE * 2);
        w.apply(&run.lease, ruling).await;
        assert_eq!(w.sweep().await.reclaimed, 0);
        assert_eq!(w.record(&job).await.lost_leases, 0);
        w.apply(&w.take().await.lease, complete()).await;
    }
}
