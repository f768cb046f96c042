//! Unique keys: when they are free again, and who may wait. The table of conflicts is `unique_table`.

use windlass_core::{
    Backend, Manage, OnConflict, Pushed, RecordState, Retention, StateKind, Sweep, Timestamp, Until,
    WhyBlocked,
};

use crate::{Draft, Env, LEASE, World, bury, call_off, complete, draft, ids, release, retry, secs};

fn keyed(on_conflict: OnConflict, until: Until) -> Draft {
    draft().unique("ada", on_conflict, until)
}

fn reject() -> Draft {
    keyed(OnConflict::Skip, Until::End)
}

fn one_behind() -> Draft {
    keyed(OnConflict::QueueOne, Until::End)
}

pub async fn a_key_is_free_in_the_step_that_ends_its_holder<E: Env>(w: &mut World<E>) {
    for ruling in [complete(), call_off(), bury()] {
        let holder = w.put(reject()).await;
        assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
        let run = w.take().await;
        assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
        w.apply(&run.lease, ruling).await;
        let next = w.put(reject()).await;
        w.backend().cancel(&next, "done with", w.at()).await.expect("cancel");
    }
}

pub async fn a_key_is_free_once_a_waiting_holder_is_cancelled<E: Env>(w: &mut World<E>) {
    for holder in [reject(), reject().after(secs(60))] {
        let holder = w.put(holder).await;
        w.backend().cancel(&holder, "no longer", w.at()).await.expect("cancel");
    }
    w.put(reject()).await;
}

pub async fn a_key_is_free_once_its_holder_is_dead_as_poison<E: Env>(w: &mut World<E>) {
    let holder = w.put(reject()).await;
    for _ in 0..3 {
        assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
        w.take().await;
        w.lose_leases().await;
    }
    w.expect(&holder, StateKind::Dead).await;
    w.put(reject()).await;
}

pub async fn a_key_is_held_through_retries_and_lost_leases<E: Env>(w: &mut World<E>) {
    let holder = w.put(reject()).await;
    w.apply(&w.take().await.lease, retry(secs(5))).await;
    assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
    w.advance(secs(5));
    w.apply(&w.take().await.lease, release()).await;
    assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
    w.take().await;
    w.lose_leases().await;
    assert_eq!(w.push(reject()).await, Pushed::Conflict(holder.id));
}

pub async fn a_key_until_start_is_free_at_the_first_claim<E: Env>(w: &mut World<E>) {
    let start = || keyed(OnConflict::Skip, Until::Start);
    let first = w.put(start()).await;
    assert_eq!(w.push(start()).await, Pushed::Conflict(first.id));
    let run = w.take().await;
    let second = w.put(start()).await;
    assert_eq!(w.push(start()).await, Pushed::Conflict(second.id));
    // Coming back, the first holder does not take the key again, nor does its end free another's.
    w.apply(&run.lease, retry(secs(1))).await;
    assert_eq!(w.push(start()).await, Pushed::Conflict(second.id));
    w.backend().cancel(&first, "no longer", w.at()).await.expect("cancel");
    assert_eq!(w.push(start()).await, Pushed::Conflict(second.id));
}

pub async fn a_window_ends_exactly_so_long_after_the_push<E: Env>(w: &mut World<E>) {
    let throttle = || keyed(OnConflict::Skip, Until::Window(secs(10)));
    let holder = w.put(throttle()).await;
    let end = w.now.saturating_add(secs(10));
    w.now = Timestamp::from_millis(end.as_millis() - 1);
    assert_eq!(w.push(throttle()).await, Pushed::Conflict(holder.id));
    w.now = end;
    let next = w.put(throttle()).await;
    w.sweep().await;
    assert_eq!(w.push(throttle()).await, Pushed::Conflict(next.id), "it has a window of its own");
}

pub async fn a_sweep_frees_no_window_early<E: Env>(w: &mut World<E>) {
    let throttle = || keyed(OnConflict::Skip, Until::Window(secs(10)));
    let holder = w.put(throttle()).await;
    w.now = Timestamp::from_millis(w.now.saturating_add(secs(10)).as_millis() - 1);
    w.sweep().await;
    assert_eq!(w.push(throttle()).await, Pushed::Conflict(holder.id));
    w.advance(std::time::Duration::from_millis(1));
    w.sweep().await;
    w.put(throttle()).await;
}

