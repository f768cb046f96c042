//! Properties of engines that join a caller's transaction: true together at the commit, or never.

use std::time::Duration;

use windlass_core::{
    Backend, ErrorKind, OnConflict, Pushed, Settled, StateKind, Sweep, Transactional, Until, Verdict,
};

use crate::{LEASE, TransactionalEnv, World, complete, draft, ids};

pub async fn a_commit_makes_the_jobs_exist<E: TransactionalEnv>(w: &mut World<E>) {
    let mut conn = w.env().begin().await.expect("begin");
    let batch = [draft().build(), draft().build()];
    let pushed = w.backend().push_in(&mut conn, &batch, w.at()).await.expect("push in");
    assert_eq!(pushed, [Pushed::Inserted; 2]);
    w.nothing_to_claim().await;
    assert!(w.find(&batch[0].body.job()).await.is_none(), "nobody sees them before");
    w.env().commit(conn).await.expect("commit");
    assert_eq!(ids(&w.claim(10).await), [batch[0].body.id, batch[1].body.id]);
}

pub async fn a_rollback_leaves_nothing<E: TransactionalEnv>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    let before = w.everything().await;
    let mut conn = w.env().begin().await.expect("begin");
    let jobs = [draft().unique("k", OnConflict::Skip, Until::End).build()];
    w.backend().push_in(&mut conn, &jobs, w.at()).await.expect("push in");
    let verdict = Verdict { lease: run.lease.clone(), ruling: complete(), then: vec![draft().build()] };
    let settled = w.backend().settle_in(&mut conn, &[verdict], w.at()).await.expect("settle in");
    assert_eq!(settled, [Settled::Applied(StateKind::Completed)]);
    w.env().rollback(conn).await.expect("rollback");
    assert_eq!(w.everything().await, before);
    w.put(draft().unique("k", OnConflict::Skip, Until::End)).await;
    assert_eq!(w.apply(&run.lease, complete()).await, StateKind::Completed);
}

pub async fn a_dropped_transaction_leaves_nothing<E: TransactionalEnv>(w: &mut World<E>) {
    let mut conn = w.env().begin().await.expect("begin");
    w.backend().push_in(&mut conn, &[draft().build()], w.at()).await.expect("push in");
    drop(conn);
    assert_eq!(w.everything().await, []);
}

pub async fn a_verdict_holds_with_the_commit<E: TransactionalEnv>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let mut conn = w.env().begin().await.expect("begin");
    let then = draft();
    let verdict = Verdict { lease: run.lease.clone(), ruling: complete(), then: vec![then.clone().build()] };
    w.backend().settle_in(&mut conn, &[verdict], w.at()).await.expect("settle in");
    w.env().commit(conn).await.expect("commit");
    w.expect(&job, StateKind::Completed).await;
    w.expect(&then.job(), StateKind::Ready).await;
    assert_eq!(w.settle(&run.lease, complete()).await, Settled::AlreadyApplied);
}

pub async fn a_lost_lease_cannot_be_settled_in_a_transaction<E: TransactionalEnv>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let mut conn = w.env().begin().await.expect("begin");
    let effect = draft();
    // The effect first: an engine may lock the job's row from the settle on, and the loss would wait for the commit.
    w.backend().push_in(&mut conn, &[effect.clone().build()], w.at()).await.expect("push in");
    w.lose_leases().await;
    let verdict = Verdict::new(run.lease.clone(), complete());
    let settled = w.backend().settle_in(&mut conn, &[verdict], w.at()).await.expect("settle in");
    assert_eq!(settled, [Settled::LeaseLost]);
    w.env().rollback(conn).await.expect("rollback");
    w.expect(&job, StateKind::Ready).await;
    assert!(w.find(&effect.job()).await.is_none());
}

pub async fn the_commit_or_the_loss_wins_and_never_both<E: TransactionalEnv>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let mut conn = w.env().begin().await.expect("begin");
    let effect = draft();
    let verdict =
        Verdict { lease: run.lease.clone(), ruling: complete(), then: vec![effect.clone().build()] };
    w.backend().settle_in(&mut conn, &[verdict], w.at()).await.expect("settle in");
    w.advance(LEASE);
    let (other, at) = (w.env().second().await, w.at());
    let mut sweeper =
        tokio::spawn(async move { other.sweep(&Sweep::default(), at).await.expect("sweep").reclaimed });
    // An engine may make the sweep wait for the commit; one that does not has reclaimed the job by then.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut sweeper).await;
    let committed = w.env().commit(conn).await.is_ok();
    let reclaimed = match early {
        Ok(swept) => swept,
        Err(_) => sweeper.await,
    }
    .expect("the sweeper");
    let (state, exists) = (w.state(&job).await, w.find(&effect.job()).await.is_some());
    let wanted = if committed { (0, StateKind::Completed, true) } else { (1, StateKind::Ready, false) };
    assert_eq!((reclaimed, state, exists), wanted, "committed: {committed}");
}

