//! Fresh jobs and the spans that take them: what commits late, what is named in part, what two do at once, and what a
//! snapshot that stays open costs.

use std::time::Duration;

use windlass_conformance::{Env, TransactionalEnv, complete, draft};
use windlass_core::{
    At, Backend, Claimed, Held, Inspect, Kept, Pushed, RecordState, Ruling, Settled, StateKind, Sweep,
    Timestamp, Verdict,
};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe, PgConnection};

use crate::common::{Namespace, fresh, options, with};
use crate::flat::pages_of_a_claim;
use crate::opening::ask;

pub(crate) const NOW: At = At::Instant(Timestamp::VIRTUAL_START);
/// Longer than any verb takes that waits for nobody.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

pub(crate) fn later(by: Duration) -> At {
    At::Instant(Timestamp::VIRTUAL_START.saturating_add(by))
}

pub(crate) async fn push(backend: &PostgresBackend, count: usize) -> Vec<windlass_core::JobRef> {
    let drafts: Vec<_> = (0..count).map(|_| draft()).collect();
    let jobs: Vec<_> = drafts.iter().map(|draft| draft.clone().build()).collect();
    assert!(backend.push(&jobs, NOW).await.expect("push").iter().all(|pushed| *pushed == Pushed::Inserted));
    drafts.iter().map(windlass_conformance::Draft::job).collect()
}

fn taken(claimed: &Claimed) -> Vec<windlass_core::JobRef> {
    claimed.jobs.iter().map(|job| job.lease.job.clone()).collect()
}

/// A push as the engine sends it, on a connection whose transaction stays open: what another process does between drawing its
/// number and its commit.
async fn push_slowly(namespace: &Namespace) -> (PgConnection, windlass_core::JobRef) {
    let mut conn = namespace.begin().await.expect("begin");
    let job = draft().job();
    let sql = format!(
        "select * from \"{}\".push($1, false, 0, array[$2], array['mail'], array['greet'], array['x'::bytea], \
         array[null::int8], array[1], array[1], array[1::int2], array[0::int2], array[5::int2], array[0::int2], \
         array[null::int8], array[null::int8], array[null::text])",
        namespace.backend().schema()
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(Timestamp::VIRTUAL_START.as_millis())
        .bind(job.id.as_uuid())
        .fetch_all(&mut conn)
        .await
        .expect("push");
    (conn, job)
}

pub(crate) async fn count(backend: &PostgresBackend, table: &str) -> i64 {
    let sql = format!("select count(*) from \"{}\".{table}", backend.schema());
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(backend.pool()).await.expect("count")
}

#[tokio::test]
async fn a_lower_number_that_commits_late_is_not_passed() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let (conn, slow) = push_slowly(&namespace).await;
    let quick = push(&backend, 2).await;
    // Nobody waits for it, and nobody goes past it.
    let claim = tokio::time::timeout(PROMPT, backend.claim(&ask(10), NOW)).await.expect("no wait");
    let claimed = claim.expect("claim");
    assert_eq!((taken(&claimed), claimed.more), (vec![], true));
    namespace.commit(conn).await.expect("commit");
    let claimed = backend.claim(&ask(10), NOW).await.expect("claim");
    assert_eq!(taken(&claimed), [vec![slow], quick].concat());
}

#[tokio::test]
async fn a_push_that_is_stuck_for_long_holds_nobody_up_and_is_not_lost() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let (conn, slow) = push_slowly(&namespace).await;
    let quick = push(&backend, 2).await;
    let mut first = Vec::new();
    for _ in 0..100 {
        first = backend.claim(&ask(10), NOW).await.expect("claim").jobs;
        if !first.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(first.iter().map(|job| job.lease.job.clone()).collect::<Vec<_>>(), quick);
    let verdicts: Vec<_> = first.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    backend.settle(&verdicts, NOW).await.expect("settle");
    // The span has served, but while the push is stuck it stays: what may still come falls into it.
    push(&backend, 1).await;
    assert_eq!(backend.claim(&ask(1), NOW).await.expect("claim").jobs.len(), 1);
    let expired = later(Duration::from_secs(31));
    backend.sweep(&Sweep::default(), expired).await.expect("sweep");
    namespace.commit(conn).await.expect("commit");
    let next = later(Duration::from_secs(60));
    backend.sweep(&Sweep::default(), next).await.expect("sweep");
    let claimed = backend.claim(&ask(10), next).await.expect("claim");
    assert!(taken(&claimed).contains(&slow), "{claimed:?}");
}

