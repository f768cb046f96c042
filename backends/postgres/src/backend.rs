//! The handle, and the verbs of the contract as one call each.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::{PgPool, PgRow};
use tokio::time::Instant;
use uuid::Uuid;
use windlass_core::limits::BATCH_MAX;
use windlass_core::{
    At, Backend, Capabilities, Claim, Claimed, Connect, Effect, Error, Filter, Finished, Held, JobRef, Kept,
    NewJob, Nonce, Note, Pushed, QueueName, Result, Retention, SessionId, Settled, StateKind, Sweep, Swept,
    Timestamp, Verdict, Wake,
};

use crate::PostgresOptions;
use crate::call::{Caller, Operation};
use crate::gather::Gather;
use crate::jobs::{Asked, is_plain, millis};
use crate::rows::{self, Common, column};
use crate::statements::{SchemaName, Statements};
use crate::verdicts::{self, Alike, Leases, Verdicts, epoch, nonce, same_length};
use crate::wake::{Event, Pace, Wakes};

/// How often somebody who waits for an outcome looks, at first and at most. Ends in this process are heard of at once.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_MOST: Duration = Duration::from_millis(100);

/// From so many verdicts, and so many jobs asked for, a settle and a claim that have nothing to do with each other go out side
/// by side: what two transactions and two connections cost is less than what one of the two takes.
const APART: usize = 32;

/// The Postgres engine on one namespace. Clones share its connections, which nobody else gets: see
/// [`pool`](PostgresBackend::pool).
#[derive(Clone)]
pub struct PostgresBackend {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) caller: Caller,
    /// The application's connections.
    theirs: PgPool,
    pub(crate) options: PostgresOptions,
    pub(crate) name: SchemaName,
    pub(crate) sql: Statements,
    pub(crate) wakes: Wakes,
    pub(crate) gather: Gather,
}

impl PostgresBackend {
    pub(crate) const NAME_OF_ENGINE: &'static str = "postgres";
    pub(crate) const SCHEMES_OF_URLS: &'static [&'static str] = &["postgres", "postgresql"];

    /// `own` is for the verbs alone, `theirs` for the application's transactions.
    pub(crate) fn assemble(own: PgPool, theirs: PgPool, options: PostgresOptions) -> Self {
        let name = SchemaName::new(&options.schema);
        let sql = Statements::new(&name);
        let wakes = Wakes::new(own.clone(), &options.schema, options.listens());
        let caller = Caller { pool: own, timeout: options.timeout, pooler: options.pooler };
        let gather = Gather::default();
        Self { shared: Arc::new(Shared { caller, theirs, options, name, sql, wakes, gather }) }
    }

    /// A pool of connections for transactions of your own: the one given to [`from_pool`](Self::from_pool), or else one that
    /// opens its first connection when you ask for it. The engine's verbs never use it. What an application leaves on a
    /// connection (a transaction whose `begin` was cancelled stays open in sqlx 0.9) would otherwise swallow a claim or a
    /// dispatch that was acknowledged; and handlers that hold all connections cannot keep the engine from extending their leases.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.shared.theirs
    }

    /// Closes the engine's own connections, after the verbs that are under way. Verbs fail from then on, with
    /// [`ErrorKind::Connection`](windlass_core::ErrorKind::Connection). [`pool`](Self::pool) stays open.
    pub async fn close(&self) {
        self.shared.caller.pool.close().await;
    }

    /// The schema of the namespace.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.shared.options.schema
    }

    /// Tells sleeping workers, here and in other processes, that there may be work in these queues: after the commit of a
    /// transaction that dispatched into them. Without, they find it by polling, within half a second or, when they
    /// listen, a second. It never fails, and may be lost.
    pub fn wake(&self, queues: &[QueueName]) {
        for queue in queues {
            self.shared.wakes.work(queue.as_str());
        }
    }

    /// Bits for the final states of which nothing is kept: Completed, Cancelled, Dead.
    pub(crate) fn forget(&self) -> i32 {
        let Retention { completed, cancelled, dead } = self.shared.options.retention;
        let bit = |keep: windlass_core::Keep, bit| if keep.count == 0 { bit } else { 0 };
        bit(completed, 1) | bit(cancelled, 2) | bit(dead, 4)
    }
}

