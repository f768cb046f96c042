//! Whose clock: one sort for a namespace's life, and never backwards.

use windlass_core::{
    At, Backend, Due, ErrorKind, Filter, Held, Inspect, JobRef, Lease, Manage, Note, StateKind, Sweep,
    Timestamp, Verdict,
};

use crate::{Env, LEASE, World, complete, draft, secs};

pub async fn virtual_time_is_what_the_verbs_say<E: Env>(w: &mut World<E>) {
    assert_eq!(w.backend().now(w.at()).await.expect("now"), w.now);
    w.advance(secs(30 * 24 * 60 * 60));
    assert_eq!(w.backend().now(w.at()).await.expect("now"), w.now);
}

pub async fn time_never_runs_backwards<E: Env>(w: &mut World<E>) {
    w.put(draft().after(secs(10))).await;
    let start = w.now;
    w.advance(secs(10));
    assert_eq!(w.backend().now(w.at()).await.expect("now"), w.now);
    let latest = w.now;
    w.now = start;
    let claimed = w.claim_as(&w.ask(1)).await;
    assert_eq!((claimed.now, claimed.jobs.len()), (latest, 1));
    let job = w.put(draft()).await;
    assert_eq!(w.record(&job).await.created_at, latest);
    assert_eq!(w.backend().now(w.at()).await.expect("now"), latest);
}

pub async fn server_time_is_refused_in_a_virtual_namespace<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    refuses_all(w, At::Server, &job, &run.lease).await;
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn virtual_time_is_refused_in_a_server_timed_namespace<E: Env>(w: &mut World<E>) {
    w.use_server_time().await;
    let job = w.put(draft()).await;
    let run = w.take().await;
    refuses_all(w, At::Instant(w.now), &job, &run.lease).await;
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

async fn refuses_all<E: Env>(w: &World<E>, wrong: At, job: &JobRef, lease: &Lease) {
    let before = w.everything().await;
    let backend = w.backend();
    let verdicts = [Verdict::new(lease.clone(), complete())];
    let held = [Held { lease: lease.clone(), started: true }];
    let notes = [Note::new(lease.clone())];
    let (claim, any) = (w.ask(1), Filter::default());
    let errors = [
        backend.push(&[draft().build()], wrong).await.map(drop),
        backend.claim(&claim, wrong).await.map(drop),
        backend.settle(&verdicts, wrong).await.map(drop),
        backend.settle_and_claim(&verdicts, &claim, wrong).await.map(drop),
        backend.extend(w.session, &held, LEASE, wrong).await.map(drop),
        backend.hand_back(w.session, None, wrong).await.map(drop),
        backend.annotate(&notes, wrong).await.map(drop),
        backend.sweep(&Sweep::default(), wrong).await.map(drop),
        backend.now(wrong).await.map(drop),
        backend.cancel(job, "x", wrong).await.map(drop),
        backend.run_now(job, wrong).await,
        backend.revive(job, wrong).await,
        backend.delete(job, wrong).await,
        backend.pause(&crate::mail(), wrong).await,
        backend.resume(&crate::mail(), wrong).await,
        backend.get(job, wrong).await.map(drop),
        backend.list(&any, None, 10, wrong).await.map(drop),
        backend.outcomes(std::slice::from_ref(job), secs(0), wrong).await.map(drop),
        backend.queues(wrong).await.map(drop),
    ];
    for (at, error) in errors.into_iter().enumerate() {
        let error = error.expect_err(&format!("verb {at} mixes two sorts of time"));
        assert_eq!(error.kind(), ErrorKind::Config, "verb {at}: {error}");
    }
    assert_eq!(w.everything().await, before);
}

pub async fn server_time_drives_a_whole_life<E: Env>(w: &mut World<E>) {
    w.use_server_time().await;
    let before = w.backend().now(At::Server).await.expect("now");
    let job = w.put(draft()).await;
    let later = w.put(draft().after(secs(3_600))).await;
    let record = w.record(&job).await;
    assert!(record.created_at >= before && record.created_at > Timestamp::from_millis(1_700_000_000_000));
    let run = w.take().await;
    assert!(run.created_at >= before);
    w.apply(&run.lease, complete()).await;
    w.expect(&later, StateKind::Scheduled).await;
    w.nothing_to_claim().await;
}

pub async fn a_deadline_is_resolved_by_the_engine<E: Env>(w: &mut World<E>) {
    let wanted = w.now.saturating_add(secs(60));
    w.put(draft().with(|body| body.extras_mut().deadline = Some(Due::After(secs(60))))).await;
    w.put(draft().with(|body| body.extras_mut().deadline = Some(Due::At(wanted)))).await;
    w.put(draft()).await;
    w.advance(secs(5));
    let deadlines: Vec<_> = w.claim(3).await.iter().map(|job| job.deadline).collect();
    assert_eq!(deadlines, [Some(wanted), Some(wanted), None]);
}
