//! What does it look like when it runs? Typed jobs with injected dependencies are dispatched, skipped as duplicates,
//! retried, scheduled and finished, and every step is printed.
//!
//! `cargo run --example quickstart` needs nothing but Rust: the engine is the one in memory.

use std::collections::HashMap;
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
        mailer.send(address).await?;
        log.line(&format!("send_welcome_email   sent to {address}"));
        Ok(Outcome::Done)
    }
}

impl Handler for CountSignups {
    type Deps = (Users, Log);
    type Error = Fault;

    async fn handle(_: Self, (users, log): Self::Deps, _cx: &mut Context) -> Result<Outcome<usize>, Fault> {
        let count = users.addresses.len();
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

    let queue = Queue::<MemoryBackend>::connect("memory:").await?;

    // 4. Dispatch: with the job's defaults, or with options.
    let ada = queue.dispatch(SendWelcomeEmail { user_id: 1 }).unique_for(minutes(10)).await?;
    log.line("dispatched           welcome for user 1");
    let again = queue.dispatch(SendWelcomeEmail { user_id: 1 }).unique_for(minutes(10)).await?;
    assert!(!again.is_new() && again.id() == ada.id());
    log.line("skipped              the same welcome: one was dispatched within ten minutes");
    let grace = queue.dispatch(SendWelcomeEmail { user_id: 2 }).priority(Priority::LOW).await?;
    log.line("dispatched           welcome for user 2");
    let report = queue.dispatch(CountSignups).delay(Duration::from_millis(600)).await?;
    log.line("scheduled            count_signups, due in 600 ms");

    // 5. Work: any number of named queues and kinds in one worker.
    let jobs = Registry::new(app.clone()).register::<SendWelcomeEmail>().register::<CountSignups>();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker =
        Worker::new(queue.clone(), jobs).queues(["mail", "reports"]).concurrency(8).run_until(async {
            let _ = stopped.await; // a service waits for `shutdown_signal()` here
        });
    let worker = tokio::spawn(worker);

    // 6. Wait for what came of them.
    for job in [&ada, &grace] {
        let ended = queue.wait_for(job, seconds(2)).await?;
        assert_eq!(ended, Some(Ended::Completed(())));
    }
    let counted = queue.wait_for(&report, seconds(2)).await?;
    assert_eq!(counted, Some(Ended::Completed(2)));
    log.line("finished             all three");

    // 7. Stop, and read the report.
    let _ = stop.send(());
    let did = worker.await??;
    println!("\ncompleted {}, retried {}, dead {}, lost {}", did.completed, did.retried, did.dead, did.lost);
    assert_eq!((did.completed, did.retried, did.dead, did.lost), (3, 1, 0, 0));
    assert_eq!(app.mailer.deliveries.load(Ordering::Relaxed), 2);
    Ok(())
}

// What follows stands for the application's own parts.

#[derive(Clone)]
struct Users {
    addresses: Arc<HashMap<u64, &'static str>>,
}

impl Users {
    fn new() -> Self {
        Self { addresses: Arc::new(HashMap::from([(1, "ada@example.com"), (2, "grace@example.com")])) }
    }

    fn address(&self, user_id: u64) -> anyhow::Result<&'static str> {
        self.addresses.get(&user_id).copied().ok_or_else(|| anyhow::anyhow!("no user {user_id}"))
    }
}

/// A mail service that is down for the first message.
#[derive(Clone, Default)]
struct Mailer {
    tried: Arc<AtomicUsize>,
    deliveries: Arc<AtomicUsize>,
}

impl Mailer {
    async fn send(&self, _address: &str) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(30)).await;
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
