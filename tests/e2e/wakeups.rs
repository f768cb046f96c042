//! Nothing waits for the next poll: what comes in, comes back or ends is noticed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::time::Instant;
use windlass::prelude::*;
use windlass::{Envelope, Pushed, StateKind};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_delayed_job_that_comes_in_while_the_worker_sleeps_starts_on_time() {
    let world = World::new();
    let working = start(world.worker().poll(hours(1)));
    world.pass(seconds(3)).await;
    world.queue.dispatch(finish("later")).delay(seconds(10)).await.unwrap();
    world.queue.dispatch(finish("sooner")).delay(seconds(5)).await.unwrap();
    world.pass(milliseconds(4_800)).await;
    assert!(world.journal.lines().is_empty());
    world.pass(milliseconds(400)).await;
    assert_eq!(world.journal.lines(), ["sooner"]);
    world.pass(seconds(5)).await;
    assert_eq!(world.journal.lines(), ["sooner", "later"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_and_a_snooze_come_back_on_time() {
    let world = World::new();
    let working = start(world.worker().poll(hours(1)));
    world.pass(seconds(1)).await;
    world.dispatch(act("retry", Do::FailTimes(1))).await;
    world.pass(seconds(9)).await;
    assert_eq!(world.journal.lines(), ["retry"]);
    world.pass(milliseconds(1_400)).await;
    assert_eq!(world.journal.lines(), ["retry", "retry"]);
    world.dispatch(act("snooze", Do::SnoozeUntil(seconds(5)))).await;
    world.pass(milliseconds(5_400)).await;
    assert_eq!(world.journal.count("snooze"), 2);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_set_free_by_another_starts_at_once() {
    let world = World::new();
    let working = start(world.worker().poll(hours(1)));
    world.pass(seconds(1)).await;
    let parent = world.dispatch(act("parent", Do::Sleep(seconds(2)))).await;
    world.queue.dispatch(finish("child")).after(parent.job_ref()).await.unwrap();
    for name in ["limited 1", "limited 2"] {
        world.queue.dispatch(act(name, Do::Sleep(seconds(2)))).limit("k", 1).await.unwrap();
    }
    world.pass(milliseconds(2_400)).await;
    assert_eq!(world.journal.count("child"), 1);
    assert_eq!(world.journal.count("limited 2"), 1);
    world.pass(seconds(3)).await;
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn until_empty_ends_the_moment_it_is_empty() {
    let world = World::new();
    let begun = Instant::now();
    world.worker().until_empty().run().await.unwrap();
    for n in 0..3 {
        world.dispatch(finish(&n.to_string())).await;
    }
    world.worker().until_empty().run().await.unwrap();
    // Paused time moves only when everything sleeps.
    assert!(begun.elapsed() < milliseconds(10), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_asks_for_little() {
    let world = World::new();
    let working = start(world.worker().poll(seconds(1)));
    world.pass(seconds(2)).await;
    let before = world.queue.backend().calls();
    world.pass(seconds(100)).await;
    let calls = world.queue.backend().calls() - before;
    // A claim and a wait a second, a sweep every five; no beat, as nothing is held.
    assert!((200..=240).contains(&calls), "{calls} calls in 100 idle seconds");
    working.stop().await;
}

struct CountHook(Arc<AtomicU32>);

impl OnDispatch for CountHook {
    fn before(&self, draft: &mut Envelope<windlass::envelope::Raw>) -> windlass::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        draft.add_tag("stamped");
        Ok(())
    }
}

#[tokio::test]
async fn a_draft_that_is_sent_again_is_not_stamped_again() {
    let world = World::new();
    let count = Arc::new(AtomicU32::new(0));
    let queue = world.queue.clone().on_dispatch(CountHook(Arc::clone(&count)));
    queue.backend().faults().fail_next(windlass::testing::Verb::Push, 1);
    let draft = queue.dispatch(finish("a")).await.unwrap_err().into_draft().unwrap();
    let sent = queue.push(vec![draft]).await.unwrap();
    assert_eq!((sent[0].pushed(), count.load(Ordering::Relaxed)), (Pushed::Inserted, 1));
    let fresh = queue.dispatch(finish("b")).into_draft().unwrap();
    queue.push(vec![fresh]).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2, "a draft that was never sent passes the hook once");
}

#[tokio::test]
async fn an_output_can_be_had_by_address_also_from_a_transaction() {
    #[derive(serde::Serialize, serde::Deserialize, Job)]
    #[job(name = "sum", output = u32)]
    struct Sum(u32, u32);
    impl Handler for Sum {
        type Deps = (Queue<MemoryBackend>,);
        type Error = Fault;
        async fn handle(
            Self(a, b): Self,
            (queue,): Self::Deps,
            cx: &mut Context,
        ) -> Result<Outcome<u32>, Fault> {
            let mut tx = queue.backend().begin();
            let ticket = cx.ticket().output::<Self>(&(a + b))?;
            let receipt = queue.complete_within(ticket, &mut tx).await?;
            tx.commit().await?;
            Ok(Outcome::Settled(receipt))
        }
    }
    #[derive(Provide)]
    struct App {
        queue: Queue<MemoryBackend>,
    }
    let queue = Queue::<MemoryBackend>::fake();
    let job = queue.dispatch(Sum(2, 3)).await.unwrap();
    queue.drain(&Registry::new(App { queue: queue.clone() }).register::<Sum>()).await.assert_clean();
    let address = job.job_ref().clone();
    assert_eq!(queue.wait_for_job::<Sum>(&address, seconds(1)).await.unwrap(), Some(Ended::Completed(5)));
}

#[tokio::test]
async fn an_erased_queue_is_not_wrapped_again() {
    let queue = Queue::new(MemoryBackend::new()).erase().erase();
    assert_eq!(queue.backend().engine_name(), "memory");
    let job = queue.dispatch(finish("a")).await.unwrap();
    assert_eq!(queue.find(&job).await.unwrap().unwrap().state(), StateKind::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_worker_died_runs_as_soon_as_its_lease_is_taken_back() {
    let world = World::new();
    let job = world.dispatch(act("job", Do::Sleep(seconds(5)))).await;
    let doomed = start(world.worker());
    world.pass(seconds(1)).await;
    doomed.kill().await;
    let heir = start(world.worker().poll(hours(1)).sweep_every(seconds(5)));
    // The lease, a sweep and a second.
    world.pass(seconds(36)).await;
    assert_eq!(world.journal.lines(), ["job", "job"]);
    world.pass(seconds(6)).await;
    assert_eq!(world.state(&job).await, StateKind::Completed);
    heir.stop().await;
}
