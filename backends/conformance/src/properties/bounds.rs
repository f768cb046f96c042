//! Limits of the contract: what breaks one is refused as a whole, and nothing is changed.

use std::time::Duration;

use windlass_core::{
    Backend, Effect, ErrorKind, Held, NewJob, OnConflict, Result, Ruling, Sweep, Until, Verdict,
};

use crate::{Draft, Env, LEASE, World, complete, draft};

fn invalid<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{what}: {error}");
    assert_eq!(error.effect(), Effect::NotApplied, "{what}: {error}");
    assert!(error.to_string().len() < 1_000, "{what}: an error that is a page long");
}

fn bad_jobs() -> Vec<(&'static str, Draft)> {
    vec![
        ("a payload too big", draft().with(|body| body.payload = vec![0; 1024 * 1024 + 1].into())),
        ("no attempts", draft().with(|body| body.max_attempts = 0)),
        ("too many attempts", draft().with(|body| body.max_attempts = 10_001)),
        ("a reader newer than the payload", draft().with(|body| body.min_reader = 2)),
        ("no time", draft().with(|body| body.timeout = Duration::ZERO.into())),
        ("all the time in the world", draft().with(|body| body.timeout = Duration::MAX.into())),
        ("a delay too long", draft().after(Duration::MAX)),
        ("an empty tag", draft().tag("")),
        ("a tag with a NUL", draft().tag("a\0b")),
        ("too many tags", draft().with(|body| body.extras_mut().tags = vec!["t".to_owned(); 33])),
        ("an empty key", draft().unique("", OnConflict::Skip, Until::End)),
        ("a key too long", draft().unique(&"k".repeat(257), OnConflict::Skip, Until::End)),
        ("an empty window", draft().unique("k", OnConflict::Skip, Until::Window(Duration::ZERO))),
        ("a limit of none", draft().limit("k", 0)),
        ("a limit key too long", draft().limit(&"k".repeat(129), 1)),
        ("a crowd of parents", draft().parents(&vec![draft().job(); 1_001])),
    ]
}

pub async fn one_bad_job_refuses_the_whole_push<E: Env>(w: &mut World<E>) {
    for (what, bad) in bad_jobs() {
        let batch = [draft().build(), bad.build(), draft().build()];
        invalid(w.backend().push(&batch, w.at()).await, what);
        assert_eq!(w.everything().await, [], "{what}");
    }
}

pub async fn a_batch_beyond_a_thousand_is_refused<E: Env>(w: &mut World<E>) {
    let batch: Vec<NewJob> = (0..1_001).map(|_| draft().build()).collect();
    invalid(w.backend().push(&batch, w.at()).await, "a push of 1,001");
    assert_eq!(w.everything().await, []);
    w.put(draft()).await;
    let run = w.take().await;
    let verdicts = vec![Verdict::new(run.lease.clone(), complete()); 1_001];
    invalid(w.backend().settle(&verdicts, w.at()).await, "a settle of 1,001");
    invalid(
        w.backend().settle_and_claim(&verdicts, &w.ask(1), w.at()).await,
        "a settle of 1,001 with a claim",
    );
    let held = vec![Held { lease: run.lease.clone(), started: true }; 1_001];
    invalid(w.backend().extend(w.session, &held, LEASE, w.at()).await, "an extend of 1,001");
    let crowd = Verdict { lease: run.lease.clone(), ruling: complete(), then: batch };
    invalid(w.backend().settle(&[crowd], w.at()).await, "1,001 jobs with one verdict");
    w.apply(&run.lease, complete()).await;
    assert_eq!(w.everything().await.len(), 1);
}

pub async fn a_claim_out_of_bounds_takes_nothing<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let mut claims = Vec::new();
    for (limit, ahead) in [(1_001, 0), (0, 1_001), (500, 501), (usize::MAX, usize::MAX)] {
        let mut ask = w.ask(limit);
        ask.ahead = ahead;
        claims.push(ask);
    }
    for lease in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(86_401), Duration::MAX] {
        let mut ask = w.ask(1);
        ask.lease = lease;
        claims.push(ask);
    }
    for ask in claims {
        let what = format!("{} and {} ahead for {:?}", ask.limit, ask.ahead, ask.lease);
        invalid(w.backend().claim(&ask, w.at()).await, &what);
        invalid(w.backend().settle_and_claim(&[], &ask, w.at()).await, &what);
    }
    assert_eq!(w.record(&job).await.epoch, 0);
}

pub async fn a_bad_claim_leaves_its_verdicts_unsaid<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let before = w.record(&job).await;
    let verdict = Verdict::new(run.lease.clone(), complete());
    let fused = w.backend().settle_and_claim(&[verdict], &w.ask(1_001), w.at()).await;
    invalid(fused, "a claim of 1,001");
    assert_eq!(w.record(&job).await, before);
}

pub async fn one_bad_verdict_refuses_the_whole_settle<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    w.put(draft()).await;
    let runs = w.claim(2).await;
    let before = w.everything().await;
    let bad = [
        Ruling::Complete { output: Some(vec![0; 1024 * 1024 + 1].into()) },
        crate::retry(Duration::MAX),
        crate::snooze(Duration::MAX),
    ];
    for ruling in bad {
        let verdicts =
            [Verdict::new(runs[0].lease.clone(), complete()), Verdict::new(runs[1].lease.clone(), ruling)];
        invalid(w.backend().settle(&verdicts, w.at()).await, "a bad verdict");
        assert_eq!(w.everything().await, before);
    }
}

pub async fn a_lease_out_of_bounds_is_not_extended<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let before = w.record(&job).await;
    let held = [Held { lease: run.lease.clone(), started: true }];
    for lease in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(86_401), Duration::MAX] {
        invalid(w.backend().extend(w.session, &held, lease, w.at()).await, "a lease out of bounds");
    }
    assert_eq!(w.record(&job).await, before);
}

pub async fn a_sweep_has_a_size<E: Env>(w: &mut World<E>) {
    w.put(draft().after(Duration::from_secs(1))).await;
    w.advance(Duration::from_secs(1));
    for limit in [0, 1_001, usize::MAX] {
        invalid(w.backend().sweep(&Sweep { limit }, w.at()).await, "a sweep out of bounds");
    }
    assert_eq!(w.sweep().await.promoted, 1);
}

pub async fn the_largest_output_comes_back_whole<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let output: Box<[u8]> = vec![0xfe; windlass_core::limits::PAYLOAD_MAX_BYTES].into();
    w.apply(&run.lease, Ruling::Complete { output: Some(output.clone()) }).await;
    let state = w.record(&job).await.state;
    let kept =
        matches!(&state, windlass_core::RecordState::Completed { output: Some(kept), .. } if *kept == output);
    assert!(kept, "the output changed under way");
}

pub async fn what_is_at_its_limit_is_taken<E: Env>(w: &mut World<E>) {
    let key = "k".repeat(256);
    let job = draft()
        .unique(&key, OnConflict::Skip, Until::Window(windlass_core::limits::DELAY_MAX))
        .limit(&"l".repeat(128), u32::MAX)
        .with(|body| {
            let extras = body.extras_mut();
            extras.tags = (0..32).map(|at| format!("{at:0>128}")).collect();
            extras.metadata.insert("m".to_owned(), "v".repeat(8 * 1024 - 1));
            body.queue = windlass_core::QueueName::new("q".repeat(128)).expect("a legal name");
            body.kind = windlass_core::Kind::new("k".repeat(128)).expect("a legal name");
        })
        .build();
    w.put(job.clone()).await;
    assert_eq!(*w.record(&job.body.job()).await.body, *job.body);
}