/// The instant of a verb; `None` for the server's own.
pub(crate) fn instant(at: At) -> Option<i64> {
    match at {
        At::Server => None,
        At::Instant(instant) => Some(instant.as_millis()),
    }
}

pub(crate) fn session(session: SessionId) -> Uuid {
    Uuid::from_u128(session.as_u128())
}

struct Asking<'a> {
    queues: Vec<&'a str>,
    kinds: Vec<&'a str>,
    versions: Vec<i32>,
    claim: &'a Claim,
}

impl<'a> Asking<'a> {
    fn new(claim: &'a Claim) -> Self {
        let (kinds, versions) =
            claim.kinds.iter().map(|(kind, version)| (kind.as_str(), i32::from(version))).unzip();
        let mut queues: Vec<&str> = Vec::with_capacity(claim.queues.len());
        for queue in &claim.queues {
            // A queue that is named twice is looked in once: its rows are locked by the first look.
            if !queues.contains(&queue.as_str()) {
                queues.push(queue.as_str());
            }
        }
        Self { queues, kinds, versions, claim }
    }

    fn bind<'q>(&self, query: Asked<'q>) -> Asked<'q> {
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        query
            .bind(session(self.claim.session))
            .bind(Uuid::from_u128(self.claim.nonce.as_u128()))
            .bind(&self.queues)
            .bind(&self.kinds)
            .bind(&self.versions)
            .bind(count(self.claim.limit))
            .bind(count(self.claim.ahead))
            .bind(self.claim.suspects)
            .bind(millis(self.claim.lease))
    }
}

/// The first row of a claim's answer and the jobs after it.
fn claimed(rows: &[PgRow], claim: &Claim) -> Result<(Option<Vec<i16>>, Claimed)> {
    let Some((head, jobs)) = rows.split_first() else {
        return Err(
            Error::new(windlass_core::ErrorKind::Decode, "a claim without an answer").effect_unknown()
        );
    };
    let common = Common::new(head)?;
    let claimed = Claimed {
        jobs: jobs.iter().map(|row| rows::claimed(row, claim.nonce, &common)).collect::<Result<_>>()?,
        more: column(head, "more")?,
        wake_at: column::<Option<i64>>(head, "wake_at")?.map(Timestamp::from_millis),
        now: Timestamp::from_millis(column(head, "now_ms")?),
    };
    Ok((column(head, "settled")?, claimed))
}

impl PostgresBackend {
    /// A settle and a claim side by side. Whatever only one of them did is unknown to the caller: verdicts are sent again, and
    /// what a claim took is handed back.
    async fn settle_beside_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        match tokio::join!(self.settle(verdicts, at), self.claim(claim, at)) {
            (Ok(settled), Ok(claimed)) => Ok((settled, claimed)),
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error.effect_unknown()),
            (Err(first), Err(second)) if second.effect() == Effect::Unknown => Err(first.effect_unknown()),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Settles completions that are alike. `None`, and nothing was done, when they are not or one of them is not as it should be.
    async fn complete_alike(&self, verdicts: &[Verdict], at: At) -> Result<Option<Vec<Settled>>> {
        let Some(alike) = Alike::new(verdicts) else { return Ok(None) };
        let (at, forget) = (instant(at), self.forget());
        let row = self
            .shared
            .caller
            .row(Operation::change("settle"), &self.shared.sql.complete_alike, |query| {
                alike.bind(query.bind(at).bind(forget))
            })
            .await?;
        if !row.try_get::<bool, _>(0).unwrap_or_default() {
            return Ok(None);
        }
        self.shared.wakes.here(Event::Freed(alike.queue().into()));
        self.shared.wakes.here(Event::Ended);
        Ok(Some(vec![Settled::Applied(StateKind::Completed); verdicts.len()]))
    }

    /// Rings for those who may have heard of these verdicts: in other processes only when they may have made work, since a
    /// completion rarely does and there are many.
    fn tell(&self, verdicts: &Verdicts<'_>, settled: &[Settled]) {
        for queue in verdicts.queues() {
            if verdicts.makes_work {
                self.shared.wakes.work(queue);
            } else {
                self.shared.wakes.here(Event::Freed(queue.into()));
            }
        }
        if verdicts::ended(settled) {
            self.shared.wakes.here(Event::Ended);
        }
    }
}

