//! A caller's own transaction: its writes and the queue's are true together, or never.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sqlx::SqliteConnection;
use tokio::sync::oneshot;
use windlass_core::{At, Error, NewJob, Pushed, Result, Settled, Timestamp, Transactional, Verdict};

use crate::SqliteBackend;
use crate::backend::NAME;
use crate::error::translated;
use crate::store::{Cache, Store};
use crate::verbs::{Push, Settle, Verb};
use crate::writer::Lent;

/// A transaction on the engine's own writing connection, from [`SqliteBackend::begin`].
///
/// It is a `sqlx` connection to run statements of one's own on (`&mut *tx`). While it is open the engine's writer waits for
/// it: nothing is dispatched, claimed or settled by anyone, so commit within milliseconds, and never wait for other work
/// inside. Dropped without a [`commit`](Self::commit), it changes nothing.
pub struct SqliteTransaction {
    held: Option<(SqliteConnection, oneshot::Sender<(SqliteConnection, bool)>)>,
}

impl SqliteTransaction {
    pub(crate) fn of(lent: Lent) -> Self {
        Self { held: Some((lent.conn, lent.back)) }
    }

    /// Makes everything that was done in it true at once.
    ///
    /// # Errors
    /// [`Unavailable`](windlass_core::ErrorKind::Unavailable) when the disk is full or fails. Nothing was changed then, except
    /// that after a failing disk it may be found committed ([`Effect::Unknown`](windlass_core::Effect::Unknown)).
    pub async fn commit(mut self) -> Result<()> {
        let Some((conn, _)) = &mut self.held else { return Ok(()) };
        let done = sqlx::query("commit").execute(conn).await;
        let committed = done.is_ok();
        if let Some((conn, back)) = self.held.take() {
            let _ = back.send((conn, committed));
        }
        done.map(drop).map_err(|error| translated(error).during(NAME, "commit").effect_unknown())
    }

    /// Forgets everything that was done in it, as dropping it does.
    pub fn rollback(self) {
        drop(self);
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        if let Some((conn, back)) = self.held.take() {
            // The writer rolls it back. When the writer is gone, so is the connection, and with it the transaction.
            let _ = back.send((conn, false));
        }
    }
}

impl Deref for SqliteTransaction {
    type Target = SqliteConnection;

    #[expect(clippy::expect_used, reason = "it is held until `self` is consumed")]
    fn deref(&self) -> &SqliteConnection {
        &self.held.as_ref().expect("an open transaction has its connection").0
    }
}

impl DerefMut for SqliteTransaction {
    #[expect(clippy::expect_used, reason = "it is held until `self` is consumed")]
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.held.as_mut().expect("an open transaction has its connection").0
    }
}

impl fmt::Debug for SqliteTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTransaction").finish_non_exhaustive()
    }
}

impl Transactional for SqliteBackend {
    /// A [`SqliteTransaction`], or any connection of your own to the same file within a transaction, best one that was
    /// begun with `BEGIN IMMEDIATE`: a deferred one fails with `Timeout` when another has written since it first read.
    type Conn = SqliteConnection;

    /// The queue's part is one savepoint. If this future is dropped half way, roll the transaction back.
    async fn push_in(&self, conn: &mut SqliteConnection, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        self.within(conn, Push { jobs: jobs.to_vec() }, at).await
    }

    async fn settle_in(
        &self,
        conn: &mut SqliteConnection,
        verdicts: &[Verdict],
        at: At,
    ) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        self.within(conn, Settle { verdicts: verdicts.to_vec() }, at).await
    }
}

impl SqliteBackend {
    async fn within<V: Verb>(&self, conn: &mut SqliteConnection, verb: V, at: At) -> Result<V::Answer> {
        let told = |error: Error| error.during(NAME, V::NAME);
        sqlx::query("savepoint windlass")
            .execute(&mut *conn)
            .await
            .map_err(|error| told(translated(error)))?;
        let done = self.run_within(conn, verb, at).await;
        // A failed statement may have ended the whole transaction, and the savepoint with it.
        let end = if done.is_ok() { "release windlass" } else { "rollback to windlass; release windlass" };
        let ended = sqlx::raw_sql(end).execute(&mut *conn).await;
        let answer = done.map_err(told)?;
        ended.map_err(|error| told(translated(error)))?;
        Ok(answer)
    }

    async fn run_within<V: Verb>(&self, conn: &mut SqliteConnection, verb: V, at: At) -> Result<V::Answer> {
        let mut cache = Cache::default();
        let mut store =
            Store::open(conn, &mut cache, self.options().retention, Timestamp::MIN, false).await?;
        store.tick(at)?;
        let answer = verb.run(&mut store).await?;
        store.close(false).await?;
        Ok(answer)
    }
}
