//! Order within a named queue: priority, then entry into Ready.

use windlass_core::{NewJob, QueueName};

use crate::{Env, World, draft, ids, release, retry, secs};

pub async fn jobs_of_one_priority_go_first_in_first_out<E: Env>(w: &mut World<E>) {
    let mut wanted = Vec::new();
    for _ in 0..20 {
        wanted.push(w.put(draft()).await.id);
    }
    let mut got = Vec::new();
    for _ in 0..20 {
        got.push(w.take().await.body.id);
    }
    assert_eq!(got, wanted);
}

pub async fn order_is_entry_and_not_the_id<E: Env>(w: &mut World<E>) {
    let mut jobs: Vec<NewJob> = (0..10).map(|_| draft().build()).collect();
    jobs.reverse();
    w.push_all(&jobs).await;
    let wanted: Vec<_> = jobs.iter().map(|job| job.body.id).collect();
    assert_eq!(ids(&w.claim(10).await), wanted);
}

pub async fn ten_priorities_go_highest_first<E: Env>(w: &mut World<E>) {
    let levels = [3, 9, 0, 5, 7, 1, 8, 2, 6, 4, 9, 0];
    let jobs: Vec<NewJob> = levels.iter().map(|level| draft().priority(*level).build()).collect();
    w.push_all(&jobs).await;
    let claimed = w.claim(12).await;
    let got: Vec<u8> = claimed.iter().map(|job| job.body.priority.get()).collect();
    assert_eq!(got, [9, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0]);
    let entered = [jobs[1].body.id, jobs[10].body.id];
    assert_eq!(ids(&claimed[..2]), entered, "first come first served within a priority");
}

pub async fn a_late_urgent_job_overtakes<E: Env>(w: &mut World<E>) {
    let calm = w.put(draft()).await;
    let urgent = w.put(draft().priority(6)).await;
    assert_eq!(w.take().await.body.id, urgent.id);
    assert_eq!(w.take().await.body.id, calm.id);
}

pub async fn due_jobs_enter_in_due_order<E: Env>(w: &mut World<E>) {
    let third = w.put(draft().after(secs(30))).await;
    let first = w.put(draft().after(secs(10))).await;
    let second = w.put(draft().after(secs(20))).await;
    w.advance(secs(60));
    assert_eq!(ids(&w.claim(3).await), [first.id, second.id, third.id]);
}

pub async fn due_jobs_of_higher_priority_still_go_first<E: Env>(w: &mut World<E>) {
    let early = w.put(draft().after(secs(10))).await;
    let urgent = w.put(draft().priority(9).after(secs(20))).await;
    w.advance(secs(60));
    assert_eq!(ids(&w.claim(2).await), [urgent.id, early.id]);
}

pub async fn a_promoted_job_goes_behind_those_that_were_ready<E: Env>(w: &mut World<E>) {
    let later = w.put(draft().after(secs(10))).await;
    let ready = w.put(draft()).await;
    w.advance(secs(10));
    w.sweep().await;
    let newest = w.put(draft()).await;
    assert_eq!(ids(&w.claim(3).await), [ready.id, later.id, newest.id]);
}

pub async fn a_retried_job_enters_anew<E: Env>(w: &mut World<E>) {
    let failing = w.put(draft()).await;
    let other = w.put(draft()).await;
    let run = w.take().await;
    w.apply(&run.lease, retry(secs(1))).await;
    w.advance(secs(1));
    assert_eq!(ids(&w.claim(2).await), [other.id, failing.id]);
}

pub async fn a_released_job_keeps_its_place<E: Env>(w: &mut World<E>) {
    let first = w.put(draft()).await;
    let second = w.put(draft()).await;
    let third = w.put(draft()).await;
    let claimed = w.claim(2).await;
    w.apply(&claimed[1].lease, release()).await;
    w.apply(&claimed[0].lease, release()).await;
    let urgent = w.put(draft().priority(9)).await;
    assert_eq!(ids(&w.claim(4).await), [urgent.id, first.id, second.id, third.id]);
}

pub async fn a_claim_looks_into_its_queues_in_turn<E: Env>(w: &mut World<E>) {
    let late = w.put(draft().queue("low").priority(9)).await;
    let first = w.put(draft().queue("high").priority(0)).await;
    let second = w.put(draft().queue("high").priority(0)).await;
    let mut ask = w.ask(2);
    ask.queues = vec![QueueName::from_static("high"), QueueName::from_static("low")];
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), [first.id, second.id]);
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), [late.id]);
}
