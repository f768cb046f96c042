//! How do I keep a job from standing there twice? Unique keys: what a conflict does, and when the key is free again.
//! And: how do I keep too many of one customer from running at once? Limits.

use serde::{Deserialize, Serialize};
use windlass::prelude::*;
use windlass::{ConcurrencyLimit, Pushed, StateKind};

/// Unique by itself: whoever dispatches it need not think of it.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "sync_account", unique = Self::one_per_account, limit = Self::two_per_tenant)]
struct SyncAccount {
    tenant: u32,
    account: u32,
}

impl SyncAccount {
    /// While one waits or runs, another of the same account is skipped.
    fn one_per_account(&self) -> Option<UniqueBy> {
        Some(UniqueBy::key(self.account.to_string()))
    }

    /// However many are waiting, a tenant has at most two that are Ready or Running.
    fn two_per_tenant(&self) -> Option<ConcurrencyLimit> {
        Some(ConcurrencyLimit { key: format!("tenant-{}", self.tenant), at_most: 2 })
    }
}

/// Unique as each dispatch says.
#[derive(Serialize, Deserialize, Job)]
#[job(name = "index_page")]
struct IndexPage {
    page: u32,
    revision: u32,
}

macro_rules! does_nothing {
    ($($job:ty)*) => {
        $(impl Handler for $job {
            type Deps = ();
            type Error = Fault;
            async fn handle(_: Self, (): (), _: &mut Context) -> Result<Outcome, Fault> {
                Ok(Outcome::Done)
            }
        })*
    };
}
does_nothing!(SyncAccount IndexPage);

#[tokio::main]
async fn main() -> windlass::Result<()> {
    let queue = Queue::<MemoryBackend>::fake();
    let jobs = Registry::new(()).register::<SyncAccount>().register::<IndexPage>();
    let clock = queue.virtual_clock().expect("a fake has one").clone();

    // Skip, until the end: the second dispatch is answered with the first job.
    let first = queue.dispatch(SyncAccount { tenant: 1, account: 7 }).await?;
    let second = queue.dispatch(SyncAccount { tenant: 1, account: 7 }).await?;
    println!("skip:      the second is {:?}", second.pushed());
    assert_eq!(second.pushed(), Pushed::Conflict(first.id()));

    // Its end frees the key in the same step.
    queue.drain(&jobs).await.assert_clean();
    assert!(queue.dispatch(SyncAccount { tenant: 1, account: 7 }).await?.is_new());
    queue.drain(&jobs).await.assert_clean();

    // Supersede: the newest wins, as long as the older one waits. With a delay this debounces.
    let by_page = |page: u32| UniqueBy::key(page.to_string()).supersede();
    let draft = IndexPage { page: 3, revision: 1 };
    let older = queue.dispatch(draft).delay(seconds(30)).unique(by_page(3)).await?;
    clock.advance(seconds(20));
    let draft = IndexPage { page: 3, revision: 2 };
    let newer = queue.dispatch(draft).delay(seconds(30)).unique(by_page(3)).await?;
    println!("supersede: the newer is {:?}", newer.pushed());
    assert_eq!(newer.pushed(), Pushed::Superseded(older.id()));
    let record = queue.find(&older).await?.expect("it is kept as cancelled");
    assert_eq!(record.state(), StateKind::Cancelled);
    let drained = queue.drain(&jobs).await;
    assert_eq!((drained.completed, drained.elapsed), (1, seconds(30)));
    let ran = queue.find(&newer).await?.expect("it has run");
    assert_eq!((ran.state(), ran.job().revision), (StateKind::Completed, 2));

    // A window: at most one in ten minutes, whatever became of it.
    let throttled = || queue.dispatch(IndexPage { page: 4, revision: 1 }).unique_for(minutes(10));
    assert!(throttled().await?.is_new());
    queue.drain(&jobs).await.assert_clean();
    clock.advance(minutes(9));
    assert!(!throttled().await?.is_new());
    clock.advance(minutes(1));
    assert!(throttled().await?.is_new());
    println!("window:    a third after ten minutes is taken");
    queue.drain(&jobs).await.assert_clean();

    // A limit: five jobs, two places.
    for account in 0..5 {
        queue.dispatch(SyncAccount { tenant: 2, account }).await?;
    }
    let counts = queue.queues().await?.first().expect("there is one named queue").counts;
    let (ready, blocked) = (counts.get(StateKind::Ready), counts.get(StateKind::Blocked));
    println!("limit:     {ready} ready, {blocked} blocked");
    assert_eq!((ready, blocked), (2, 3));
    assert_eq!(queue.drain(&jobs).await.completed, 5);
    Ok(())
}
