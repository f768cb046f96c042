//! The fault plan: a verb that failed changed nothing, and one whose reply was lost happened.

use std::time::Duration;

use windlass_conformance::{complete, draft, mail};
use windlass_core::{
    At, Backend, Claim, Effect, ErrorKind, Held, Inspect, Kind, Lease, Manage, Nonce, Note, RecordState,
    Result, SessionId, StateKind, Sweep, Timestamp, Verdict, Wake,
};
use windlass_memory::{Corrupt, MemoryBackend, Verb};

const NOW: At = At::Instant(Timestamp::VIRTUAL_START);
const LEASE: Duration = Duration::from_secs(30);

fn ask() -> Claim {
    Claim {
        session: SessionId::from_u128(1),
        nonce: Nonce::random(),
        queues: vec![mail()],
        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
        limit: 10,
        ahead: 0,
        suspects: true,
        lease: LEASE,
    }
}

fn failed<T: std::fmt::Debug>(result: Result<T>, verb: &str) {
    let error = result.expect_err(verb);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert_eq!((error.backend(), error.operation()), ("memory", verb));
    assert!(error.is_retryable());
}

fn lost<T: std::fmt::Debug>(result: Result<T>, verb: &str) {
    let error = result.expect_err(verb);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Connection, Effect::Unknown));
    assert_eq!((error.backend(), error.operation()), ("memory", verb));
}

async fn running(backend: &MemoryBackend) -> Lease {
    backend.push(&[draft().build()], NOW).await.expect("push");
    backend.claim(&ask(), NOW).await.expect("claim").jobs.remove(0).lease
}

async fn state(backend: &MemoryBackend, lease: &Lease) -> StateKind {
    backend.get(&lease.job, NOW).await.expect("get").expect("the job").state.kind()
}

#[tokio::test]
async fn a_failed_push_stores_nothing_and_a_lost_one_does() {
    let backend = MemoryBackend::new();
    let job = draft().build();
    backend.faults().fail_next(Verb::Push, 2);
    for _ in 0..2 {
        failed(backend.push(std::slice::from_ref(&job), NOW).await, "push");
    }
    assert!(backend.peek(&job.body.job()).is_none());
    backend.faults().lose_next_reply(Verb::Push, 1);
    lost(backend.push(std::slice::from_ref(&job), NOW).await, "push");
    assert!(backend.peek(&job.body.job()).is_some());
    backend.push(&[job], NOW).await.unwrap();
}

#[tokio::test]
async fn a_failed_claim_takes_nothing_and_a_lost_one_can_be_handed_back() {
    let backend = MemoryBackend::new();
    let job = draft().build();
    let address = job.body.job();
    backend.push(&[job], NOW).await.unwrap();
    backend.faults().fail_next(Verb::Claim, 1);
    failed(backend.claim(&ask(), NOW).await, "claim");
    assert_eq!(backend.peek(&address).unwrap().state.kind(), StateKind::Ready);
    backend.faults().lose_next_reply(Verb::Claim, 1);
    let ask = ask();
    lost(backend.claim(&ask, NOW).await, "claim");
    assert_eq!(backend.peek(&address).unwrap().state.kind(), StateKind::Running);
    assert_eq!(backend.hand_back(ask.session, Some(ask.nonce), NOW).await.unwrap(), 1);
}

#[tokio::test]
async fn a_failed_settle_leaves_the_run_and_a_lost_one_ends_it() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let verdicts = [Verdict::new(lease.clone(), complete())];
    backend.faults().fail_next(Verb::Settle, 1);
    failed(backend.settle(&verdicts, NOW).await, "settle");
    assert_eq!(state(&backend, &lease).await, StateKind::Running);
    backend.faults().lose_next_reply(Verb::Settle, 1);
    lost(backend.settle(&verdicts, NOW).await, "settle");
    assert_eq!(state(&backend, &lease).await, StateKind::Completed);
}

#[tokio::test]
async fn a_fused_call_can_fail_in_either_half() {
    let backend = MemoryBackend::new();
    let first = running(&backend).await;
    let verdicts = [Verdict::new(first.clone(), complete())];
    let next = draft().build();
    let address = next.body.job();
    backend.push(&[next], NOW).await.unwrap();
    let next_state = || backend.peek(&address).unwrap().state.kind();

    backend.faults().fail_next(Verb::Settle, 1);
    failed(backend.settle_and_claim(&verdicts, &ask(), NOW).await, "settle");
    assert_eq!((state(&backend, &first).await, next_state()), (StateKind::Running, StateKind::Ready));

    backend.faults().fail_next(Verb::Claim, 1);
    let error = backend.settle_and_claim(&verdicts, &ask(), NOW).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    assert_eq!(
        (state(&backend, &first).await, next_state()),
        (StateKind::Completed, StateKind::Ready),
        "the verdicts stand"
    );

    backend.faults().lose_next_reply(Verb::Claim, 1);
    lost(backend.settle_and_claim(&[], &ask(), NOW).await, "settle");
    assert_eq!(next_state(), StateKind::Running);

    let second = running(&backend).await;
    backend.faults().lose_next_reply(Verb::Settle, 1);
    let verdicts = [Verdict::new(second.clone(), complete())];
    lost(backend.settle_and_claim(&verdicts, &ask(), NOW).await, "settle");
    assert_eq!(state(&backend, &second).await, StateKind::Completed);
}