pub async fn a_window_outlasts_whatever_became_of_its_holder<E: Env>(w: &mut World<E>) {
    let throttle = || keyed(OnConflict::Skip, Until::Window(secs(10)));
    let holder = w.put(throttle()).await;
    w.apply(&w.take().await.lease, complete()).await;
    assert_eq!(w.push(throttle()).await, Pushed::Conflict(holder.id));
    w.backend().delete(&holder, w.at()).await.expect("delete");
    assert_eq!(w.push(throttle()).await, Pushed::Conflict(holder.id));
    w.advance(secs(10));
    w.put(throttle()).await;
}

pub async fn a_window_may_end_while_its_holder_still_waits<E: Env>(w: &mut World<E>) {
    let first = w.put(keyed(OnConflict::Skip, Until::Window(secs(10))).after(secs(60))).await;
    w.advance(secs(10));
    let second = w.put(reject()).await;
    // The first holder's end does not free the key of the second.
    w.backend().cancel(&first, "no longer", w.at()).await.expect("cancel");
    assert_eq!(w.push(reject()).await, Pushed::Conflict(second.id));
}

pub async fn a_superseded_job_is_recorded_with_its_successor<E: Env>(w: &mut World<E>) {
    let replace = || keyed(OnConflict::Supersede, Until::End);
    let old = w.put(replace()).await;
    w.advance(secs(1));
    let new = replace();
    assert_eq!(w.push(new.clone()).await, Pushed::Superseded(old.id));
    match w.record(&old).await.state {
        RecordState::Cancelled { at, superseded_by, .. } => {
            assert_eq!((at, superseded_by), (w.now, Some(new.job().id)));
        }
        other => panic!("should be cancelled: {other:?}"),
    }
    assert_eq!(ids(&w.claim(10).await), [new.job().id]);
    assert_eq!(w.push(replace()).await, Pushed::Conflict(new.job().id));
}

pub async fn debouncing_starts_the_delay_anew<E: Env>(w: &mut World<E>) {
    let debounce = || keyed(OnConflict::Supersede, Until::Start).after(secs(10));
    let mut last = w.put(debounce()).await;
    for _ in 0..3 {
        w.advance(secs(9));
        w.nothing_to_claim().await;
        let next = debounce();
        assert_eq!(w.push(next.clone()).await, Pushed::Superseded(last.id));
        last = next.job();
    }
    w.advance(secs(10));
    assert_eq!(ids(&w.claim(10).await), [last.id]);
    w.put(debounce()).await;
}

pub async fn one_waits_behind_a_running_holder<E: Env>(w: &mut World<E>) {
    for ruling in [complete(), call_off(), bury()] {
        let holder = w.put(one_behind()).await;
        let run = w.take().await;
        let behind = w.put(one_behind()).await;
        let why = WhyBlocked::Unique;
        assert_eq!(w.record(&behind).await.state, RecordState::Blocked { why });
        w.nothing_to_claim().await;
        assert_eq!(w.push(one_behind()).await, Pushed::Conflict(behind.id));
        w.apply(&run.lease, ruling).await;
        w.expect(&behind, StateKind::Ready).await;
        assert_eq!(w.push(one_behind()).await, Pushed::Conflict(behind.id), "it holds the key now");
        let run = w.take().await;
        assert_eq!(run.body.id, behind.id);
        w.apply(&run.lease, complete()).await;
        assert!(w.state(&holder).await.is_final());
    }
}

pub async fn one_behind_waits_on_while_its_holder_comes_back<E: Env>(w: &mut World<E>) {
    w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind()).await;
    w.apply(&run.lease, retry(secs(5))).await;
    w.expect(&behind, StateKind::Blocked).await;
    w.advance(secs(5));
    w.take().await;
    w.lose_leases().await;
    w.expect(&behind, StateKind::Blocked).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.expect(&behind, StateKind::Ready).await;
}

pub async fn one_behind_keeps_its_delay<E: Env>(w: &mut World<E>) {
    w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind().after(secs(20))).await;
    w.advance(secs(5));
    w.apply(&run.lease, complete()).await;
    w.expect(&behind, StateKind::Scheduled).await;
    w.advance(secs(15));
    assert_eq!(w.take().await.body.id, behind.id);
}

pub async fn one_behind_can_be_cancelled_and_makes_room<E: Env>(w: &mut World<E>) {
    w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind()).await;
    w.backend().cancel(&behind, "no longer", w.at()).await.expect("cancel");
    let next = w.put(one_behind()).await;
    w.expect(&next, StateKind::Blocked).await;
    w.apply(&run.lease, complete()).await;
    w.expect(&next, StateKind::Ready).await;
    w.expect(&behind, StateKind::Cancelled).await;
}

