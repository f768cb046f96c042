//! How do handlers get at what they need? They list types; a container provides them; the compiler checks that it does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass::prelude::*;

// What the application is made of.

trait Mailer: Send + Sync {
    fn send(&self, to: &str) -> String;
}

struct Smtp;

impl Mailer for Smtp {
    fn send(&self, to: &str) -> String {
        format!("sent to {to}")
    }
}

#[derive(Clone)]
struct Pool(&'static str);

/// Two pools of one type need a name each: dependencies are told apart by type.
#[derive(Clone)]
struct Replica(Pool);

#[derive(Clone)]
struct Clock;

#[derive(Clone)]
struct Config {
    from: &'static str,
}

/// A container within the container, for instance one that a library hands you.
#[derive(Clone, Provide)]
struct Infrastructure {
    pool: Pool,
    clock: Clock,
}

#[derive(Clone, Provide)]
struct App {
    /// Provided as itself, by `Clone`.
    replica: Replica,
    /// Provided as the trait object that handlers ask for.
    #[provide(as = "Arc<dyn Mailer>")]
    mailer: Arc<Smtp>,
    /// Asked for what it provides in its turn.
    #[provide(delegate(Pool, Clock))]
    infrastructure: Infrastructure,
    /// Not provided.
    #[provide(skip)]
    secret: &'static str,
}

/// What needs more than a clone is written by hand.
impl Provide<Config> for App {
    fn provide(&self) -> Config {
        Config { from: if self.secret.is_empty() { "nobody" } else { "billing" } }
    }
}

// What a handler needs: a tuple of up to twelve types ...

#[derive(Serialize, Deserialize, Job)]
#[job(name = "remind", output = String)]
struct Remind {
    to: String,
}

impl Handler for Remind {
    type Deps = (Arc<dyn Mailer>, Clock);
    type Error = Fault;

    async fn handle(
        Self { to }: Self,
        (mailer, _clock): Self::Deps,
        _cx: &mut Context,
    ) -> Result<Outcome<String>, Fault> {
        Ok(Outcome::Value(mailer.send(&to)))
    }
}

// ... or a struct that names them.

#[derive(Deps)]
struct ReportDeps {
    primary: Pool,
    replica: Replica,
    config: Config,
}

#[derive(Serialize, Deserialize, Job)]
#[job(name = "report", output = String)]
struct Report;

impl Handler for Report {
    type Deps = ReportDeps;
    type Error = Fault;

    async fn handle(_: Self, deps: ReportDeps, _cx: &mut Context) -> Result<Outcome<String>, Fault> {
        let ReportDeps { primary, replica, config } = deps;
        Ok(Outcome::Value(format!("{} reads {}, writes {}", config.from, replica.0.0, primary.0)))
    }
}

// The payload may live in a crate that producers share, and its handler on a type of the worker's own.

#[derive(Serialize, Deserialize, Job)]
#[job(name = "resize", output = u32)]
struct Resize {
    width: u32,
}

struct ResizeWorker;

impl Handler<Resize> for ResizeWorker {
    type Deps = ();
    type Error = Fault;

    async fn handle(job: Resize, (): (), _cx: &mut Context) -> Result<Outcome<u32>, Fault> {
        Ok(Outcome::Value(job.width / 2))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let app = App {
        replica: Replica(Pool("replica")),
        mailer: Arc::new(Smtp),
        infrastructure: Infrastructure { pool: Pool("primary"), clock: Clock },
        secret: "hunter2",
    };
    // A job whose dependency `App` does not provide would not compile here, and the message would name the type.
    let jobs =
        Registry::new(app).register::<Remind>().register::<Report>().register_with::<ResizeWorker, Resize>();

    let queue = Queue::<MemoryBackend>::fake();
    let remind = queue.dispatch(Remind { to: "ada@example.com".to_owned() }).await?;
    let report = queue.dispatch(Report).await?;
    let resize = queue.dispatch(Resize { width: 640 }).await?;
    queue.drain(&jobs).await.assert_clean();

    let remind = queue.wait_for(&remind, seconds(0)).await?.and_then(Ended::completed);
    let report = queue.wait_for(&report, seconds(0)).await?.and_then(Ended::completed);
    let resize = queue.wait_for(&resize, seconds(0)).await?.and_then(Ended::completed);
    println!("{remind:?}\n{report:?}\n{resize:?}");
    assert_eq!(remind.as_deref(), Some("sent to ada@example.com"));
    assert_eq!(report.as_deref(), Some("billing reads replica, writes primary"));
    assert_eq!(resize, Some(320));
    Ok(())
}