#[tokio::test]
async fn a_failed_extend_lets_the_lease_lapse_and_a_lost_one_keeps_it() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let held = [Held { lease: lease.clone(), started: true }];
    let session = SessionId::from_u128(1);
    let until = || match backend.peek(&lease.job).unwrap().state {
        RecordState::Running { lease_until, .. } => lease_until,
        other => panic!("should run: {other:?}"),
    };
    let before = until();
    backend.faults().fail_next(Verb::Extend, 1);
    failed(backend.extend(session, &held, LEASE * 2, NOW).await, "extend");
    assert_eq!(until(), before);
    backend.faults().lose_next_reply(Verb::Extend, 1);
    lost(backend.extend(session, &held, LEASE * 2, NOW).await, "extend");
    assert_eq!(until(), before.saturating_add(LEASE));
}

#[tokio::test]
async fn a_failed_note_is_not_written_and_a_lost_one_is() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let mut note = Note::new(lease.clone());
    note.push_line("hello");
    let lines = || backend.peek(&lease.job).unwrap().log.len();
    backend.faults().fail_next(Verb::Annotate, 1);
    failed(backend.annotate(std::slice::from_ref(&note), NOW).await, "annotate");
    assert_eq!(lines(), 0);
    backend.faults().lose_next_reply(Verb::Annotate, 1);
    lost(backend.annotate(&[note], NOW).await, "annotate");
    assert_eq!(lines(), 1);
}

#[tokio::test]
async fn a_failed_sweep_reclaims_nothing_and_a_lost_one_does() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    let later = At::Instant(Timestamp::VIRTUAL_START.saturating_add(LEASE));
    backend.faults().fail_next(Verb::Sweep, 1);
    failed(backend.sweep(&Sweep::default(), later).await, "sweep");
    assert_eq!(backend.peek(&lease.job).unwrap().state.kind(), StateKind::Running);
    backend.faults().lose_next_reply(Verb::Sweep, 1);
    lost(backend.sweep(&Sweep::default(), later).await, "sweep");
    assert_eq!(backend.peek(&lease.job).unwrap().state.kind(), StateKind::Ready);
}

#[tokio::test]
async fn a_wait_can_fail_and_recovers() {
    let backend = MemoryBackend::new();
    backend.faults().fail_next(Verb::Wait, 1);
    backend.faults().lose_next_reply(Verb::Wait, 1);
    let session = SessionId::from_u128(1);
    failed(backend.wait(session, &[mail()], None, LEASE).await, "wait");
    lost(backend.wait(session, &[mail()], None, LEASE).await, "wait");
    assert_eq!(backend.wait(session, &[mail()], None, Duration::ZERO).await.unwrap(), Wake::Nothing);
}

#[tokio::test]
async fn what_inspects_and_manages_can_fail_too() {
    let backend = MemoryBackend::new();
    let lease = running(&backend).await;
    backend.faults().fail_next(Verb::Other, 3);
    failed(backend.get(&lease.job, NOW).await, "call");
    failed(backend.queues(NOW).await, "call");
    failed(backend.cancel(&lease.job, "no longer", NOW).await, "call");
    backend.faults().lose_next_reply(Verb::Other, 1);
    lost(backend.pause(&mail(), NOW).await, "call");
    assert!(backend.queues(NOW).await.unwrap()[0].paused);
}

#[tokio::test]
async fn bad_input_is_refused_before_the_plan_is_asked() {
    let backend = MemoryBackend::new();
    backend.faults().fail_next(Verb::Push, 1);
    let bad = draft().with(|body| body.max_attempts = 0).build();
    assert_eq!(backend.push(&[bad], NOW).await.unwrap_err().kind(), ErrorKind::Invalid);
    failed(backend.push(&[draft().build()], NOW).await, "push");
}

