//! Jobs that a claim cannot run: moved aside, never lost, never in the way.

use windlass_core::{Kind, Kinds, NewJob, RecordState};

use crate::{Env, World, complete, draft, ids, secs};

fn knows<E: Env>(w: &World<E>, limit: usize, kinds: &[(&'static str, u16)]) -> windlass_core::Claim {
    let mut ask = w.ask(limit);
    ask.kinds = kinds.iter().map(|(kind, version)| (Kind::from_static(kind), *version)).collect::<Kinds>();
    ask
}

pub async fn an_unknown_kind_does_not_block_known_ones<E: Env>(w: &mut World<E>) {
    let strange = w.put(draft().kind("strange").priority(9)).await;
    let known = w.put(draft()).await;
    assert_eq!(ids(&w.claim(10).await), [known.id]);
    let record = w.record(&strange).await;
    assert_eq!((record.state.kind(), record.epoch), (windlass_core::StateKind::Ready, 0));
}

pub async fn what_was_moved_aside_goes_to_a_worker_that_knows_it<E: Env>(w: &mut World<E>) {
    let strange = w.put(draft().kind("strange")).await;
    w.nothing_to_claim().await;
    let claimed = w.claim_as(&knows(w, 10, &[("strange", 1)])).await;
    assert_eq!(ids(&claimed.jobs), [strange.id]);
    assert_eq!((claimed.jobs[0].attempts, claimed.jobs[0].lost_leases), (0, 0));
    w.apply(&claimed.jobs[0].lease, complete()).await;
}

pub async fn what_was_moved_aside_keeps_its_place<E: Env>(w: &mut World<E>) {
    let mut wanted = Vec::new();
    for kind in ["strange", "greet", "odd", "strange", "greet", "odd"] {
        wanted.push((w.put(draft().kind(kind)).await.id, kind));
    }
    let urgent = w.put(draft().kind("odd").priority(9)).await;
    assert_eq!(ids(&w.claim(1).await), [wanted[1].0], "the first that it knows");
    let all = knows(w, 10, &[("strange", 1), ("greet", 1), ("odd", 1)]);
    let rest = [urgent.id, wanted[0].0, wanted[2].0, wanted[3].0, wanted[4].0, wanted[5].0];
    assert_eq!(ids(&w.claim_as(&all).await.jobs), rest);
}

pub async fn what_was_moved_aside_is_merged_with_what_came_later<E: Env>(w: &mut World<E>) {
    let first = w.put(draft().kind("strange")).await;
    w.nothing_to_claim().await;
    let second = w.put(draft()).await;
    let third = w.put(draft().kind("strange")).await;
    let ask = knows(w, 10, &[("strange", 1), ("greet", 1)]);
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), [first.id, second.id, third.id]);
}

pub async fn a_newer_payload_waits_for_a_newer_worker<E: Env>(w: &mut World<E>) {
    let new = w.put(draft().min_reader(3)).await;
    let old = w.put(draft()).await;
    assert_eq!(ids(&w.claim_as(&knows(w, 10, &[("greet", 2)])).await.jobs), [old.id]);
    assert_eq!(ids(&w.claim_as(&knows(w, 10, &[("greet", 3)])).await.jobs), [new.id]);
}

pub async fn a_newer_version_with_an_old_reader_is_not_held_up<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().with(|body| (body.version, body.min_reader) = (9, 2))).await;
    assert_eq!(ids(&w.claim_as(&knows(w, 10, &[("greet", 1)])).await.jobs), []);
    assert_eq!(ids(&w.claim_as(&knows(w, 10, &[("greet", 2)])).await.jobs), [job.id]);
}

pub async fn an_unknown_kind_that_comes_back_late_is_found<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().kind("strange").after(secs(10))).await;
    w.advance(secs(10));
    w.nothing_to_claim().await;
    assert_eq!(ids(&w.claim_as(&knows(w, 1, &[("strange", 1)])).await.jobs), [job.id]);
}

pub async fn a_crowd_of_unknown_jobs_is_passed_in_a_few_claims<E: Env>(w: &mut World<E>) {
    for _ in 0..3 {
        let batch: Vec<NewJob> = (0..1_000).map(|_| draft().kind("strange").build()).collect();
        w.push_all(&batch).await;
    }
    let known = w.put(draft()).await;
    for call in 0..10 {
        let claimed = w.claim_as(&w.ask(1)).await;
        if let [job] = &claimed.jobs[..] {
            assert_eq!(job.body.id, known.id);
            return;
        }
        assert!(claimed.more, "claim {call} stopped at a bound of its own and must say so");
    }
    panic!("ten claims did not reach the known job");
}

pub async fn a_parked_suspect_does_not_block_others<E: Env>(w: &mut World<E>) {
    let strange = w.put(draft().kind("strange")).await;
    w.claim_as(&knows(w, 1, &[("strange", 1)])).await;
    w.lose_leases().await;
    let known = w.put(draft()).await;
    assert_eq!(ids(&w.claim(10).await), [known.id]);
    let claimed = w.claim_as(&knows(w, 10, &[("strange", 1)])).await.jobs;
    assert_eq!(ids(&claimed), [strange.id]);
    assert!(claimed[0].suspect);
}

pub async fn a_parked_job_can_be_cancelled<E: Env>(w: &mut World<E>) {
    let strange = w.put(draft().kind("strange")).await;
    w.nothing_to_claim().await;
    let cancelled = windlass_core::Manage::cancel(w.backend(), &strange, "typo", w.at()).await;
    assert_eq!(cancelled.expect("cancel"), windlass_core::Cancelling::Cancelled);
    assert_eq!(ids(&w.claim_as(&knows(w, 10, &[("strange", 1)])).await.jobs), []);
    assert!(matches!(w.record(&strange).await.state, RecordState::Cancelled { .. }));
}
