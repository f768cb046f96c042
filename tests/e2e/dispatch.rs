//! Dispatching: options, uniqueness, limits, parents, bulk.

use std::time::Duration;

use windlass::core::{At, Inspect as _};
use windlass::prelude::*;
use windlass::{Codec, Filter, JobId, ParentFailure, Pushed, Recorded, StateKind, Timestamp, WhyBlocked};

use super::support::*;

#[tokio::test]
async fn options_reach_storage() {
    let world = World::new();
    let id = JobId::fresh();
    let job = world
        .queue
        .dispatch(finish("all"))
        .id(id)
        .on("bulk")
        .at(Timestamp::VIRTUAL_START.saturating_add(hours(2)))
        .priority(Priority::HIGHEST)
        .tag("vip")
        .metadata("trace", "00-1")
        .max_attempts(7)
        .timeout(seconds(9))
        .await
        .unwrap();
    assert_eq!((job.id(), job.pushed(), job.is_new()), (id, Pushed::Inserted, true));
    let Recorded::Scheduled(envelope) = world.find(&job).await else { panic!("scheduled") };
    assert_eq!(envelope.state().due.to_string(), "2030-01-01T02:00:00Z");
    assert_eq!((envelope.queue().as_str(), envelope.priority()), ("bulk", Priority::HIGHEST));
    assert_eq!((envelope.max_attempts(), envelope.timeout()), (7, Some(seconds(9))));
    assert_eq!((envelope.tags(), envelope.metadata("trace")), (&["vip".to_owned()][..], Some("00-1")));
    assert_eq!(envelope.job(), &finish("all"));
    assert_eq!(
        (envelope.kind().as_str(), envelope.version(), envelope.codec().unwrap()),
        ("act", 1, Codec::Json)
    );
    let again = world.queue.dispatch(finish("other")).id(id).on("bulk").await.unwrap();
    assert_eq!((again.pushed(), again.is_new()), (Pushed::SameId, false));
    assert_eq!(world.find(&again).await.job(), &finish("all"), "bodies never change");
}

#[tokio::test]
async fn unique_for_skips_the_same_payload_within_the_window() {
    let world = World::new();
    let first = world.queue.dispatch(finish("a")).unique_for(minutes(10)).await.unwrap();
    let second = world.queue.dispatch(finish("a")).unique_for(minutes(10)).await.unwrap();
    assert_eq!(second.pushed(), Pushed::Conflict(first.id()));
    assert_eq!(second.id(), first.id(), "the handle is of the job that stands");
    world.queue.dispatch(finish("b")).unique_for(minutes(10)).await.unwrap();
    world.queue.drain(&world.jobs).await;
    assert!(
        !world.queue.dispatch(finish("a")).unique_for(minutes(10)).await.unwrap().is_new(),
        "ended, but in the window"
    );
    world.clock.advance(minutes(10));
    assert!(world.queue.dispatch(finish("a")).unique_for(minutes(10)).await.unwrap().is_new());
    world.queue.drain(&world.jobs).await;
    assert_eq!(world.journal.lines(), ["a", "b", "a"]);
}

#[derive(serde::Serialize, serde::Deserialize, Job)]
#[job(name = "sync_account", unique = Self::one_per_account, limit = Self::per_tenant, tags = Self::labels)]
struct SyncAccount {
    tenant: u32,
    account: u32,
}

impl SyncAccount {
    #[expect(clippy::unnecessary_wraps, reason = "what the trait asks for")]
    fn one_per_account(&self) -> Option<UniqueBy> {
        Some(UniqueBy::key(self.account.to_string()).supersede())
    }
    #[expect(clippy::unnecessary_wraps, reason = "what the trait asks for")]
    fn per_tenant(&self) -> Option<windlass::ConcurrencyLimit> {
        Some(windlass::ConcurrencyLimit { key: self.tenant.to_string(), at_most: 1 })
    }
    fn labels(&self) -> Vec<String> {
        vec![format!("tenant:{}", self.tenant)]
    }
}

