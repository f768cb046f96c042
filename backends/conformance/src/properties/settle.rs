//! Settle: where each ruling leads, and what it counts.

use windlass_core::{
    Backend, DeadReason, Failure, Finished, JobRef, Keep, RecordState, Retention, Ruling, Settled, StateKind,
    Verdict, WhyScheduled,
};

use crate::{Env, World, bury, call_off, complete, draft, release, retry, secs, snooze};

pub async fn complete_keeps_the_output<E: Env>(w: &mut World<E>) {
    let job = w.put(draft().with(|body| body.codec = 4)).await;
    let output: Box<[u8]> = (0..=255).collect();
    let run = w.take().await;
    w.advance(secs(3));
    let ruling = Ruling::Complete { output: Some(output.clone()) };
    assert_eq!(w.apply(&run.lease, ruling).await, StateKind::Completed);
    let record = w.record(&job).await;
    assert_eq!(record.state, RecordState::Completed { at: w.now, output: Some(output.clone()) });
    assert_eq!((record.attempts, record.lost_leases, record.epoch), (1, 0, 1));
    let outcomes = w.backend().outcomes(&[job], secs(0), w.at()).await.expect("outcomes");
    assert_eq!(outcomes, [Some(Finished::Completed { output: Some(output), codec: 4 })]);
    w.nothing_to_claim().await;
}

pub async fn no_output_and_an_empty_output_are_different<E: Env>(w: &mut World<E>) {
    let without = w.put(draft()).await;
    let empty = w.put(draft()).await;
    w.apply(&w.take().await.lease, complete()).await;
    w.apply(&w.take().await.lease, Ruling::Complete { output: Some(Box::default()) }).await;
    let at = w.now;
    assert_eq!(w.record(&without).await.state, RecordState::Completed { at, output: None });
    assert_eq!(w.record(&empty).await.state, RecordState::Completed { at, output: Some(Box::default()) });
}

/// Completions of eight jobs of one claim, two in three with an output of their own.
async fn mixed_batch<E: Env>(w: &mut World<E>) -> Vec<(JobRef, Verdict, Option<Box<[u8]>>)> {
    for _ in 0..8 {
        w.put(draft()).await;
    }
    let mut batch = Vec::new();
    for (n, run) in w.claim(8).await.into_iter().enumerate() {
        let job = run.lease.job.clone();
        let output: Option<Box<[u8]>> = (n % 3 != 0).then(|| vec![u8::try_from(n).unwrap_or(0); n].into());
        let verdict = Verdict::new(run.lease, Ruling::Complete { output: output.clone() });
        batch.push((job, verdict, output));
    }
    batch
}

pub async fn each_of_a_batch_has_its_own_output<E: Env>(w: &mut World<E>) {
    let batch = mixed_batch(w).await;
    let fifth = batch[5].1.clone();
    assert_eq!(w.apply(&fifth.lease, Ruling::Release).await, StateKind::Ready);
    let verdicts: Vec<Verdict> = batch.iter().map(|(_, verdict, _)| verdict.clone()).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    for (n, (job, _, output)) in batch.into_iter().enumerate() {
        if n == 5 {
            assert!(matches!(settled[n], Settled::AlreadyApplied | Settled::LeaseLost), "{:?}", settled[n]);
            w.expect(&job, StateKind::Ready).await;
        } else {
            assert_eq!(settled[n], Settled::Applied(StateKind::Completed));
            assert_eq!(w.record(&job).await.state, RecordState::Completed { at: w.now, output });
        }
    }
}

pub async fn a_batch_that_is_not_kept_leaves_nothing<E: Env>(w: &mut World<E>) {
    let nothing = Keep { count: 0, age: secs(3_600) };
    w.use_retention(Retention { completed: nothing, ..Retention::default() }).await;
    let batch = mixed_batch(w).await;
    let fifth = batch[5].1.clone();
    assert_eq!(w.apply(&fifth.lease, Ruling::Release).await, StateKind::Ready);
    let verdicts: Vec<Verdict> = batch.iter().map(|(_, verdict, _)| verdict.clone()).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    for (n, (job, ..)) in batch.iter().enumerate() {
        if n == 5 {
            w.expect(job, StateKind::Ready).await;
        } else {
            assert_eq!(settled[n], Settled::Applied(StateKind::Completed));
            assert!(w.find(job).await.is_none(), "job {n} is still stored");
        }
    }
    let counts = w.counts(&batch[0].0.queue).await;
    let left = [StateKind::Ready, StateKind::Running, StateKind::Completed].map(|state| counts.get(state));
    assert_eq!(left, [1, 0, 0]);
    let again = w.backend().settle(&verdicts[..1], w.at()).await.expect("settle");
    assert_eq!(again, [Settled::LeaseLost], "nothing is known of it any more");
}