impl Backend for PostgresBackend {
    const NAME: &'static str = Self::NAME_OF_ENGINE;

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            shared: true,
            atomic_across_queues: true,
            pipelined: true,
            ahead_max: 1_800,
        }
    }

    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        NewJob::validate_all(jobs)?;
        match jobs {
            [job] if at == At::Server && !self.shared.options.pooler && is_plain(&job.body) => {
                Ok(vec![self.push_gathered(job).await?])
            }
            _ => self.push_now(jobs, at).await,
        }
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        claim.validate()?;
        let asking = Asking::new(claim);
        let at = instant(at);
        let rows = self
            .shared
            .caller
            .rows(Operation::change("claim"), &self.shared.sql.claim, |query| asking.bind(query.bind(at)))
            .await?;
        claimed(&rows, claim).map(|(_, claimed)| claimed)
    }

    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        Verdict::validate_all(verdicts)?;
        if let Some(settled) = self.complete_alike(verdicts, at).await? {
            return Ok(settled);
        }
        let columns = Verdicts::new(verdicts);
        let (at, forget) = (instant(at), self.forget());
        let sql = if columns.has_then() { &self.shared.sql.settle_then } else { &self.shared.sql.settle };
        let row = self
            .shared
            .caller
            .row(Operation::change("settle"), sql, |query| columns.bind(query.bind(at).bind(forget)))
            .await?;
        let answers: Vec<i16> = row.try_get(0).unwrap_or_default();
        same_length(verdicts.len(), answers.len())?;
        let settled = verdicts::settled(&answers)?;
        self.tell(&columns, &settled);
        Ok(settled)
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        Verdict::validate_all(verdicts)?;
        claim.validate()?;
        if verdicts.len() >= APART
            && claim.limit + claim.ahead >= APART
            && verdicts.iter().all(verdicts::sets_nothing_free)
        {
            return self.settle_beside_claim(verdicts, claim, at).await;
        }
        let columns = Verdicts::new(verdicts);
        let asking = Asking::new(claim);
        let (at, forget) = (instant(at), self.forget());
        let sql = &self.shared.sql;
        let sql = if columns.has_then() { &sql.settle_then_and_claim } else { &sql.settle_and_claim };
        let rows = self
            .shared
            .caller
            .rows(Operation::change("settle"), sql, |query| {
                asking.bind(columns.bind(query.bind(at).bind(forget)))
            })
            .await?;
        let (answers, claimed) = claimed(&rows, claim)?;
        let answers = answers.unwrap_or_default();
        same_length(verdicts.len(), answers.len())?;
        let settled = verdicts::settled(&answers)?;
        self.tell(&columns, &settled);
        Ok((settled, claimed))
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        Claim::validate_lease(lease)?;
        if held.len() > BATCH_MAX {
            return Err(Error::invalid(format!(
                "extend of {} jobs in one call: at most {BATCH_MAX}",
                held.len()
            )));
        }
        // One row cannot be changed twice by one statement: a lease that is named twice is asked about once.
        let mut numbers: HashMap<&windlass_core::Lease, usize> = HashMap::with_capacity(held.len());
        let mut asked: Vec<(&windlass_core::Lease, bool)> = Vec::with_capacity(held.len());
        for Held { lease, started } in held {
            let number = *numbers.entry(lease).or_insert(asked.len());
            match asked.get_mut(number) {
                Some((_, begun)) => *begun |= started,
                None => asked.push((lease, *started)),
            }
        }
        // In the order of the rows, as settle does.
        let mut order: Vec<usize> = (0..asked.len()).collect();
        order.sort_by_key(|at| {
            let (lease, _) = asked[*at];
            (lease.job.queue.as_str(), verdicts::Place::of(lease))
        });
        let mut leases = Leases::default();
        let mut begun = Vec::with_capacity(order.len());
        for at in &order {
            leases.add(asked[*at].0);
            begun.push(asked[*at].1);
        }
        let (at, session) = (instant(at), crate::backend::session(session));
        let rows = self
            .shared
            .caller
            .rows(Operation::change("extend"), &self.shared.sql.extend, |query| {
                leases.bind(query.bind(at).bind(session).bind(millis(lease))).bind(&begun)
            })
            .await?;
        let mut kept = vec![Kept::Lost; asked.len()];
        for row in &rows {
            let number = usize::try_from(column::<i32>(row, "ord")? - 1).unwrap_or(usize::MAX);
            let answer = if column::<i16>(row, "answer")? == 1 { Kept::CancelRequested } else { Kept::Kept };
            if let Some(slot) = order.get(number).and_then(|at| kept.get_mut(*at)) {
                *slot = answer;
            }
        }
        Ok(held.iter().map(|held| kept[numbers[&held.lease]]).collect())
    }

    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> Result<usize> {
        let (at, session, forget) = (instant(at), crate::backend::session(session), self.forget());
        let nonce = nonce.map(|nonce| Uuid::from_u128(nonce.as_u128()));
        let row = self
            .shared
            .caller
            .row(Operation::change("hand_back"), &self.shared.sql.hand_back, |query| {
                query.bind(at).bind(session).bind(nonce).bind(forget)
            })
            .await?;
        let handed: i32 = row.try_get(0).unwrap_or_default();
        if handed > 0 {
            self.shared.wakes.anything();
        }
        Ok(usize::try_from(handed).unwrap_or_default())
    }

    async fn annotate(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        let queues: Vec<&str> = notes.iter().map(|note| note.lease.job.queue.as_str()).collect();
        let ids: Vec<Uuid> = notes.iter().map(|note| *note.lease.job.id.as_uuid()).collect();
        let epochs: Vec<i32> = notes.iter().map(|note| epoch(&note.lease)).collect();
        let nonces: Vec<Uuid> = notes.iter().map(|note| nonce(&note.lease)).collect();
        let percents: Vec<Option<i16>> =
            notes.iter().map(|note| note.progress.as_ref().map(|progress| progress.percent.into())).collect();
        let texts: Vec<Option<&str>> =
            notes.iter().map(|note| note.progress.as_ref().map(|progress| &*progress.note)).collect();
        let mut line_of: Vec<i32> = Vec::new();
        let mut lines: Vec<&str> = Vec::new();
        for (number, note) in (1..).zip(notes) {
            // More than are kept of one note need not travel.
            let surplus = note.log.len().saturating_sub(windlass_core::limits::LOG_LINES_MAX);
            for line in &note.log[surplus..] {
                line_of.push(number);
                lines.push(line);
            }
        }
        let at = instant(at);
        let rows = self
            .shared
            .caller
            .rows(Operation::change("annotate"), &self.shared.sql.annotate, |query| {
                query
                    .bind(at)
                    .bind(&queues)
                    .bind(&ids)
                    .bind(&epochs)
                    .bind(&nonces)
                    .bind(&percents)
                    .bind(&texts)
                    .bind(&line_of)
                    .bind(&lines)
            })
            .await?;
        same_length(notes.len(), rows.len())?;
        rows.iter()
            .map(|row| row.try_get(0).map_err(|_| Error::new(windlass_core::ErrorKind::Decode, "no answer")))
            .collect()
    }

    async fn sweep(&self, sweep: &Sweep, at: At) -> Result<Swept> {
        Filter::validate_page(sweep.limit)?;
        let Retention { completed, cancelled, dead } = self.shared.options.retention;
        let keeps = [completed, cancelled, dead];
        let counts: Vec<i64> =
            keeps.iter().map(|keep| i64::try_from(keep.count).unwrap_or(i64::MAX)).collect();
        let ages: Vec<i64> = keeps.iter().map(|keep| millis(keep.age)).collect();
        let (at, forget) = (instant(at), self.forget());
        let bound = i32::try_from(sweep.limit).unwrap_or(i32::MAX);
        let row = self
            .shared
            .caller
            .row(Operation::change("sweep"), &self.shared.sql.sweep, |query| {
                query.bind(at).bind(bound).bind(forget).bind(&counts).bind(&ages)
            })
            .await?;
        let count = |name| column::<i64>(&row, name).map(|n| u64::try_from(n).unwrap_or_default());
        let swept = Swept {
            promoted: count("promoted")?,
            reclaimed: count("reclaimed")?,
            cancelled: count("cancelled")?,
            buried: count("buried")?,
            pruned: count("pruned")?,
            relayed: 0,
            more: column(&row, "more")?,
        };
        if swept.promoted + swept.reclaimed + swept.cancelled + swept.buried > 0 {
            self.shared.wakes.anything();
        }
        Ok(swept)
    }

    async fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Result<Vec<Option<Finished>>> {
        let deadline = Instant::now() + max_wait;
        let queues: Vec<&str> = jobs.iter().map(|job| job.queue.as_str()).collect();
        let ids: Vec<Uuid> = jobs.iter().map(|job| *job.id.as_uuid()).collect();
        let mut every = LOOK_FIRST;
        let at = instant(at);
        loop {
            let mut bell = self.shared.wakes.subscribe();
            let rows = self
                .shared
                .caller
                .rows(Operation::read("outcomes"), &self.shared.sql.outcomes, |query| {
                    query.bind(at).bind(&queues).bind(&ids)
                })
                .await?;
            same_length(jobs.len(), rows.len())?;
            let found: Vec<Option<Finished>> = rows.iter().map(rows::outcome).collect::<Result<_>>()?;
            let now = Instant::now();
            if found.is_empty() || found.iter().any(Option::is_some) || now >= deadline {
                return Ok(found);
            }
            bell.until(deadline.min(now + every), |event| matches!(event, Event::Ended)).await;
            every = (every * 2).min(LOOK_MOST);
        }
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        let deadline = Instant::now() + max;
        self.shared.wakes.listen();
        let mut pace = Pace::new();
        loop {
            let mut bell = self.shared.wakes.subscribe();
            match self.peek(session, queues, due).await? {
                2 => return Ok(Wake::Control),
                1 => return Ok(Wake::Work),
                _ if Instant::now() >= deadline => return Ok(Wake::Nothing),
                _ => {}
            }
            let next = Instant::now() + pace.next(self.shared.wakes.hears());
            let heard = bell.until(deadline.min(next), |event| match event {
                Event::Work(queue) | Event::Freed(queue) => queues.iter().any(|name| *name == **queue),
                Event::Control(told) => *told == session.as_u128(),
                Event::Anything => true,
                Event::Ended => false,
            });
            if matches!(heard.await, Some(Event::Work(_))) {
                // A claim looks better than this could.
                return Ok(Wake::Work);
            }
        }
    }

    async fn now(&self, at: At) -> Result<Timestamp> {
        let at = instant(at);
        let row = self
            .shared
            .caller
            .row(Operation::read("now"), &self.shared.sql.now, |query| query.bind(at))
            .await?;
        row.try_get(0)
            .map(Timestamp::from_millis)
            .map_err(|_| Error::new(windlass_core::ErrorKind::Decode, "no time in the answer"))
    }
}

