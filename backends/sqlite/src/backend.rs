//! The handle, and the contract's verbs.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::{mpsc, oneshot};
use windlass_core::limits::BATCH_MAX;
use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Connect, Cursor, Error, ErrorKind, Filter,
    Finished, Held, Inspect, JobRef, Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed,
    QueueInfo, QueueName, Record, Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

use crate::error::{Fail, translated};
use crate::file::{self, Identity};
use crate::options::SqliteOptions;
use crate::store::read::{self, Glance};
use crate::transaction::SqliteTransaction;
use crate::verbs::{self, Asked, Verb};
use crate::wait::{self, Bells, For};
use crate::writer::{Item, Writer, not_migrated};

/// The engine's name.
pub(crate) const NAME: &str = "sqlite";

/// The SQLite engine. Clones share one writer, its readers and their wake-ups; it is closed with the last of them.
#[derive(Clone)]
pub struct SqliteBackend {
    shared: Arc<Shared>,
    writer: mpsc::UnboundedSender<Item>,
    /// Ends the watcher with the last handle.
    _watcher: Arc<AbortOnDrop>,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the handles and the writer share.
pub(crate) struct Shared {
    pub(crate) options: SqliteOptions,
    pub(crate) bells: Arc<Bells>,
    /// The latest instant that a verb of this process has seen, in milliseconds.
    pub(crate) seen: AtomicI64,
    readers: Mutex<Readers>,
    /// Sessions that were told to extend, and have not since.
    told: Mutex<std::collections::HashSet<SessionId>>,
}

struct Readers {
    pool: SqlitePool,
    identity: Identity,
}

impl Shared {
    /// Reads from another file from now on.
    pub(crate) fn reopen_readers(&self, identity: Identity) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.identity != identity {
            *readers = Readers { pool: file::open_readers(&self.options), identity };
        }
    }

    /// A reading connection to the file that is at the path now.
    async fn reader(&self) -> Result<PoolConnection<Sqlite>> {
        let there = Identity::of(&self.options.path).ok_or_else(file::gone)?;
        self.reopen_readers(there);
        let pool = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pool.clone();
        pool.acquire().await.map_err(translated)
    }

    /// Whether this session has not been told yet that somebody wants something of it.
    fn tell(&self, session: SessionId) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(session)
    }

    fn has_extended(&self, session: SessionId) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&session);
    }
}

