//! What does it look like when it runs? Typed jobs with injected dependencies are dispatched, skipped as duplicates,
//! retried, scheduled and finished, and every step is printed.
//!
//! `cargo run --example quickstart` needs nothing but Rust: the jobs live in the SQLite file `quickstart.db`. Kill it half-way
//! (Ctrl-C twice, or `kill -9`) and run it again: it finishes what is left. With `WINDLASS_URL` the same program runs on
//! another engine: `WINDLASS_URL=memory: cargo run --example quickstart`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use windlass::prelude::*;

// 1. Jobs: plain structs with a stable name.

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_welcome_email", queue = "mail", max_attempts = 5, timeout = "30s")]
#[job(retry = Retry::Fixed(Duration::from_millis(200)))]
struct SendWelcomeEmail {
    user_id: u64,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "count_signups", queue = "reports", output = usize)]
struct CountSignups;

// 2. How they run, and what they need for it.

impl Handler for SendWelcomeEmail {
    type Deps = (Users, Mailer, Log);
    type Error = anyhow::Error;

    async fn handle(
        Self { user_id }: Self,
        (users, mailer, log): Self::Deps,
        cx: &mut Context,
    ) -> Result<Outcome, Self::Error> {
        let address = users.address(user_id)?;
        log.line(&format!(
            "send_welcome_email   attempt {} of {} to {address}",
            cx.attempt(),
            cx.max_attempts()
        ));
        mailer.send(&address).await?;
        log.line(&format!("send_welcome_email   sent to {address}"));
        Ok(Outcome::Done)
    }
}

impl Handler for CountSignups {
    type Deps = (Users, Log);
    type Error = Fault;

    async fn handle(_: Self, (users, log): Self::Deps, _cx: &mut Context) -> Result<Outcome<usize>, Fault> {
        let count = users.names.len();
        log.line(&format!("count_signups        found {count}"));
        Ok(Outcome::Value(count))
    }
}

// 3. Where dependencies come from. Take a field away, and `register` below no longer compiles.

#[derive(Clone, Provide)]
struct App {
    users: Users,
    mailer: Mailer,
    log: Log,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = Log { start: Instant::now() };
    let app = App { users: Users::new(), mailer: Mailer::default(), log };

    // One program, any engine. A service names its own: `Queue::<SqliteBackend>::connect("sqlite:jobs.db")`.
    let url = std::env::var("WINDLASS_URL").unwrap_or_else(|_| "sqlite:quickstart.db".to_owned());
    let queue = Queue::<AnyBackend>::connect(&url).await?;
    queue.migrate().await?;
    log.line(&format!("opened               the {} engine", queue.backend().engine_name()));

    // 4. Dispatch: with the job's defaults, or with options. What is dispatched is stored, and outlives this process.
    let left = unfinished(&queue).await?;
    let report = if left == 0 {
        Some(dispatch(&queue, &app).await?)
    } else {
        log.line(&format!(
            "resumed              {left} jobs that an earlier run has left; what ran when it died is taken"
        ));
        log.line("                     back when its lease of 2 s has passed");
        None
    };

    // 5. Work: any number of named queues and kinds in one worker.
    let jobs = Registry::new(app.clone()).register::<SendWelcomeEmail>().register::<CountSignups>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = Worker::new(queue.clone(), jobs)
        .queues(["mail", "reports"])
        .concurrency(2)
        .lease(seconds(2)) // a service leaves these at 30 s and 5 s
        .sweep_every(seconds(1));
    let worker = tokio::spawn(worker.run_until(async {
        let _ = stopped.await; // a service waits for `shutdown_signal()` here
    }));

    // 6. Wait for what came of them.
    if let Some(report) = &report {
        let counted = queue.wait_for(report, seconds(10)).await?;
        assert_eq!(counted, Some(Ended::Completed(app.users.names.len())));
    }
    let deadline = Instant::now() + seconds(20);
    while unfinished(&queue).await? > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(unfinished(&queue).await?, 0, "every job is finished");
    log.line("finished             all");

    // 7. Stop, and read the report.
    let _ = stop.send(());
    let did = worker.await??;
    println!("\ncompleted {}, retried {}, dead {}, lost {}", did.completed, did.retried, did.dead, did.lost);
    assert_eq!((did.dead, did.lost), (0, 0));
    if report.is_some() {
        assert_eq!((did.completed, did.retried), (app.users.names.len() as u64 + 1, 1));
        assert_eq!(app.mailer.deliveries.load(Ordering::Relaxed), app.users.names.len());
    }
    Ok(())
}

async fn dispatch(
    queue: &Queue<AnyBackend>,
    app: &App,
) -> anyhow::Result<windlass::Dispatched<CountSignups>> {
    let log = app.log;
    for user_id in 1..=app.users.names.len() as u64 {
        queue.dispatch(SendWelcomeEmail { user_id }).unique(UniqueBy::payload()).await?;
    }
    log.line(&format!("dispatched           a welcome for each of {} users", app.users.names.len()));
    let again = queue.dispatch(SendWelcomeEmail { user_id: 1 }).unique(UniqueBy::payload()).await?;
    assert!(!again.is_new());
    log.line("skipped              a second welcome for user 1: the first is not done yet");
    let report = queue.dispatch(CountSignups).delay(Duration::from_millis(600)).await?;
    log.line("scheduled            count_signups, due in 600 ms");
    Ok(report)
}

/// Jobs that are stored and have not ended.
async fn unfinished(queue: &Queue<AnyBackend>) -> windlass::Result<u64> {
    Ok(queue.queues().await?.iter().map(|queue| queue.counts.live()).sum())
}

// What follows stands for the application's own parts.

#[derive(Clone)]
struct Users {
    names: Arc<Vec<&'static str>>,
}

impl Users {
    fn new() -> Self {
        Self { names: Arc::new(vec!["ada", "grace", "edsger", "barbara", "donald", "margaret"]) }
    }

    fn address(&self, user_id: u64) -> anyhow::Result<String> {
        let at = usize::try_from(user_id)?.checked_sub(1);
        let name =
            at.and_then(|at| self.names.get(at)).ok_or_else(|| anyhow::anyhow!("no user {user_id}"))?;
        Ok(format!("{name}@example.com"))
    }
}

/// A mail service that is slow, and down for the first message.
#[derive(Clone, Default)]
struct Mailer {
    tried: Arc<AtomicUsize>,
    deliveries: Arc<AtomicUsize>,
}

impl Mailer {
    async fn send(&self, _address: &str) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        if self.tried.fetch_add(1, Ordering::Relaxed) == 0 {
            anyhow::bail!("the mail service is down");
        }
        self.deliveries.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Log {
    start: Instant,
}

impl Log {
    fn line(&self, text: &str) {
        println!("{:>6} ms  {text}", self.start.elapsed().as_millis());
    }
}