#[tokio::test]
async fn a_job_type_can_say_how_its_jobs_are_unique_limited_and_labelled() {
    let world = World::new();
    let first = world.queue.dispatch(SyncAccount { tenant: 1, account: 7 }).await.unwrap();
    let second = world.queue.dispatch(SyncAccount { tenant: 1, account: 7 }).await.unwrap();
    assert_eq!(second.pushed(), Pushed::Superseded(first.id()));
    let Recorded::Cancelled(envelope) = world.find(&first).await else { panic!("cancelled") };
    assert_eq!(envelope.state().superseded_by, Some(second.id()));
    let third = world.queue.dispatch(SyncAccount { tenant: 1, account: 8 }).await.unwrap();
    let Recorded::Blocked(envelope) = world.find(&third).await else { panic!("blocked") };
    assert_eq!(envelope.state().why, WhyBlocked::Limit);
    assert_eq!(envelope.tags(), ["tenant:1"]);
    let other = world.queue.dispatch(SyncAccount { tenant: 2, account: 9 }).await.unwrap();
    assert_eq!(world.state(&other).await, StateKind::Ready);
}

#[tokio::test]
async fn unique_keys_are_per_kind() {
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "other_kind")]
    struct Other;
    let world = World::new();
    world.queue.dispatch(finish("a")).unique(UniqueBy::key("k")).await.unwrap();
    assert!(world.queue.dispatch(Other).unique(UniqueBy::key("k")).await.unwrap().is_new());
    assert!(!world.queue.dispatch(finish("b")).unique(UniqueBy::key("k")).await.unwrap().is_new());
    let at_start = UniqueBy::key("s").until_start();
    world.queue.dispatch(finish("c")).unique(at_start.clone()).await.unwrap();
    world.worker().until_empty().run().await.unwrap();
    assert!(world.queue.dispatch(finish("d")).unique(at_start).await.unwrap().is_new());
}

