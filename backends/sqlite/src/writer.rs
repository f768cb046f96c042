//! The writer: one task with the one connection that writes.
//!
//! Group commit: it runs whatever has gathered in one transaction, and answers when that is on the disk. No timer, so a lone
//! request waits for nobody, and under load one sync carries many. A request that the database itself refuses voids the
//! transaction; the group is then run again one by one, so that each stands or falls alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sqlx::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};
use windlass_core::limits::BATCH_MAX;
use windlass_core::{Error, ErrorKind, Result, Timestamp};

use crate::backend::Shared;
use crate::error::{code, is_broken, is_busy, translated};
use crate::file::{self, Identity};
use crate::options::SqliteOptions;
use crate::store::{Cache, Store};
use crate::verbs::Request;
use crate::wait::Rings;

/// Requests of one transaction: as many as take a few milliseconds, so that nobody waits long for the next.
const GROUP_MAX: usize = 256;

/// What the writer is asked.
pub(crate) enum Item {
    /// To run a verb.
    Verb(Box<dyn Request>),
    /// To lend its connection, with a transaction begun on it.
    Lend(oneshot::Sender<Result<Lent>>),
    /// To bring the schema up to date.
    Migrate(oneshot::Sender<Result<Vec<windlass_core::Migration>>>),
}

/// The writer's connection in a caller's hands.
pub(crate) struct Lent {
    pub(crate) conn: SqliteConnection,
    pub(crate) back: oneshot::Sender<(SqliteConnection, bool)>,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Item>,
    conn: Option<(SqliteConnection, Identity)>,
    cache: Cache,
    company: Company,
}

