//! Pause: no claim that begins after it returned takes a job.

use windlass_core::{Backend, Held, Inspect, Kept, Manage, QueueName, StateKind};

use crate::{Env, LEASE, World, complete, draft, ids, secs};

pub async fn a_paused_queue_gives_nothing_until_it_is_resumed<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    w.nothing_to_claim().await;
    let second = w.put(draft()).await;
    w.nothing_to_claim().await;
    w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    assert_eq!(ids(&w.claim(10).await), [job.id, second.id]);
}

pub async fn a_pause_holds_for_every_handle<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let other = w.env().second().await;
    other.pause(&crate::mail(), w.at()).await.expect("pause");
    w.nothing_to_claim().await;
    w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    assert_eq!(other.claim(&w.ask(1), w.at()).await.expect("claim").jobs.len(), 1);
}

pub async fn a_pause_stops_one_queue_only<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let there = w.put(draft().queue("other")).await;
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    let mut both = w.ask(10);
    both.queues.push(QueueName::from_static("other"));
    assert_eq!(ids(&w.claim_as(&both).await.jobs), [there.id]);
}

pub async fn what_runs_goes_on_through_a_pause<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    let held = Held { lease: run.lease.clone(), started: true };
    let kept = w.backend().extend(w.session, &[held], LEASE, w.at()).await.expect("extend");
    assert_eq!(kept, [Kept::Kept]);
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn a_queue_can_be_paused_before_its_first_job<E: Env>(w: &mut World<E>) {
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    let job = w.put(draft()).await;
    w.nothing_to_claim().await;
    let queues = w.backend().queues(w.at()).await.expect("queues");
    assert!(queues.iter().any(|info| info.name == crate::mail() && info.paused), "{queues:?}");
    w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    assert_eq!(w.take().await.body.id, job.id);
}

pub async fn pausing_and_resuming_twice_is_as_once<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    for _ in 0..2 {
        w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    }
    w.nothing_to_claim().await;
    for _ in 0..2 {
        w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    }
    w.take().await;
}

pub async fn a_paused_queue_gives_no_suspects_and_nothing_parked_or_due<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.take().await;
    w.put(draft().min_reader(2)).await;
    w.nothing_to_claim().await;
    w.put(draft().after(secs(10))).await;
    w.lose_leases().await;
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    let mut ask = w.ask(10);
    ask.kinds = [(windlass_core::Kind::from_static("greet"), 2)].into_iter().collect();
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), []);
    let mut fused = w.ask(10);
    fused.kinds = ask.kinds.clone();
    let (_, claimed) = w.backend().settle_and_claim(&[], &fused, w.at()).await.expect("settle and claim");
    assert_eq!(ids(&claimed.jobs), []);
    w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    assert_eq!(w.claim_as(&ask).await.jobs.len(), 3);
}
