//! Exactly-once effects: the verdict and the handler's writes commit together.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{MemoryTransaction, StateKind};

use super::support::{Journal, World, finish};

/// What a charge does with its transaction.
#[derive(Clone, Copy, Serialize, Deserialize, PartialEq, Debug)]
enum How {
    CommitAndSettle,
    CommitAndFail,
    RollBackAndSettle,
    IgnoreTicket,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "charge", max_attempts = 2, retry = Retry::Fixed(seconds(1)))]
struct Charge(How);

impl Handler for Charge {
    type Deps = (Queue<MemoryBackend>, Journal);
    type Error = Fault;

    async fn handle(
        Self(how): Self,
        (queue, journal): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Fault> {
        journal.write("run");
        cx.then(finish("receipt"))?;
        if how == How::IgnoreTicket {
            return Ok(Outcome::Done);
        }
        let mut tx: MemoryTransaction = queue.backend().begin();
        queue.dispatch(finish("ledger")).within(&mut tx).await?;
        let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
        assert_eq!(receipt.job(), &cx.job_ref());
        match how {
            How::CommitAndFail => {
                tx.commit().await?;
                Err(Fault::retry("after the commit"))
            }
            How::RollBackAndSettle if cx.attempt() == 1 => {
                tx.rollback();
                Ok(Outcome::Settled(receipt))
            }
            How::CommitAndSettle | How::RollBackAndSettle => {
                tx.commit().await?;
                Ok(Outcome::Settled(receipt))
            }
            How::IgnoreTicket => unreachable!("returned above"),
        }
    }
}

#[derive(Provide)]
struct App {
    queue: Queue<MemoryBackend>,
    journal: Journal,
}

async fn charge(how: How) -> (World, windlass::Dispatched<Charge>, windlass::testing::Drained) {
    let world = World::new();
    let jobs = Registry::new(App { queue: world.queue.clone(), journal: world.journal.clone() })
        .register::<Charge>()
        .register::<super::support::Act>();
    let job = world.queue.dispatch(Charge(how)).await.unwrap();
    let drained = world.queue.drain(&jobs).await;
    (world, job, drained)
}

#[tokio::test]
async fn every_way_to_end_leaves_each_effect_exactly_once() {
    for (how, runs, ledgers) in [
        (How::CommitAndSettle, 1, 1),
        (How::CommitAndFail, 1, 1),
        (How::RollBackAndSettle, 2, 1),
        (How::IgnoreTicket, 1, 0),
    ] {
        let (world, job, drained) = charge(how).await;
        assert_eq!(world.state(&job).await, StateKind::Completed, "{how:?}");
        assert_eq!(world.journal.count("run"), runs, "{how:?}");
        assert_eq!(world.journal.count("ledger"), ledgers, "{how:?}");
        assert_eq!(
            world.journal.count("receipt"),
            1,
            "the jobs `then` ride with whichever verdict was applied: {how:?}"
        );
        assert_eq!(drained.dead, 0, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_counts_a_settled_job_as_completed_and_a_rolled_back_one_as_retried() {
    let world = World::new();
    let jobs = Registry::new(App { queue: world.queue.clone(), journal: world.journal.clone() })
        .register::<Charge>()
        .register::<super::support::Act>();
    world.queue.dispatch(Charge(How::CommitAndSettle)).await.unwrap();
    world.queue.dispatch(Charge(How::RollBackAndSettle)).await.unwrap();
    let report = Worker::new(world.queue.clone(), jobs).until_empty().run().await.unwrap();
    // The committed charge, its receipt and its ledger entry.
    assert_eq!((report.completed, report.retried, report.lost), (3, 1, 0));
}

#[tokio::test]
async fn a_dispatch_within_a_transaction_exists_if_and_only_if_it_commits() {
    let world = World::new();
    let mut tx = world.queue.backend().begin();
    let job = world.queue.dispatch(finish("in")).within(&mut tx).await.unwrap();
    assert!(world.queue.find(&job).await.unwrap().is_none(), "nobody sees it before");
    tx.rollback();
    assert!(world.queue.find(&job).await.unwrap().is_none());
    let mut tx = world.queue.backend().begin();
    let job = world.queue.dispatch(finish("in")).delay(hours(1)).within(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.state(&job).await, StateKind::Scheduled);
    let mut tx = world.queue.backend().begin();
    assert!(world.queue.dispatch(finish("bad")).max_attempts(0).within(&mut tx).await.is_err());
}

#[tokio::test]
async fn a_ticket_whose_lease_is_lost_is_refused() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "slow_charge")]
    struct SlowCharge;
    #[derive(Provide)]
    struct Lost {
        queue: Queue<MemoryBackend>,
        seen: Arc<Mutex<Vec<String>>>,
    }
    impl Handler for SlowCharge {
        type Deps = (Queue<MemoryBackend>, Arc<Mutex<Vec<String>>>);
        type Error = Fault;
        async fn handle(_: Self, (queue, seen): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
            if cx.fence().epoch == 1 {
                // Its time runs out while it works: somebody else may have the job.
                queue.virtual_clock().unwrap().advance(days(2));
                let at = windlass::At::Instant(queue.virtual_clock().unwrap().now());
                Backend::sweep(queue.backend(), &windlass::core::Sweep::default(), at).await?;
            }
            let mut tx = queue.backend().begin();
            match queue.complete_within(cx.ticket(), &mut tx).await {
                Ok(receipt) => {
                    tx.commit().await?;
                    Ok(Outcome::Settled(receipt))
                }
                Err(error) => {
                    seen.lock().unwrap().push(error.to_string());
                    Err(error.into())
                }
            }
        }
    }
    let queue = Queue::<MemoryBackend>::fake();
    let seen = Arc::default();
    let jobs = Registry::new(Lost { queue: queue.clone(), seen: Arc::clone(&seen) }).register::<SlowCharge>();
    let job = queue.dispatch(SlowCharge).await.unwrap();
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.lost), (1, 1));
    assert_eq!(queue.find(&job).await.unwrap().unwrap().state(), StateKind::Completed);
    let seen = seen.lock().unwrap();
    assert!(
        seen.len() == 1
            && seen[0].contains("the lease of default/")
            && seen[0].contains("roll the transaction back")
    );
}

#[tokio::test(start_paused = true)]
async fn one_that_rolls_back_each_time_ends_with_its_attempts() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "never", max_attempts = 3, retry = Retry::Fixed(seconds(1)))]
    struct Never;
    impl Handler for Never {
        type Deps = (Queue<MemoryBackend>, Journal);
        type Error = Fault;
        async fn handle(_: Self, (queue, journal): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
            journal.write("run");
            let mut tx = queue.backend().begin();
            let receipt = queue.complete_within(cx.ticket(), &mut tx).await?;
            drop(tx);
            Ok(Outcome::Settled(receipt))
        }
    }
    let world = World::new();
    let jobs = Registry::new(App { queue: world.queue.clone(), journal: world.journal.clone() });
    let job = world.queue.dispatch(Never).await.unwrap();
    let working = super::support::start(Worker::new(world.queue.clone(), jobs.register::<Never>()));
    world.pass(seconds(30)).await;
    let recorded = world.find(&job).await;
    assert_eq!((recorded.state(), recorded.history().attempts), (StateKind::Dead, 3));
    assert_eq!(world.journal.lines().len(), 3);
    let report = working.stop().await;
    assert_eq!((report.retried, report.dead, report.completed), (2, 1, 0));
}
