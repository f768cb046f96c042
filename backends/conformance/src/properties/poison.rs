//! Poison: a job that kills its worker is found out, and takes no neighbours with it.

use windlass_core::{Backend, DeadReason, Finished, QueueName, RecordState, StateKind};

use crate::{Env, LEASE, World, bury, complete, draft, ids, release, retry, secs, snooze};

pub async fn a_job_that_loses_three_leases_is_dead<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().with(|body| body.max_attempts = 10_000)).await;
    for lost in 0..3 {
        assert_eq!(w.take().await.lost_leases, lost);
        let swept = w.lose_leases().await;
        assert_eq!((swept.reclaimed, swept.buried), if lost < 2 { (1, 0) } else { (0, 1) });
    }
    let record = w.record(&job).await;
    assert_eq!(record.state, RecordState::Dead { at: w.now, reason: DeadReason::Poison });
    assert_eq!((record.lost_leases, record.attempts), (3, 0));
    let outcomes = w.backend().outcomes(&[job], secs(0), w.at()).await.expect("outcomes");
    assert_eq!(outcomes, [Some(Finished::Dead { reason: DeadReason::Poison, error: None })]);
    w.nothing_to_claim().await;
}

pub async fn verdicts_between_losses_do_not_reset_them<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().with(|body| body.max_attempts = 10_000)).await;
    for round in 0..3 {
        w.take().await;
        w.lose_leases().await;
        if round < 2 {
            w.apply(&w.take().await.lease, retry(secs(0))).await;
        }
    }
    w.expect(&job, StateKind::Dead).await;
}

pub async fn one_claim_takes_one_suspect<E: Env>(w: &mut World<E>) {
    for _ in 0..3 {
        w.put(draft()).await;
    }
    let mut suspects = ids(&w.claim(3).await);
    w.lose_leases().await;
    let fresh = w.put(draft()).await;
    let claimed = w.claim(10).await;
    assert_eq!(ids(&claimed), [suspects.remove(0), fresh.id]);
    assert_eq!(claimed.iter().map(|job| job.suspect).collect::<Vec<_>>(), [true, false]);
    for suspect in suspects {
        assert_eq!(ids(&w.claim(10).await), [suspect]);
    }
    w.nothing_to_claim().await;
}

pub async fn one_claim_of_two_queues_takes_one_suspect<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft().queue("other")).await;
    let mut both = w.ask(10);
    both.queues.push(QueueName::from_static("other"));
    assert_eq!(w.claim_as(&both).await.jobs.len(), 2);
    w.lose_leases().await;
    both.nonce = windlass_core::Nonce::random();
    assert_eq!(w.claim_as(&both).await.jobs.len(), 1);
    both.nonce = windlass_core::Nonce::random();
    assert_eq!(w.claim_as(&both).await.jobs.len(), 1);
}

pub async fn a_claim_that_asks_for_no_suspect_gets_none<E: Env>(w: &mut World<E>) {
    let suspect = w.put(draft()).await;
    w.take().await;
    w.lose_leases().await;
    let fresh = w.put(draft()).await;
    let mut ask = w.ask(10);
    ask.suspects = false;
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), [fresh.id]);
    assert_eq!(ids(&w.claim(10).await), [suspect.id]);
}

pub async fn a_suspect_takes_a_place_of_the_limit<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.take().await;
    w.lose_leases().await;
    w.put(draft()).await;
    let claimed = w.claim(1).await;
    assert!(claimed.len() == 1 && claimed[0].suspect);
}

pub async fn a_suspect_that_gives_a_verdict_is_cleared<E: Env>(w: &mut World<E>) {
    for ruling in [retry(secs(0)), snooze(secs(0))] {
        let job = w.put(draft()).await;
        w.take().await;
        w.lose_leases().await;
        let run = w.take().await;
        assert!(run.suspect);
        w.apply(&run.lease, ruling).await;
        let again = w.take().await;
        assert_eq!((again.body.id, again.suspect, again.lost_leases), (job.id, false, 1));
        w.apply(&again.lease, complete()).await;
    }
}

pub async fn a_released_suspect_stays_one<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.take().await;
    w.lose_leases().await;
    w.apply(&w.take().await.lease, release()).await;
    assert!(w.take().await.suspect);
}

pub async fn the_neighbours_of_a_poison_job_live<E: Env>(w: &mut World<E>) {
    // Each time the worker dies, everything it held loses its lease; only one job is to blame.
    let poison = w.put(draft()).await;
    let mut innocent = Vec::new();
    for _ in 0..20 {
        innocent.push(w.put(draft()).await);
    }
    for _round in 0..60 {
        let mut has_suspect = false;
        let mut held = Vec::new();
        while held.len() < 5 {
            let mut ask = w.ask(5 - held.len());
            ask.suspects = !has_suspect;
            let claimed = w.claim_as(&ask).await.jobs;
            if claimed.is_empty() {
                break;
            }
            has_suspect |= claimed.iter().any(|job| job.suspect);
            held.extend(claimed);
        }
        if held.iter().any(|job| job.body.id == poison.id) {
            w.lose_leases().await;
        } else {
            for run in &held {
                w.apply(&run.lease, complete()).await;
            }
        }
    }
    assert!(matches!(w.record(&poison).await.state, RecordState::Dead { reason: DeadReason::Poison, .. }));
    for job in innocent {
        w.expect(&job, StateKind::Completed).await;
    }
}

pub async fn a_revived_poison_job_starts_afresh<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    for _ in 0..3 {
        w.take().await;
        w.lose_leases().await;
    }
    windlass_core::Manage::revive(w.backend(), &job, w.at()).await.expect("revive");
    let run = w.take().await;
    assert_eq!((run.lost_leases, run.suspect, run.generation, run.lease.epoch), (0, false, 1, 4));
    w.advance(LEASE);
    assert_eq!(w.sweep().await.reclaimed, 1);
    w.apply(&w.take().await.lease, bury()).await;
}
