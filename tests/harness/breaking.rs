//! Faults of the engine and crashes of the worker, and the jobs that stand them.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::testing::{Corrupt, Fake, Faulty, Verb, assert_at_least_once, assert_idempotent};
use windlass::{Filter, StateKind, VirtualClock};

use super::support::*;

/// A payment service with an account of every call, and one that knows keys.
#[derive(Clone, Default)]
struct Payments {
    calls: Arc<Mutex<Vec<u32>>>,
    by_key: Arc<Mutex<BTreeMap<String, u32>>>,
}

#[derive(Clone, Default, Provide)]
struct App {
    payments: Payments,
}

#[derive(Serialize, Deserialize, PartialEq)]
enum How {
    ByKey,
    Blindly,
    Forgetfully,
    DispatchingAtOnce,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "charge")]
struct Charge {
    cents: u32,
    how: How,
}

fn charge(how: How) -> Charge {
    Charge { cents: 995, how }
}

impl Handler for Charge {
    type Deps = (Payments,);
    type Error = Fault;

    async fn handle(job: Self, (payments,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        tokio::task::yield_now().await;
        if job.how == How::Forgetfully && cx.lost_leases() > 0 {
            return Ok(Outcome::Done);
        }
        payments.calls.lock().unwrap().push(job.cents);
        payments.by_key.lock().unwrap().insert(cx.idempotency_key().to_string(), job.cents);
        tokio::task::yield_now().await;
        match job.how {
            How::DispatchingAtOnce => {
                cx.dispatch(audit("charged")).await.map_err(Fault::from)?;
            }
            _ => {
                cx.then(audit("charged"))?;
            }
        }
        Ok(Outcome::Done)
    }
}

fn world() -> Registry<App> {
    Registry::new(App::default()).register::<Charge>()
}

async fn by_key(app: &App) -> Vec<u32> {
    app.payments.by_key.lock().unwrap().values().copied().collect()
}

async fn calls(app: &App) -> Vec<u32> {
    app.payments.calls.lock().unwrap().clone()
}

/// The text of the panic that a future ends in.
async fn text_of(future: impl Future<Output = usize>) -> String {
    let panic = AssertUnwindSafe(future).catch_unwind().await.unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

#[tokio::test]
async fn a_job_that_stands_its_repetition_is_crashed_everywhere() {
    let places = assert_idempotent(charge(How::ByKey), world, by_key).await;
    assert_eq!(places, 5, "before, at two waits, after the handler, after the verdict");
}

#[tokio::test]
async fn a_job_that_charges_twice_is_found_out() {
    let blindly = text_of(assert_idempotent(charge(How::Blindly), world, calls)).await;
    golden("not_idempotent", &blindly);
    let at_once = text_of(assert_idempotent(charge(How::DispatchingAtOnce), world, by_key)).await;
    golden("dispatches_twice", &at_once);
}

#[tokio::test]
async fn a_job_that_gives_up_after_a_crash_is_found_out() {
    let charged = async |app: &App| !calls(app).await.is_empty();
    assert_eq!(assert_at_least_once(charge(How::Blindly), world, charged).await, 5);
    let text = text_of(assert_at_least_once(charge(How::Forgetfully), world, charged)).await;
    golden("not_at_least_once", &text);
}

#[tokio::test]
async fn a_drain_goes_on_through_faults_as_a_worker_does() {
    let queue = Fake::new().seed(7).queue();
    let jobs = world();
    for _ in 0..50 {
        queue.dispatch(charge(How::ByKey)).await.unwrap();
    }
    for verb in [Verb::Claim, Verb::Settle, Verb::Other] {
        queue.faults().every(verb, 0.1);
        queue.faults().lose_every_reply(verb, 0.1);
    }
    let drained = queue.drain(&jobs).await;
    queue.faults().clear();
    assert_eq!((drained.completed, drained.lost), (50, 0));
    assert!(drained.storage_errors > 20, "{drained:?}");
    queue.dispatched::<Charge>().in_state(StateKind::Completed).assert_times(50);
    queue.dispatched::<Audit>().assert_times(50);
}

#[tokio::test]
async fn an_engine_that_is_away_costs_time_and_nothing_else() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(charge(How::ByKey)).await.unwrap();
    queue.faults().disconnect_for(seconds(10));
    let drained = queue.drain(&world()).await;
    assert_eq!((drained.completed, drained.storage_errors, drained.elapsed), (1, 10, seconds(10)));
}

#[tokio::test]
async fn a_payload_that_arrives_damaged_makes_its_job_dead_and_undecodable() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(charge(How::ByKey)).await.unwrap();
    queue.faults().corrupt_next(1, Corrupt::Truncate);
    let drained = queue.drain(&world()).await;
    assert_eq!(drained.dead, 1);
    queue.dispatched::<Charge>().in_state(StateKind::Dead).assert_once();
}

#[tokio::test]
async fn a_delivery_that_comes_twice_is_settled_once() {
    let queue = Queue::<MemoryBackend>::fake();
    let app = App::default();
    let jobs = Registry::new(app.clone()).register::<Charge>();
    queue.dispatch(charge(How::ByKey)).await.unwrap();
    queue.faults().duplicate_next_delivery(1);
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.lost), (1, 1));
    assert_eq!((calls(&app).await.len(), by_key(&app).await.len()), (2, 1));
    queue.dispatched::<Audit>().assert_once();
}

/// The same plan above an engine that knows nothing of it: in a continuous integration, a database.
#[tokio::test]
async fn the_same_plan_drives_any_engine() {
    let engine = Faulty::new(MemoryBackend::new());
    let faults = engine.faults().clone();
    let queue = Queue::new(engine).clock(VirtualClock::default());
    faults.lose_next_reply(Verb::Push, 1);
    let draft = queue.dispatch(charge(How::ByKey)).await.unwrap_err().into_draft().unwrap();
    queue.push(vec![draft]).await.unwrap();
    faults.fail_next(Verb::Claim, 2);
    faults.lose_next_reply(Verb::Claim, 1);
    faults.fail_next(Verb::Settle, 1);
    faults.lose_next_reply(Verb::Settle, 1);
    faults.fail_next(Verb::Other, 1);
    let drained = queue.drain(&world()).await;
    assert_eq!((drained.completed, drained.lost, drained.storage_errors), (1, 0, 6));
    let snapshot = queue.snapshot_of(&Filter::default()).await.unwrap();
    snapshot.dispatched::<Charge>().in_state(StateKind::Completed).assert_once();
    snapshot.dispatched::<Audit>().in_state(StateKind::Ready).assert_once();
}

#[tokio::test(start_paused = true)]
async fn a_worker_stands_the_same_plan_above_any_engine() {
    let engine = Faulty::new(MemoryBackend::new());
    let faults = engine.faults().clone();
    let queue = Queue::new(engine);
    faults.seed(3);
    for verb in [Verb::Claim, Verb::Settle, Verb::Sweep, Verb::Wait, Verb::Extend] {
        faults.every(verb, 0.2);
    }
    for _ in 0..20 {
        queue.dispatch(charge(How::ByKey)).await.unwrap();
    }
    let report = Worker::new(queue, world()).until_empty().run().await.unwrap();
    assert_eq!((report.completed, report.lost), (20, 0));
}
