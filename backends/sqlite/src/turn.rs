//! Turns at the write lock, among the processes that share a file.
//!
//! SQLite's lock knows no queue: one that begins again at once keeps it, and those who try now and then starve (measured with
//! four busy processes: one of them did 97 % of the work). So a transaction first takes its turn, by two advisory locks of
//! the operating system beside the database: `-next` while it waits, `-turn` while it works. One that has just worked finds
//! `-next` held by whoever waits, and comes after it. They decide the order alone; what may be written is decided by SQLite's
//! lock, so that a writer which knows nothing of turns (`sqlite3`, the user's own connection) does no harm.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;

/// Where turns at one database are taken.
#[derive(Debug)]
pub(crate) struct Turns {
    next: PathBuf,
    turn: PathBuf,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    _held: Option<File>,
}

/// Nobody gave way in time.
pub(crate) struct TooLong;

impl Turns {
    pub(crate) fn at(database: &Path) -> Self {
        let beside = |suffix| {
            let mut path = database.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self { next: beside("-next"), turn: beside("-turn") }
    }

    /// Waits for a turn, without blocking a thread of the runtime. Where the files cannot be made or locked, every turn is
    /// free: SQLite's own lock is still there.
    pub(crate) async fn take(&self, patience: Duration) -> Result<Turn, TooLong> {
        let took = tokio::time::timeout(patience, async {
            let next = lock(&self.next).await?;
            let held = lock(&self.turn).await?;
            drop(next);
            Ok::<_, io::Error>(Turn { _held: Some(held) })
        });
        match took.await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(error)) => {
                tracing::debug!(%error, "turns at the database cannot be taken; going without");
                Ok(Turn { _held: None })
            }
            Err(_) => Err(TooLong),
        }
    }
}

/// Locks a file that is opened for it alone: closing it gives the lock back, also when this future is dropped meanwhile.
async fn lock(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(error),
        Err(TryLockError::WouldBlock) => {}
    }
    let (got, locked) = oneshot::channel();
    // A thread of its own and not of the runtime's, whose end would wait for it.
    std::thread::Builder::new().name("windlass-turn".to_owned()).stack_size(64 * 1024).spawn(move || {
        let done = file.lock().map(|()| file);
        let _ = got.send(done);
    })?;
    locked.await.map_err(|_| io::Error::other("the waiting thread is gone"))?
}