impl PostgresBackend {
    /// Looks for something to do. On a task of its own: a worker drops its wait whenever something else comes up, and a
    /// statement that is dropped half way costs its connection.
    async fn peek(&self, session: SessionId, queues: &[QueueName], due: Option<Timestamp>) -> Result<i32> {
        let shared = Arc::clone(&self.shared);
        let queues: Vec<String> = queues.iter().map(|queue| queue.as_str().to_owned()).collect();
        let (session, due) = (crate::backend::session(session), due.map(Timestamp::as_millis));
        let look = tokio::spawn(async move {
            shared
                .caller
                .row(Operation::read("wait"), &shared.sql.peek, |query| {
                    query.bind(session).bind(&queues).bind(due)
                })
                .await
        });
        let row = look.await.map_err(|_| {
            Error::new(windlass_core::ErrorKind::Unavailable, "the runtime is shutting down")
                .during(Self::NAME_OF_ENGINE, "wait")
        })??;
        Ok(row.try_get(0).unwrap_or_default())
    }
}

impl Connect for PostgresBackend {
    const SCHEMES: &'static [&'static str] = Self::SCHEMES_OF_URLS;

    /// Opens the namespace at a URL such as `postgres://user:secret@host:5432/database?schema=jobs`: schema `windlass`
    /// unless it says otherwise. `pooler=true` and `max_connections=20` may stand there too; for all else there is
    /// [`connect_with`](Self::connect_with). The namespace is not made here: see
    /// [`Migrate`](windlass_core::Migrate).
    fn connect(url: &str) -> impl Future<Output = Result<Self>> + Send {
        Self::connect_url(url)
    }
}

impl fmt::Debug for PostgresBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresBackend").field("schema", &self.schema()).finish_non_exhaustive()
    }
}
