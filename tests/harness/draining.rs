//! Draining: how far, in which order, until what; crashes on the way; inline mode and expectations.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::testing::{Fake, Step};
use windlass::{StateKind, VirtualClock};

use super::support::*;

#[derive(Clone, Default, Provide)]
struct App {
    journal: Arc<Mutex<Vec<String>>>,
}

impl App {
    fn lines(&self) -> Vec<String> {
        self.journal.lock().unwrap().clone()
    }
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "note", retry = Retry::Fixed(seconds(10)))]
struct Note {
    text: String,
}

fn note(text: &str) -> Note {
    Note { text: text.to_owned() }
}

impl Handler for Note {
    type Deps = (Arc<Mutex<Vec<String>>>,);
    type Error = Fault;

    async fn handle(Self { text }: Self, (journal,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        journal.lock().unwrap().push(text.clone());
        if text == "fail once" && cx.attempt() == 1 {
            return Err(Fault::retry("not yet"));
        }
        tokio::task::yield_now().await;
        journal.lock().unwrap().push(format!("{text} done"));
        Ok(Outcome::Done)
    }
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "sync_account")]
struct SyncAccount;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "refresh_token")]
struct RefreshToken;

impl Handler for SyncAccount {
    type Deps = ();
    type Error = Fault;

    async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
        cx.dispatch(RefreshToken).delay(seconds(1)).await.map_err(Fault::from)?;
        Ok(Outcome::Done)
    }
}

impl Handler for RefreshToken {
    type Deps = ();
    type Error = Fault;

    async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
        cx.dispatch(SyncAccount).await.map_err(Fault::from)?;
        Ok(Outcome::Done)
    }
}

fn set() -> (Queue<MemoryBackend>, App, Registry<App>) {
    let app = App::default();
    let jobs =
        Registry::new(app.clone()).register::<Note>().register::<SyncAccount>().register::<RefreshToken>();
    (Queue::<MemoryBackend>::fake(), app, jobs)
}

#[tokio::test]
async fn a_drain_goes_as_far_as_it_is_told() {
    let (queue, app, jobs) = set();
    let start = queue.now();
    for hour in [0, 1, 2, 3] {
        queue.dispatch(note(&hour.to_string())).delay(hours(hour)).await.unwrap();
    }
    let due = queue.drain_due(&jobs).await;
    assert_eq!((due.completed, due.left, due.elapsed), (1, 3, seconds(0)));
    let until = queue.drain_until(&jobs, start.saturating_add(minutes(90))).await;
    assert_eq!((until.completed, until.left, until.elapsed), (1, 2, minutes(90)));
    let rest = queue.drain(&jobs).await;
    assert_eq!((rest.completed, rest.left, rest.elapsed, rest.runs()), (2, 0, minutes(90), 2));
    assert_eq!(app.lines().len(), 8);
}

#[tokio::test]
async fn a_step_runs_one_job_and_tells_what_came_of_it() {
    let (queue, _, jobs) = set();
    assert_eq!(queue.step(&jobs).await, None);
    let job = queue.dispatch(note("fail once")).await.unwrap();
    let first = queue.step(&jobs).await.unwrap();
    assert_eq!((&first.job, first.kind.as_str(), first.attempt), (job.job_ref(), "note", 1));
    assert_eq!((first.state, first.error.as_deref()), (Some(StateKind::Scheduled), Some("not yet")));
    assert_eq!(queue.step(&jobs).await, None, "it backs off, and the clock stands still");
    queue.advance(seconds(10));
    assert_eq!(queue.step(&jobs).await.unwrap().state, Some(StateKind::Completed));
}

