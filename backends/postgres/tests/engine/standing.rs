//! Pushes that stand still before they commit, and who works beside them.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use tokio::task::JoinHandle;
use windlass_conformance::{Env, complete, draft, mail};
use windlass_core::{At, Backend, Inspect, JobRef, Pushed, QueueName, StateKind, Sweep, Timestamp, Verdict};
use windlass_postgres::PostgresBackend;
use windlass_postgres::sqlx::{self, AssertSqlSafe, Connection, PgConnection};

use crate::common::{Namespace, fresh, url};
use crate::opening::ask;
use crate::stretches::{NOW, later};

/// A push that asks for it stands still before its first number (`before statement`), between the number of a job and its row
/// (`before row`, and the id), or when all its rows are in (`after statement`), until a lock is let go.
pub(crate) const STAND_STILL: &str = "
create function @schema@.stand_still() returns trigger language plpgsql as $$
declare
    here text := lower(tg_when || ' ' || tg_level);
begin
    if tg_level = 'ROW' then
        here := here || ' ' || new.id;
    end if;
    if current_setting('stuck.moment', true) = here then
        perform set_config('lock_timeout', '0', true);
        perform pg_advisory_xact_lock_shared(current_setting('stuck.lock')::bigint);
    end if;
    if tg_level = 'ROW' then
        return new;
    end if;
    return null;
end
$$;
create trigger stuck_first before insert on @schema@.job for each statement execute function @schema@.stand_still();
create trigger stuck_between before insert on @schema@.job for each row execute function @schema@.stand_still();
create trigger stuck_last after insert on @schema@.job for each statement execute function @schema@.stand_still();
";

/// When a push stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    BeforeItsNumbers,
    /// The number of this one of its jobs is drawn, and those before it are in.
    BeforeJob(usize),
    AfterItsJobs,
}

/// Which of the ways in a push takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Alike,
    Many,
    One,
}

/// A push that stands still. It commits when it is let go.
pub(crate) struct Stuck {
    pub(crate) jobs: Vec<JobRef>,
    /// The server's process that it runs in.
    pid: i32,
    pub(crate) lock: i64,
    pub(crate) holder: PgConnection,
    pub(crate) done: JoinHandle<()>,
}

pub(crate) async fn run(backend: &PostgresBackend, sql: &str) {
    let sql = sql.replace("@schema@", &format!("\"{}\"", backend.schema()));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(backend.pool()).await.expect("it is good SQL");
}

impl Stuck {
    pub(crate) async fn at(backend: &PostgresBackend, moment: Moment, way: Way) -> Self {
        Self::on(&url(), backend, moment, way, 5).await
    }

    pub(crate) async fn on(
        url: &str,
        backend: &PostgresBackend,
        moment: Moment,
        way: Way,
        priority: i16,
    ) -> Self {
        let drafts: Vec<_> = (0..if matches!(way, Way::One) { 1 } else { 3 }).map(|_| draft()).collect();
        let jobs: Vec<JobRef> = drafts.iter().map(windlass_conformance::Draft::job).collect();
        let ids: Vec<_> = jobs.iter().map(|job| *job.id.as_uuid()).collect();
        let payloads = vec![b"x".to_vec(); ids.len()];
        let schema = format!("\"{}\"", backend.schema());
        // As the engine sends it.
        let sql = match way {
            Way::Alike => format!(
                "select {schema}.push_alike($1, 'mail', 'greet', null, 1, 1, 1::int2, 0::int2, $4, $2, $3)::text"
            ),
            Way::Many | Way::One => format!(
                "select count(*)::text from (select array_agg(i.id) as ids, array_agg('mail'::text) as queues, \
                 array_agg('greet'::text) as kinds, array_agg(i.payload) as payloads, array_agg(null::int8) as nulls, \
                 array_agg(1) as ones, array_agg(1::int2) as most, array_agg(0::int2) as zeros, \
                 array_agg($4::int2) as priorities, array_agg(null::text) as extras \
                 from unnest($2::uuid[], $3::bytea[]) i (id, payload)) d, \
                 lateral {schema}.push($1, false, 0, d.ids, d.queues, d.kinds, d.payloads, d.nulls, d.ones, d.ones, d.most, \
                 d.zeros, d.priorities, d.zeros, d.nulls, d.nulls, d.extras) p where p.answer = 0"
            ),
        };
        let lock = i64::from(uuid::Uuid::new_v4().as_fields().0);
        let mut holder = PgConnection::connect(url).await.expect("a connection");
        sqlx::query("select pg_advisory_lock($1)").bind(lock).execute(&mut holder).await.expect("the lock");
        let moment = match moment {
            Moment::BeforeItsNumbers => "before statement".to_owned(),
            Moment::BeforeJob(at) => format!("before row {}", jobs[at].id.as_uuid()),
            Moment::AfterItsJobs => "after statement".to_owned(),
        };
        let mut conn = PgConnection::connect(url).await.expect("a connection");
        let set = format!("set stuck.moment = '{moment}'; set stuck.lock = '{lock}'");
        sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut conn).await.expect("settings");
        let pid: i32 =
            sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut conn).await.expect("its id");
        let done = tokio::spawn(async move {
            let wanted = if matches!(way, Way::Alike) { "true".to_owned() } else { ids.len().to_string() };
            let answer: String = sqlx::query_scalar(AssertSqlSafe(sql))
                .bind(Timestamp::VIRTUAL_START.as_millis())
                .bind(ids)
                .bind(payloads)
                .bind(priority)
                .fetch_one(&mut conn)
                .await
                .expect("push");
            assert_eq!(answer, wanted);
        });
        let mut stuck = Self { jobs, pid, lock, holder, done };
        wait_for_lock(&mut stuck.holder, pid).await;
        stuck
    }

    pub(crate) async fn let_go(mut self) -> Vec<JobRef> {
        sqlx::query("select pg_advisory_unlock($1)")
            .bind(self.lock)
            .execute(&mut self.holder)
            .await
            .expect("unlock");
        self.done.await.expect("it commits");
        self.jobs
    }

    pub(crate) fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.pid.to_string()]).status().expect("kill");
        assert!(done.success(), "{name}");
    }
}

