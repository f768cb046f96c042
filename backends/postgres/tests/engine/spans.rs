//! Who holds a span, shared or alone: verdicts on fresh jobs beside whatever else happens to those jobs, one of the two being
//! stopped half way, and what a caller's transaction may not hold up.

use std::future::Future;
use std::time::Duration;

use windlass_conformance::{Env, TransactionalEnv, bury, complete, draft, retry};
use windlass_core::{
    Backend, Cancelling, ClaimedJob, Effect, Inspect, JobRef, Lease, Manage, Settled, StateKind, Sweep,
    Timestamp, Transactional, Verdict,
};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe, PgConnection};

use crate::common::{Namespace, fresh};
use crate::opening::ask;
use crate::standing::run;
use crate::stretches::{NOW, PROMPT, count, later, push};

const COMPLETED: Settled = Settled::Applied(StateKind::Completed);
/// Long enough for a verb that waits for nobody to be over.
const A_WHILE: Duration = Duration::from_millis(300);

/// A few fresh jobs, claimed: one span.
async fn claimed(backend: &PostgresBackend, n: usize) -> Vec<ClaimedJob> {
    push(backend, n).await;
    let jobs = backend.claim(&ask(n), NOW).await.expect("claim").jobs;
    assert_eq!(jobs.len(), n);
    jobs
}

/// A call of one of the engine's functions in a transaction that stays open: what another process is in the middle of.
async fn half_way(namespace: &Namespace, call: &str, lease: &Lease) -> PgConnection {
    let mut conn = namespace.begin().await.expect("begin");
    let part = |shift: u32, mask: u64| (lease.handle >> shift) & mask;
    let sql = call
        .replace("@schema@", &format!("\"{}\"", namespace.backend().schema()))
        .replace("@now@", &Timestamp::VIRTUAL_START.as_millis().to_string())
        .replace("@id@", &format!("'{}'::uuid", lease.job.id.as_uuid()))
        .replace("@nonce@", &format!("'{}'::uuid", uuid::Uuid::from_u128(lease.nonce.as_u128())))
        .replace("@line@", &part(60, 7).to_string())
        .replace("@rank@", &part(56, 15).to_string())
        .replace("@seq@", &part(0, (1 << 56) - 1).to_string());
    sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut conn).await.expect("a call");
    conn
}

const SETTLE: &str = "select @schema@.settle(@now@, 0, '{mail}', array[@id@], '{1}', array[@nonce@], '{@line@}', '{@rank@}', \
     '{@seq@}', '{1}', '{0}', '{t}', '{0}', '{null}', '{f}', '{null}', '{null}', '{}', '{}', false)";
const ANNOTATE: &str = "select @schema@.annotate(@now@, 'mail', @id@, 1, @nonce@, 5::int2, 'half', '{}')";
const DELETE: &str = "select @schema@.delete(@now@, 'mail', @id@, 0)";
const REVIVE: &str = "select * from @schema@.revive(@now@, 'mail', @id@)";
const HAND_BACK: &str = "select @schema@.hand_back(@now@, s.session, s.nonce, 0, 1000) from @schema@.span s where s.nonce = @nonce@";

const PUSH_CHILD: &str = "select * from @schema@.push(@now@, false, 0, array['@child@'::uuid], '{mail}', '{greet}', array['x'::bytea], \
     '{null}', '{1}', '{1}', '{1}', '{0}', '{5}', '{16}', '{null}', '{null}', \
     array[jsonb_build_object('parents', jsonb_build_array(jsonb_build_array('mail', @id@)))::text])";

async fn settle(backend: &PostgresBackend, lease: &Lease) -> Settled {
    let verdict = Verdict::new(lease.clone(), complete());
    backend.settle(&[verdict], NOW).await.expect("settle")[0]
}

async fn promptly<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PROMPT, what).await.expect("it waits for nobody")
}

