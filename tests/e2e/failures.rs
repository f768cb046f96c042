//! What goes wrong inside a run stays inside it.

use serde::{Deserialize, Serialize};
use windlass::core::Backend as _;
use windlass::prelude::*;
use windlass::{DeadReason, JobId, Recorded, StateKind};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt_and_hurts_nobody_else() {
    let world = World::new();
    let bad = world.dispatch(act("bad", Do::Panic("index out of bounds".to_owned()))).await;
    for n in 0..20 {
        world.dispatch(finish(&format!("good {n}"))).await;
    }
    let report = world.worker().concurrency(4).until_empty().run().await.unwrap();
    assert_eq!((report.panicked, report.retried, report.completed), (1, 1, 20));
    let Recorded::Scheduled(recorded) = world.find(&bad).await else { panic!("scheduled") };
    let history = &recorded.state().history;
    assert_eq!(history.attempts, 1);
    assert_eq!(recorded.state().due.since(world.clock.now()), seconds(10), "by the job's own policy");
    let error = history.last_error.clone().unwrap();
    assert!(error.is_panic());
    assert_eq!(error.message(), "index out of bounds");
}

#[derive(Clone)]
struct Broken;

struct BrokenApp;
impl Provide<Broken> for BrokenApp {
    fn provide(&self) -> Broken {
        panic!("the pool is gone")
    }
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "needs_broken", max_attempts = 1)]
struct NeedsBroken;
impl Handler for NeedsBroken {
    type Deps = (Broken,);
    type Error = Fault;
    async fn handle(_: Self, _: (Broken,), _: &mut Context) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

#[tokio::test]
async fn a_panic_while_providing_is_a_failed_attempt_too() {
    let queue = Queue::<MemoryBackend>::fake();
    let job = queue.dispatch(NeedsBroken).await.unwrap();
    let drained = queue.drain(&Registry::new(BrokenApp).register::<NeedsBroken>()).await;
    assert_eq!(drained.dead, 1);
    let error = queue.find(&job).await.unwrap().unwrap().history().last_error.clone().unwrap();
    assert_eq!(error.message(), "the pool is gone");
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_dead_with_its_bytes_kept() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "act")]
    struct Wrong {
        nonsense: u8,
    }
    let world = World::new();
    let job = world.queue.dispatch(Wrong { nonsense: 7 }).await.unwrap();
    let drained = world.queue.drain(&world.jobs).await;
    assert_eq!((drained.dead, drained.retried), (1, 0), "its bytes will not change: no second attempt");
    let Some(Recorded::Dead(envelope)) = world.queue.get(job.job_ref()).await.unwrap() else {
        panic!("dead")
    };
    assert_eq!(envelope.state().reason, DeadReason::Undecodable);
    assert_eq!(envelope.payload(), br#"{"nonsense":7}"#);
    assert!(envelope.state().history.last_error.as_ref().unwrap().message().contains("missing field `name`"));
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "nan", output = f64, max_attempts = 1)]
struct Nan;
impl Handler for Nan {
    type Deps = ();
    type Error = Fault;
    async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome<f64>, Fault> {
        Ok(Outcome::Value(f64::NAN))
    }
}

#[tokio::test]
async fn an_output_that_cannot_be_written_fails_the_attempt() {
    let queue = Queue::<MemoryBackend>::fake();
    let job = queue.dispatch(Nan).await.unwrap();
    assert_eq!(queue.drain(&Registry::new(()).register::<Nan>()).await.dead, 1);
    let Recorded::Dead(envelope) = queue.find(&job).await.unwrap().unwrap() else { panic!("dead") };
    assert_eq!(envelope.state().reason, DeadReason::AttemptsExhausted);
    assert!(envelope.state().history.last_error.as_ref().unwrap().message().contains("output of `nan`"));
}

#[tokio::test]
async fn huge_errors_are_clipped_and_freed_of_nul() {
    let world = World::new();
    let job = world.dispatch(act("loud", Do::Bury(format!("\0{}", "x".repeat(100_000))))).await;
    world.queue.drain(&world.jobs).await;
    let error = world.find(&job).await.history().last_error.clone().unwrap();
    assert!(error.message().len() <= 8 * 1024 && !error.message().contains('\0'));
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_breaks_a_limit_buries_its_job_and_holds_nobody_up() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "crowd")]
    struct Crowd;
    impl Handler for Crowd {
        type Deps = ();
        type Error = Fault;
        async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
            for _ in 0..1_001 {
                cx.then(finish("child"))?;
            }
            Ok(Outcome::Done)
        }
    }
    let world = World::new();
    let crowd = world.queue.dispatch(Crowd).await.unwrap();
    let good = world.dispatch(finish("good")).await;
    let jobs = world.jobs.clone().register::<Crowd>();
    Worker::new(world.queue.clone(), jobs).until_empty().run().await.unwrap();
    assert_eq!(world.state(&good).await, StateKind::Completed);
    let recorded = world.find(&crowd).await;
    assert_eq!(recorded.state(), StateKind::Dead);
    assert!(
        recorded.history().last_error.as_ref().unwrap().message().contains("1001 jobs ride with one verdict")
    );
    assert_eq!(world.journal.lines(), ["good"]);
}