pub async fn retry_schedules_and_counts_an_attempt<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let ruling = Ruling::Retry { after: secs(10), error: Failure::panic("index out of bounds") };
    assert_eq!(w.apply(&run.lease, ruling).await, StateKind::Scheduled);
    let record = w.record(&job).await;
    let due = w.now.saturating_add(secs(10));
    assert_eq!(record.state, RecordState::Scheduled { due, why: WhyScheduled::Retry });
    assert_eq!((record.attempts, record.last_error), (1, Some(Failure::panic("index out of bounds"))));
    w.nothing_to_claim().await;
    w.advance(secs(10));
    let again = w.take().await;
    assert_eq!((again.attempts, again.lease.epoch, again.suspect), (1, 2, false));
}

pub async fn retry_may_be_due_at_once<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    assert!(w.apply(&run.lease, retry(secs(0))).await.is_waiting());
    let again = w.take().await;
    assert_eq!((again.body.id, again.attempts), (job.id, 1));
}

pub async fn the_engine_counts_attempts_and_leaves_the_bound_to_the_worker<E: Env>(w: &mut World<E>) {
    w.put(draft().with(|body| body.max_attempts = 1)).await;
    for attempts in 0..3 {
        let run = w.take().await;
        assert_eq!(run.attempts, attempts);
        w.apply(&run.lease, retry(secs(1))).await;
        w.advance(secs(1));
    }
}

pub async fn snooze_schedules_and_counts_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    assert_eq!(w.apply(&run.lease, snooze(secs(10))).await, StateKind::Scheduled);
    let record = w.record(&job).await;
    let due = w.now.saturating_add(secs(10));
    assert_eq!(record.state, RecordState::Scheduled { due, why: WhyScheduled::Snooze });
    assert_eq!((record.attempts, record.lost_leases, record.last_error), (0, 0, None));
}

pub async fn cancel_ends_a_job_with_its_reason<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    assert_eq!(w.apply(&run.lease, call_off()).await, StateKind::Cancelled);
    let record = w.record(&job).await;
    let reason = "the customer left".to_owned();
    assert_eq!(record.state, RecordState::Cancelled { at: w.now, reason, superseded_by: None });
    assert_eq!(record.attempts, 1);
}

pub async fn bury_makes_a_job_dead_for_each_reason<E: Env>(w: &mut World<E>) {
    let reasons =
        [DeadReason::AttemptsExhausted, DeadReason::Buried, DeadReason::Poison, DeadReason::Undecodable];
    for reason in reasons {
        let job = w.put(draft()).await;
        let run = w.take().await;
        let error = Failure::new("no such mailbox");
        let ruling = Ruling::Bury { error: error.clone(), reason };
        assert_eq!(w.apply(&run.lease, ruling).await, StateKind::Dead);
        let record = w.record(&job).await;
        assert_eq!(record.state, RecordState::Dead { at: w.now, reason });
        assert_eq!((record.attempts, record.last_error.as_ref()), (1, Some(&error)));
        assert_eq!(record.body.payload, run.body.payload, "its bytes are kept");
        let outcomes = w.backend().outcomes(&[job], secs(0), w.at()).await.expect("outcomes");
        assert_eq!(outcomes, [Some(Finished::Dead { reason, error: Some(error) })]);
    }
}

pub async fn release_counts_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    assert_eq!(w.apply(&run.lease, release()).await, StateKind::Ready);
    let record = w.record(&job).await;
    assert_eq!((record.attempts, record.lost_leases, record.epoch), (0, 0, 1));
    let again = w.take().await;
    assert_eq!((again.lease.epoch, again.attempts, again.suspect), (2, 0, false));
}