#[tokio::test]
async fn an_open_transaction_with_the_same_id_keeps_no_other_push_in_the_gate() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let twin = draft();
    let mut conn = namespace.begin().await.expect("begin");
    windlass_core::Transactional::push_in(&backend, &mut conn, &[twin.clone().build()], NOW)
        .await
        .expect("push in");
    let same = tokio::spawn({
        let (backend, twin) = (backend.clone(), twin.clone());
        async move { backend.push(&[twin.build()], NOW).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let others = push(&backend, 3).await;
    let claimed = backend.claim(&ask(10), NOW).await.expect("claim");
    assert_eq!(taken(&claimed), others, "the push of the same id waits outside of the gate");
    namespace.commit(conn).await.expect("commit");
    assert_eq!(same.await.expect("a task").expect("push"), [Pushed::SameId]);
}

#[tokio::test]
async fn who_is_not_named_lapses_alone() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let jobs = push(&backend, 3).await;
    let ask = ask(3);
    let claimed = backend.claim(&ask, NOW).await.expect("claim").jobs;
    let held = [
        Held { lease: claimed[0].lease.clone(), started: true },
        Held { lease: claimed[2].lease.clone(), started: true },
    ];
    let beat = later(Duration::from_secs(20));
    let kept = backend.extend(ask.session, &held, ask.lease, beat).await.expect("extend");
    assert_eq!(kept, [Kept::Kept, Kept::Kept]);
    let expired = later(Duration::from_secs(31));
    let swept = backend.sweep(&Sweep::default(), expired).await.expect("sweep");
    assert_eq!(swept.reclaimed, 1);
    for (at, state) in [StateKind::Running, StateKind::Ready, StateKind::Running].into_iter().enumerate() {
        assert_eq!(backend.get(&jobs[at], expired).await.expect("get").expect("it").state.kind(), state);
    }
    let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
    assert_eq!(
        backend.settle(&verdicts, expired).await.expect("settle"),
        [Settled::Applied(StateKind::Completed), Settled::LeaseLost, Settled::Applied(StateKind::Completed)]
    );
}

#[tokio::test]
async fn those_taken_ahead_start_in_any_order() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let jobs = push(&backend, 4).await;
    let mut ask = ask(1);
    ask.ahead = 3;
    let claimed = backend.claim(&ask, NOW).await.expect("claim").jobs;
    assert_eq!(claimed.iter().map(|job| job.ahead).collect::<Vec<_>>(), [false, true, true, true]);
    let started = async |at: usize| match backend.get(&jobs[at], NOW).await.expect("get").expect("it").state {
        RecordState::Running { started, .. } => started,
        other => panic!("{other:?}"),
    };
    for (begun, wanted) in [(1, [true, true, false, false]), (3, [true, true, false, true])] {
        let held: Vec<_> = claimed
            .iter()
            .enumerate()
            .map(|(at, job)| Held { lease: job.lease.clone(), started: at == begun })
            .collect();
        backend.extend(ask.session, &held, ask.lease, NOW).await.expect("extend");
        for (at, wanted) in wanted.into_iter().enumerate() {
            assert_eq!(started(at).await, wanted, "job {at} when {begun} begins");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sweeps_and_verdicts_at_once_on_one_span_each_job_meets_one() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    for round in 0..15 {
        let jobs = push(&backend, 40).await;
        let begin = Duration::from_secs(100 * round);
        let expired = later(begin + Duration::from_secs(31));
        let claimed = backend.claim(&ask(40), later(begin)).await.expect("claim").jobs;
        assert_eq!(claimed.len(), 40);
        let verdicts: Vec<_> = claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
        let settle = |part: Vec<Verdict>| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.settle(&part, expired).await.expect("settle") })
        };
        let sweep = || {
            let backend = backend.clone();
            tokio::spawn(
                async move { backend.sweep(&Sweep::default(), expired).await.expect("sweep").reclaimed },
            )
        };
        // Two settle the same twenty; the others are left to the sweeps.
        let tasks = [settle(verdicts[..20].to_vec()), settle(verdicts[..20].to_vec())];
        let sweeps = [sweep(), sweep()];
        let mut applied = [0; 20];
        for task in tasks {
            for (at, settled) in task.await.expect("a task").into_iter().enumerate() {
                applied[at] += usize::from(settled == Settled::Applied(StateKind::Completed));
            }
        }
        let mut reclaimed = 0;
        for task in sweeps {
            reclaimed += task.await.expect("a task");
        }
        reclaimed += backend.sweep(&Sweep::default(), expired).await.expect("sweep").reclaimed;
        let mut completed = 0;
        for (at, job) in jobs.iter().enumerate() {
            let state = backend.get(job, expired).await.expect("get").expect("it").state.kind();
            let done = at < 20 && applied[at] == 1;
            assert_eq!(state, if done { StateKind::Completed } else { StateKind::Ready }, "job {at}");
            assert!(at >= 20 || applied[at] <= 1, "job {at} was completed twice");
            completed += u64::from(done);
        }
        assert_eq!(completed + reclaimed, 40);
        assert_eq!(count(&backend, "live").await, i64::try_from(reclaimed).expect("few"));
        for job in &jobs {
            let _ = windlass_core::Manage::cancel(&backend, job, "over", expired).await.expect("cancel");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancellation_and_a_claim_at_once_take_each_job_once() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    for _ in 0..30 {
        let jobs = push(&backend, 4).await;
        let other = backend.clone();
        let victim = jobs[1].clone();
        let cancel =
            tokio::spawn(async move { windlass_core::Manage::cancel(&other, &victim, "no", NOW).await });
        let claimed = backend.claim(&ask(4), NOW).await.expect("claim").jobs;
        let cancelled = cancel.await.expect("a task").expect("cancel");
        let ran = claimed.iter().any(|job| job.lease.job == jobs[1]);
        assert_eq!(ran, cancelled == windlass_core::Cancelling::Requested, "{cancelled:?}");
        let verdicts: Vec<_> =
            claimed.into_iter().map(|job| Verdict::new(job.lease, Ruling::Release)).collect();
        backend.settle(&verdicts, NOW).await.expect("settle");
        for job in &jobs {
            let _ = windlass_core::Manage::cancel(&backend, job, "over", NOW).await.expect("cancel");
        }
    }
}

#[tokio::test]
async fn a_snapshot_that_stays_open_makes_no_claim_larger() {
    let namespace = with(options().virtual_time(false).max_connections(1)).await;
    let backend = namespace.backend();
    let mut conn = namespace.begin().await.expect("begin");
    sqlx::raw_sql("set transaction isolation level repeatable read; select count(*) from pg_class")
        .execute(&mut conn)
        .await
        .expect("a snapshot");
    let work = async |rounds: usize| {
        let mut verdicts: Vec<Verdict> = Vec::new();
        for _ in 0..rounds {
            let jobs: Vec<_> = (0..100).map(|_| draft().build()).collect();
            backend.push(&jobs, At::Server).await.expect("push");
            // Small claims as well as large ones: each leaves a span.
            for size in [1, 9, 90] {
                let (settled, claimed) = backend
                    .settle_and_claim(&verdicts, &ask(size), At::Server)
                    .await
                    .expect("settle and claim");
                assert!(settled.iter().all(|one| *one == Settled::Applied(StateKind::Completed)));
                assert_eq!(claimed.jobs.len(), size);
                verdicts = claimed.jobs.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
            }
        }
        backend.settle(&verdicts, At::Server).await.expect("settle");
        backend.sweep(&Sweep::default(), At::Server).await.expect("sweep");
    };
    work(5).await;
    let jobs: Vec<_> = (0..50).map(|_| draft().build()).collect();
    backend.push(&jobs, At::Server).await.expect("push");
    let before = pages_of_a_claim(backend).await;
    work(100).await;
    let after = pages_of_a_claim(backend).await;
    namespace.rollback(conn).await.expect("rollback");
    assert!(
        after <= before + 30,
        "{before} pages at first, {after} after ten thousand jobs under a snapshot"
    );
}
