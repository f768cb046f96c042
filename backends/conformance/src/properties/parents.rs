//! Parents: a job waits until all of them completed, and shares their failure if it says so.

use windlass_core::{
    Backend, JobRef, Manage, OnConflict, ParentFailure, RecordState, Retention, StateKind, Until, WhyBlocked,
};

use crate::{Draft, Env, World, bury, call_off, complete, draft, ids, retry, secs};

fn child(parents: &[JobRef]) -> Draft {
    draft().parents(parents)
}

pub async fn a_child_waits_for_all_its_parents<E: Env>(w: &mut World<E>) {
    let first = w.put(draft()).await;
    let second = w.put(draft()).await;
    let child = w.put(child(&[first, second])).await;
    let waits = |left| RecordState::Blocked { why: WhyBlocked::Parents(left) };
    assert_eq!(w.record(&child).await.state, waits(2));
    let runs = w.claim(10).await;
    assert_eq!(runs.len(), 2, "the child is not among them");
    w.apply(&runs[1].lease, complete()).await;
    assert_eq!(w.record(&child).await.state, waits(1));
    w.apply(&runs[0].lease, retry(secs(1))).await;
    assert_eq!(w.record(&child).await.state, waits(1));
    w.advance(secs(1));
    w.apply(&w.take().await.lease, complete()).await;
    assert_eq!(w.take().await.body.id, child.id);
}

pub async fn a_parent_may_stand_earlier_in_the_batch<E: Env>(w: &mut World<E>) {
    let parent = draft();
    let child = child(&[parent.job()]);
    let wrong = [child.clone().build(), parent.clone().build()];
    w.backend().push(&wrong, w.at()).await.expect_err("the parent comes later");
    assert_eq!(w.everything().await, []);
    w.push_all(&[parent.build(), child.clone().build()]).await;
    w.expect(&child.job(), StateKind::Blocked).await;
    w.apply(&w.take().await.lease, complete()).await;
    assert_eq!(w.take().await.body.id, child.job().id);
}

pub async fn a_completed_parent_is_not_waited_for<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    w.apply(&w.take().await.lease, complete()).await;
    let child = w.put(child(&[parent])).await;
    w.expect(&child, StateKind::Ready).await;
}

pub async fn one_parent_named_twice_is_one<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent.clone(), parent])).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.expect(&child, StateKind::Ready).await;
}

pub async fn a_failed_parent_cancels_the_whole_family<E: Env>(w: &mut World<E>) {
    for ruling in [call_off(), bury()] {
        let parent = w.put(draft()).await;
        let son = w.put(child(&[parent])).await;
        let grandson = w.put(child(std::slice::from_ref(&son))).await;
        w.apply(&w.take().await.lease, ruling).await;
        w.sweep().await;
        w.expect(&son, StateKind::Cancelled).await;
        w.expect(&grandson, StateKind::Cancelled).await;
        w.nothing_to_claim().await;
    }
}

pub async fn a_failed_parent_can_be_ignored<E: Env>(w: &mut World<E>) {
    for ruling in [call_off(), bury()] {
        let parent = w.put(draft()).await;
        let other = w.put(draft()).await;
        let child = w.put(child(&[parent, other]).on_failure(ParentFailure::Ignore)).await;
        w.apply(&w.take().await.lease, ruling).await;
        w.sweep().await;
        w.expect(&child, StateKind::Blocked).await;
        w.apply(&w.take().await.lease, complete()).await;
        w.sweep().await;
        let run = w.take().await;
        assert_eq!(run.body.id, child.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn a_dead_parent_can_be_waited_for<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(std::slice::from_ref(&parent)).on_failure(ParentFailure::Wait)).await;
    w.apply(&w.take().await.lease, bury()).await;
    w.sweep().await;
    w.expect(&child, StateKind::Blocked).await;
    w.backend().revive(&parent, w.at()).await.expect("revive");
    w.expect(&child, StateKind::Blocked).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.sweep().await;
    assert_eq!(w.take().await.body.id, child.id);
}

pub async fn a_cancelled_parent_is_not_waited_for<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent]).on_failure(ParentFailure::Wait)).await;
    w.apply(&w.take().await.lease, call_off()).await;
    w.sweep().await;
    w.expect(&child, StateKind::Cancelled).await;
}

pub async fn a_parent_that_failed_before_the_push_counts_too<E: Env>(w: &mut World<E>) {
    let dead = w.put(draft()).await;
    w.apply(&w.take().await.lease, bury()).await;
    let policies = [
        (ParentFailure::Cancel, StateKind::Cancelled),
        (ParentFailure::Ignore, StateKind::Ready),
        (ParentFailure::Wait, StateKind::Blocked),
    ];
    for (policy, state) in policies {
        let child = w.put(child(std::slice::from_ref(&dead)).on_failure(policy)).await;
        w.sweep().await;
        w.expect(&child, state).await;
    }
}

pub async fn a_dead_parent_that_is_deleted_is_waited_for_no_longer<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(std::slice::from_ref(&parent)).on_failure(ParentFailure::Wait)).await;
    w.apply(&w.take().await.lease, bury()).await;
    w.backend().delete(&parent, w.at()).await.expect("delete");
    w.sweep().await;
    w.expect(&child, StateKind::Cancelled).await;
}

