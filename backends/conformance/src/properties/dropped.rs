//! Futures that are dropped half way: the verb is done or not done, never half done, and the handle still works.

use std::future::Future;
use std::time::Duration;

use windlass_core::{Backend, NewJob, Pushed, Settled, StateKind, Verdict};

use crate::{Env, World, complete, draft, ids};

/// Lets `verb` run for a moment and drops it. Whether it got anywhere is for the caller to find out.
async fn cut_short<T>(verb: impl Future<Output = T>, moment: u64) {
    drop(tokio::time::timeout(Duration::from_micros(moment * 150), verb).await);
}

pub async fn a_dropped_push_is_whole_or_nothing<E: Env>(w: &mut World<E>) {
    for moment in 0..20 {
        let batch: Vec<NewJob> = (0..10).map(|_| draft().build()).collect();
        cut_short(w.backend().push(&batch, w.at()), moment).await;
        let again = w.push_all(&batch).await;
        let whole = again == [Pushed::SameId; 10] || again == [Pushed::Inserted; 10];
        assert!(whole, "after moment {moment}: {again:?}");
    }
    assert_eq!(w.everything().await.len(), 200);
}

pub async fn a_dropped_settle_is_whole_or_nothing<E: Env>(w: &mut World<E>) {
    for moment in 0..20 {
        let batch: Vec<NewJob> = (0..10).map(|_| draft().build()).collect();
        w.push_all(&batch).await;
        let verdicts: Vec<_> = w
            .claim(10)
            .await
            .into_iter()
            .map(|run| Verdict {
                lease: run.lease,
                ruling: complete(),
                then: vec![draft().kind("effect").build()],
            })
            .collect();
        cut_short(w.backend().settle(&verdicts, w.at()), moment).await;
        let again = w.backend().settle(&verdicts, w.at()).await.expect("settle");
        let applied = Settled::Applied(StateKind::Completed);
        let whole = again == [applied; 10] || again == [Settled::AlreadyApplied; 10];
        assert!(whole, "after moment {moment}: {again:?}");
    }
    let all = w.everything().await;
    assert_eq!(all.iter().filter(|record| record.body.kind == *"effect").count(), 200, "each once");
}

pub async fn a_dropped_claim_loses_no_job<E: Env>(w: &mut World<E>) {
    let batch: Vec<NewJob> = (0..10).map(|_| draft().build()).collect();
    w.push_all(&batch).await;
    for moment in 0..20 {
        let mut ask = w.ask(10);
        ask.session = windlass_core::SessionId::random();
        cut_short(w.backend().claim(&ask, w.at()), moment).await;
        w.backend().hand_back(ask.session, None, w.at()).await.expect("hand back");
    }
    // What was claimed after the hand-back was sent lapses with its lease, and comes back one suspect at a time.
    w.lose_leases().await;
    let mut got = Vec::new();
    for _ in 0..11 {
        got.extend(ids(&w.claim(10).await));
    }
    got.sort_unstable();
    let mut wanted: Vec<_> = batch.iter().map(|job| job.body.id).collect();
    wanted.sort_unstable();
    assert_eq!(got, wanted);
}