impl SqliteBackend {
    /// Opens the database in this file with default settings, and makes it if it is not there.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(SqliteOptions::new(path.as_ref())).await
    }

    /// Opens a database. Must be called within a tokio runtime, whose end ends the engine's own tasks.
    ///
    /// # Errors
    /// [`ErrorKind::Connection`] when the file cannot be opened, [`ErrorKind::Config`] when it is no database, has the schema
    /// of a newer release, or has none and is not to be migrated, and for a SQLite release that is known to lose data.
    pub async fn open_with(options: SqliteOptions) -> Result<Self> {
        let told = |error: Error| error.during(NAME, "connect");
        let mut conn = file::open(&options, options.migrate).await.map_err(told)?;
        if options.migrate {
            file::migrate(&mut conn, options.busy_timeout).await.map_err(told)?;
        } else if !file::pending(&mut conn).await.map_err(told)?.is_empty() {
            return Err(told(not_migrated()));
        }
        let identity = Identity::of(&options.path).ok_or_else(|| told(file::gone()))?;
        let shared = Arc::new(Shared {
            readers: Mutex::new(Readers { pool: file::open_readers(&options), identity }),
            bells: Arc::default(),
            seen: AtomicI64::new(Timestamp::MIN.as_millis()),
            told: Mutex::default(),
            options,
        });
        let (writer, inbox) = mpsc::unbounded_channel();
        tokio::spawn(Writer::new(Arc::clone(&shared), inbox, conn, identity).run());
        let watcher = tokio::spawn(wait::watch(Arc::clone(&shared.bells), shared.options.clone()));
        Ok(Self { shared, writer, _watcher: Arc::new(AbortOnDrop(watcher)) })
    }

    /// Begins a transaction on the engine's writing connection: the caller's own statements and the queue's are true
    /// together. See [`SqliteTransaction`] for what waits meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] when another process holds the lock for longer than `busy_timeout`.
    pub async fn begin(&self) -> Result<SqliteTransaction> {
        let (reply, lent) = oneshot::channel();
        let sent = self.writer.send(Item::Lend(reply));
        let lent = self.answered(sent.is_ok(), lent).await;
        Ok(SqliteTransaction::of(lent.map_err(|error| error.during(NAME, "begin"))?))
    }

    pub(crate) fn options(&self) -> &SqliteOptions {
        &self.shared.options
    }

    /// Has the writer run a verb.
    async fn ask<V: Verb>(&self, verb: V, at: At) -> Result<V::Answer> {
        let (request, answer) = Asked::new(verb, at);
        let sent = self.writer.send(Item::Verb(request));
        self.answered(sent.is_ok(), answer).await.map_err(|error| error.during(NAME, V::NAME))
    }

    async fn answered<T>(&self, sent: bool, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
        let stopped =
            || Error::new(ErrorKind::Connection, "the engine's writer has stopped with its runtime");
        if !sent {
            return Err(stopped());
        }
        answer.await.unwrap_or_else(|_| Err(stopped().effect_unknown()))
    }

    /// A connection to read on, for a verb that is timed so.
    async fn reader(&self, at: At) -> std::result::Result<PoolConnection<Sqlite>, Fail> {
        let mut conn = self.shared.reader().await?;
        read::check_timing(&mut conn, at).await?;
        Ok(conn)
    }

    async fn glance(&self, verb: &'static str, session: SessionId, queues: &[QueueName]) -> Result<Glance> {
        let done = async {
            let mut conn = self.shared.reader().await?;
            read::glance(&mut conn, session, queues).await
        };
        done.await.map_err(|fail: Fail| Error::from(fail).during(NAME, verb))
    }

    async fn finished(&self, jobs: &[JobRef], at: At) -> Result<Vec<Option<Finished>>> {
        let done = async {
            let mut conn = self.reader(at).await?;
            let mut found = Vec::with_capacity(jobs.len());
            for job in jobs {
                found.push(read::finished(&mut conn, job).await?);
            }
            Ok(found)
        };
        done.await.map_err(|fail: Fail| Error::from(fail).during(NAME, "outcomes"))
    }
}

impl fmt::Debug for SqliteBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBackend").field("path", &self.shared.options.path).finish_non_exhaustive()
    }
}

impl Backend for SqliteBackend {
    const NAME: &'static str = NAME;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            shared: true,
            atomic_across_queues: true,
            pipelined: false,
            ahead_max: 900,
        }
    }

    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        self.ask(verbs::Push { jobs: jobs.to_vec() }, at).await
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        claim.validate()?;
        // Where there is nothing to claim, no write lock is needed to say so. What was written just now is not looked at twice.
        if !self.shared.bells.take_fresh() {
            let glance = self.glance("claim", claim.session, &claim.queues).await?;
            let seen = Timestamp::from_millis(self.shared.seen.load(Ordering::Acquire));
            if let Some(nothing) = glance.answer(at, seen) {
                self.shared.seen.fetch_max(nothing.now.as_millis(), Ordering::AcqRel);
                return Ok(nothing);
            }
        }
        self.ask(verbs::ClaimJobs { claim: claim.clone() }, at).await
    }

    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        self.ask(verbs::Settle { verdicts: verdicts.to_vec() }, at).await
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        Verdict::validate_all(verdicts)?;
        claim.validate()?;
        self.ask(verbs::SettleAndClaim { verdicts: verdicts.to_vec(), claim: claim.clone() }, at).await
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        Claim::validate_lease(lease)?;
        if held.len() > BATCH_MAX {
            return Err(Error::invalid(format!(
                "extend of {} jobs in one call: at most {BATCH_MAX}",
                held.len()
            )));
        }
        // Before it is run: what is asked for after that is to be told again.
        self.shared.has_extended(session);
        self.ask(verbs::Extend { session, held: held.to_vec(), lease }, at).await
    }

    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> Result<usize> {
        self.ask(verbs::HandBack { session, nonce }, at).await
    }

    async fn annotate(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        self.ask(verbs::Annotate { notes: notes.to_vec() }, at).await
    }

    async fn sweep(&self, sweep: &Sweep, at: At) -> Result<Swept> {
        Filter::validate_page(sweep.limit)?;
        self.ask(verbs::SweepOnce { sweep: *sweep }, at).await
    }

    async fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Result<Vec<Option<Finished>>> {
        let sleeper = self.shared.bells.sleeper(For::Ends, max_wait);
        loop {
            let alarm = sleeper.set_alarm();
            let found = self.finished(jobs, at).await?;
            if found.is_empty() || found.iter().any(Option::is_some) || !alarm.rings().await {
                return Ok(found);
            }
        }
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        let waits_for = if queues.is_empty() { For::Control } else { For::Work };
        let sleeper = self.shared.bells.sleeper(waits_for, max);
        loop {
            let alarm = sleeper.set_alarm();
            let glance = self.glance("wait", session, queues).await?;
            if glance.control && self.shared.tell(session) {
                return Ok(Wake::Control);
            }
            if glance.ready || glance.due.is_some_and(|next| due.is_none_or(|due| next < due)) {
                return Ok(Wake::Work);
            }
            if !alarm.rings().await {
                return Ok(Wake::Nothing);
            }
        }
    }

    async fn now(&self, at: At) -> Result<Timestamp> {
        self.ask(verbs::Now {}, at).await
    }
}

