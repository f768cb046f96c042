//! How do I choose the engine by configuration? `Queue<AnyBackend>` picks it by the scheme of a URL at run time. It covers
//! what every engine has; a transaction needs the concrete type.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{Backend, ErrorKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "ping", output = String)]
struct Ping;

impl Handler for Ping {
    type Deps = ();
    type Error = Fault;

    async fn handle(_: Self, (): (), cx: &mut Context) -> Result<Outcome<String>, Fault> {
        // A handler sees its queue without the type of its engine, always: `cx.queue()` is a `Queue<AnyBackend>`.
        let others = cx.queue().queues().await?.len() - 1;
        Ok(Outcome::Value(format!("pong, one named queue and {others} others")))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("WINDLASS_URL").unwrap_or_else(|_| "memory:".to_owned());
    let queue = Queue::<AnyBackend>::connect(&url).await?;
    let engine = queue.backend();
    println!("{}: {:?}", engine.engine_name(), engine.capabilities());

    let ping = queue.dispatch(Ping).await?;
    let jobs = Registry::new(()).register::<Ping>();
    Worker::new(queue.clone(), jobs).until_empty().run().await?;
    let pong = queue.wait_for(&ping, seconds(1)).await?.and_then(Ended::completed);
    println!("{pong:?}");
    assert_eq!(pong.as_deref(), Some("pong, one named queue and 0 others"));

    // An engine that is not compiled in says so, and shows no password.
    let error =
        Queue::<AnyBackend>::connect("mysql://root:hunter2@localhost").await.expect_err("no such engine");
    println!("{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(!error.to_string().contains("hunter2"));
    Ok(())
}