/// Who is expected to ask together.
#[derive(Default)]
struct Company {
    /// Requests that were under way at the end of the last transaction.
    expected: usize,
    /// How long that took.
    took: Duration,
    /// Transactions to come that wait for nobody, and how many it will be after the next wait in vain.
    hurry: u32,
    penalty: u32,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        inbox: mpsc::UnboundedReceiver<Item>,
        conn: SqliteConnection,
        identity: Identity,
    ) -> Self {
        Self {
            shared,
            inbox,
            conn: Some((conn, identity)),
            cache: Cache::default(),
            company: Company::default(),
        }
    }

    /// Works until the last handle is gone.
    pub(crate) async fn run(mut self) {
        let mut next = self.inbox.recv().await;
        while let Some(item) = next {
            let mut group = Vec::new();
            let mut other = None;
            match item {
                Item::Verb(request) => {
                    group.push(request);
                    self.gather().await;
                    while group.len() < GROUP_MAX {
                        match self.inbox.try_recv() {
                            Ok(Item::Verb(request)) => group.push(request),
                            Ok(item) => {
                                other = Some(item);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                }
                Item::Lend(borrower) => self.lend(borrower).await,
                Item::Migrate(asker) => {
                    let done = self.migrate().await;
                    let _ = asker.send(done);
                }
            }
            group.retain(|request| !request.is_dropped());
            if !group.is_empty() {
                self.serve(group).await;
            }
            next = match other {
                Some(item) => Some(item),
                None => self.inbox.recv().await,
            };
        }
        if let Some((conn, _)) = self.conn.take() {
            file::close(conn).await;
        }
    }

    /// Lets those come in who were under way at the end of the last transaction: they were answered together, and are about
    /// to ask again. It takes turns with them for a quarter of a transaction at most, and seldom when it was in vain before. A
    /// lone request waits for nobody.
    async fn gather(&mut self) {
        const TURNS: usize = 1_000;
        const PENALTY_MAX: u32 = 64;
        let expected = self.company.expected.min(GROUP_MAX);
        if self.inbox.len() + 1 >= expected {
            return;
        }
        if self.company.hurry > 0 {
            self.company.hurry -= 1;
            return;
        }
        let begun = Instant::now();
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            if self.inbox.len() + 1 >= expected {
                self.company.penalty = 0;
                return;
            }
            if begun.elapsed() >= self.company.took / 4 {
                break;
            }
        }
        self.company.penalty = (2 * self.company.penalty).clamp(1, PENALTY_MAX);
        self.company.hurry = self.company.penalty;
    }

    /// Runs a group in one transaction, or each of it in one of its own if that fails.
    async fn serve(&mut self, mut group: Vec<Box<dyn Request>>) {
        let begun = Instant::now();
        let done = self.transact(&mut group).await;
        self.company.took = begun.elapsed();
        self.company.expected = group.len() + self.inbox.len();
        let Err(error) = done else {
            return self.answer(group);
        };
        if group.len() == 1 || !error.one_of_them {
            for request in group {
                request.fail(error.for_one());
            }
            return;
        }
        for request in group {
            let mut alone = vec![request];
            match self.transact(&mut alone).await {
                Ok(()) => self.answer(alone),
                Err(error) => {
                    for request in alone {
                        request.fail(error.for_one());
                    }
                }
            }
        }
    }

    fn answer(&self, group: Vec<Box<dyn Request>>) {
        let rings = group.iter().map(|request| request.rings()).max().unwrap_or(Rings::Nobody);
        for request in group {
            request.answer();
        }
        self.shared.bells.ring(rings);
    }

    async fn transact(&mut self, group: &mut [Box<dyn Request>]) -> std::result::Result<(), Void> {
        self.connect().await?;
        let Some((conn, _)) = &mut self.conn else { return Err(Void::before(file::gone())) };
        let seen = Timestamp::from_millis(self.shared.seen.load(Ordering::Acquire));
        let begun = begin(conn, &mut self.cache, &self.shared.options, seen).await;
        let mut store = match begun {
            Ok(store) => store,
            Err(error) => {
                // It may have begun all the same: an open transaction would be in the way of every later one.
                let mut void = self.undo(error).await;
                void.one_of_them = false;
                return Err(void);
            }
        };
        if let Err(error) = run(&mut store, group).await {
            return Err(self.undo(error).await);
        }
        let latest = store.latest();
        match store.close(true).await.map_err(as_database) {
            Ok(()) => {
                self.shared.seen.fetch_max(latest, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => {
                let full = code(&error) == Some(FULL);
                let mut void = self.undo(error).await;
                if !full {
                    // The disk failed as the commit was written: it may be there after the next start.
                    void.unknown = true;
                    void.one_of_them = false;
                }
                Err(void)
            }
        }
    }

    /// Rolls a failed transaction back and forgets what was learnt in it.
    async fn undo(&mut self, error: sqlx::Error) -> Void {
        self.cache = Cache::default();
        if let Some((conn, _)) = &mut self.conn {
            // The database may have done so itself.
            let _ = sqlx::query("rollback").execute(conn).await;
        }
        self.broken(error, true)
    }

    /// What a failure means; a connection that is of no use any more is given up.
    fn broken(&mut self, error: sqlx::Error, one_of_them: bool) -> Void {
        if is_broken(&error) {
            self.cache = Cache::default();
            self.conn = None;
        }
        Void { error: translated(error), one_of_them, unknown: false }
    }

    /// Makes sure that the connection leads to the file at the path, and opens one anew if not.
    async fn connect(&mut self) -> std::result::Result<(), Void> {
        let there = Identity::of(&self.shared.options.path);
        if let (Some((_, known)), Some(there)) = (&self.conn, there)
            && *known == there
        {
            return Ok(());
        }
        if let Some((conn, _)) = self.conn.take() {
            tracing::warn!(path = %self.shared.options.path.display(), "the database file was replaced or deleted");
            file::close(conn).await;
        }
        self.cache = Cache::default();
        let Some(there) = there else { return Err(Void::before(file::gone())) };
        let opened = async {
            let mut conn = file::open(&self.shared.options, false).await?;
            // A file that was put there is not filled with a schema unasked.
            match file::pending(&mut conn).await?.first() {
                None => Ok(conn),
                Some(_) => Err(not_migrated()),
            }
        };
        let conn = opened.await.map_err(Void::before)?;
        tracing::info!(path = %self.shared.options.path.display(), "the database file was opened again");
        self.conn = Some((conn, there));
        self.shared.reopen_readers(there);
        Ok(())
    }

    /// Hands the connection to a caller for a transaction of its own, and waits until it is back.
    async fn lend(&mut self, borrower: oneshot::Sender<Result<Lent>>) {
        if borrower.is_closed() {
            return;
        }
        if let Err(void) = self.connect().await {
            let _ = borrower.send(Err(void.error));
            return;
        }
        let Some((mut conn, identity)) = self.conn.take() else { return };
        if let Err(error) = file::begin(&mut conn, self.shared.options.busy_timeout).await {
            self.conn = Some((conn, identity));
            let void = self.broken(error, false);
            let _ = borrower.send(Err(void.error));
            return;
        }
        self.cache = Cache::default();
        let (back, returned) = oneshot::channel();
        let mut conn = match borrower.send(Ok(Lent { conn, back })) {
            Ok(()) => match returned.await {
                Ok((conn, true)) => {
                    self.conn = Some((conn, identity));
                    self.shared.bells.ring(Rings::All);
                    return;
                }
                Ok((conn, false)) => conn,
                // Gone with its holder: a new one is opened for the next request.
                Err(_) => return,
            },
            // Nobody wants it any more.
            Err(Ok(lent)) => lent.conn,
            Err(Err(_)) => return,
        };
        if sqlx::query("rollback").execute(&mut conn).await.is_ok() {
            self.conn = Some((conn, identity));
        }
    }

    async fn migrate(&mut self) -> Result<Vec<windlass_core::Migration>> {
        self.cache = Cache::default();
        match &mut self.conn {
            Some((conn, _)) => file::migrate(conn, self.shared.options.busy_timeout).await,
            None => {
                let mut conn = file::open(&self.shared.options, false).await?;
                let done = file::migrate(&mut conn, self.shared.options.busy_timeout).await;
                file::close(conn).await;
                done
            }
        }
    }
}

const FULL: u8 = 13;

pub(crate) fn not_migrated() -> Error {
    Error::new(
        ErrorKind::Config,
        "the file does not have the schema of this release: call `migrate`, or open it with `migrate_when_opened`",
    )
}

/// Begins a transaction that holds the write lock, waiting for others without blocking a thread.
async fn begin<'c>(
    conn: &'c mut SqliteConnection,
    cache: &'c mut Cache,
    options: &SqliteOptions,
    seen: Timestamp,
) -> std::result::Result<Store<'c>, sqlx::Error> {
    let started = Instant::now();
    loop {
        let opened = Store::open(&mut *conn, &mut *cache, options.retention, seen, true).await.map(drop);
        match opened.map_err(as_database) {
            Err(error) if is_busy(&error) && started.elapsed() < options.busy_timeout => {
                tokio::time::sleep(file::BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
            Ok(()) => return Ok(Store::begun(conn, cache, options.retention)),
        }
    }
}

/// Runs the group over the store.
async fn run(store: &mut Store<'_>, group: &mut [Box<dyn Request>]) -> std::result::Result<(), sqlx::Error> {
    let mut rest = group;
    while !rest.is_empty() {
        let together = push_together(store, rest).await?;
        if together == 0 {
            rest[0].run(store).await?;
        }
        rest = &mut rest[together.max(1)..];
    }
    Ok(())
}

/// Pushes the jobs of the first requests as one batch, if they are plain pushes timed alike. Returns how many requests.
async fn push_together(
    store: &mut Store<'_>,
    group: &mut [Box<dyn Request>],
) -> std::result::Result<usize, sqlx::Error> {
    let Some((_, at)) = group.first().and_then(|request| request.plain_push()) else { return Ok(0) };
    let mut jobs = Vec::new();
    let mut lens = Vec::new();
    for request in group.iter() {
        match request.plain_push() {
            Some((more, same)) if same == at && jobs.len() + more.len() <= BATCH_MAX => {
                jobs.extend_from_slice(more);
                lens.push(more.len());
            }
            _ => break,
        }
    }
    // One alone is run as any other; so is what the store refuses, each to its own answer.
    if lens.len() < 2 || store.tick(at).is_err() {
        return Ok(0);
    }
    let mut pushed = store.push(&jobs).await.map_err(as_database)?.into_iter();
    for (request, len) in group.iter_mut().zip(&lens) {
        request.keep_pushed(pushed.by_ref().take(*len).collect());
    }
    Ok(lens.len())
}

/// Opening and closing the store refuses nothing: what fails there is the database.
fn as_database(fail: crate::error::Fail) -> sqlx::Error {
    match fail {
        crate::error::Fail::Database(error) => error,
        crate::error::Fail::Refused(error) => sqlx::Error::Decode(Box::new(error)),
    }
}

/// Why a transaction is void.
struct Void {
    error: Error,
    /// Whether it may be the fault of one request of the group.
    one_of_them: bool,
    /// Whether it may be found committed after all.
    unknown: bool,
}

impl Void {
    fn before(error: Error) -> Self {
        Self { error, one_of_them: false, unknown: false }
    }

    /// The error for one of several requests.
    fn for_one(&self) -> Error {
        let error = Error::new(self.error.kind(), self.error.message());
        if self.unknown { error.effect_unknown() } else { error }
    }
}
