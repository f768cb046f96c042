//! Concurrency limits: at most so many of one key Ready or Running, the rest Blocked and let in in turn.

use windlass_core::{Backend, Manage, RecordState, StateKind, WhyBlocked};

use crate::{Env, World, bury, call_off, complete, draft, ids, release, retry, secs, snooze};

pub async fn jobs_beyond_the_limit_are_blocked<E: Env>(w: &mut World<E>) {
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(w.put(draft().limit("tenant", 2)).await);
    }
    let states: Vec<_> = w.everything().await.into_iter().map(|record| record.state).collect();
    let blocked = RecordState::Blocked { why: WhyBlocked::Limit };
    let ready = RecordState::Ready { parked: false };
    assert_eq!(states, [ready.clone(), ready, blocked.clone(), blocked.clone(), blocked]);
    assert_eq!(ids(&w.claim(10).await), [jobs[0].id, jobs[1].id]);
    w.nothing_to_claim().await;
}

pub async fn every_end_lets_the_next_in<E: Env>(w: &mut World<E>) {
    for ruling in [complete(), call_off(), bury()] {
        w.put(draft().limit("tenant", 1)).await;
        let second = w.put(draft().limit("tenant", 1)).await;
        let run = w.take().await;
        w.nothing_to_claim().await;
        w.apply(&run.lease, ruling).await;
        let run = w.take().await;
        assert_eq!(run.body.id, second.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn a_waiting_job_that_is_cancelled_gives_its_place_away<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().limit("tenant", 1)).await;
    let second = w.put(draft().limit("tenant", 1)).await;
    let third = w.put(draft().limit("tenant", 1)).await;
    w.backend().cancel(&second, "no longer", w.at()).await.expect("cancel");
    w.expect(&third, StateKind::Blocked).await;
    w.backend().cancel(&first, "no longer", w.at()).await.expect("cancel");
    assert_eq!(w.take().await.body.id, third.id);
}

pub async fn a_job_that_backs_off_gives_its_place_away<E: Env>(w: &mut World<E>) {
    for ruling in [retry(secs(5)), snooze(secs(5))] {
        let first = w.put(draft().limit("tenant", 1)).await;
        let second = w.put(draft().limit("tenant", 1)).await;
        w.apply(&w.take().await.lease, ruling).await;
        let run = w.take().await;
        assert_eq!(run.body.id, second.id);
        w.advance(secs(5));
        w.sweep().await;
        w.expect(&first, StateKind::Blocked).await;
        w.apply(&run.lease, complete()).await;
        let run = w.take().await;
        assert_eq!(run.body.id, first.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn a_job_that_fails_at_once_lets_others_go_first<E: Env>(w: &mut World<E>) {
    let failing = w.put(draft().limit("tenant", 1)).await;
    let patient = w.put(draft().limit("tenant", 1)).await;
    w.apply(&w.take().await.lease, retry(secs(0))).await;
    assert_eq!(w.take().await.body.id, patient.id);
    w.expect(&failing, StateKind::Blocked).await;
}

pub async fn a_released_job_keeps_its_place_under_the_limit<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().limit("tenant", 1)).await;
    let second = w.put(draft().limit("tenant", 1)).await;
    w.apply(&w.take().await.lease, release()).await;
    w.expect(&second, StateKind::Blocked).await;
    assert_eq!(ids(&w.claim(10).await), [first.id]);
}

pub async fn a_lost_lease_keeps_its_place_under_the_limit<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().limit("tenant", 1)).await;
    let second = w.put(draft().limit("tenant", 1)).await;
    for _ in 0..2 {
        assert_eq!(ids(&w.claim(10).await), [first.id]);
        w.lose_leases().await;
        w.expect(&second, StateKind::Blocked).await;
    }
    w.take().await;
    assert_eq!(w.lose_leases().await.buried, 1);
    assert_eq!(w.take().await.body.id, second.id, "the end by poison gave the place away");
}

pub async fn a_handed_back_job_keeps_its_place_under_the_limit<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().limit("tenant", 1)).await;
    let second = w.put(draft().limit("tenant", 1)).await;
    w.take().await;
    assert_eq!(w.backend().hand_back(w.session, None, w.at()).await.expect("hand back"), 1);
    w.expect(&second, StateKind::Blocked).await;
    assert_eq!(ids(&w.claim(10).await), [first.id]);
}

