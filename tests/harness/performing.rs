//! One job in isolation: every way to end, and what the assertions say when it ended otherwise.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::testing::perform;

use super::support::*;

#[derive(Debug)]
struct Smtp {
    code: u16,
}

impl fmt::Display for Smtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mail server said {}", self.code)
    }
}

impl std::error::Error for Smtp {}

#[derive(Debug)]
struct Outer(Smtp);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("could not deliver")
    }
}

impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[derive(Clone, Serialize, Deserialize, PartialEq)]
enum Way {
    Done,
    Fail,
    FailDeep,
    RetryAfter,
    Snooze,
    Cancel,
    Bury,
    Panic,
    Sleep,
}

#[derive(Clone, Serialize, Deserialize, Job)]
#[job(name = "deliver", queue = "mail", max_attempts = 3, output = u32, timeout = "30s", retry = Retry::Fixed(seconds(8)))]
struct Deliver {
    way: Way,
}

impl Handler for Deliver {
    type Deps = (Arc<Mutex<Vec<String>>>,);
    type Error = Fault;

    async fn handle(job: Self, (journal,): Self::Deps, cx: &mut Context) -> Result<Outcome<u32>, Fault> {
        journal.lock().unwrap().push(format!("attempt {} {:?}", cx.attempt(), cx.tags()));
        cx.dispatch(audit("tried")).await.unwrap();
        cx.then(audit("delivered"))?;
        match job.way {
            Way::Done => Ok(Outcome::Value(7)),
            Way::Fail => Err(Smtp { code: 421 }.into()),
            Way::FailDeep => Err(Outer(Smtp { code: 550 }).into()),
            Way::RetryAfter => Err(Fault::retry_after(hours(6), "greylisted")),
            Way::Snooze => Ok(Outcome::Snooze(minutes(5))),
            Way::Cancel => Ok(Outcome::Cancel("unsubscribed".to_owned())),
            Way::Bury => Err(Fault::bury("no such address")),
            Way::Panic => panic!("index out of bounds"),
            Way::Sleep => {
                tokio::time::sleep(hours(1)).await;
                Ok(Outcome::Value(0))
            }
        }
    }
}

#[derive(Clone, Default, Provide)]
struct App {
    journal: Arc<Mutex<Vec<String>>>,
}

fn deliver(way: Way) -> windlass::testing::Perform<Deliver> {
    perform(Deliver { way })
}

#[tokio::test(start_paused = true)]
async fn every_way_to_end_has_its_assertion() {
    let app = App::default();
    let done = deliver(Way::Done).with(&app).await;
    assert_eq!(done.assert_completed(), 7);
    assert_eq!((done.error(), done.state()), (None, Some(windlass::StateKind::Completed)));
    let failed = deliver(Way::Fail).with(&app).await;
    failed.assert_retries_after(seconds(8));
    assert_eq!(failed.assert_retried(), seconds(8));
    failed.assert_failed_with::<Smtp>(|error| error.code == 421);
    assert_eq!(failed.error(), Some("the mail server said 421"));
    deliver(Way::FailDeep).with(&app).await.assert_failed_with::<Smtp>(|error| error.code == 550);
    deliver(Way::FailDeep).with(&app).await.assert_failed_with::<Outer>(|_| true);
    deliver(Way::RetryAfter).with(&app).await.assert_retries_after(hours(6));
    deliver(Way::Fail).attempt(3).with(&app).await.assert_dead();
    deliver(Way::Snooze).with(&app).await.assert_snoozed(minutes(5));
    deliver(Way::Cancel).with(&app).await.assert_cancelled("unsubscribed");
    deliver(Way::Bury).with(&app).await.assert_dead();
    let panicked = deliver(Way::Panic).with(&app).await;
    panicked.assert_panicked("out of bounds");
    panicked.assert_retries_after(seconds(8));
    deliver(Way::Sleep).with(&app).await.assert_timed_out();
    assert_eq!(app.journal.lock().unwrap().len(), 11);
}

#[tokio::test]
async fn what_a_handler_dispatches_and_what_rides_with_its_verdict_are_told_apart() {
    let app = App::default();
    let done = deliver(Way::Done).with(&app).await;
    assert_eq!(done.dispatched::<Audit>().assert_once().event, "tried");
    assert_eq!(done.then::<Audit>().assert_once().event, "delivered");
    assert_eq!(done.snapshot().entries().len(), 1);
    let failed = deliver(Way::Fail).with(&app).await;
    failed.dispatched::<Audit>().assert_once();
    failed.then::<Audit>().assert_none();
}

#[tokio::test]
async fn options_and_a_registrys_middleware_are_those_of_production() {
    struct NotForVips;

    #[windlass::async_trait]
    impl Middleware for NotForVips {
        async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
            if cx.tags().iter().any(|tag| tag == "vip") {
                return Ending::Snoozed(minutes(1));
            }
            next.run(cx).await
        }
    }

    let app = App::default();
    let jobs = Registry::new(app.clone()).register::<Deliver>().layer(NotForVips);
    let vip = deliver(Way::Done).options(|dispatch| dispatch.tag("vip").delay(days(1)).on("bulk"));
    vip.using(&jobs).await.assert_snoozed(minutes(1));
    deliver(Way::Done).options(|dispatch| dispatch.tag("plain")).using(&jobs).await.assert_completed();
    assert_eq!(*app.journal.lock().unwrap(), ["attempt 1 [\"plain\"]"]);
}

#[tokio::test(start_paused = true)]
async fn failed_assertions_say_how_it_ended() {
    let app = App::default();
    let done = deliver(Way::Done).with(&app).await;
    let failed = deliver(Way::Fail).attempt(2).with(&app).await;
    let panicked = deliver(Way::Panic).with(&app).await;
    let texts = [
        message(|| done.assert_dead()),
        message(|| _ = done.assert_retried()),
        message(|| done.assert_failed_with::<Smtp>(|_| true)),
        message(|| _ = failed.assert_completed()),
        message(|| failed.assert_retries_after(minutes(1))),
        message(|| failed.assert_failed_with::<Outer>(|_| true)),
        message(|| failed.assert_failed_with::<Smtp>(|error| error.code == 1)),
        message(|| panicked.assert_panicked("something else")),
        message(|| panicked.assert_timed_out()),
    ];
    let snoozed = deliver(Way::Snooze).with(&app).await;
    let cancelled = deliver(Way::Cancel).with(&app).await;
    let dead = deliver(Way::Bury).with(&app).await;
    let late = deliver(Way::Sleep).with(&app).await;
    let more = [
        message(|| snoozed.assert_snoozed(minutes(6))),
        message(|| cancelled.assert_cancelled("bounced")),
        message(|| _ = dead.assert_completed()),
        message(|| _ = late.assert_completed()),
    ];
    golden("performed", &[texts.as_slice(), more.as_slice()].concat().join("\n---\n"));
}

#[tokio::test]
#[should_panic(expected = "`deliver` could not be performed: no handler is registered for it")]
async fn a_job_that_nothing_runs_is_refused() {
    let _ = deliver(Way::Done).using(&Registry::new(())).await;
}

#[tokio::test]
#[should_panic(expected = "`deliver` could not be performed: invalid input: max_attempts 0 is out of range")]
async fn a_job_that_cannot_be_dispatched_is_refused() {
    let _ = deliver(Way::Done).options(|dispatch| dispatch.max_attempts(0)).with(&App::default()).await;
}
