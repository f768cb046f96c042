//! What is the smallest whole program? A job, its handler, what the handler needs, a dispatch, a worker.
//!
//! The part between the two marks stands in the README, and a test of `src/docs.rs` keeps the two alike.

use services::{Mailer, Users};

// README: begin
use serde::{Deserialize, Serialize};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_welcome_email", queue = "mail", max_attempts = 5, timeout = "30s")]
struct SendWelcomeEmail {
    user_id: u64,
}

impl Handler for SendWelcomeEmail {
    type Deps = (Users, Mailer); // checked when the job is registered, by the compiler
    type Error = anyhow::Error;

    async fn handle(
        job: Self,
        (users, mailer): Self::Deps,
        _cx: &mut Context,
    ) -> Result<Outcome, Self::Error> {
        let address = users.address(job.user_id).await?;
        mailer.welcome(&address).await?; // an error is tried again, with back-off
        Ok(Outcome::Done)
    }
}

#[derive(Clone, Provide)]
struct App {
    users: Users,
    mailer: Mailer,
}

async fn sign_up<B: Backend>(queue: &Queue<B>, user_id: u64) -> windlass::Result<()> {
    queue.dispatch(SendWelcomeEmail { user_id }).unique_for(minutes(10)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let queue = Queue::<MemoryBackend>::connect("memory:").await?;
    sign_up(&queue, 123).await?;

    let jobs = Registry::new(App { users: Users, mailer: Mailer }).register::<SendWelcomeEmail>();
    let worker = Worker::new(queue, jobs).queues(["mail"]).concurrency(64);
    let report = worker.until_empty().run_until(shutdown_signal()).await?; // a service leaves `until_empty` out
    assert_eq!(report.completed, 1);
    Ok(())
}
// README: end

/// Stand-ins for a database and a mail service.
mod services {
    #[derive(Clone)]
    pub(crate) struct Users;

    impl Users {
        pub(crate) async fn address(&self, user_id: u64) -> anyhow::Result<String> {
            Ok(format!("user-{user_id}@example.com"))
        }
    }

    #[derive(Clone)]
    pub(crate) struct Mailer;

    impl Mailer {
        pub(crate) async fn welcome(&self, address: &str) -> anyhow::Result<()> {
            println!("welcome, {address}");
            Ok(())
        }
    }
}