async fn state(backend: &PostgresBackend, job: &JobRef) -> Option<StateKind> {
    backend.get(job, NOW).await.expect("get").map(|record| record.state.kind())
}

/// What a verdict comes to that arrives while `call` is half way, and has to wait for its end.
async fn settled_after(namespace: &Namespace, call: &str, lease: &Lease) -> Settled {
    let conn = half_way(namespace, call, lease).await;
    let (backend, late) = (namespace.backend().clone(), lease.clone());
    let settled = tokio::spawn(async move { settle(&backend, &late).await });
    tokio::time::sleep(A_WHILE).await;
    assert!(!settled.is_finished(), "a verdict passed what was half way: {call}");
    namespace.commit(conn).await.expect("commit");
    promptly(settled).await.expect("a task")
}

#[tokio::test]
async fn a_verdict_waits_for_a_job_that_is_about_to_have_a_row() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 2).await;
    assert_eq!(settled_after(&namespace, ANNOTATE, &jobs[0].lease).await, COMPLETED);
    assert_eq!((count(backend, "live").await, count(backend, "done").await), (0, 1));
    // Handed back while the verdict waits: the lease is gone.
    let settled = settled_after(&namespace, HAND_BACK, &jobs[1].lease).await;
    assert_eq!(settled, Settled::LeaseLost);
    assert_eq!(state(backend, &jobs[1].lease.job).await, Some(StateKind::Ready));
    assert_eq!((count(backend, "live").await, count(backend, "done").await), (1, 1));
}

#[tokio::test]
async fn a_repeat_does_not_bring_back_a_job_that_is_about_to_be_forgotten() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 2).await;
    assert_eq!(settle(backend, &jobs[0].lease).await, COMPLETED);
    assert_eq!(settled_after(&namespace, DELETE, &jobs[0].lease).await, Settled::LeaseLost);
    assert_eq!(state(backend, &jobs[0].lease.job).await, None);
    assert_eq!(count(backend, "done").await, 0);
    // And so when it was forgotten before.
    assert_eq!(settle(backend, &jobs[0].lease).await, Settled::LeaseLost);
    assert_eq!(settle(backend, &jobs[1].lease).await, COMPLETED);
}

#[tokio::test]
async fn a_repeat_does_not_end_a_job_that_is_about_to_be_revived() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 2).await;
    let buried = Verdict::new(jobs[0].lease.clone(), bury());
    backend.settle(&[buried], NOW).await.expect("settle");
    assert_eq!(settled_after(&namespace, REVIVE, &jobs[0].lease).await, Settled::AlreadyApplied);
    assert_eq!(state(backend, &jobs[0].lease.job).await, Some(StateKind::Ready));
    assert_eq!(count(backend, "done").await, 0);
}

#[tokio::test]
async fn a_lease_that_is_made_to_name_the_next_job_completes_nothing() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = push(backend, 2).await;
    let claimed = backend.claim(&ask(1), NOW).await.expect("claim").jobs;
    let lease = &claimed[0].lease;
    assert_eq!(lease.job, jobs[0]);
    // All as it would be, had the claim come so far.
    let next = Lease { job: jobs[1].clone(), handle: lease.handle + 1, ..lease.clone() };
    let verdicts = [lease, &next].map(|lease| Verdict::new(lease.clone(), complete()));
    let settled = backend.settle(&verdicts, NOW).await.expect("settle");
    assert_eq!(settled, [COMPLETED, Settled::LeaseLost]);
    assert_eq!(state(backend, &jobs[1]).await, Some(StateKind::Ready));
    let rest = backend.claim(&ask(1), NOW).await.expect("claim").jobs;
    assert_eq!(rest[0].lease.job, jobs[1], "it is there to be run");
}

#[tokio::test]
async fn a_verdict_waits_for_a_child_that_is_about_to_be_bound() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 2).await;
    let child = draft().job();
    let call = PUSH_CHILD.replace("@child@", &child.id.as_uuid().to_string());
    assert_eq!(settled_after(&namespace, &call, &jobs[0].lease).await, COMPLETED);
    assert_eq!(state(backend, &child).await, Some(StateKind::Ready));
}

