//! `graphile_worker` (Rust) under the load of `benches/pinned`: a private Postgres, a snapshot that is taken before the first
//! job and stays open, a steady stream of jobs. Its own worker takes and completes them, a hundred at a time (a local queue);
//! each of its claims is timed where it leaves for the server. The load and the records are those of that program.
//!
//! `cargo run --release --bin pinned-graphile -- [--seconds 600] [--rate 2000] [--json FILE]`, in this folder.

#[path = "../../pinned/src/course.rs"]
mod course;

use std::any::Any;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use graphile_worker::{
    BoxFuture, Database, DatabaseDriver, DbError, DbExecutor, DbParams, DbRow, DbTransaction,
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, NotificationStream, RawJobSpec, TaskHandler,
    WorkerContext, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};
use windlass_servers::{Postgres, PostgresSettings};

use self::course::{BATCH, Course, Point, REST_MOST, SPAN, TICK};

/// How the crate's statement that claims for a local queue begins.
const CLAIM: &str = "with j_raw as (";

/// How often each job ran, by its number.
static RUNS: OnceLock<Vec<AtomicU32>> = OnceLock::new();

#[derive(Clone, Serialize, Deserialize)]
struct Greet {
    number: usize,
    text: String,
}

impl TaskHandler for Greet {
    const IDENTIFIER: &'static str = "greet";

    async fn run(self, _context: WorkerContext) -> impl IntoTaskHandlerResult {
        RUNS.get().expect("there from the start")[self.number].fetch_add(1, Ordering::AcqRel);
        Ok::<(), String>(())
    }
}

/// What was claimed so far.
#[derive(Debug, Default)]
struct Claims {
    jobs: AtomicUsize,
    /// How long those took that found something, since they were last asked for.
    took: Mutex<Vec<Duration>>,
}

/// The crate's database, with a watch on its claims.
#[derive(Debug)]
struct Timed {
    database: Database,
    claims: Arc<Claims>,
}

impl DbExecutor for Timed {
    fn execute<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<u64, DbError>> {
        self.database.execute(sql, params)
    }

    fn fetch_all<'a>(&'a self, sql: &'a str, params: DbParams) -> BoxFuture<'a, Result<Vec<DbRow>, DbError>> {
        if !sql.starts_with(CLAIM) {
            return self.database.fetch_all(sql, params);
        }
        Box::pin(async move {
            let begun = Instant::now();
            let rows = self.database.fetch_all(sql, params).await?;
            if !rows.is_empty() {
                self.claims.took.lock().expect("not poisoned").push(begun.elapsed());
                self.claims.jobs.fetch_add(rows.len(), Ordering::AcqRel);
            }
            Ok(rows)
        })
    }
}

impl DatabaseDriver for Timed {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn begin(&self) -> BoxFuture<'_, Result<DbTransaction, DbError>> {
        Box::pin(self.database.begin())
    }

    fn listen<'a>(&'a self, channel: &'a str) -> BoxFuture<'a, Result<Option<NotificationStream>, DbError>> {
        Box::pin(self.database.listen(channel))
    }
}

struct Options {
    time: Duration,
    rate: usize,
    json: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options { time: Duration::from_mins(10), rate: 2_000, json: None };
    let mut words = std::env::args().skip(1);
    while let Some(flag) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{flag} takes a value"));
        match flag.as_str() {
            "--seconds" => options.time = Duration::from_secs(value.parse().expect("seconds")),
            "--rate" => options.rate = value.parse().expect("jobs a second"),
            "--json" => options.json = Some(value.into()),
            _ => panic!("there is no {flag}"),
        }
    }
    options
}