#[tokio::test(start_paused = true)]
async fn a_poison_job_is_dead_after_three_lost_leases_and_takes_no_neighbour_along() {
    let world = World::new();
    // Whoever runs it dies: the test kills the worker while it runs.
    let poison = world.dispatch(act("poison", Do::SleepDeaf(hours(1)))).await;
    let mut neighbours = Vec::new();
    for n in 0..30 {
        neighbours.push(world.dispatch(act(&format!("n{n}"), Do::Sleep(seconds(20)))).await);
    }
    for _ in 0..3 {
        let working = start(world.worker().concurrency(8));
        world.pass(seconds(8)).await;
        working.kill().await;
        // A fresh worker takes the leases back when they have ended, but does not work.
        world.pass(seconds(31)).await;
        world
            .queue
            .backend()
            .sweep(&windlass::core::Sweep::default(), windlass::At::Instant(world.clock.now()))
            .await
            .unwrap();
    }
    let Recorded::Dead(envelope) = world.find(&poison).await else {
        panic!("dead: {:?}", world.find(&poison).await)
    };
    assert_eq!(envelope.state().reason, DeadReason::Poison);
    assert_eq!(envelope.state().history.lost_leases, 3);
    let working = start(world.worker().concurrency(8));
    world.pass(minutes(10)).await;
    working.stop().await;
    for neighbour in &neighbours {
        assert_eq!(world.state(neighbour).await, StateKind::Completed, "{:?}", world.find(neighbour).await);
    }
}

#[test]
#[should_panic(expected = "a handler for `act` is registered already")]
fn two_handlers_for_one_name_are_refused() {
    let _ = World::new().jobs.register::<Act>();
}

#[test]
fn ids_can_be_given_as_text() {
    let id = JobId::fresh();
    assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
}

/// What goes off outside of the handler's own code.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
enum Mine {
    Policy,
    Message,
    Drop,
}

struct GoesOff;
impl Drop for GoesOff {
    fn drop(&mut self) {
        panic!("went off in drop");
    }
}

#[derive(Debug)]
struct Unspeakable;
impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("went off in the message");
    }
}
impl std::error::Error for Unspeakable {}

#[derive(Serialize, Deserialize, Job, Debug)]
#[job(name = "trap", max_attempts = 2, retry = Retry::Custom(|_| panic!("went off in the policy")), timeout = "1s")]
struct Trap(Mine);
impl Handler for Trap {
    type Deps = ();
    type Error = Fault;
    async fn handle(Self(mine): Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
        match mine {
            Mine::Policy => Err(Fault::retry("as the policy says")),
            Mine::Message => Err(Fault::retry_after(seconds(1), Unspeakable)),
            Mine::Drop => {
                let _trap = GoesOff;
                std::future::pending().await
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_anywhere_in_the_jobs_own_code_is_a_failed_attempt_and_costs_no_slot() {
    for mine in [Mine::Policy, Mine::Message, Mine::Drop] {
        let world = World::new();
        let trap = world.queue.dispatch(Trap(mine)).await.unwrap();
        let next = world.dispatch(finish("next")).await;
        let jobs = world.jobs.clone().register::<Trap>();
        let working = start(Worker::new(world.queue.clone(), jobs).concurrency(1));
        world.pass(minutes(1)).await;
        assert_eq!(world.state(&next).await, StateKind::Completed, "{mine:?}");
        let Recorded::Dead(envelope) = world.find(&trap).await else {
            panic!("{mine:?}: {:?}", world.find(&trap).await)
        };
        let history = &envelope.state().history;
        assert_eq!((history.attempts, history.lost_leases), (2, 0), "{mine:?}");
        let error = history.last_error.as_ref().unwrap();
        assert!(error.is_panic() && error.message().contains("went off in"), "{mine:?}: {error:?}");
        let report = working.stop().await;
        assert_eq!((report.retried, report.dead, report.panicked), (1, 1, 2), "{mine:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn suspects_run_one_at_a_time() {
    let world = World::new();
    for name in ["a", "b"] {
        world.dispatch(act(name, Do::SleepDeaf(seconds(20)))).await;
    }
    let doomed = start(world.worker());
    world.pass(seconds(1)).await;
    doomed.kill().await;
    world.pass(seconds(31)).await;
    let sweep = windlass::core::Sweep::default();
    world.queue.backend().sweep(&sweep, windlass::At::Instant(world.clock.now())).await.unwrap();
    let working = start(world.worker());
    world.pass(seconds(15)).await;
    assert_eq!(world.journal.lines(), ["a", "b", "a dropped", "b dropped", "a"]);
    world.pass(seconds(30)).await;
    assert_eq!(world.journal.lines()[5..], ["a woke", "b", "b woke"]);
    working.stop().await;
}