pub async fn a_dead_parent_out_of_retention_is_waited_for_no_longer<E: Env>(w: &mut World<E>) {
    let mut retention = Retention::default();
    retention.dead.age = secs(60);
    w.use_retention(retention).await;
    let parent = w.put(draft()).await;
    let child = w.put(child(std::slice::from_ref(&parent)).on_failure(ParentFailure::Wait)).await;
    w.apply(&w.take().await.lease, bury()).await;
    w.advance(secs(61));
    w.sweep().await;
    assert!(w.find(&parent).await.is_none());
    w.sweep().await;
    w.expect(&child, StateKind::Cancelled).await;
}

pub async fn a_completed_parent_that_is_forgotten_has_still_completed<E: Env>(w: &mut World<E>) {
    let first = w.put(draft()).await;
    let second = w.put(draft()).await;
    let child = w.put(child(&[first.clone(), second])).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.backend().delete(&first, w.at()).await.expect("delete");
    w.sweep().await;
    w.apply(&w.take().await.lease, complete()).await;
    assert_eq!(w.take().await.body.id, child.id);
}

pub async fn a_child_with_a_delay_waits_for_both<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent]).after(secs(20))).await;
    w.advance(secs(5));
    w.apply(&w.take().await.lease, complete()).await;
    w.expect(&child, StateKind::Scheduled).await;
    w.advance(secs(15));
    assert_eq!(w.take().await.body.id, child.id);
}

pub async fn a_child_with_a_limit_takes_no_place_while_it_waits<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent]).limit("tenant", 1)).await;
    let other = w.put(draft().limit("tenant", 1)).await;
    let runs = w.claim(10).await;
    assert_eq!(runs.len(), 2);
    assert_eq!(runs[1].body.id, other.id);
    w.apply(&runs[0].lease, complete()).await;
    let why = WhyBlocked::Limit;
    assert_eq!(w.record(&child).await.state, RecordState::Blocked { why });
    w.apply(&runs[1].lease, complete()).await;
    assert_eq!(w.take().await.body.id, child.id);
}

pub async fn a_child_holds_its_key_while_it_waits<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent]).unique("k", OnConflict::Skip, Until::End)).await;
    let second = draft().unique("k", OnConflict::Skip, Until::End);
    assert_eq!(w.push(second.clone()).await, windlass_core::Pushed::Conflict(child.id));
    w.apply(&w.take().await.lease, bury()).await;
    w.sweep().await;
    w.put(second).await;
}

pub async fn a_cancelled_child_is_not_let_in<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent])).await;
    w.backend().cancel(&child, "no longer", w.at()).await.expect("cancel");
    w.apply(&w.take().await.lease, complete()).await;
    w.sweep().await;
    w.expect(&child, StateKind::Cancelled).await;
    w.nothing_to_claim().await;
}

pub async fn a_diamond_of_parents_is_cancelled_once<E: Env>(w: &mut World<E>) {
    let top = w.put(draft()).await;
    let left = w.put(child(std::slice::from_ref(&top))).await;
    let right = w.put(child(std::slice::from_ref(&top))).await;
    let bottom = w.put(child(&[top.clone(), left, right])).await;
    w.backend().cancel(&top, "no longer", w.at()).await.expect("cancel");
    w.sweep().await;
    w.expect(&bottom, StateKind::Cancelled).await;
    assert_eq!(w.everything().await.len(), 4);
}

pub async fn a_chain_of_ten_thousand_is_called_off_with_its_head<E: Env>(w: &mut World<E>) {
    let head = w.put(draft()).await;
    let mut last = head.clone();
    for _ in 0..10 {
        let mut batch = Vec::new();
        for _ in 0..1_000 {
            let next = child(std::slice::from_ref(&last));
            last = next.job();
            batch.push(next.build());
        }
        w.push_all(&batch).await;
    }
    w.backend().cancel(&head, "no longer", w.at()).await.expect("cancel");
    // An engine may do a bounded part in the step and leave the rest to sweeps.
    let mut rounds = 0;
    while !w.state(&last).await.is_final() {
        w.sweep().await;
        rounds += 1;
        assert!(rounds < 10_100, "the end of the chain is not reached");
    }
    w.expect(&last, StateKind::Cancelled).await;
    w.nothing_to_claim().await;
}

pub async fn a_thousand_children_are_let_in<E: Env>(w: &mut World<E>) {
    let parent = w.put(draft()).await;
    let batch: Vec<_> = (0..1_000).map(|_| child(std::slice::from_ref(&parent)).build()).collect();
    w.push_all(&batch).await;
    let run = w.take().await;
    w.apply(&run.lease, complete()).await;
    let mut got = Vec::new();
    for _ in 0..20 {
        got.extend(ids(&w.claim(1_000).await));
        w.sweep().await;
    }
    got.sort_unstable();
    let mut wanted: Vec<_> = batch.iter().map(|job| job.body.id).collect();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
}

pub async fn a_parent_in_another_queue_counts_where_queues_are_one_step<E: Env>(w: &mut World<E>) {
    if !w.backend().capabilities().atomic_across_queues {
        println!("skipped: parents must be in the same named queue on this engine");
        return;
    }
    let parent = w.put(draft()).await;
    let child = w.put(child(&[parent]).queue("other")).await;
    w.expect(&child, StateKind::Blocked).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.expect(&child, StateKind::Ready).await;
}
