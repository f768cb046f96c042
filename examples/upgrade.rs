//! How do I rename a job or change its payload while old ones are stored? Names are written, so the type can move; an
//! alias takes the old name; an upgrade reads the old shape; `min_reader` keeps new payloads away from old workers.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Recorded, StateKind};

/// The code of last month.
mod yesterday {
    use super::*;

    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "send_email")]
    pub(crate) struct SendEmail {
        pub(crate) to: String,
    }

    impl Handler for SendEmail {
        type Deps = ();
        type Error = Fault;

        async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
            Ok(Outcome::Done)
        }
    }
}

/// The code of today: another name, and a list where there was one address.
mod today {
    use super::*;

    /// The old shape, kept to read what is stored.
    #[derive(Deserialize)]
    pub(crate) struct SendMessageV1 {
        to: String,
    }

    #[derive(Serialize, Deserialize, Job)]
    #[job(name = "send_message", aliases("send_email"), output = usize)]
    #[job(version = 2, min_reader = 2, upgrades = &[Upgrade::via::<SendMessageV1>(1)])]
    pub(crate) struct SendMessage {
        pub(crate) to: Vec<String>,
        /// A new field needs no new version, as long as it has a default.
        #[serde(default)]
        pub(crate) urgent: bool,
    }

    impl From<SendMessageV1> for SendMessage {
        fn from(old: SendMessageV1) -> Self {
            Self { to: vec![old.to], urgent: false }
        }
    }

    impl Handler for SendMessage {
        type Deps = ();
        type Error = Fault;

        async fn handle(job: Self, (): (), cx: &mut Context) -> Result<Outcome<usize>, Fault> {
            println!("  stored as {:<12} to {:?}, urgent: {}", cx.kind().as_str(), job.to, job.urgent);
            Ok(Outcome::Value(job.to.len()))
        }
    }
}

#[tokio::main]
async fn main() -> windlass::Result<()> {
    let queue = Queue::<MemoryBackend>::fake();
    let old_worker = Registry::new(()).register::<yesterday::SendEmail>();
    let new_worker = Registry::new(()).register::<today::SendMessage>();

    println!("an old job, run by today's code");
    let old = queue.dispatch(yesterday::SendEmail { to: "ada@example.com".to_owned() }).await?;
    queue.drain(&new_worker).await.assert_clean();
    assert_eq!(queue.get(old.job_ref()).await?.expect("it is kept").state(), StateKind::Completed);

    println!("a new job, which yesterday's worker leaves alone");
    let to = vec!["ada@example.com".to_owned(), "grace@example.com".to_owned()];
    let new = queue.dispatch(today::SendMessage { to, urgent: true }).await?;
    let drained = queue.drain(&old_worker).await;
    assert_eq!((drained.completed, drained.left), (0, 1));
    let Some(Recorded::Ready(ready)) = queue.find(&new).await? else { panic!("it should wait") };
    println!("  it is Ready, and parked: {}", ready.state().parked);
    assert!(ready.state().parked);

    println!("and today's worker runs, at the place in line it had");
    queue.drain(&new_worker).await.assert_clean();
    assert_eq!(queue.wait_for(&new, seconds(0)).await?, Some(Ended::Completed(2)));
    Ok(())
}
