//! The fence: what a worker says counts only while its lease stands, and then once.

use windlass_core::{
    Backend, Held, Kept, Lease, Manage, Nonce, Note, Progress, Record, Ruling, Settled, StateKind, Verdict,
};

use crate::{Env, LEASE, World, bury, call_off, complete, draft, release, retry, secs, snooze};

fn every_ruling() -> [Ruling; 6] {
    [complete(), retry(secs(5)), snooze(secs(5)), call_off(), bury(), release()]
}

/// Says everything a worker can say with a lease that does not stand, and asserts that the records of all jobs stay
/// what they were, bit by bit.
async fn nothing_counts<E: Env>(w: &World<E>, lease: &Lease) {
    let before: Vec<Record> = w.everything().await;
    // With a job that rides along and with none: an engine may have a shorter way for verdicts that are nothing else.
    for then in [vec![draft().build()], Vec::new()] {
        for ruling in every_ruling() {
            let settled = w.settle_then(lease, ruling.clone(), then.clone()).await;
            assert_eq!(settled, Settled::LeaseLost, "{ruling:?}");
            assert_eq!(w.everything().await, before, "after {ruling:?}");
        }
    }
    let held = Held { lease: lease.clone(), started: true };
    let kept = w.backend().extend(w.session, &[held], LEASE * 2, w.at()).await.expect("extend");
    assert_eq!(kept, [Kept::Lost]);
    let mut note = Note::new(lease.clone());
    note.progress = Some(Progress::new(99, "nearly"));
    note.push_line("I am a ghost");
    let noted = w.backend().annotate(&[note], w.at()).await.expect("annotate");
    assert_eq!(noted, [false]);
    assert_eq!(w.everything().await, before, "after extend and annotate");
}

pub async fn a_stale_verdict_changes_nothing_while_another_runs<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let stale = w.take().await;
    w.lose_leases().await;
    let fresh = w.take().await;
    assert_eq!(fresh.body.id, stale.body.id);
    nothing_counts(w, &stale.lease).await;
    assert_eq!(w.apply(&fresh.lease, complete()).await, StateKind::Completed);
}

pub async fn a_stale_verdict_changes_nothing_once_reclaimed<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let stale = w.take().await;
    w.lose_leases().await;
    nothing_counts(w, &stale.lease).await;
}

pub async fn a_stale_verdict_changes_nothing_after_anothers_end<E: Env>(w: &mut World<E>) {
    for ruling in every_ruling() {
        w.put(draft().priority(9)).await;
        let stale = w.take().await;
        w.lose_leases().await;
        let fresh = w.take().await;
        w.apply(&fresh.lease, ruling).await;
        nothing_counts(w, &stale.lease).await;
        // Out of the way of the next round.
        w.backend().cancel(&fresh.lease.job, "done with", w.at()).await.expect("cancel");
    }
}

pub async fn a_guessed_nonce_changes_nothing<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    nothing_counts(w, &Lease { nonce: Nonce::random(), ..run.lease.clone() }).await;
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn a_guessed_epoch_changes_nothing<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    for epoch in [0, 2, u64::from(u32::MAX)] {
        nothing_counts(w, &Lease { epoch, ..run.lease.clone() }).await;
    }
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn one_nonce_for_two_claims_does_not_join_their_leases<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let ask = w.ask(1);
    let first = w.claim_as(&ask).await.jobs.remove(0);
    w.lose_leases().await;
    let second = w.claim_as(&ask).await.jobs.remove(0);
    assert_eq!((first.lease.nonce, first.lease.epoch + 1), (second.lease.nonce, second.lease.epoch));
    nothing_counts(w, &first.lease).await;
}