#[tokio::test]
async fn whoever_comes_during_a_verdict_sees_what_it_did() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let jobs = claimed(&backend, 4).await;
    let lease = &jobs[0].lease;
    let conn = half_way(&namespace, SETTLE, lease).await;
    // Other verdicts on the same span do not wait, and sweeps do not either.
    assert_eq!(promptly(settle(&backend, &jobs[1].lease)).await, COMPLETED);
    let expired = later(Duration::from_secs(31));
    assert_eq!(promptly(backend.sweep(&Sweep::default(), expired)).await.expect("sweep").reclaimed, 0);
    // The same verdict once more, a cancellation, and a retry of another job, which is to have a row.
    let cancel = tokio::spawn({
        let (backend, job) = (backend.clone(), lease.job.clone());
        async move { backend.cancel(&job, "too late", NOW).await.expect("cancel") }
    });
    let repeat = tokio::spawn({
        let (backend, lease) = (backend.clone(), lease.clone());
        async move { settle(&backend, &lease).await }
    });
    let again = tokio::spawn({
        let (backend, lease) = (backend.clone(), jobs[2].lease.clone());
        let verdict = Verdict::new(lease, retry(Duration::from_secs(5)));
        async move { backend.settle(&[verdict], NOW).await.expect("settle") }
    });
    tokio::time::sleep(A_WHILE).await;
    assert!(!cancel.is_finished() && !repeat.is_finished() && !again.is_finished());
    namespace.commit(conn).await.expect("commit");
    assert_eq!(promptly(cancel).await.expect("a task"), Cancelling::AlreadyEnded(StateKind::Completed));
    assert_eq!(promptly(repeat).await.expect("a task"), Settled::AlreadyApplied);
    assert_eq!(promptly(again).await.expect("a task"), [Settled::Applied(StateKind::Scheduled)]);
    assert_eq!((count(&backend, "live").await, count(&backend, "done").await), (1, 2));
    // The last one lapses alone.
    assert_eq!(backend.sweep(&Sweep::default(), expired).await.expect("sweep").reclaimed, 1);
}

#[tokio::test]
async fn a_verdict_that_is_undone_leaves_the_job_to_its_repeat() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let jobs = claimed(&backend, 2).await;
    let conn = half_way(&namespace, SETTLE, &jobs[0].lease).await;
    let repeat = tokio::spawn({
        let (backend, lease) = (backend.clone(), jobs[0].lease.clone());
        async move { settle(&backend, &lease).await }
    });
    tokio::time::sleep(A_WHILE).await;
    assert!(!repeat.is_finished());
    namespace.rollback(conn).await.expect("rollback");
    assert_eq!(promptly(repeat).await.expect("a task"), COMPLETED);
}

#[tokio::test]
async fn a_completion_in_an_open_transaction_holds_up_no_other_of_its_span() {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    let jobs = claimed(&backend, 4).await;
    let mut conn = namespace.begin().await.expect("begin");
    let verdict = Verdict::new(jobs[0].lease.clone(), complete());
    let settled = backend.settle_in(&mut conn, std::slice::from_ref(&verdict), NOW).await.expect("settle in");
    assert_eq!(settled, [COMPLETED]);
    assert_eq!(promptly(settle(&backend, &jobs[1].lease)).await, COMPLETED);
    let again = Verdict::new(jobs[2].lease.clone(), retry(Duration::from_secs(5)));
    promptly(backend.settle(&[again], NOW)).await.expect("settle");
    // The sweep takes what has lapsed and passes over what is just ending.
    let expired = later(Duration::from_secs(31));
    let swept = promptly(backend.sweep(&Sweep::default(), expired)).await.expect("sweep");
    assert_eq!(swept.reclaimed, 1);
    let repeat = tokio::spawn({
        let backend = backend.clone();
        async move { backend.settle(&[verdict], NOW).await.expect("settle") }
    });
    tokio::time::sleep(A_WHILE).await;
    assert!(!repeat.is_finished());
    namespace.commit(conn).await.expect("commit");
    assert_eq!(promptly(repeat).await.expect("a task"), [Settled::AlreadyApplied]);
    assert_eq!(state(&backend, &jobs[3].lease.job).await, Some(StateKind::Ready));
    assert_eq!((count(&backend, "live").await, count(&backend, "done").await), (2, 2));
}