pub async fn places_go_by_priority_then_first_come<E: Env>(w: &mut World<E>) {
    let mut wanted = vec![w.put(draft().limit("tenant", 1)).await.id];
    let calm = w.put(draft().limit("tenant", 1)).await.id;
    let calm_too = w.put(draft().limit("tenant", 1)).await.id;
    wanted.push(w.put(draft().limit("tenant", 1).priority(9)).await.id);
    wanted.extend([calm, calm_too]);
    let mut got = Vec::new();
    for _ in 0..4 {
        let run = w.take().await;
        got.push(run.body.id);
        w.apply(&run.lease, complete()).await;
    }
    assert_eq!(got, wanted);
}

pub async fn due_jobs_are_promoted_no_further_than_the_limit<E: Env>(w: &mut World<E>) {
    for _ in 0..4 {
        w.put(draft().limit("tenant", 2).after(secs(5))).await;
    }
    w.advance(secs(5));
    assert_eq!(w.sweep().await.promoted, 4);
    let counts = w.counts(&crate::mail()).await;
    assert_eq!(counts.live(), 4);
    assert_eq!(w.claim(10).await.len(), 2);
}

pub async fn a_scheduled_job_takes_no_place<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("tenant", 1).after(secs(60))).await;
    let now = w.put(draft().limit("tenant", 1)).await;
    assert_eq!(w.take().await.body.id, now.id);
}

pub async fn keys_do_not_count_against_each_other<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("tenant", 1)).await;
    w.put(draft().limit("Tenant", 1)).await;
    w.put(draft()).await;
    let there = w.put(draft().limit("tenant", 1).queue("other")).await;
    assert_eq!(w.claim(10).await.len(), 3);
    w.expect(&there, StateKind::Ready).await;
}

pub async fn jobs_that_disagree_are_held_to_their_own_number<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().limit("tenant", 3)).await;
    let second = w.put(draft().limit("tenant", 3)).await;
    let strict = w.put(draft().limit("tenant", 1)).await;
    assert_eq!(ids(&w.claim(10).await), [first.id, second.id]);
    let record = w.record(&strict).await;
    assert_eq!(record.state, RecordState::Blocked { why: WhyBlocked::Limit });
}

pub async fn a_blocked_job_that_leaves_holds_nobody_up<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("tenant", 1)).await;
    let strict = w.put(draft().limit("tenant", 1)).await;
    let lenient = w.put(draft().limit("tenant", 2)).await;
    w.backend().cancel(&strict, "no longer", w.at()).await.expect("cancel");
    w.sweep().await;
    w.expect(&lenient, StateKind::Ready).await;
}

pub async fn run_now_does_not_pass_the_limit<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("tenant", 1)).await;
    let later = w.put(draft().limit("tenant", 1).after(secs(60))).await;
    w.backend().run_now(&later, w.at()).await.expect("run now");
    w.expect(&later, StateKind::Blocked).await;
}

pub async fn a_revived_job_does_not_pass_the_limit<E: Env>(w: &mut World<E>) {
    let dead = w.put(draft().limit("tenant", 1)).await;
    w.apply(&w.take().await.lease, bury()).await;
    w.put(draft().limit("tenant", 1)).await;
    w.backend().revive(&dead, w.at()).await.expect("revive");
    w.expect(&dead, StateKind::Blocked).await;
    w.apply(&w.take().await.lease, complete()).await;
    assert_eq!(w.take().await.body.id, dead.id);
}

pub async fn a_job_that_comes_back_ahead_of_those_who_wait_is_let_in_and_its_verdict_says_so<E: Env>(
    w: &mut World<E>,
) {
    let urgent = w.put(draft().limit("tenant", 1).priority(9)).await;
    let patient = w.put(draft().limit("tenant", 1).priority(1)).await;
    let run = w.take().await;
    assert_eq!(run.body.id, urgent.id);
    assert_eq!(w.apply(&run.lease, retry(secs(0))).await, StateKind::Ready);
    w.expect(&urgent, StateKind::Ready).await;
    w.expect(&patient, StateKind::Blocked).await;
}
