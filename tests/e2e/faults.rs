//! An engine that fails, and one whose answers get lost.

use windlass::prelude::*;
use windlass::testing::Verb;
use windlass::{Effect, ErrorKind, Pushed, StateKind};

use super::support::*;

#[tokio::test]
async fn a_dispatch_whose_answer_was_lost_hands_the_draft_back_and_is_stored_once() {
    let world = World::new();
    world.queue.backend().faults().lose_next_reply(Verb::Push, 1);
    let error = world.queue.dispatch(finish("once")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Connection, Effect::Unknown));
    let draft = error.into_draft().expect("the encoded draft");
    let sent = world.queue.push(vec![draft]).await.unwrap();
    assert_eq!(sent[0].pushed(), Pushed::SameId);
    world.queue.drain(&world.jobs).await.assert_clean();
    assert_eq!(world.journal.lines(), ["once"]);
}

#[tokio::test]
async fn a_dispatch_that_failed_stored_nothing_and_can_be_sent_again() {
    let world = World::new();
    world.queue.backend().faults().fail_next(Verb::Push, 1);
    let error = world.queue.dispatch(finish("again")).delay(seconds(3)).await.unwrap_err();
    assert_eq!(error.effect(), Effect::NotApplied);
    assert!(error.error().is_retryable());
    world.queue.assert_nothing_dispatched();
    let draft = error.into_draft().unwrap();
    world.queue.push(vec![draft]).await.unwrap();
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.completed, drained.elapsed), (1, seconds(3)));
}

#[tokio::test]
async fn a_bulk_dispatch_says_what_was_stored_and_hands_back_the_rest() {
    let world = World::new();
    let jobs: Vec<Act> = (0..2_500).map(|n| finish(&n.to_string())).collect();
    let faults = world.queue.backend().faults().clone();
    // The first thousand goes through; then the engine fails. The plan is consumed in order, so plan from a hook.
    let fail_second = FailAfter { faults, after: std::sync::atomic::AtomicU32::new(0) };
    let queue = world.queue.clone().on_dispatch(fail_second);
    let error = queue.dispatch_all(jobs).await.unwrap_err();
    assert_eq!(error.sent.len() + error.unsent.len(), 2_500);
    assert!(error.to_string().contains("jobs were stored before"), "{error}");
    world.queue.push(error.unsent).await.unwrap();
    assert_eq!(world.queue.drain(&world.jobs).await.completed, 2_500);
}

/// Fails the first push after all drafts went through the hook.
struct FailAfter {
    faults: windlass::testing::Faults,
    after: std::sync::atomic::AtomicU32,
}

impl OnDispatch for FailAfter {
    fn before(&self, _: &mut windlass::Envelope<windlass::envelope::Raw>) -> windlass::Result<()> {
        if self.after.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2_499 {
            self.faults.fail_next(Verb::Push, 1);
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_outlives_an_engine_that_fails_for_a_while() {
    let world = World::new();
    let faults = world.queue.backend().faults();
    faults.fail_next(Verb::Claim, 3);
    faults.fail_next(Verb::Settle, 3);
    faults.fail_next(Verb::Sweep, 2);
    faults.fail_next(Verb::Wait, 2);
    for n in 0..10 {
        world.dispatch(finish(&n.to_string())).await;
    }
    let working = start(world.worker());
    world.pass(seconds(60)).await;
    let report = working.stop().await;
    assert_eq!((report.completed, report.lost), (10, 0));
    assert_eq!(report.storage_errors, 10);
    assert_eq!(world.journal.lines().len(), 10, "each ran once");
}

#[tokio::test(start_paused = true)]
async fn a_verdict_whose_answer_was_lost_is_sent_again_and_known_to_be_its_own() {
    let world = World::new();
    world.queue.backend().faults().lose_next_reply(Verb::Settle, 2);
    let job = world.dispatch(finish("once")).await;
    let working = start(world.worker());
    world.pass(seconds(10)).await;
    let report = working.stop().await;
    assert_eq!((report.completed, report.lost), (1, 0));
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Completed, 1));
    assert_eq!(world.journal.lines(), ["once"]);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_claim_whose_answer_was_lost_are_handed_back_not_left_to_their_leases() {
    let world = World::new();
    world.queue.backend().faults().lose_next_reply(Verb::Claim, 1);
    let job = world.dispatch(finish("job")).await;
    let working = start(world.worker().lease(hours(1)));
    world.pass(seconds(10)).await;
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().epoch), (StateKind::Completed, 2));
    assert_eq!((recorded.history().lost_leases, recorded.history().attempts), (0, 1));
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_long_outage_at_most_one_claim_is_uncertain() {
    let world = World::new();
    let jobs: Vec<_> = (0..20).map(|n| finish(&n.to_string())).collect();
    let jobs = world.queue.dispatch_all(jobs).await.unwrap();
    // Claims and hand-backs happen, and their answers never arrive.
    for verb in [Verb::Claim, Verb::Other] {
        world.queue.backend().faults().lose_next_reply(verb, 1_000);
    }
    let working = start(world.worker().concurrency(1).lease(hours(1)));
    for _ in 0..60 {
        world.pass(seconds(1)).await;
        let engine = world.queue.backend();
        let records = jobs.iter().filter_map(|job| engine.peek(job.job_ref()));
        let held = records.filter(|record| record.state.kind() == StateKind::Running).count();
        assert!(held <= 1, "{held} jobs are held by claims that nobody heard of");
    }
    world.queue.backend().faults().clear();
    world.pass(seconds(10)).await;
    assert_eq!(world.journal.lines().len(), 20);
    working.stop().await;
}
