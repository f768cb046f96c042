//! Pause and resume, seen from a worker.

use windlass::StateKind;
use windlass::prelude::*;

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_paused_queue_waits_while_others_go_on_and_resumes_at_once() {
    let world = World::new();
    world.queue.pause("mail").await.unwrap();
    let mail = world.queue.dispatch(finish("mail")).on("mail").await.unwrap();
    world.queue.dispatch(finish("bulk")).on("bulk").await.unwrap();
    let working = start(world.worker().queues(["mail", "bulk"]).poll(hours(1)));
    world.pass(seconds(10)).await;
    assert_eq!(world.journal.lines(), ["bulk"]);
    assert_eq!(world.state(&mail).await, StateKind::Ready);
    world.queue.resume("mail").await.unwrap();
    world.pass(seconds(1)).await;
    assert_eq!(world.journal.lines(), ["bulk", "mail"]);
    working.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_runs_when_it_is_paused_goes_on() {
    let world = World::new();
    let running = world.dispatch(act("running", Do::Sleep(seconds(10)))).await;
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    world.queue.pause("default").await.unwrap();
    let waiting = world.dispatch(finish("waiting")).await;
    world.pass(seconds(20)).await;
    assert_eq!(world.state(&running).await, StateKind::Completed);
    assert_eq!(world.state(&waiting).await, StateKind::Ready);
    let queues = world.queue.queues().await.unwrap();
    assert!(queues[0].paused && queues[0].counts.get(StateKind::Ready) == 1);
    working.stop().await;
    assert!(world.queue.pause("No Good").await.is_err());
}
