//! A made-up application tested with the harness as its users would: people sign up, are billed every month, and ask for
//! reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::testing::{Step, Verb, assert_idempotent, perform};
use windlass::{StateKind, Timestamp};

// The application.

#[derive(Serialize, Deserialize, Job)]
#[job(name = "app.welcome", queue = "mail", max_attempts = 5, retry = Retry::Fixed(minutes(1)))]
struct Welcome {
    email: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "app.bill", queue = "billing", max_attempts = 3, retry = Retry::Fixed(hours(6)))]
struct Bill {
    email: String,
    cents: u32,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "app.receipt", queue = "mail")]
struct Receipt {
    email: String,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "app.collect", queue = "reports")]
struct Collect {
    month: u8,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "app.render", queue = "reports")]
struct Render {
    month: u8,
}

/// The outside world, as a test sees it.
#[derive(Clone, Default)]
struct Outside {
    mails: Arc<Mutex<Vec<String>>>,
    charges: Arc<Mutex<BTreeMap<String, u32>>>,
    declines: Arc<Mutex<u32>>,
}

impl Outside {
    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn earned(&self) -> u32 {
        self.charges.lock().unwrap().values().sum()
    }

    fn decline_next(&self, times: u32) {
        *self.declines.lock().unwrap() = times;
    }

    fn mail(&self, text: String) {
        self.mails.lock().unwrap().push(text);
    }
}

#[derive(Clone, Default, Provide)]
struct App {
    outside: Outside,
}

#[derive(Debug)]
struct Declined;

impl std::fmt::Display for Declined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the card was declined")
    }
}

impl std::error::Error for Declined {}

impl Handler for Welcome {
    type Deps = (Outside,);
    type Error = Fault;

    async fn handle(job: Self, (outside,): Self::Deps, _: &mut Context) -> Result<Outcome, Fault> {
        if !job.email.contains('@') {
            return Ok(Outcome::Cancel("no address".to_owned()));
        }
        outside.mail(format!("welcome {}", job.email));
        Ok(Outcome::Done)
    }
}

impl Handler for Bill {
    type Deps = (Outside,);
    type Error = Fault;

    async fn handle(job: Self, (outside,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
        {
            let mut declines = outside.declines.lock().unwrap();
            if *declines > 0 {
                *declines -= 1;
                return Err(Declined.into());
            }
        }
        outside.charges.lock().unwrap().insert(cx.idempotency_key().to_string(), job.cents);
        tokio::task::yield_now().await;
        cx.then(Receipt { email: job.email.clone() })?;
        cx.then_with(Bill { email: job.email, cents: job.cents }, |next| next.delay(days(30)))?;
        Ok(Outcome::Done)
    }
}

impl Handler for Receipt {
    type Deps = (Outside,);
    type Error = Fault;

    async fn handle(job: Self, (outside,): Self::Deps, _: &mut Context) -> Result<Outcome, Fault> {
        outside.mail(format!("receipt {}", job.email));
        Ok(Outcome::Done)
    }
}

impl Handler for Collect {
    type Deps = ();
    type Error = Fault;

    async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

impl Handler for Render {
    type Deps = (Outside,);
    type Error = Fault;

