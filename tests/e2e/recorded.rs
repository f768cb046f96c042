//! What is read back: each state with its data.

use windlass::prelude::*;
use windlass::{Filter, Recorded, StateKind, WhyScheduled};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn every_state_reads_back_as_its_own_type() {
    let world = World::new();
    let parent = world.queue.dispatch(finish("parent")).delay(hours(1)).await.unwrap();
    let blocked = world.queue.dispatch(finish("blocked")).after(parent.job_ref()).await.unwrap();
    let running = world.queue.dispatch(act("running", Do::Sleep(hours(1)))).await.unwrap();
    let snoozed = world.dispatch(act("snoozed", Do::Snooze(hours(2)))).await;
    let completed = world.dispatch(finish("completed")).await;
    let cancelled = world.dispatch(act("cancelled", Do::GiveUp("enough".to_owned()))).await;
    let dead = world.dispatch(act("dead", Do::Bury("no".to_owned()))).await;
    let working = start(world.worker());
    world.pass(seconds(1)).await;
    let ready = world.queue.dispatch(finish("ready")).on("elsewhere").await.unwrap();
    let expected = [
        (&parent, StateKind::Scheduled),
        (&blocked, StateKind::Blocked),
        (&running, StateKind::Running),
        (&snoozed, StateKind::Scheduled),
        (&completed, StateKind::Completed),
        (&cancelled, StateKind::Cancelled),
        (&dead, StateKind::Dead),
        (&ready, StateKind::Ready),
    ];
    for (job, state) in expected {
        let recorded = world.find(job).await;
        assert_eq!((recorded.state(), recorded.id()), (state, job.id()));
        assert!(format!("{recorded:?}").contains("history"), "and none shows its payload");
        assert!(!format!("{recorded:?}").contains(&recorded.job().name));
    }
    let Recorded::Running(envelope) = world.find(&running).await else { panic!("running") };
    assert!(envelope.state().started && !envelope.state().cancel_requested);
    assert!(envelope.state().lease_until > envelope.state().since);
    let Recorded::Scheduled(envelope) = world.find(&snoozed).await else { panic!("scheduled") };
    assert_eq!(envelope.state().why, WhyScheduled::Snooze);
    let dead_ones = Filter { states: vec![StateKind::Dead], ..Filter::default() };
    let (page, _) = world.queue.list(&dead_ones, None, 10).await.unwrap();
    assert_eq!(page.len(), 1);
    assert_eq!(page[0].clone().decode::<Act>().unwrap().job().name, "dead");
    working.kill().await;
}
