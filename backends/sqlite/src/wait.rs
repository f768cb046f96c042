//! Waking whoever sleeps: at once for what this process writes, and by looking at `PRAGMA data_version` for what others do.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{Row as _, SqliteConnection};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::file;
use crate::options::SqliteOptions;

/// Whom a verb may have something for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Rings {
    Nobody,
    /// Those who wait for work.
    Work,
    /// And those who wait for a job's end.
    WorkAndEnds,
    /// And sessions that listen for control.
    All,
}

/// What a sleeper waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum For {
    Work,
    Ends,
    Control,
}

/// The bells of one store in this process.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    work: Notify,
    ends: Notify,
    control: Notify,
    /// Sleepers that want to be woken at once, and all of them.
    eager: AtomicUsize,
    all: AtomicUsize,
    /// Rung for the watcher: somebody has lain down.
    watch: Notify,
    /// Whether something was written that there may be work in, and no claim has looked since.
    fresh: AtomicBool,
}

impl Bells {
    pub(crate) fn ring(&self, rings: Rings) {
        if rings >= Rings::Work {
            self.fresh.store(true, Ordering::Release);
            self.work.notify_waiters();
        }
        if rings >= Rings::WorkAndEnds {
            self.ends.notify_waiters();
        }
        if rings >= Rings::All {
            self.control.notify_waiters();
        }
    }

    /// Whether a claim is likely to bring something. Asking forgets it.
    pub(crate) fn take_fresh(&self) -> bool {
        self.fresh.swap(false, Ordering::AcqRel)
    }

    /// Lies down for at most `max`.
    pub(crate) fn sleeper(&self, waits_for: For, max: Duration) -> Sleeper<'_> {
        let eager = waits_for != For::Control;
        if eager {
            self.eager.fetch_add(1, Ordering::AcqRel);
        }
        self.all.fetch_add(1, Ordering::AcqRel);
        self.watch.notify_one();
        Sleeper { bells: self, waits_for, deadline: Instant::now() + max }
    }
}

/// One who sleeps: counted for as long as this lives.
pub(crate) struct Sleeper<'a> {
    bells: &'a Bells,
    waits_for: For,
    deadline: Instant,
}

impl<'a> Sleeper<'a> {
    /// Sets the alarm: what is written from now on rings it. Look for what is there already, then sleep.
    pub(crate) fn set_alarm(&self) -> Alarm<'a> {
        let mut bell = Box::pin(match self.waits_for {
            For::Work => self.bells.work.notified(),
            For::Ends => self.bells.ends.notified(),
            For::Control => self.bells.control.notified(),
        });
        let mut control = Box::pin(self.bells.control.notified());
        bell.as_mut().enable();
        control.as_mut().enable();
        Alarm { bell, control, hears_control: self.waits_for != For::Ends, deadline: self.deadline }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if self.waits_for != For::Control {
            self.bells.eager.fetch_sub(1, Ordering::AcqRel);
        }
        self.bells.all.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An alarm that is set.
pub(crate) struct Alarm<'a> {
    bell: Pin<Box<Notified<'a>>>,
    control: Pin<Box<Notified<'a>>>,
    hears_control: bool,
    deadline: Instant,
}

impl Alarm<'_> {
    /// Sleeps until it rings. `false` when the time is up.
    pub(crate) async fn rings(self) -> bool {
        tokio::select! {
            () = self.bell => true,
            () = self.control, if self.hears_control => true,
            () = tokio::time::sleep_until(self.deadline) => false,
        }
    }
}

/// How often to look while something was written a moment ago.
const HOT: Duration = Duration::from_millis(2);
/// How long that moment lasts.
const HOT_FOR: Duration = Duration::from_secs(2);
/// How often to look in quiet times, and for those who are in no hurry.
const COLD: Duration = Duration::from_millis(25);

/// Watches for the writes of other processes while somebody sleeps. It ends with the last handle on the store.
pub(crate) async fn watch(bells: Arc<Bells>, options: SqliteOptions) {
    let mut eyes: Option<SqliteConnection> = None;
    let mut last = None;
    let mut changed_at = Instant::now();
    loop {
        if bells.all.load(Ordering::Acquire) == 0 {
            bells.watch.notified().await;
            changed_at = Instant::now();
            continue;
        }
        let version = match look(&mut eyes, &options).await {
            Ok(version) => version,
            Err(error) => {
                tracing::debug!(%error, "could not look for the writes of others");
                eyes = None;
                tokio::time::sleep(COLD * 4).await;
                // The file may be another one now.
                bells.ring(Rings::All);
                continue;
            }
        };
        // Also at the first look: something may have been written since the sleeper looked for itself.
        if last != Some(version) {
            changed_at = Instant::now();
            bells.ring(Rings::All);
        }
        last = Some(version);
        let hot = bells.eager.load(Ordering::Acquire) > 0 && changed_at.elapsed() < HOT_FOR;
        tokio::select! {
            () = tokio::time::sleep(if hot { HOT } else { COLD }) => {}
            // One who lies down now is to be woken fast.
            () = bells.watch.notified() => changed_at = Instant::now(),
        }
    }
}

async fn look(eyes: &mut Option<SqliteConnection>, options: &SqliteOptions) -> windlass_core::Result<i64> {
    if eyes.is_none() {
        *eyes = Some(file::open_watcher(options).await?);
    }
    let Some(conn) = eyes else { return Ok(0) };
    let row = sqlx::query("pragma data_version").fetch_one(conn).await.map_err(crate::error::translated)?;
    row.try_get(0).map_err(crate::error::translated)
}