fn later(seconds: u64) -> At {
    At::Instant(Timestamp::VIRTUAL_START.saturating_add(Duration::from_secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn a_delayed_call_waits_and_then_takes_its_fate() {
    let backend = MemoryBackend::new();
    let start = tokio::time::Instant::now();
    backend.faults().delay_next(Verb::Push, 2, Duration::from_secs(3));
    backend.faults().fail_next(Verb::Push, 1);
    failed(backend.push(&[draft().build()], NOW).await, "push");
    assert_eq!(start.elapsed(), Duration::from_secs(6));
    backend.push(&[draft().build()], NOW).await.unwrap();
    backend.faults().delay_next(Verb::Wait, 1, Duration::from_secs(1));
    backend.faults().delay_next(Verb::Claim, 1, Duration::from_secs(1));
    backend.wait(SessionId::from_u128(1), &[mail()], None, LEASE).await.unwrap();
    assert_eq!(backend.settle_and_claim(&[], &ask(), NOW).await.unwrap().1.jobs.len(), 1);
    assert_eq!(start.elapsed(), Duration::from_secs(8));
}

#[tokio::test]
async fn a_disconnected_engine_does_nothing_until_the_time_is_over() {
    let backend = MemoryBackend::new();
    let job = draft().build();
    backend.faults().disconnect_for(Duration::from_secs(10));
    for at in [later(5), later(14)] {
        let error = backend.push(std::slice::from_ref(&job), at).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Connection, Effect::NotApplied));
        assert!(error.to_string().contains("cannot be reached until 2030-01-01T00:00:15Z"), "{error}");
    }
    assert!(backend.wait(SessionId::from_u128(1), &[mail()], None, LEASE).await.is_err());
    assert!(backend.peek(&job.body.job()).is_none());
    backend.push(&[job], later(15)).await.unwrap();
}

#[tokio::test]
async fn a_corrupt_payload_arrives_damaged_and_is_stored_whole() {
    for (how, arrives) in
        [(Corrupt::Truncate, &b"{\"a"[..]), (Corrupt::Flip, b"\xfb\"a\":1}"), (Corrupt::Empty, b"")]
    {
        let backend = MemoryBackend::new();
        let jobs = [(); 2].map(|()| draft().with(|body| body.payload = b"{\"a\":1}"[..].into()).build());
        backend.push(&jobs, NOW).await.unwrap();
        backend.faults().corrupt_next(1, how);
        let claimed = backend.claim(&ask(), NOW).await.unwrap().jobs;
        assert_eq!(
            (&*claimed[0].body.payload, &*claimed[1].body.payload),
            (arrives, &b"{\"a\":1}"[..]),
            "{how:?}"
        );
        assert_eq!(&*backend.peek(&jobs[0].body.job()).unwrap().body.payload, b"{\"a\":1}");
    }
}

#[tokio::test]
async fn a_duplicated_delivery_comes_once_more_under_the_same_lease() {
    let backend = MemoryBackend::new();
    backend.push(&[draft().build()], NOW).await.unwrap();
    backend.faults().duplicate_next_delivery(1);
    let first = backend.claim(&ask(), NOW).await.unwrap();
    assert!(first.more);
    let verdicts = [Verdict::new(first.jobs[0].lease.clone(), complete())];
    backend.settle(&verdicts, NOW).await.unwrap();
    let nobodys = Claim { queues: Vec::new(), ..ask() };
    assert!(backend.claim(&nobodys, NOW).await.unwrap().jobs.is_empty(), "only who can run it gets it");
    assert_eq!(backend.claim(&ask(), NOW).await.unwrap().jobs, first.jobs);
    assert!(backend.claim(&ask(), NOW).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn faults_by_rate_repeat_with_their_seed_and_name_it() {
    let fates = async |seed| {
        let backend = MemoryBackend::new();
        backend.faults().seed(seed);
        backend.faults().every(Verb::Push, 0.2);
        backend.faults().lose_every_reply(Verb::Push, 0.1);
        let mut fates = Vec::new();
        for _ in 0..1_000 {
            fates.push(backend.push(&[draft().build()], NOW).await.err());
        }
        backend.faults().clear();
        backend.push(&[draft().build()], NOW).await.unwrap();
        fates
    };
    let kinds = |fates: &[Option<windlass_core::Error>]| {
        fates.iter().map(|fate| fate.as_ref().map(windlass_core::Error::effect)).collect::<Vec<_>>()
    };
    let seven = fates(7).await;
    let count = |effect| kinds(&seven).iter().filter(|found| **found == Some(effect)).count();
    let (failed, lost) = (count(Effect::NotApplied), count(Effect::Unknown));
    assert!((150..250).contains(&failed) && (60..140).contains(&lost), "{failed} failed, {lost} lost");
    assert_eq!(kinds(&seven), kinds(&fates(7).await));
    assert_ne!(kinds(&seven), kinds(&fates(8).await));
    let error = seven.into_iter().flatten().next().unwrap();
    assert!(error.to_string().contains("seed 7"), "{error}");
}