#[tokio::test]
async fn a_repeat_in_a_batch_is_told_from_the_new_verdicts_beside_it() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 5).await;
    assert_eq!(settle(backend, &jobs[2].lease).await, COMPLETED);
    let verdicts: Vec<_> = jobs.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
    let settled = backend.settle(&verdicts, NOW).await.expect("settle");
    let wanted = [COMPLETED, COMPLETED, Settled::AlreadyApplied, COMPLETED, COMPLETED];
    assert_eq!(settled, wanted);
    assert_eq!((count(backend, "live").await, count(backend, "done").await), (0, 5));
}

#[tokio::test]
async fn a_large_settle_and_claim_go_side_by_side_and_each_is_whole() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    let jobs = claimed(backend, 100).await;
    push(backend, 100).await;
    let verdicts: Vec<_> = jobs.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
    let (settled, next) = backend.settle_and_claim(&verdicts, &ask(100), NOW).await.expect("both");
    assert_eq!(settled, vec![COMPLETED; 100]);
    assert_eq!(next.jobs.len(), 100);
    assert!(next.jobs.iter().all(|job| jobs.iter().all(|before| before.lease.job != job.lease.job)));
    // One of the two fails: what the other did stands, and the caller is told that it does not know.
    push(backend, 100).await;
    let verdicts: Vec<_> = next.jobs.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
    refuse_rows(backend, "done").await;
    let claim = ask(100);
    let failed = backend.settle_and_claim(&verdicts, &claim, NOW).await.expect_err("no row of done");
    assert_eq!(failed.effect(), Effect::Unknown, "{failed}");
    assert_eq!((count(backend, "done").await, count(backend, "span").await), (100, 3));
    assert_eq!(backend.hand_back(claim.session, Some(claim.nonce), NOW).await.expect("hand back"), 100);
    // Those handed back have rows in `live` now, and a claim of such has one in `lease`.
    refuse_rows(backend, "lease").await;
    let failed = backend.settle_and_claim(&verdicts, &ask(100), NOW).await.expect_err("neither");
    assert_eq!(failed.effect(), Effect::NotApplied, "{failed}");
    take_rows(backend, "done").await;
    let failed = backend.settle_and_claim(&verdicts, &ask(100), NOW).await.expect_err("no row of lease");
    assert_eq!(failed.effect(), Effect::Unknown, "{failed}");
    assert_eq!(count(backend, "done").await, 200);
}

/// From now on the server refuses each new row of a table.
async fn refuse_rows(backend: &PostgresBackend, table: &str) {
    let sql = "create or replace function \"@\".refuse() returns trigger language plpgsql as \
         'begin raise exception ''refused''; end'; \
         create trigger refused before insert on \"@\".# for each row execute function \"@\".refuse()";
    let sql = sql.replace('@', backend.schema()).replace('#', table);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(backend.pool()).await.expect("a trigger");
}

async fn take_rows(backend: &PostgresBackend, table: &str) {
    let sql = format!("drop trigger refused on \"{}\".{table}", backend.schema());
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(backend.pool()).await.expect("no trigger");
}