pub async fn one_behind_can_be_superseded<E: Env>(w: &mut World<E>) {
    let holder = w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind()).await;
    let new = keyed(OnConflict::Supersede, Until::End);
    assert_eq!(w.push(new.clone()).await, Pushed::Superseded(behind.id));
    w.expect(&behind, StateKind::Cancelled).await;
    w.expect(&new.job(), StateKind::Blocked).await;
    w.expect(&holder, StateKind::Running).await;
    w.apply(&run.lease, complete()).await;
    w.expect(&new.job(), StateKind::Ready).await;
}

pub async fn one_behind_a_window_is_let_in_at_the_holders_end<E: Env>(w: &mut World<E>) {
    let window = || keyed(OnConflict::QueueOne, Until::Window(secs(10)));
    w.put(window()).await;
    let mut ask = w.ask(1);
    ask.lease = LEASE * 10;
    let run = w.claim_as(&ask).await.jobs.remove(0);
    let behind = w.put(window()).await;
    // The window ends under a running holder with one behind: nobody may be left waiting for ever.
    w.advance(secs(60));
    w.sweep().await;
    w.apply(&run.lease, complete()).await;
    w.sweep().await;
    w.expect(&behind, StateKind::Ready).await;
    assert_eq!(w.take().await.body.id, behind.id);
}

pub async fn keys_of_other_queues_and_other_bytes_are_other_keys<E: Env>(w: &mut World<E>) {
    for key in ["ada", "Ada", "ada ", "ad\u{e4}", "ada:", "a\u{301}da"] {
        w.put(draft().unique(key, OnConflict::Skip, Until::End)).await;
    }
    w.put(reject().queue("other")).await;
    w.put(draft().limit("ada", 5)).await;
    w.put(draft().tag("ada")).await;
}

pub async fn a_key_twice_in_one_batch_conflicts_in_order<E: Env>(w: &mut World<E>) {
    let (first, second) = (reject().build(), reject().build());
    let id = first.body.id;
    assert_eq!(w.push_all(&[first, second]).await, [Pushed::Inserted, Pushed::Conflict(id)]);
    assert_eq!(ids(&w.claim(10).await), [id]);
}

pub async fn a_key_is_free_though_its_holder_is_forgotten_at_its_end<E: Env>(w: &mut World<E>) {
    let nothing = windlass_core::Keep::NOTHING;
    w.use_retention(Retention { completed: nothing, cancelled: nothing, dead: nothing }).await;
    for ruling in [complete(), call_off(), bury()] {
        let holder = w.put(one_behind()).await;
        let run = w.take().await;
        let behind = w.put(one_behind()).await;
        w.apply(&run.lease, ruling).await;
        w.backend().sweep(&Sweep::default(), w.at()).await.expect("sweep");
        assert!(w.find(&holder).await.is_none());
        let run = w.take().await;
        assert_eq!(run.body.id, behind.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn a_holder_that_is_cancelled_lets_in_the_one_behind<E: Env>(w: &mut World<E>) {
    let holder = w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind()).await;
    w.apply(&run.lease, retry(secs(600))).await;
    w.backend().cancel(&holder, "no longer", w.at()).await.expect("cancel");
    assert_eq!(ids(&w.claim(10).await), [behind.id]);
    assert_eq!(w.push(reject()).await, Pushed::Conflict(behind.id));
}

pub async fn one_behind_with_parents_waits_for_both<E: Env>(w: &mut World<E>) {
    for key_first in [true, false] {
        let parent = w.put(draft()).await;
        let parent_run = w.take().await;
        w.put(one_behind()).await;
        let holder_run = w.take().await;
        let behind = w.put(one_behind().parents(&[parent])).await;
        let runs = if key_first { [holder_run, parent_run] } else { [parent_run, holder_run] };
        w.apply(&runs[0].lease, complete()).await;
        w.expect(&behind, StateKind::Blocked).await;
        w.nothing_to_claim().await;
        w.apply(&runs[1].lease, complete()).await;
        let run = w.take().await;
        assert_eq!(run.body.id, behind.id);
        w.apply(&run.lease, complete()).await;
    }
}

pub async fn one_behind_takes_its_place_under_a_limit_only_when_let_in<E: Env>(w: &mut World<E>) {
    w.put(one_behind()).await;
    let run = w.take().await;
    let behind = w.put(one_behind().limit("tenant", 1)).await;
    let other = w.put(draft().limit("tenant", 1)).await;
    let other_run = w.take().await;
    assert_eq!(other_run.body.id, other.id);
    w.apply(&run.lease, complete()).await;
    w.expect(&behind, StateKind::Blocked).await;
    w.apply(&other_run.lease, complete()).await;
    assert_eq!(w.take().await.body.id, behind.id);
}