/// Until a process of the server waits for an advisory lock.
async fn wait_for_lock(conn: &mut PgConnection, pid: i32) {
    let sql = "select coalesce(wait_event_type = 'Lock' and wait_event = 'advisory', false) from pg_stat_activity where pid = $1";
    for _ in 0..500 {
        if sqlx::query_scalar::<_, bool>(sql).bind(pid).fetch_one(&mut *conn).await.expect("its state") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not stand still");
}

pub(crate) async fn ready() -> (Namespace, PostgresBackend) {
    let namespace = fresh().await;
    let backend = namespace.backend().clone();
    run(&backend, STAND_STILL).await;
    (namespace, backend)
}

/// What was claimed so far, all of it completed.
#[derive(Default)]
pub(crate) struct Worked {
    pub(crate) jobs: Vec<JobRef>,
}

impl Worked {
    /// Claims and completes what there is. Returns how many that was.
    pub(crate) async fn work(&mut self, backend: &PostgresBackend, now: At) -> usize {
        let before = self.jobs.len();
        loop {
            let claimed = backend.claim(&ask(10), now).await.expect("claim").jobs;
            if claimed.is_empty() {
                return self.jobs.len() - before;
            }
            self.jobs.extend(claimed.iter().map(|job| job.lease.job.clone()));
            let verdicts: Vec<_> =
                claimed.into_iter().map(|job| Verdict::new(job.lease, complete())).collect();
            let settled = backend.settle(&verdicts, now).await.expect("settle");
            let completed = windlass_core::Settled::Applied(StateKind::Completed);
            assert!(settled.iter().all(|settled| *settled == completed), "{settled:?}");
        }
    }

    /// Works until so many more were there: a push that stands still is given up after a second.
    pub(crate) async fn work_until(&mut self, backend: &PostgresBackend, now: At, wanted: usize) {
        let mut worked = 0;
        for _ in 0..100 {
            worked += self.work(backend, now).await;
            if worked >= wanted {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(worked, wanted);
    }

    /// All of these jobs, and no others, were claimed once each, and so say all who can be asked.
    pub(crate) async fn is_all(&self, backend: &PostgresBackend, jobs: &[JobRef], now: At) {
        let claimed: HashSet<_> = self.jobs.iter().collect();
        assert_eq!(claimed.len(), self.jobs.len(), "one was claimed twice");
        assert_eq!(claimed, jobs.iter().collect::<HashSet<_>>());
        for job in jobs {
            let record = backend.get(job, now).await.expect("get").expect("it is stored");
            assert_eq!(record.state.kind(), StateKind::Completed, "{job:?}");
        }
        // One sweep finds that nothing stands still any more and counts, the next that the counts are right.
        for _ in 0..2 {
            sweep(backend, now).await;
        }
        assert!(!is_flagged(backend).await, "it is over");
        let queues = backend.queues(now).await.expect("queues");
        let mail = queues.iter().find(|queue| queue.name == mail()).expect("the queue");
        let counts: Vec<_> = StateKind::ALL.iter().map(|state| (*state, mail.counts.get(*state))).collect();
        assert_eq!(mail.counts.get(StateKind::Completed), jobs.len() as u64, "{counts:?}");
        assert!(counts.iter().all(|(state, n)| *state == StateKind::Completed || *n == 0), "{counts:?}");
    }
}

pub(crate) async fn sweep(backend: &PostgresBackend, now: At) {
    backend.sweep(&Sweep::default(), now).await.expect("sweep");
}

pub(crate) fn seconds(n: u64) -> At {
    later(Duration::from_secs(n))
}

pub(crate) async fn is_flagged(backend: &PostgresBackend) -> bool {
    let sql = format!("select last_value = 1 from \"{}\".gate_stuck", backend.schema());
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(backend.pool()).await.expect("the flag")
}

/// Gives a push that stands still up, for a queue that has nothing to do with it.
pub(crate) async fn give_up_elsewhere(backend: &PostgresBackend) {
    let other = draft().queue("other");
    assert_eq!(backend.push(&[other.build()], NOW).await.expect("push"), [Pushed::Inserted]);
    let mut ask = ask(1);
    ask.queues = vec![QueueName::from_static("other")];
    for _ in 0..100 {
        if let Some(job) = backend.claim(&ask, NOW).await.expect("claim").jobs.pop() {
            backend.settle(&[Verdict::new(job.lease, complete())], NOW).await.expect("settle");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it is not given up");
}
