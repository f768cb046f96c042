//! Claim: what it hands out, and to whom.

use windlass_core::{Backend, ClaimedJob, Due, Kinds, Nonce, QueueName, RecordState, SessionId};

use crate::{Env, LEASE, World, complete, draft, ids, retry, secs, snooze};

pub async fn a_claimed_job_carries_all_that_a_worker_needs<E: Env>(w: &mut World<E>) {
    let born = w.now;
    let job = draft().with(|body| body.extras_mut().deadline = Some(Due::After(secs(100)))).build();
    w.put(job.clone()).await;
    w.advance(secs(7));
    let ask = w.ask(1);
    let claimed = w.claim_as(&ask).await;
    assert_eq!(claimed.now, w.now);
    let [run] = &claimed.jobs[..] else { panic!("one job: {claimed:?}") };
    let wanted = ClaimedJob {
        lease: run.lease.clone(),
        body: job.body.clone(),
        attempts: 0,
        lost_leases: 0,
        generation: 0,
        created_at: born,
        deadline: Some(born.saturating_add(secs(100))),
        ahead: false,
        suspect: false,
    };
    assert_eq!(*run, wanted);
    assert_eq!((&run.lease.job, run.lease.epoch, run.lease.nonce), (&job.body.job(), 1, ask.nonce));
    let record = w.record(&job.body.job()).await;
    let running = RecordState::Running {
        session: w.session,
        since: w.now,
        lease_until: w.now.saturating_add(LEASE),
        started: true,
        cancel_requested: false,
    };
    assert_eq!((record.state, record.epoch), (running, 1));
}

pub async fn a_claimed_job_is_nobody_elses<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.take().await;
    let mut other = w.ask(10);
    other.session = SessionId::random();
    assert_eq!(ids(&w.claim_as(&other).await.jobs), []);
    w.nothing_to_claim().await;
}

pub async fn a_claim_takes_no_more_than_its_limit<E: Env>(w: &mut World<E>) {
    for _ in 0..5 {
        w.put(draft()).await;
    }
    let claimed = w.claim_as(&w.ask(3)).await;
    assert_eq!(claimed.jobs.len(), 3);
    assert!(claimed.more, "two are left");
    assert_eq!(w.claim(3).await.len(), 2);
    let last = w.claim_as(&w.ask(3)).await;
    assert!(last.jobs.is_empty() && !last.more, "nothing is left: {last:?}");
}

pub async fn a_claim_of_nothing_takes_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    assert_eq!(ids(&w.claim(0).await), []);
    let mut nowhere = w.ask(10);
    nowhere.queues = Vec::new();
    assert_eq!(ids(&w.claim_as(&nowhere).await.jobs), []);
    let mut unknown = w.ask(10);
    unknown.queues = vec![QueueName::from_static("nobody-pushed-here")];
    assert_eq!(ids(&w.claim_as(&unknown).await.jobs), []);
    assert_eq!(w.record(&job).await.epoch, 0);
}

pub async fn a_claim_takes_from_its_own_queues_only<E: Env>(w: &mut World<E>) {
    w.put(draft().queue("other")).await;
    w.nothing_to_claim().await;
}

pub async fn a_worker_without_kinds_gets_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let mut ask = w.ask(1);
    ask.kinds = Kinds::default();
    assert_eq!(ids(&w.claim_as(&ask).await.jobs), []);
    assert_eq!(w.take().await.body.id, job.id);
}

pub async fn epochs_rise_with_every_claim<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let mut nonces = std::collections::HashSet::new();
    for epoch in 1..=5 {
        let run = w.take().await;
        assert_eq!(run.lease.epoch, epoch);
        assert!(nonces.insert(run.lease.nonce));
        let ruling = if epoch % 2 == 0 { snooze(secs(1)) } else { retry(secs(1)) };
        w.apply(&run.lease, ruling).await;
        w.advance(secs(1));
    }
}

pub async fn jobs_ahead_come_last_and_are_marked<E: Env>(w: &mut World<E>) {
    let mut wanted = Vec::new();
    for _ in 0..5 {
        wanted.push(w.put(draft()).await);
    }
    let mut ask = w.ask(2);
    ask.ahead = 2;
    let claimed = w.claim_as(&ask).await.jobs;
    let got: Vec<_> = claimed.iter().map(|job| (job.body.id, job.ahead)).collect();
    let marks = [false, false, true, true];
    assert_eq!(got, wanted.iter().zip(marks).map(|(job, ahead)| (job.id, ahead)).collect::<Vec<_>>());
    for (job, ahead) in wanted.iter().zip(marks) {
        let state = w.record(job).await.state;
        let RecordState::Running { started, .. } = state else { panic!("should run: {state:?}") };
        assert_eq!(started, !ahead);
    }
}