/// Pushes `rate` jobs a second for so long.
async fn push_all(
    worker: graphile_worker::WorkerUtils,
    time: Duration,
    rate: usize,
    pushed: Arc<AtomicUsize>,
) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let per_tick = rate * usize::try_from(TICK.as_millis()).expect("a short tick") / 1_000;
    while begun.elapsed() < time {
        ticks.tick().await;
        let from = pushed.load(Ordering::Acquire);
        let job = |number| RawJobSpec {
            identifier: Greet::IDENTIFIER.into(),
            payload: serde_json::to_value(Greet { number, text: "x".repeat(70) }).expect("JSON"),
            spec: JobSpec::default(),
        };
        let jobs: Vec<_> = (from..from + per_tick).map(job).collect();
        worker.add_raw_jobs(&jobs).await.expect("push");
        pushed.fetch_add(per_tick, Ordering::AcqRel);
    }
}

async fn left(pool: &PgPool) -> usize {
    let left: i64 = sqlx::query_scalar("select count(*) from graphile_worker._private_jobs")
        .fetch_one(pool)
        .await
        .expect("a count");
    usize::try_from(left).expect("a count")
}

#[tokio::main]
async fn main() {
    let Options { time, rate, json } = options();
    let most = rate * usize::try_from(time.as_secs() + 10).expect("a short time");
    RUNS.set((0..most).map(|_| AtomicU32::new(0)).collect()).expect("set once");
    let server = Postgres::start_with(&PostgresSettings { durable: true, others: Vec::new() })
        .expect("a private Postgres");
    let pool = PgPoolOptions::new().max_connections(10).connect(&server.url()).await.expect("a pool");
    let claims = Arc::new(Claims::default());
    let timed = Timed { database: pool.clone().into(), claims: Arc::clone(&claims) };
    let worker = WorkerOptions::default()
        .database(Database::new(timed))
        .concurrency(24)
        .local_queue(LocalQueueConfig::default().with_size(BATCH))
        .complete_job_batch_delay(Duration::from_millis(5))
        .define_job::<Greet>()
        .init()
        .await
        .expect("its tables");
    let mut pinned = PgConnection::connect(&server.url()).await.expect("a connection");
    sqlx::raw_sql("begin isolation level repeatable read; select pg_current_snapshot()::text")
        .execute(&mut pinned)
        .await
        .expect("a snapshot");
    let pushed = Arc::new(AtomicUsize::new(0));
    let pushing = tokio::spawn(push_all(worker.create_utils(), time, rate, Arc::clone(&pushed)));
    let working = tokio::spawn(async move { worker.run().await.map_err(|error| error.to_string()) });
    let begun = Instant::now();
    let (mut from, mut cpu) = (begun, server.cpu_time().expect("the server's CPU time"));
    let mut points = Vec::new();
    loop {
        tokio::time::sleep(TICK).await;
        assert!(!working.is_finished(), "its worker ended");
        let (jobs, claimed) = (pushed.load(Ordering::Acquire), claims.jobs.load(Ordering::Acquire));
        if pushing.is_finished() {
            if begun.elapsed() > time + REST_MOST || (claimed >= jobs && left(&pool).await == 0) {
                break;
            }
        } else if from.elapsed() >= SPAN {
            let used = server.cpu_time().expect("the server's CPU time");
            let took = std::mem::take(&mut *claims.took.lock().expect("not poisoned"));
            let backlog = jobs.saturating_sub(claimed);
            points.push(Point::new(begun.elapsed(), took, backlog, used.saturating_sub(cpu), from.elapsed()));
            (from, cpu) = (Instant::now(), used);
        }
    }
    pushing.await.expect("the pushes");
    let (jobs, claimed) = (pushed.load(Ordering::Acquire), claims.jobs.load(Ordering::Acquire));
    let completed = jobs - left(&pool).await;
    working.abort();
    drop(pinned);
    let once = RUNS.get().expect("set").iter().take(jobs).all(|runs| runs.load(Ordering::Acquire) == 1);
    let course = Course {
        system: "graphile_worker".to_owned(),
        jobs,
        claimed,
        completed,
        exactly_once: once && claimed == jobs && completed == jobs,
        points,
    };
    println!("{}, {rate} jobs a second for {time:?}", Postgres::version().expect("its version"));
    course.print();
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(&course).expect("JSON");
        std::fs::write(path, text).expect("the file of records can be written");
    }
}