#[tokio::test]
async fn a_shuffled_drain_finds_other_orders_and_repeats_them() {
    let order = async |seed: Option<u64>| {
        let (queue, app, jobs) = set();
        for n in 0..10 {
            queue.dispatch(note(&n.to_string())).on(["a", "b"][n % 2]).await.unwrap();
        }
        match seed {
            Some(seed) => queue.drain_shuffled(&jobs, seed).await,
            None => queue.drain(&jobs).await,
        }
        .assert_clean();
        app.lines().into_iter().filter(|line| !line.ends_with("done")).collect::<Vec<_>>()
    };
    let plain = order(None).await;
    let mut orders: Vec<_> = Vec::new();
    for seed in 0..10 {
        let shuffled = order(Some(seed)).await;
        assert_eq!(shuffled, order(Some(seed)).await, "a seed repeats itself");
        let mut sorted = shuffled.clone();
        sorted.sort();
        assert_eq!(sorted, (0..10).map(|n| n.to_string()).collect::<Vec<_>>(), "each ran once");
        orders.push(shuffled);
    }
    assert!(orders.iter().filter(|order| **order != plain).count() > 5);
}

#[tokio::test]
#[should_panic(expected = "`note` failed in attempt 1: not yet")]
async fn a_strict_drain_raises_the_first_error() {
    let (queue, _, jobs) = set();
    queue.dispatch(note("fail once")).await.unwrap();
    queue.drain(&jobs).strict().await;
}

#[tokio::test]
async fn a_drain_that_does_not_end_names_the_cycle() {
    let endless = async |seed| {
        let (_, _, jobs) = set();
        let queue = Fake::new().seed(seed).queue();
        queue.dispatch(note("first")).await.unwrap();
        queue.dispatch(SyncAccount).await.unwrap();
        queue.drain(&jobs).at_most_runs(100).await
    };
    let panic = tokio::spawn(async move { drop(endless(7).await) }).await.unwrap_err().into_panic();
    golden("endless", panic.downcast_ref::<String>().unwrap());
}

#[tokio::test]
async fn a_crashed_worker_leaves_its_job_to_the_next_one_when_the_lease_has_run_out() {
    let runs = [
        (Step::BeforeHandler, vec!["a", "a done"]),
        (Step::DuringHandler, vec!["a", "a", "a done"]),
        (Step::AtWait(2), vec!["a", "a done", "a", "a done"]),
        (Step::AfterHandler, vec!["a", "a done", "a", "a done"]),
    ];
    for (step, lines) in runs {
        let (queue, app, jobs) = set();
        let job = queue.dispatch(note("a")).await.unwrap();
        queue.crash_worker(step);
        let drained = queue.drain(&jobs).await;
        assert_eq!((drained.crashed, drained.completed, drained.elapsed), (1, 1, seconds(30)), "{step:?}");
        assert_eq!(app.lines(), lines, "{step:?}");
        let recorded = queue.find(&job).await.unwrap().unwrap();
        assert_eq!((recorded.history().lost_leases, recorded.history().epoch), (1, 2));
    }
    let (queue, app, jobs) = set();
    queue.dispatch(note("a")).await.unwrap();
    queue.crash_worker(Step::AfterSettle);
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.crashed, drained.completed, drained.elapsed), (1, 1, seconds(0)));
    assert_eq!(app.lines(), ["a", "a done"]);
}

#[tokio::test]
async fn a_job_that_takes_its_worker_along_three_times_is_poison() {
    let (queue, _, jobs) = set();
    queue.dispatch(note("a")).await.unwrap();
    (0..3).for_each(|_| queue.crash_worker(Step::DuringHandler));
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.crashed, drained.completed), (3, 0));
    queue.dispatched::<Note>().in_state(StateKind::Dead).assert_once();
}

#[tokio::test(start_paused = true)]
async fn a_drain_in_tokio_time_sleeps_to_the_next_due_time() {
    let queue = Fake::new().tokio_time().queue();
    let (_, _, jobs) = set();
    let start = tokio::time::Instant::now();
    queue.dispatch(note("fail once")).delay(minutes(1)).await.unwrap();
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.elapsed), (1, seconds(70)));
    assert_eq!(start.elapsed(), seconds(70));
}

