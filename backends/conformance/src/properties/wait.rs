//! Wait: a hint that may lie about work, but must not sleep through it.

use std::time::Duration;

use windlass_core::{Backend, Cancelling, Manage, QueueName, Wake};

use crate::{Env, World, bury, complete, draft, release, retry, secs};

const LONG: Duration = Duration::from_secs(30);

/// Long enough for a sleeper to have looked and lain down, on any machine that is not overwhelmed.
const NAP: Duration = Duration::from_millis(100);

/// Sleeps on a second handle while `then` happens, and asserts that the sleeper was woken.
async fn is_woken<E: Env>(w: &World<E>, wanted: Wake, then: impl AsyncFnOnce()) {
    is_woken_after(w, wanted, Duration::ZERO, then).await;
}

/// The same; `then` happens that long after the sleeper was sent to bed. At once it meets one that is just looking, which is
/// where a wake-up is lost; after a nap nothing but the bell can wake.
async fn is_woken_after<E: Env>(w: &World<E>, wanted: Wake, nap: Duration, then: impl AsyncFnOnce()) {
    let (backend, session, queues) = (w.env().second().await, w.session, [crate::mail()]);
    let sleeper = tokio::spawn(async move {
        // A hint may lie: one that says there is work where there is none is slept on again.
        let mut wake = backend.wait(session, &queues, None, LONG).await;
        for _ in 0..3 {
            if wake.as_ref().is_ok_and(|wake| *wake == wanted || *wake == Wake::Nothing) {
                break;
            }
            wake = backend.wait(session, &queues, None, LONG).await;
        }
        wake
    });
    tokio::task::yield_now().await;
    if !nap.is_zero() {
        tokio::time::sleep(nap).await;
    }
    then().await;
    assert_eq!(sleeper.await.expect("the sleeper").expect("wait"), wanted);
}

pub async fn work_that_is_there_is_seen_at_once<E: Env>(w: &mut World<E>) {
    w.put(draft()).await;
    let wake = w.backend().wait(w.session, &[crate::mail()], None, LONG).await.expect("wait");
    assert_eq!(wake, Wake::Work);
}

pub async fn a_push_wakes_the_sleeper<E: Env>(w: &mut World<E>) {
    for nap in [Duration::ZERO, NAP] {
        is_woken_after(w, Wake::Work, nap, async || drop(w.put(draft()).await)).await;
        w.apply(&w.take().await.lease, complete()).await;
    }
}

pub async fn a_release_and_a_retry_at_once_wake_the_sleeper<E: Env>(w: &mut World<E>) {
    for ruling in [release(), retry(secs(0))] {
        w.put(draft()).await;
        let run = w.take().await;
        is_woken(w, Wake::Work, async || {
            w.apply(&run.lease, ruling).await;
        })
        .await;
        w.apply(&w.take().await.lease, complete()).await;
    }
}

pub async fn a_place_that_becomes_free_wakes_the_sleeper<E: Env>(w: &mut World<E>) {
    w.put(draft().limit("one", 1)).await;
    let run = w.take().await;
    w.put(draft().limit("one", 1)).await;
    is_woken(w, Wake::Work, async || {
        w.apply(&run.lease, complete()).await;
    })
    .await;
}

pub async fn a_resumed_queue_wakes_the_sleeper<E: Env>(w: &mut World<E>) {
    w.backend().pause(&crate::mail(), w.at()).await.expect("pause");
    w.put(draft()).await;
    is_woken(w, Wake::Work, async || {
        w.backend().resume(&crate::mail(), w.at()).await.expect("resume");
    })
    .await;
}

pub async fn a_sweep_that_promotes_wakes_the_sleeper<E: Env>(w: &mut World<E>) {
    w.put(draft().after(secs(5))).await;
    w.advance(secs(5));
    is_woken(w, Wake::Work, async || assert_eq!(w.sweep().await.promoted, 1)).await;
}

pub async fn a_revival_and_run_now_wake_the_sleeper<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.apply(&w.take().await.lease, bury()).await;
    is_woken(w, Wake::Work, async || w.backend().revive(&job, w.at()).await.expect("revive")).await;
    w.apply(&w.take().await.lease, complete()).await;
    let later = w.put(draft().after(secs(60))).await;
    is_woken(w, Wake::Work, async || w.backend().run_now(&later, w.at()).await.expect("run now")).await;
}

pub async fn a_cancellation_wakes_the_session_that_runs_the_job<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    w.take().await;
    is_woken(w, Wake::Control, async || {
        let cancelled = w.backend().cancel(&job, "no longer", w.at()).await.expect("cancel");
        assert_eq!(cancelled, Cancelling::Requested);
    })
    .await;
}

pub async fn nothing_wakes_nobody<E: Env>(w: &mut World<E>) {
    w.put(draft().queue("other")).await;
    let short = Duration::from_millis(20);
    for queues in [vec![crate::mail()], vec![QueueName::from_static("never-seen")], vec![]] {
        // A hint may lie, but an engine whose hints always do keeps its workers busy for nothing.
        let mut quiet = false;
        for _ in 0..10 {
            let wake = tokio::time::timeout(LONG, w.backend().wait(w.session, &queues, None, short)).await;
            quiet |= wake.expect("it ends by itself").expect("wait") == Wake::Nothing;
        }
        assert!(quiet, "ten waits for nothing in {queues:?} all said that there is something");
    }
}

pub async fn a_wait_takes_no_job<E: Env>(w: &mut World<E>) {
    let job = w.put(draft()).await;
    for _ in 0..3 {
        w.backend().wait(w.session, &[crate::mail()], None, LONG).await.expect("wait");
    }
    assert_eq!(w.record(&job).await.epoch, 0);
    assert_eq!(w.take().await.body.id, job.id);
}

pub async fn a_job_due_before_what_the_sleeper_knows_is_something_to_do<E: Env>(w: &mut World<E>) {
    let short = Duration::from_millis(20);
    let mail = [crate::mail()];
    w.put(draft().after(secs(60))).await;
    let known = w.claim_as(&w.ask(0)).await.wake_at.expect("one is scheduled");
    // Nothing new: what is due is known.
    let mut quiet = false;
    for _ in 0..10 {
        let wake = w.backend().wait(w.session, &mail, Some(known), short).await.expect("wait");
        quiet |= wake == Wake::Nothing;
    }
    assert!(quiet, "ten waits all said that there is something, though what is due was known");
    // It came in before the sleeper lay down, after the claim.
    w.put(draft().after(secs(30))).await;
    let wake = w.backend().wait(w.session, &mail, Some(known), LONG).await.expect("wait");
    assert_eq!(wake, Wake::Work);
    let sooner = w.claim_as(&w.ask(0)).await.wake_at.expect("two are scheduled");
    assert!(sooner < known);
    // It comes in while the sleeper sleeps.
    let (backend, session) = (w.env().second().await, w.session);
    let sleeper =
        tokio::spawn(async move { backend.wait(session, &[crate::mail()], Some(sooner), LONG).await });
    tokio::task::yield_now().await;
    w.put(draft().after(secs(10))).await;
    assert_eq!(sleeper.await.expect("the sleeper").expect("wait"), Wake::Work);
}
