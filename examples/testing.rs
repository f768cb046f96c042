//! How do I test code that dispatches, and the jobs themselves? With a fake queue: the real engine, a clock that stands
//! still until it is moved, and a memory of every dispatch.
//!
//! The part between the two marks is the README's test. In a project it is a `#[tokio::test]`; here `main` runs it.

use serde::{Deserialize, Serialize};
use services::{Mailer, Users};
use windlass::prelude::*;

#[derive(Serialize, Deserialize, Job)]
#[job(name = "send_welcome_email", queue = "mail", max_attempts = 5, timeout = "30s")]
struct SendWelcomeEmail {
    user_id: u64,
}

impl Handler for SendWelcomeEmail {
    type Deps = (Users, Mailer);
    type Error = anyhow::Error;

    async fn handle(
        job: Self,
        (users, mailer): Self::Deps,
        _cx: &mut Context,
    ) -> Result<Outcome, Self::Error> {
        let address = users.address(job.user_id).await?;
        mailer.welcome(&address).await?;
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

// README: begin
async fn a_new_user_is_welcomed_once() -> windlass::Result<()> {
    let queue = Queue::<MemoryBackend>::fake();

    sign_up(&queue, 123).await?;
    sign_up(&queue, 123).await?; // clicked twice

    queue.assert_dispatched_times::<SendWelcomeEmail>(1);
    queue.assert_dispatched_with(|job: &SendWelcomeEmail| job.user_id == 123);

    // Run it: the same executor as in a worker. The mailer fails twice; its back-offs pass at once, in virtual time.
    let mailer = Mailer::that_fails(2);
    let jobs = Registry::new(App { users: Users, mailer: mailer.clone() }).register::<SendWelcomeEmail>();
    let drained = queue.drain(&jobs).await;
    drained.assert_clean();
    assert_eq!((drained.completed, drained.retried), (1, 2));
    assert_eq!(mailer.sent(), ["user-123@example.com"]);
    Ok(())
}
// README: end

#[tokio::main]
async fn main() -> windlass::Result<()> {
    a_new_user_is_welcomed_once().await?;
    println!("a_new_user_is_welcomed_once ... ok");
    Ok(())
}

/// Stand-ins for a database and a mail service; the mailer notes what it sent.
mod services {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone)]
    pub(crate) struct Users;

    impl Users {
        pub(crate) async fn address(&self, user_id: u64) -> anyhow::Result<String> {
            Ok(format!("user-{user_id}@example.com"))
        }
    }

    #[derive(Clone)]
    pub(crate) struct Mailer {
        failures_left: Arc<AtomicUsize>,
        sent: Arc<Mutex<Vec<String>>>,
    }

    impl Mailer {
        pub(crate) fn that_fails(times: usize) -> Self {
            Self { failures_left: Arc::new(AtomicUsize::new(times)), sent: Arc::default() }
        }

        pub(crate) async fn welcome(&self, address: &str) -> anyhow::Result<()> {
            let left = self.failures_left.load(Ordering::Relaxed);
            if left > 0 {
                self.failures_left.store(left - 1, Ordering::Relaxed);
                anyhow::bail!("the mail service is down");
            }
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_owned());
            Ok(())
        }

        pub(crate) fn sent(&self) -> Vec<String> {
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }
}