/// Two jobs of one claim: a fresh one, and one with a row in `live`.
async fn fresh_and_live(namespace: &Namespace) -> [ClaimedJob; 2] {
    let backend = namespace.backend();
    let live = draft();
    let mut conn = namespace.begin().await.expect("begin");
    backend.push_in(&mut conn, &[live.clone().build()], NOW).await.expect("push in");
    namespace.commit(conn).await.expect("commit");
    push(backend, 1).await;
    let mut jobs = backend.claim(&ask(2), NOW).await.expect("claim").jobs;
    jobs.sort_by_key(|job| job.lease.job == live.job());
    assert_eq!(jobs.iter().map(|job| job.lease.handle >> 60).collect::<Vec<_>>(), [7, 0]);
    jobs.try_into().expect("two")
}

#[tokio::test]
async fn a_child_that_is_bound_while_its_parents_end_waits_for_that_is_set_free() {
    let namespace = fresh().await;
    let backend = namespace.backend();
    for parent in [0, 1] {
        // Alone, and in a batch with one of the other sort.
        for together in [false, true] {
            let jobs = fresh_and_live(&namespace).await;
            let child = draft().job();
            let call = PUSH_CHILD.replace("@child@", &child.id.as_uuid().to_string());
            let conn = half_way(&namespace, &call, &jobs[parent].lease).await;
            let leases = if together { &jobs[..] } else { &jobs[parent..=parent] };
            let verdicts: Vec<_> =
                leases.iter().map(|job| Verdict::new(job.lease.clone(), complete())).collect();
            let ending = tokio::spawn({
                let backend = backend.clone();
                async move { backend.settle(&verdicts, NOW).await.expect("settle") }
            });
            tokio::time::sleep(A_WHILE).await;
            assert!(!ending.is_finished(), "parent {parent}, together: {together}");
            namespace.commit(conn).await.expect("commit");
            assert_eq!(promptly(ending).await.expect("a task"), vec![COMPLETED; leases.len()]);
            let state = state(backend, &child).await;
            assert_eq!(state, Some(StateKind::Ready), "parent {parent}, together: {together}");
            assert_eq!(backend.claim(&ask(5), NOW).await.expect("claim").jobs[0].lease.job, child);
        }
    }
    assert_eq!(count(backend, "child").await, 0);
}

#[tokio::test]
async fn a_child_that_comes_between_the_steps_of_its_parents_end_waits_for_them() {
    for parent in [0, 1] {
        let namespace = fresh().await;
        let backend = namespace.backend().clone();
        let jobs = fresh_and_live(&namespace).await;
        // The end stands still with its job on the way into `done`.
        let lock = i64::from(uuid::Uuid::new_v4().as_fields().0);
        let stand_still = format!(
            "create function @schema@.stand_still() returns trigger language plpgsql as $$ begin \
             perform pg_advisory_xact_lock_shared({lock}); return new; end $$; \
             create trigger stand_still before insert on @schema@.done for each row execute function @schema@.stand_still()"
        );
        run(&backend, &stand_still).await;
        let mut holder = namespace.begin().await.expect("begin");
        let hold = "select pg_advisory_xact_lock($1)";
        sqlx::query(hold).bind(lock).execute(&mut holder).await.expect("the lock");
        let ending = tokio::spawn({
            let (backend, lease) = (backend.clone(), jobs[parent].lease.clone());
            async move { settle(&backend, &lease).await }
        });
        tokio::time::sleep(A_WHILE).await;
        let child = draft().parents(std::slice::from_ref(&jobs[parent].lease.job));
        let job = child.job();
        let binding = tokio::spawn({
            let backend = backend.clone();
            async move { backend.push(&[child.build()], NOW).await.expect("push") }
        });
        tokio::time::sleep(A_WHILE).await;
        assert!(!ending.is_finished() && !binding.is_finished(), "parent {parent}");
        namespace.commit(holder).await.expect("commit");
        assert_eq!(promptly(ending).await.expect("a task"), COMPLETED);
        promptly(binding).await.expect("a task");
        assert_eq!(state(&backend, &job).await, Some(StateKind::Ready), "parent {parent}");
        assert_eq!(count(&backend, "child").await, 0);
    }
}
