//! How do I do something around every job, or before every dispatch? `Middleware` wraps runs, `OnDispatch` sees drafts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use windlass::envelope::{Draft, Envelope, Raw};
use windlass::prelude::*;
use windlass::{Error, ErrorKind};

#[derive(Serialize, Deserialize, Job)]
#[job(name = "render")]
struct Render {
    pages: u32,
}

impl Handler for Render {
    type Deps = ();
    type Error = Fault;

    async fn handle(Self { pages }: Self, (): (), cx: &mut Context) -> Result<Outcome, Fault> {
        println!("  rendering {pages} pages for {}", cx.metadata("tenant").unwrap_or("nobody"));
        if pages == 0 {
            return Err(Fault::bury("nothing to render"));
        }
        Ok(Outcome::Done)
    }
}

/// Measures every run, by kind and ending.
#[derive(Clone, Default)]
struct Measure(Arc<Mutex<BTreeMap<String, (u32, Duration)>>>);

#[windlass::async_trait]
impl Middleware for Measure {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        let begun = Instant::now();
        let ending = next.run(cx).await;
        let how = match &ending {
            Ending::Completed(_) | Ending::Settled(_) => "ok",
            Ending::Snoozed(_) => "snoozed",
            Ending::Cancelled(_) => "cancelled",
            _ => "failed",
        };
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, time) = table.entry(format!("{} {how}", cx.kind())).or_default();
        *count += 1;
        *time += begun.elapsed();
        ending
    }
}

/// Calls off the jobs of a suspended tenant without running their handlers.
struct Suspended(&'static str);

#[windlass::async_trait]
impl Middleware for Suspended {
    async fn around(&self, cx: &mut Context, next: Next<'_>) -> Ending {
        if cx.metadata("tenant") == Some(self.0) {
            return Ending::Cancelled(format!("the tenant {} is suspended", self.0));
        }
        next.run(cx).await
    }
}

/// Stamps every dispatch of a handle with its tenant, and refuses to send for nobody.
struct Tenant(&'static str);

impl OnDispatch for Tenant {
    fn before(&self, draft: &mut Envelope<Raw, Draft>) -> windlass::Result<()> {
        if self.0.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "a dispatch needs a tenant"));
        }
        draft.set_metadata("tenant", self.0);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> windlass::Result<()> {
    let measure = Measure::default();
    let queue = Queue::<MemoryBackend>::fake();
    // The first layer is the outermost: `Measure` sees what `Suspended` turned away.
    let jobs = Registry::new(()).register::<Render>().layer(measure.clone()).layer(Suspended("initech"));

    // A handle is cheap to clone; each clone has hooks of its own.
    let acme = queue.clone().on_dispatch(Tenant("acme"));
    let initech = queue.clone().on_dispatch(Tenant("initech"));
    let nobody = queue.clone().on_dispatch(Tenant(""));

    acme.dispatch(Render { pages: 3 }).await?;
    acme.dispatch(Render { pages: 0 }).await?;
    initech.dispatch(Render { pages: 9 }).await?;
    let refused = nobody.dispatch(Render { pages: 1 }).await.expect_err("the hook refuses it");
    println!("refused: {refused}");
    assert_eq!(refused.kind(), ErrorKind::Invalid);

    queue.drain(&jobs).await;
    let table = measure.0.lock().unwrap_or_else(PoisonError::into_inner);
    for (what, (count, time)) in table.iter() {
        println!("{what}: {count} in {time:?}");
    }
    let counts: Vec<_> = table.iter().map(|(what, (count, _))| (what.as_str(), *count)).collect();
    assert_eq!(counts, [("render cancelled", 1), ("render failed", 1), ("render ok", 1)]);
    Ok(())
}