/// What works on a fake works on any engine whose queue has a virtual clock: a database in a continuous integration.
#[tokio::test]
async fn any_engine_can_be_drained_in_virtual_time() {
    let queue = Queue::<AnyBackend>::connect("memory:").await.unwrap().clock(VirtualClock::default());
    let (_, app, jobs) = set();
    queue.dispatch(note("fail once")).delay(days(30)).await.unwrap();
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.elapsed), (1, days(30) + seconds(10)));
    assert_eq!(app.lines().len(), 3);
}

#[tokio::test]
async fn inline_mode_runs_each_dispatch_at_once_until_its_guard_goes() {
    let (queue, app, jobs) = set();
    {
        let inline = queue.run_inline(&jobs);
        queue.dispatch(note("a")).await.unwrap();
        assert_eq!(app.lines(), ["a", "a done"]);
        queue.dispatch(note("later")).delay(hours(1)).await.unwrap();
        queue.dispatch_all([note("b"), note("fail once")]).await.unwrap();
        let so_far = inline.so_far();
        assert_eq!((so_far.completed, so_far.retried, so_far.left), (2, 1, 2));
    }
    queue.dispatch(note("c")).await.unwrap();
    assert_eq!(app.lines().len(), 5);
    assert_eq!(queue.drain(&jobs).await.completed, 3);
}

#[tokio::test]
async fn inline_mode_follows_what_handlers_dispatch_and_stops_what_never_ends() {
    let (queue, _, jobs) = set();
    let inline = queue.run_inline(&jobs);
    queue.dispatch(SyncAccount).await.unwrap();
    assert_eq!(
        (inline.so_far().completed, inline.so_far().left),
        (1, 1),
        "the token is refreshed in a second"
    );
    queue.advance(seconds(1));
    queue.dispatch(note("now")).await.unwrap();
    assert_eq!(inline.so_far().completed, 4);
    queue.dispatched::<SyncAccount>().assert_times(2);
}

#[tokio::test]
async fn inline_mode_can_be_kept_to_chosen_kinds() {
    let (queue, app, jobs) = set();
    let _inline = queue.run_inline(&jobs).only::<(SyncAccount, RefreshToken)>();
    queue.dispatch(note("only recorded")).await.unwrap();
    queue.dispatch(SyncAccount).await.unwrap();
    assert!(app.lines().is_empty());
    queue.dispatched::<Note>().in_state(StateKind::Ready).assert_once();
    queue.dispatched::<SyncAccount>().in_state(StateKind::Completed).assert_once();
}

#[tokio::test]
#[should_panic(expected = "this queue runs inline already")]
async fn inline_mode_is_entered_once() {
    let (queue, _, jobs) = set();
    let _inline = queue.run_inline(&jobs);
    let _again = queue.run_inline(&jobs);
}

#[tokio::test]
async fn an_expectation_is_verified_when_it_goes() {
    let queue = Queue::<MemoryBackend>::fake();
    queue.dispatch(audit("before")).await.unwrap();
    let expected = queue.expect::<Audit>().once().on("mail").matching(|job| job.event == "x");
    queue.dispatch(audit("x")).on("mail").await.unwrap();
    drop(expected);
    queue.expect::<Audit>().never().verify();
    queue.expect::<Resize>().at_most(1).verify();
    let unmet = queue.expect::<Audit>().times(2).that(|query| query.on("mail").tagged("t"));
    queue.dispatch(audit("y")).on("mail").tag("t").await.unwrap();
    golden("expectation", &message(|| drop(unmet)));
    let unmet = queue.expect::<Audit>().at_least(1);
    assert!(message(|| unmet.verify()).starts_with("expected `audit` to be dispatched"));
}

#[tokio::test]
#[should_panic(expected = "the first panic")]
async fn an_expectation_is_silent_while_the_test_is_panicking() {
    let queue = Queue::<MemoryBackend>::fake();
    let _unmet = queue.expect::<Audit>().once();
    panic!("the first panic");
}