    async fn handle(job: Self, (outside,): Self::Deps, _: &mut Context) -> Result<Outcome, Fault> {
        outside.mail(format!("report {}", job.month));
        Ok(Outcome::Done)
    }
}

async fn sign_up<B: Backend>(queue: &Queue<B>, email: &str) -> windlass::Result<()> {
    let welcome = Welcome { email: email.to_owned() };
    queue.dispatch(welcome).unique(UniqueBy::key(email)).await?;
    let bill = Bill { email: email.to_owned(), cents: 900 };
    queue.dispatch(bill).delay(days(14)).priority(Priority::HIGH).tag("trial").await?;
    Ok(())
}

async fn report<B: Backend>(queue: &Queue<B>, month: u8) -> windlass::Result<()> {
    let collected = queue.dispatch(Collect { month }).await?;
    queue.dispatch(Render { month }).after(collected.job_ref()).await?;
    Ok(())
}

fn jobs(app: &App) -> Registry<App> {
    let jobs = Registry::new(app.clone()).register::<Welcome>().register::<Bill>().register::<Receipt>();
    jobs.register::<Collect>().register::<Render>()
}

fn start() -> (Queue<MemoryBackend>, App, Registry<App>) {
    let app = App::default();
    let jobs = jobs(&app);
    (Queue::<MemoryBackend>::fake(), app, jobs)
}

fn date(text: &str) -> Timestamp {
    text.parse().unwrap()
}

// Its tests.

#[tokio::test]
async fn signing_up_sends_a_welcome_now_and_a_bill_in_two_weeks() {
    let (queue, ..) = start();
    sign_up(&queue, "ada@example.com").await.unwrap();

    queue.assert_sequence::<(Welcome, Bill)>();
    queue
        .dispatched::<Welcome>()
        .on("mail")
        .unique_key("ada@example.com")
        .delayed_by(seconds(0))
        .assert_once();
    let bill = queue.dispatched::<Bill>().due_at(date("2030-01-15T00:00:00Z")).tagged("trial").assert_once();
    assert_eq!((bill.email.as_str(), bill.cents), ("ada@example.com", 900));
}

#[tokio::test]
async fn signing_up_twice_welcomes_once() {
    let (queue, app, jobs) = start();
    sign_up(&queue, "ada@example.com").await.unwrap();
    sign_up(&queue, "ada@example.com").await.unwrap();
    queue.drain_due(&jobs).await;

    queue.assert_dispatched_times::<Welcome>(1);
    assert_eq!(app.outside.mails(), ["welcome ada@example.com"]);
}

#[tokio::test]
async fn somebody_without_an_address_is_not_welcomed() {
    let run = perform(Welcome { email: "nonsense".to_owned() }).with(&App::default()).await;
    run.assert_cancelled("no address");
}

#[tokio::test]
async fn a_year_of_billing_takes_no_time() {
    let (queue, app, jobs) = start();
    sign_up(&queue, "ada@example.com").await.unwrap();
    let drained = queue.drain_until(&jobs, date("2031-01-01T00:00:00Z")).await;

    assert_eq!(app.outside.earned(), 12 * 900);
    assert_eq!((drained.completed, drained.elapsed), (1 + 12 * 2, days(365)));
    queue.dispatched::<Bill>().in_state(StateKind::Scheduled).assert_once();
}

#[tokio::test]
async fn a_declined_card_is_tried_twice_more_and_then_left_to_people() {
    let app = App::default();
    app.outside.decline_next(2);
    let bill = || Bill { email: "ada@example.com".to_owned(), cents: 900 };

    let first = perform(bill()).with(&app).await;
    first.assert_failed_with::<Declined>(|_| true);
    first.assert_retries_after(hours(6));
    first.then::<Receipt>().assert_none();
    perform(bill()).attempt(3).with(&app).await.assert_dead();

    let paid = perform(bill()).attempt(2).with(&app).await;
    paid.assert_completed();
    paid.then::<Receipt>().assert_once();
    paid.then::<Bill>().delayed_by(days(30)).assert_once();
}

#[tokio::test]
async fn a_bill_is_charged_once_wherever_its_worker_crashes() {
    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "app.bill_once")]
    struct BillOnce;

    impl Handler for BillOnce {
        type Deps = (Outside,);
        type Error = Fault;

        async fn handle(_: Self, (outside,): Self::Deps, cx: &mut Context) -> Result<Outcome, Fault> {
            outside.charges.lock().unwrap().insert(cx.idempotency_key().to_string(), 900);
            tokio::task::yield_now().await;
            cx.then(Receipt { email: "ada@example.com".to_owned() })?;
            Ok(Outcome::Done)
        }
    }

    let world = || jobs(&App::default()).register::<BillOnce>();
    assert_idempotent(BillOnce, world, async |app: &App| (app.outside.earned(), app.outside.mails())).await;
}

#[tokio::test]
async fn a_report_is_rendered_after_its_numbers_are_collected() {
    let (queue, app, jobs) = start();
    report(&queue, 4).await.unwrap();

    queue.assert_chained::<(Collect, Render)>();
    queue.dispatched::<Render>().in_state(StateKind::Blocked).assert_once();
    queue.drain_shuffled(&jobs, 7).await.assert_clean();
    assert_eq!(app.outside.mails(), ["report 4"]);
}

#[tokio::test]
async fn a_report_survives_a_crash_and_a_database_that_is_away() {
    let (queue, app, jobs) = start();
    report(&queue, 5).await.unwrap();
    queue.crash_worker(Step::BeforeHandler);
    queue.faults().disconnect_for(minutes(1));
    queue.faults().lose_next_reply(Verb::Settle, 1);

    let drained = queue.drain(&jobs).await;
    drained.assert_clean();
    assert_eq!((drained.completed, drained.crashed), (2, 1));
    assert_eq!(app.outside.mails(), ["report 5"]);
}

#[tokio::test]
async fn only_the_mail_runs_while_signing_up_inline() {
    let (queue, app, jobs) = start();
    let _mail_only = queue.run_inline(&jobs).only::<(Welcome, Receipt)>();
    let _billed = queue.expect::<Bill>().once().on("billing");
    sign_up(&queue, "ada@example.com").await.unwrap();

    assert_eq!(app.outside.mails(), ["welcome ada@example.com"]);
}