pub async fn the_last_error_outlives_a_success<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.apply(&w.take().await.lease, retry(secs(1))).await;
    w.advance(secs(1));
    w.apply(&w.take().await.lease, complete()).await;
    let record = w.record(&job).await;
    assert_eq!((record.attempts, record.last_error), (2, Some(Failure::new("smtp said 451"))));
}

pub async fn a_batch_is_answered_in_its_order<E: Env>(w: &mut World<E>) {
    for _ in 0..6 {
        w.put(draft()).await;
    }
    let runs = w.claim(6).await;
    let rulings = [complete(), retry(secs(5)), snooze(secs(5)), call_off(), bury(), release()];
    let verdicts: Vec<_> =
        runs.iter().zip(rulings).map(|(run, ruling)| Verdict::new(run.lease.clone(), ruling)).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    let states = [
        StateKind::Completed,
        StateKind::Scheduled,
        StateKind::Scheduled,
        StateKind::Cancelled,
        StateKind::Dead,
        StateKind::Ready,
    ];
    assert_eq!(settled, states.map(Settled::Applied));
    for (run, state) in runs.iter().zip(states) {
        w.expect(&run.lease.job, state).await;
    }
}

pub async fn of_two_verdicts_in_a_batch_the_first_counts<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let verdicts = [Verdict::new(run.lease.clone(), complete()), Verdict::new(run.lease, bury())];
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    assert_eq!(settled, [Settled::Applied(StateKind::Completed), Settled::AlreadyApplied]);
    let record = w.record(&job).await;
    assert_eq!((record.state.kind(), record.attempts), (StateKind::Completed, 1));
}

pub async fn a_batch_settles_across_queues<E: Env>(w: &mut World<E>) {
    let here = w.put(draft()).await;
    let there = w.put(draft().queue("other")).await;
    let mut both = w.ask(10);
    both.queues.push(windlass_core::QueueName::from_static("other"));
    let runs = w.claim_as(&both).await.jobs;
    let verdicts: Vec<_> = runs.iter().map(|run| Verdict::new(run.lease.clone(), complete())).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    assert_eq!(settled, [Settled::Applied(StateKind::Completed); 2]);
    w.expect(&here, StateKind::Completed).await;
    w.expect(&there, StateKind::Completed).await;
}

pub async fn a_thousand_verdicts_are_settled_at_once<E: Env>(w: &mut World<E>) {
    let batch: Vec<_> = (0..1_000).map(|_| draft().build()).collect();
    w.push_all(&batch).await;
    let verdicts: Vec<_> =
        w.claim(1_000).await.into_iter().map(|run| Verdict::new(run.lease, complete())).collect();
    let settled = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    assert_eq!(settled, vec![Settled::Applied(StateKind::Completed); 1_000]);
    let repeated = w.backend().settle(&verdicts, w.at()).await.expect("settle");
    assert_eq!(repeated, vec![Settled::AlreadyApplied; 1_000]);
}

pub async fn an_empty_settle_does_nothing<E: Env>(w: &mut World<E>) {
    assert_eq!(w.backend().settle(&[], w.at()).await.expect("settle"), []);
}

pub async fn long_and_strange_texts_are_recorded_clipped<E: Env>(w: &mut World<E>) {
    use windlass_core::limits::{TEXT_MAX_BYTES, clip};
    let job = w.put(draft()).await;
    let text = format!("nul \0 and \"quotes\" ❄{}", "é".repeat(TEXT_MAX_BYTES));
    let ruling = Ruling::Retry { after: secs(1), error: Failure::new(&text) };
    w.apply(&w.take().await.lease, ruling).await;
    assert_eq!(w.record(&job).await.last_error, Some(Failure::new(&text)));
    w.advance(secs(1));
    w.apply(&w.take().await.lease, Ruling::Cancel { reason: text.clone() }).await;
    let reason = clip(&text, TEXT_MAX_BYTES);
    let wanted = RecordState::Cancelled { at: w.now, reason, superseded_by: None };
    assert_eq!(w.record(&job).await.state, wanted);
}