#[tokio::test(start_paused = true)]
async fn queue_one_lets_one_wait_behind_the_running_one() {
    let world = World::new();
    let by = UniqueBy::key("k").queue_one();
    let running =
        world.queue.dispatch(act("running", Do::Sleep(seconds(5)))).unique(by.clone()).await.unwrap();
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    let behind = world.queue.dispatch(finish("behind")).unique(by.clone()).await.unwrap();
    assert_eq!(world.state(&behind).await, StateKind::Blocked);
    let third = world.queue.dispatch(finish("third")).unique(by).await.unwrap();
    assert_eq!(third.pushed(), Pushed::Conflict(behind.id()));
    world.pass(seconds(10)).await;
    assert_eq!(world.state(&running).await, StateKind::Completed);
    assert_eq!(world.journal.lines(), ["running", "behind"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_over_many_workers() {
    let world = World::new();
    for n in 0..9 {
        world.queue.dispatch(act(&n.to_string(), Do::Sleep(seconds(10)))).limit("api", 3).await.unwrap();
    }
    let workers = [start(world.worker()), start(world.worker())];
    for round in 1..=3 {
        world.pass(seconds(5)).await;
        let counts = world.queue.queues().await.unwrap()[0].counts;
        assert_eq!((counts.get(StateKind::Running), counts.get(StateKind::Blocked)), (3, 9 - 3 * round));
        world.pass(seconds(5) + Duration::from_millis(300)).await;
    }
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines().len(), 9);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn parents_come_first_and_their_failure_cancels_unless_told_otherwise() {
    let world = World::new();
    let first = world.dispatch(finish("first")).await;
    let bad = world.dispatch(act("bad", Do::Bury("no".to_owned()))).await;
    let after_first = world.queue.dispatch(finish("after first")).after(first.job_ref()).await.unwrap();
    let after_both =
        world.queue.dispatch(finish("after both")).after(first.job_ref()).after(bad.job_ref()).await.unwrap();
    let anyway = world
        .queue
        .dispatch(finish("anyway"))
        .after(bad.job_ref())
        .on_parent_failure(ParentFailure::Ignore)
        .await
        .unwrap();
    for job in [&after_first, &after_both, &anyway] {
        assert_eq!(world.state(job).await, StateKind::Blocked);
    }
    world.queue.drain(&world.jobs).await;
    assert_eq!(world.state(&after_first).await, StateKind::Completed);
    assert_eq!(world.state(&anyway).await, StateKind::Completed);
    let Recorded::Cancelled(envelope) = world.find(&after_both).await else { panic!("cancelled") };
    assert!(envelope.state().reason.contains("did not complete"));
    assert_eq!(world.journal.lines(), ["first", "bad", "after first", "anyway"]);
}

#[tokio::test]
async fn bulk_dispatch_keeps_order_and_options_over_many_thousands() {
    let world = World::new();
    let jobs = world
        .queue
        .dispatch_all((0..3_001).map(|n| finish(&n.to_string())))
        .on("bulk")
        .tag("import")
        .await
        .unwrap();
    assert_eq!(jobs.len(), 3_001);
    world.worker().queues(["bulk"]).concurrency(1).until_empty().run().await.unwrap();
    let expected: Vec<_> = (0..3_001).map(|n| n.to_string()).collect();
    assert_eq!(world.journal.lines(), expected);
    let none = world.queue.dispatch_all(Vec::<Act>::new()).await.unwrap();
    assert!(none.is_empty());
}

#[tokio::test]
async fn drafts_of_several_kinds_go_in_one_batch() {
    let world = World::new();
    let drafts = vec![
        world.queue.dispatch(finish("a")).delay(hours(1)).into_draft().unwrap(),
        world.queue.dispatch(SyncAccount { tenant: 1, account: 1 }).into_draft().unwrap(),
    ];
    let sent = world.queue.push(drafts).await.unwrap();
    assert!(sent.iter().all(windlass::Dispatched::is_new));
    let (page, next) = world.queue.list(&Filter::default(), None, 10).await.unwrap();
    assert_eq!((page.len(), next), (2, None));
    assert_eq!(page[0].state(), StateKind::Scheduled);
    let one = world.queue.list(&Filter::default(), None, 1).await.unwrap();
    let two = world.queue.list(&Filter::default(), one.1.as_ref(), 1).await.unwrap();
    assert_eq!(two.0[0].id(), sent[1].id());
}

#[tokio::test]
async fn run_now_delete_and_revive_say_what_is_wrong() {
    let world = World::new();
    let later = world.queue.dispatch(finish("later")).delay(hours(9)).await.unwrap();
    assert!(
        world
            .queue
            .delete(later.job_ref())
            .await
            .unwrap_err()
            .to_string()
            .contains("it is scheduled, cancel it first")
    );
    assert!(
        world
            .queue
            .revive(later.job_ref())
            .await
            .unwrap_err()
            .to_string()
            .contains("it is scheduled, not dead")
    );
    world.queue.run_now(later.job_ref()).await.unwrap();
    world.worker().until_empty().run().await.unwrap();
    assert_eq!(world.journal.lines(), ["later"]);
    assert!(world.queue.run_now(later.job_ref()).await.unwrap_err().to_string().contains("it is completed"));
    world.queue.delete(later.job_ref()).await.unwrap();
    assert!(world.queue.find(&later).await.unwrap().is_none());
    assert!(world.queue.delete(later.job_ref()).await.unwrap_err().to_string().contains("no job default/"));
}

#[tokio::test]
async fn codecs_can_be_mixed_in_one_queue() {
    let world = World::new();
    let packed = world.queue.clone().codec(Codec::MsgPack);
    let job = packed.dispatch(finish("packed")).await.unwrap();
    world.dispatch(finish("json")).await;
    let record =
        world.queue.backend().get(job.job_ref(), At::Instant(world.clock.now())).await.unwrap().unwrap();
    assert_eq!(record.body.codec, Codec::MsgPack.id());
    world.queue.drain(&world.jobs).await.assert_clean();
    assert_eq!(world.journal.lines(), ["packed", "json"]);
    assert!(
        world.queue.pending_migrations().await.unwrap().is_empty()
            && world.queue.migrate().await.unwrap().is_empty()
    );
}