pub async fn a_handle_is_not_trusted<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft()).await;
    let [first, second] = &w.claim(2).await[..] else { panic!("two jobs") };
    // The address of one job with the handle of the other: the right one or none, never the other.
    let mixed = Lease { handle: second.lease.handle, ..first.lease.clone() };
    let settled = w.settle(&mixed, complete()).await;
    assert!(matches!(settled, Settled::Applied(_) | Settled::LeaseLost), "{settled:?}");
    w.expect(&second.lease.job, StateKind::Running).await;
    let swapped = Lease { job: second.lease.job.clone(), nonce: Nonce::random(), ..first.lease.clone() };
    assert_eq!(w.settle(&swapped, bury()).await, Settled::LeaseLost);
    w.expect(&second.lease.job, StateKind::Running).await;
}

pub async fn a_lease_of_another_queue_changes_nothing<E: Env>(w: &mut World<E>) {
    let here = w.put(draft()).await;
    let there = w.put(draft().id(here.id).queue("other")).await;
    let run = w.take().await;
    nothing_counts(w, &Lease { job: there, ..run.lease.clone() }).await;
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn a_lease_of_nobody_is_lost<E: Env>(w: &mut World<E>) {
    let job = draft().queue("never-seen").job();
    let lease = Lease { job, epoch: 1, nonce: Nonce::random(), handle: 0 };
    nothing_counts(w, &lease).await;
}

pub async fn a_repeated_verdict_is_already_applied<E: Env>(w: &mut World<E>) {
    for ruling in every_ruling() {
        let job = w.put(draft().priority(9)).await;
        let run = w.take().await;
        w.apply(&run.lease, ruling.clone()).await;
        let before = w.record(&job).await;
        let settled = w.settle_then(&run.lease, ruling.clone(), vec![draft().build()]).await;
        assert_eq!(settled, Settled::AlreadyApplied, "{ruling:?}");
        // Another ruling on the same lease is a repeat all the same: one lease, one verdict.
        assert_eq!(w.settle(&run.lease, bury()).await, Settled::AlreadyApplied, "{ruling:?}");
        assert_eq!(w.record(&job).await, before, "{ruling:?}");
        w.backend().cancel(&job, "done with", w.at()).await.expect("cancel");
    }
    assert_eq!(w.everything().await.len(), 6, "no repeat gave rise to anything");
}

pub async fn a_repeat_is_known_while_the_job_waits_and_after_it_was_cancelled<E: Env>(w: &mut World<E>) {
    for ruling in [retry(secs(5)), snooze(secs(5)), release()] {
        let job = w.put(draft().priority(9)).await;
        let run = w.take().await;
        w.apply(&run.lease, ruling.clone()).await;
        w.backend().cancel(&job, "no longer", w.at()).await.expect("cancel");
        assert_eq!(w.settle(&run.lease, ruling.clone()).await, Settled::AlreadyApplied, "{ruling:?}");
    }
}

pub async fn a_repeat_is_known_after_the_job_became_due<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.apply(&run.lease, retry(secs(5))).await;
    w.advance(secs(5));
    assert_eq!(w.sweep().await.promoted, 1);
    assert_eq!(w.settle(&run.lease, retry(secs(5))).await, Settled::AlreadyApplied);
}

pub async fn a_repeat_is_known_after_a_revival<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    w.apply(&run.lease, bury()).await;
    w.backend().revive(&job, w.at()).await.expect("revive");
    assert_eq!(w.settle(&run.lease, bury()).await, Settled::AlreadyApplied);
    w.expect(&job, StateKind::Ready).await;
}

pub async fn a_repeat_after_the_next_claim_is_lost<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let first = w.take().await;
    w.apply(&first.lease, retry(secs(0))).await;
    let second = w.take().await;
    assert_eq!(w.settle(&first.lease, retry(secs(0))).await, Settled::LeaseLost);
    w.apply(&second.lease, complete()).await;
    assert_eq!(w.settle(&first.lease, complete()).await, Settled::LeaseLost);
    assert_eq!(w.settle(&second.lease, complete()).await, Settled::AlreadyApplied);
}

