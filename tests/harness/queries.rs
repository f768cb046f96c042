//! Queries and snapshots: what passes, what is given back, what stays out.

use windlass::prelude::*;
use windlass::testing::Count;
use windlass::{Codec, Filter, StateKind};

use super::support::*;

#[tokio::test]
async fn every_step_narrows_down_and_gives_what_is_left() {
    let queue = Queue::<MemoryBackend>::fake();
    let late = queue.now().saturating_add(hours(1));
    queue
        .dispatch(email("ada@example.com", "welcome"))
        .on("mail")
        .delay(hours(1))
        .priority(Priority::HIGH)
        .unique(UniqueBy::key("ada"))
        .tag("vip")
        .await
        .unwrap();
    queue.dispatch(email("bob@example.com", "welcome")).await.unwrap();
    let found = queue
        .dispatched::<SendEmail>()
        .on("mail")
        .matching(|job| job.template == "welcome")
        .equal_to(&email("ada@example.com", "welcome"))
        .delayed_by(hours(1))
        .due_at(late)
        .due_within(minutes(59)..=minutes(61))
        .priority(Priority::HIGH)
        .unique_key("ada")
        .tagged("vip")
        .in_state(StateKind::Scheduled)
        .attempts(0)
        .assert_once();
    assert_eq!(
        (found.to.as_str(), found.entry().number(), found.entry().due()),
        ("ada@example.com", 1, late)
    );
    assert_eq!(queue.find_by(found.job_ref()).await, Some(StateKind::Scheduled));
    let all = queue.dispatched::<SendEmail>().assert_times(2);
    assert_eq!(all.into_iter().map(|found| found.into_job().to).collect::<Vec<_>>()[1], "bob@example.com");
    queue.dispatched::<SendEmail>().delayed_by(seconds(0)).assert_once();
    queue.dispatched::<SendEmail>().on("bulk").assert_none();
    queue.dispatched::<Resize>().assert_none();
    assert_eq!(queue.dispatched::<SendEmail>().check(Count::AtMost(2)).unwrap().len(), 2);
}

trait FindBy {
    async fn find_by(&self, job: windlass::JobRef) -> Option<StateKind>;
}

impl FindBy for Queue<MemoryBackend> {
    async fn find_by(&self, job: windlass::JobRef) -> Option<StateKind> {
        self.get(&job).await.unwrap().map(|job| job.state())
    }
}

#[tokio::test]
async fn a_mark_divides_the_log_and_clearing_forgets_it() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(audit("before")).await.unwrap();
    let mark = queue.mark();
    queue.since(mark).assert_nothing_dispatched();
    queue.dispatch(audit("after")).await.unwrap();
    assert_eq!(queue.since(mark).dispatched::<Audit>().assert_once().event, "after");
    queue.clear();
    queue.assert_nothing_dispatched();
    assert!(queue.since(mark).entries().is_empty());
    queue.dispatch(audit("later")).await.unwrap();
    assert_eq!(queue.dispatched::<Audit>().assert_once().entry().number(), 3, "numbers go on");
    assert_eq!(queue.queues().await.unwrap()[0].counts.live(), 3, "the jobs stayed");
}

#[tokio::test]
async fn a_snapshot_renders_as_stable_text() {
    let queue = Queue::<MemoryBackend>::fake();
    assert_eq!(queue.snapshot().render(), "(nothing dispatched)");
    queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    let packed = queue.clone().codec(Codec::MsgPack);
    packed.dispatch(resize("cat.png")).delay(seconds(30)).await.unwrap();
    let audit = queue.dispatch(audit("signup")).await.unwrap();
    queue.cancel(audit.job_ref(), "no").await.unwrap();
    let before = queue.snapshot();
    golden("rendered", &before.render());
    queue.delete(audit.job_ref()).await.unwrap();
    assert!(queue.snapshot().render().contains("gone"));
    assert!(!before.render().contains("gone"), "a snapshot is a value");
}

#[tokio::test]
async fn sequences_and_chains_hold_when_they_should() {
    let queue = Queue::<MemoryBackend>::fake();
    let first = queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    let second = queue.dispatch(audit("sent")).after(first.job_ref()).await.unwrap();
    queue.dispatch(resize("cat.png")).after(second.job_ref()).after(first.job_ref()).await.unwrap();
    queue.assert_sequence::<(SendEmail, Audit, Resize)>();
    queue.assert_chained::<(SendEmail, Audit, Resize)>();
    queue.assert_chained::<(SendEmail, Resize)>();
    queue.assert_chained::<(Audit,)>();
    assert!(queue.snapshot().check_chained::<(Audit, SendEmail)>().is_err());
}

#[tokio::test]
async fn payloads_of_any_codec_are_compared() {
    let queue = Queue::<MemoryBackend>::fake().codec(Codec::MsgPack);
    queue.dispatch(email("ada@example.com", "welcome")).await.unwrap();
    queue.dispatched::<SendEmail>().equal_to(&email("ada@example.com", "welcome")).assert_once();
    queue.dispatched::<SendEmail>().equal_to(&email("ada@example.com", "bye")).assert_none();
}

/// The same assertions on an engine with nothing fake about it: in a continuous integration it is a database.
#[tokio::test]
async fn any_engine_that_can_be_inspected_is_asked_the_same() {
    let queue = Queue::<AnyBackend>::connect_for_tests().await;
    for n in 0..3 {
        queue.dispatch(audit(&n.to_string())).tag("t").await.unwrap();
    }
    queue.dispatch(email("ada@example.com", "welcome")).on("mail").delay(hours(1)).await.unwrap();
    let snapshot = queue.snapshot_of(&Filter::default()).await.unwrap();
    assert_eq!(snapshot.dispatched::<Audit>().tagged("t").assert_times(3)[2].event, "2");
    let wait = minutes(59)..=minutes(60);
    snapshot
        .dispatched::<SendEmail>()
        .on("mail")
        .due_within(wait)
        .in_state(StateKind::Scheduled)
        .assert_once();
    let only_mail = Filter { queue: Some("mail".try_into().unwrap()), ..Filter::default() };
    assert_eq!(queue.snapshot_of(&only_mail).await.unwrap().entries().len(), 1);
}

trait ForTests {
    async fn connect_for_tests() -> Self;
}

impl ForTests for Queue<AnyBackend> {
    async fn connect_for_tests() -> Self {
        Self::connect("memory:").await.unwrap()
    }
}