pub async fn jobs_ahead_fill_up_from_later_queues<E: Env>(w: &mut World<E>) {
    let here = w.put(draft()).await;
    let there = w.put(draft().queue("other")).await;
    let mut ask = w.ask(1);
    (ask.ahead, ask.queues) = (5, vec![crate::mail(), QueueName::from_static("other")]);
    let claimed = w.claim_as(&ask).await.jobs;
    assert_eq!(ids(&claimed), [here.id, there.id]);
    assert_eq!((claimed[0].ahead, claimed[1].ahead), (false, true));
}

pub async fn a_claim_names_the_next_due_job<E: Env>(w: &mut World<E>) {
    assert_eq!(w.claim_as(&w.ask(1)).await.wake_at, None);
    w.put(draft().after(secs(20))).await;
    w.put(draft().after(secs(10))).await;
    w.put(draft().queue("other").after(secs(5))).await;
    let soon = w.now.saturating_add(secs(10));
    assert_eq!(w.claim_as(&w.ask(1)).await.wake_at, Some(soon));
    let mut both = w.ask(1);
    both.queues.push(QueueName::from_static("other"));
    assert_eq!(w.claim_as(&both).await.wake_at, Some(w.now.saturating_add(secs(5))));
    w.advance(secs(10));
    let claimed = w.claim_as(&w.ask(1)).await;
    assert_eq!((claimed.jobs.len(), claimed.wake_at), (1, Some(soon.saturating_add(secs(10)))));
}

pub async fn settle_and_claim_does_both<E: Env>(w: &mut World<E>) {
    let first = w.put(draft()).await;
    let second = w.put(draft()).await;
    let run = w.take().await;
    let verdict = windlass_core::Verdict::new(run.lease.clone(), complete());
    let (settled, claimed) = w
        .backend()
        .settle_and_claim(std::slice::from_ref(&verdict), &w.ask(5), w.at())
        .await
        .expect("settle and claim");
    assert_eq!(settled, [windlass_core::Settled::Applied(windlass_core::StateKind::Completed)]);
    assert_eq!(ids(&claimed.jobs), [second.id]);
    w.expect(&first, windlass_core::StateKind::Completed).await;
    let (settled, claimed) =
        w.backend().settle_and_claim(&[verdict], &w.ask(5), w.at()).await.expect("settle and claim");
    assert_eq!(settled, [windlass_core::Settled::AlreadyApplied]);
    assert_eq!(ids(&claimed.jobs), []);
}

pub async fn a_claim_whose_answer_was_lost_can_be_handed_back<E: Env>(w: &mut World<E>) {
    let mut wanted = Vec::new();
    for _ in 0..4 {
        wanted.push(w.put(draft()).await.id);
    }
    let kept = w.take().await;
    let lost = w.ask(2);
    w.claim_as(&lost).await;
    let backend = w.backend();
    let unknown = backend.hand_back(w.session, Some(Nonce::random()), w.at()).await;
    assert_eq!(unknown.expect("hand back"), 0, "no claim of that nonce");
    let stranger = backend.hand_back(SessionId::random(), Some(lost.nonce), w.at()).await;
    assert_eq!(stranger.expect("hand back"), 0, "another session's claim");
    assert_eq!(backend.hand_back(w.session, Some(lost.nonce), w.at()).await.expect("hand back"), 2);
    let again = w.claim(10).await;
    assert_eq!(ids(&again), wanted[1..], "at their old places");
    assert!(again.iter().all(|job| job.lost_leases == 0 && job.attempts == 0 && !job.suspect));
    assert_eq!(w.apply(&kept.lease, complete()).await, windlass_core::StateKind::Completed);
}

pub async fn a_session_hands_back_all_it_holds<E: Env>(w: &mut World<E>) {
    for _ in 0..3 {
        w.put(draft()).await;
    }
    w.put(draft().queue("other")).await;
    let mut other = w.ask(1);
    other.session = SessionId::random();
    let theirs = w.claim_as(&other).await.jobs;
    w.take().await;
    w.take().await;
    let mut elsewhere = w.ask(1);
    elsewhere.queues = vec![QueueName::from_static("other")];
    w.claim_as(&elsewhere).await;
    assert_eq!(w.backend().hand_back(w.session, None, w.at()).await.expect("hand back"), 3);
    assert_eq!(w.backend().hand_back(w.session, None, w.at()).await.expect("hand back"), 0);
    assert_eq!(w.claim(10).await.len(), 2);
    assert_eq!(
        w.apply(&theirs[0].lease, complete()).await,
        windlass_core::StateKind::Completed,
        "another session's lease still stands"
    );
}

pub async fn a_large_session_is_handed_back_a_thousand_at_a_time<E: Env>(w: &mut World<E>) {
    for _ in 0..2 {
        let batch: Vec<_> = (0..600).map(|_| draft().build()).collect();
        w.push_all(&batch).await;
        w.claim(600).await;
    }
    assert_eq!(w.backend().hand_back(w.session, None, w.at()).await.expect("hand back"), 1_000);
    assert_eq!(w.backend().hand_back(w.session, None, w.at()).await.expect("hand back"), 200);
    let counts = w.counts(&crate::mail()).await;
    assert_eq!(counts.live(), 1_200);
}