pub async fn a_lease_that_was_never_settled_is_never_already_applied<E: Env>(w: &mut World<E>) {
    // Poison: the third loss ends the job, and the late verdict was not what ended it.
    w.put(draft()).await;
    let mut last = w.take().await;
    for _ in 0..2 {
        w.lose_leases().await;
        last = w.take().await;
    }
    assert_eq!(w.lose_leases().await.buried, 1);
    assert_eq!(w.settle(&last.lease, complete()).await, Settled::LeaseLost);
    // Called off while running, and the lease expired.
    let job = w.put(draft()).await;
    let run = w.take().await;
    w.backend().cancel(&job, "no longer", w.at()).await.expect("cancel");
    assert_eq!(w.lose_leases().await.cancelled, 1);
    assert_eq!(w.settle(&run.lease, complete()).await, Settled::LeaseLost);
    // Handed back: whatever its handler did was not recorded.
    w.put(draft()).await;
    let run = w.take().await;
    w.backend().hand_back(w.session, None, w.at()).await.expect("hand back");
    assert_eq!(w.settle(&run.lease, complete()).await, Settled::LeaseLost);
    w.apply(&w.take().await.lease, complete()).await;
    // A claim that the network delivered twice: of two leases with one nonce the first was settled, the second was not.
    w.put(draft()).await;
    let ask = w.ask(1);
    let first = w.claim_as(&ask).await.jobs.remove(0);
    w.apply(&first.lease, retry(secs(0))).await;
    let second = w.claim_as(&ask).await.jobs.remove(0);
    w.lose_leases().await;
    assert_eq!(w.settle(&second.lease, complete()).await, Settled::LeaseLost);
}

pub async fn a_verdict_after_expiry_but_before_the_sweep_is_applied<E: Env>(w: &mut World<E>) {
    for ruling in every_ruling() {
        let job = w.put(draft().priority(9)).await;
        let run = w.take().await;
        w.advance(LEASE * 10);
        let state = w.apply(&run.lease, ruling).await;
        let record = w.record(&job).await;
        assert_eq!((record.state.kind(), record.lost_leases), (state, 0));
        w.backend().cancel(&job, "done with", w.at()).await.expect("cancel");
    }
}

pub async fn a_verdict_for_a_forgotten_job_is_lost<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    w.apply(&run.lease, complete()).await;
    w.backend().delete(&job, w.at()).await.expect("delete");
    nothing_counts(w, &run.lease).await;
    // The id comes again, as another job with an epoch of its own.
    w.put(draft().id(job.id)).await;
    let again = w.take().await;
    nothing_counts(w, &run.lease).await;
    w.apply(&again.lease, complete()).await;
    assert_eq!(w.settle(&run.lease, complete()).await, Settled::LeaseLost);
}

pub async fn bad_leases_among_good_ones_are_the_only_ones_refused<E: Env>(w: &mut World<E>) {
    let jobs = [w.put(draft()).await, w.put(draft()).await, w.put(draft()).await, w.put(draft()).await];
    let mut leases: Vec<Lease> = w.claim(4).await.into_iter().map(|run| run.lease).collect();
    let good = leases.clone();
    leases[1].nonce = Nonce::random();
    leases[2].epoch += 1;
    let verdicts: Vec<_> = leases.into_iter().map(|lease| Verdict::new(lease, complete())).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    let applied = Settled::Applied(StateKind::Completed);
    assert_eq!(settled, [applied, Settled::LeaseLost, Settled::LeaseLost, applied]);
    for (job, state) in jobs.iter().zip([true, false, false, true]) {
        w.expect(job, if state { StateKind::Completed } else { StateKind::Running }).await;
    }
    for (lease, wanted) in
        good.iter().zip([Settled::AlreadyApplied, applied, applied, Settled::AlreadyApplied])
    {
        assert_eq!(w.settle(lease, complete()).await, wanted);
    }
}