impl Inspect for SqliteBackend {
    async fn get(&self, job: &JobRef, at: At) -> Result<Option<Record>> {
        let done = async { read::get(&mut *self.reader(at).await?, job).await };
        done.await.map_err(|fail| Error::from(fail).during(NAME, "get"))
    }

    async fn list(&self, filter: &Filter, after: Option<&Cursor>, limit: usize, at: At) -> Result<Page> {
        Filter::validate_page(limit)?;
        let done = async { read::list(&mut *self.reader(at).await?, filter, after, limit).await };
        done.await.map_err(|fail| Error::from(fail).during(NAME, "list"))
    }

    async fn queues(&self, at: At) -> Result<Vec<QueueInfo>> {
        let done = async { read::queues(&mut *self.reader(at).await?).await };
        done.await.map_err(|fail| Error::from(fail).during(NAME, "queues"))
    }
}

impl Manage for SqliteBackend {
    async fn cancel(&self, job: &JobRef, reason: &str, at: At) -> Result<Cancelling> {
        self.ask(verbs::Cancel { job: job.clone(), reason: reason.to_owned() }, at).await
    }

    async fn revive(&self, job: &JobRef, at: At) -> Result<()> {
        self.ask(verbs::Revive { job: job.clone() }, at).await
    }

    async fn run_now(&self, job: &JobRef, at: At) -> Result<()> {
        self.ask(verbs::RunNow { job: job.clone() }, at).await
    }

    async fn delete(&self, job: &JobRef, at: At) -> Result<()> {
        self.ask(verbs::Delete { job: job.clone() }, at).await
    }

    async fn pause(&self, queue: &QueueName, at: At) -> Result<()> {
        self.ask(verbs::Pause { queue: queue.clone() }, at).await
    }

    async fn resume(&self, queue: &QueueName, at: At) -> Result<()> {
        self.ask(verbs::Resume { queue: queue.clone() }, at).await
    }
}

impl Connect for SqliteBackend {
    const SCHEMES: &'static [&'static str] = &["sqlite"];

    /// As [`SqliteOptions::from_url`] says, and made if it is not there.
    async fn connect(url: &str) -> Result<Self> {
        let options = SqliteOptions::from_url(url).map_err(|error| error.during(NAME, "connect"))?;
        Self::open_with(options).await
    }
}

impl Migrate for SqliteBackend {
    async fn pending(&self) -> Result<Vec<Migration>> {
        let mut conn = self.shared.reader().await?;
        file::pending(&mut conn).await
    }

    async fn migrate(&self) -> Result<Vec<Migration>> {
        let (reply, done) = oneshot::channel();
        let sent = self.writer.send(Item::Migrate(reply));
        self.answered(sent.is_ok(), done).await.map_err(|error| error.during(NAME, "migrate"))
    }
}