pub async fn the_same_id_is_absorbed_in_a_transaction<E: TransactionalEnv>(w: &mut World<E>) {
    let stored = draft();
    let job = w.put(stored.clone()).await;
    let mut conn = w.env().begin().await.expect("begin");
    let fresh = draft().build();
    let batch = [stored.build(), fresh.clone(), fresh.clone()];
    let pushed = w.backend().push_in(&mut conn, &batch, w.at()).await.expect("push in");
    assert_eq!(pushed, [Pushed::SameId, Pushed::Inserted, Pushed::SameId]);
    let again = w.backend().push_in(&mut conn, std::slice::from_ref(&fresh), w.at()).await.expect("push in");
    assert_eq!(again, [Pushed::SameId]);
    w.env().commit(conn).await.expect("commit");
    assert_eq!(ids(&w.claim(10).await), [job.id, fresh.body.id]);
}

pub async fn a_key_conflicts_within_a_transaction<E: TransactionalEnv>(w: &mut World<E>) {
    let keyed = || draft().unique("k", OnConflict::Skip, Until::End);
    let mut conn = w.env().begin().await.expect("begin");
    let first = keyed().build();
    w.backend().push_in(&mut conn, std::slice::from_ref(&first), w.at()).await.expect("push in");
    let pushed = w.backend().push_in(&mut conn, &[keyed().build()], w.at()).await.expect("push in");
    assert_eq!(pushed, [Pushed::Conflict(first.body.id)]);
    w.env().commit(conn).await.expect("commit");
    assert_eq!(w.push(keyed()).await, Pushed::Conflict(first.body.id));
}

pub async fn a_repeat_is_known_in_a_transaction<E: TransactionalEnv>(w: &mut World<E>) {
    w.put(draft()).await;
    let run = w.take().await;
    w.apply(&run.lease, complete()).await;
    let mut conn = w.env().begin().await.expect("begin");
    let verdict = Verdict::new(run.lease, complete());
    let settled = w.backend().settle_in(&mut conn, &[verdict], w.at()).await.expect("settle in");
    assert_eq!(settled, [Settled::AlreadyApplied]);
    w.env().commit(conn).await.expect("commit");
}

pub async fn of_two_verdicts_in_a_transaction_the_first_counts<E: TransactionalEnv>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    let run = w.take().await;
    let mut conn = w.env().begin().await.expect("begin");
    let verdicts =
        [Verdict::new(run.lease.clone(), complete()), Verdict::new(run.lease.clone(), crate::bury())];
    let settled = w.backend().settle_in(&mut conn, &verdicts, w.at()).await.expect("settle in");
    assert_eq!(settled, [Settled::Applied(StateKind::Completed), Settled::AlreadyApplied]);
    w.env().commit(conn).await.expect("commit");
    w.expect(&job, StateKind::Completed).await;
}

pub async fn bad_input_is_refused_in_a_transaction<E: TransactionalEnv>(w: &mut World<E>) {
    let mut conn = w.env().begin().await.expect("begin");
    let batch = [draft().build(), draft().with(|body| body.max_attempts = 0).build()];
    let error = w.backend().push_in(&mut conn, &batch, w.at()).await.expect_err("a bad job");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    w.env().rollback(conn).await.expect("rollback");
    assert_eq!(w.everything().await, []);
}

pub async fn an_empty_transaction_commits<E: TransactionalEnv>(w: &mut World<E>) {
    let mut conn = w.env().begin().await.expect("begin");
    assert_eq!(w.backend().push_in(&mut conn, &[], w.at()).await.expect("push in"), []);
    assert_eq!(w.backend().settle_in(&mut conn, &[], w.at()).await.expect("settle in"), []);
    w.env().commit(conn).await.expect("commit");
    let conn = w.env().begin().await.expect("begin");
    w.env().commit(conn).await.expect("commit");
    assert_eq!(w.everything().await, []);
}
