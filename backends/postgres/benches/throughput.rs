//! What the engine does in a second beside a bare program that makes the same writes with the same checks through the same
//! driver: bulk and single dispatch, drain, and what a completed job costs in WAL and index entries.
//!
//! `cargo bench -p windlass-postgres [-- --jobs 200000]` starts a private server that syncs its commits, runs both in turns,
//! checks that every job ran exactly once, and prints medians, ranges and ratios. Absolute figures hold for one machine and
//! one moment.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use windlass_core::{
    At, Backend, Body, Claim, JobId, Kind, Migrate, NewJob, Nonce, QueueName, Retention, Ruling, SessionId,
    Settled, StateKind, Verdict,
};
use windlass_postgres::sqlx::{self, PgPool, Row};
use windlass_postgres::{PostgresBackend, PostgresOptions};
use windlass_servers::{Postgres, PostgresSettings};

const ROUNDS: usize = 3;
const BATCH: usize = 500;
/// Workers that drain at once.
const DRAINERS: usize = 2;
const PAYLOAD: usize = 100;

fn queue() -> QueueName {
    QueueName::from_static("mail")
}

fn jobs(count: usize) -> Vec<NewJob> {
    (0..count)
        .map(|_| {
            NewJob::new(Body::new(JobId::fresh(), queue(), Kind::from_static("greet"), vec![b'x'; PAYLOAD]))
        })
        .collect()
}

/// One of the two programs.
#[derive(Clone)]
enum Program {
    Windlass(PostgresBackend),
    Bare(PgPool),
}

impl Program {
    async fn push(&self, jobs: &[NewJob]) {
        match self {
            Self::Windlass(backend) => {
                backend.push(jobs, At::Server).await.expect("push");
            }
            Self::Bare(pool) => {
                let ids: Vec<Uuid> = jobs.iter().map(|job| *job.body.id.as_uuid()).collect();
                let payloads: Vec<&[u8]> = jobs.iter().map(|job| &*job.body.payload).collect();
                sqlx::query(include_str!("bare_push.sql"))
                    .bind(ids)
                    .bind(payloads)
                    .execute(pool)
                    .await
                    .expect("push");
            }
        }
    }

    /// Claims and completes until nothing is left; returns what ran.
    async fn drain(&self) -> Vec<Uuid> {
        let mut ran = Vec::new();
        match self {
            Self::Windlass(backend) => {
                let session = SessionId::random();
                let mut verdicts: Vec<Verdict> = Vec::new();
                loop {
                    let claim = Claim {
                        session,
                        nonce: Nonce::random(),
                        queues: vec![queue()],
                        kinds: [(Kind::from_static("greet"), 1)].into_iter().collect(),
                        limit: BATCH,
                        ahead: 0,
                        suspects: true,
                        lease: Duration::from_secs(30),
                    };
                    let (settled, claimed) = backend
                        .settle_and_claim(&verdicts, &claim, At::Server)
                        .await
                        .expect("settle and claim");
                    assert!(settled.iter().all(|settled| *settled == Settled::Applied(StateKind::Completed)));
                    if claimed.jobs.is_empty() {
                        return ran;
                    }
                    ran.extend(claimed.jobs.iter().map(|job| *job.body.id.as_uuid()));
                    verdicts = claimed
                        .jobs
                        .into_iter()
                        .map(|job| Verdict::new(job.lease, Ruling::Complete { output: None }))
                        .collect();
                }
            }
            Self::Bare(pool) => {
                let mut held: Vec<i64> = Vec::new();
                let mut nonce = Uuid::nil();
                loop {
                    let next = Uuid::new_v4();
                    let mut tx = pool.begin().await.expect("begin");
                    let done = sqlx::query(include_str!("bare_settle.sql"))
                        .bind(&held)
                        .bind(nonce)
                        .execute(&mut *tx)
                        .await
                        .expect("settle");
                    assert_eq!(done.rows_affected(), held.len() as u64);
                    // One at a time, as the engine's lane has it: a statement of its own, so that the next one sees the cursor.
                    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *tx).await.expect("lane");
                    let rows = sqlx::query(include_str!("bare_claim.sql"))
                        .bind(next)
                        .bind(i64::try_from(BATCH).expect("a small number"))
                        .fetch_all(&mut *tx)
                        .await
                        .expect("claim");
                    tx.commit().await.expect("commit");
                    if rows.is_empty() {
                        return ran;
                    }
                    nonce = next;
                    held.clear();
                    for row in &rows {
                        ran.push(row.get("id"));
                        held.push(row.get("seq"));
                        std::hint::black_box(row.get::<&[u8], _>("payload"));
                    }
                }
            }
        }
    }

    async fn stored(&self, pool: &PgPool) -> i64 {
        let schema = match self {
            Self::Windlass(_) => "windlass",
            Self::Bare(_) => "bare",
        };
        let sql = format!("select count(*) from {schema}.done");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(pool).await.expect("count")
    }
}

/// Jobs a second.
fn rate(count: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let count = count as f64;
    count / took.as_secs_f64()
}

async fn bulk(program: &Program, count: usize) -> f64 {
    let all = jobs(count);
    let start = Instant::now();
    for batch in all.chunks(1_000) {
        program.push(batch).await;
    }
    rate(count, start.elapsed())
}

async fn drain(program: &Program, count: usize) -> f64 {
    let start = Instant::now();
    let drainers: Vec<_> = (0..DRAINERS)
        .map(|_| {
            let program = program.clone();
            tokio::spawn(async move { program.drain().await })
        })
        .collect();
    let mut ran = Vec::new();
    for drainer in drainers {
        ran.extend(drainer.await.expect("a drainer"));
    }
    let took = start.elapsed();
    let unique: HashSet<_> = ran.iter().collect();
    assert_eq!((ran.len(), unique.len()), (count, count), "each job exactly once");
    rate(count, took)
}

async fn single(program: &Program, count: usize, at_once: usize) -> f64 {
    let all = Arc::new(jobs(count));
    let start = Instant::now();
    let pushers: Vec<_> = (0..at_once)
        .map(|lane| {
            let (program, all) = (program.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                for job in all.iter().skip(lane).step_by(at_once) {
                    program.push(std::slice::from_ref(job)).await;
                }
            })
        })
        .collect();
    for pusher in pushers {
        pusher.await.expect("a pusher");
    }
    rate(count, start.elapsed())
}

fn summary(rates: &mut [f64]) -> (f64, String) {
    rates.sort_by(f64::total_cmp);
    let median = rates[rates.len() / 2];
    (median, format!("{median:>9.0} ({:.0} to {:.0})", rates[0], rates[rates.len() - 1]))
}

/// Processor time so far in microseconds, of the server and of this process: on a machine that others use as well it says
/// more than the clock does. Zero where there is no `/proc`.
async fn processor(pool: &PgPool) -> [u64; 2] {
    const TICK: u64 = 10_000;
    let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await.expect("a pid");
    // The fields after the name: state, parent, and so on; the 12th to 15th are ticks in user and system mode, of the process
    // itself and of its children that ended.
    let fields = |pid: &str| -> Option<Vec<u64>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(
            text.rsplit_once(')')?
                .1
                .split_whitespace()
                .map(|word| word.parse().unwrap_or_default())
                .collect(),
        )
    };
    let used = |fields: &[u64]| fields[11..15].iter().sum::<u64>() * TICK;
    let Some(parent) = fields(&backend.to_string()).map(|fields| fields[1]) else { return [0, 0] };
    let mut server = fields(&parent.to_string()).map_or(0, |fields| used(&fields));
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(fields) = name.to_str().filter(|name| name.parse::<u32>().is_ok()).and_then(&fields) else {
            continue;
        };
        if fields[1] == parent {
            server += used(&fields);
        }
    }
    [server, fields("self").map_or(0, |fields| used(&fields))]
}

/// What `work` returns, and the processor time that it took for each of `count` jobs.
async fn timed(
    pool: &PgPool,
    count: usize,
    costs: &mut Vec<[u64; 2]>,
    work: impl Future<Output = f64>,
) -> f64 {
    let before = processor(pool).await;
    let rate = work.await;
    let after = processor(pool).await;
    let count = u64::try_from(count).expect("a small number");
    costs.push([(after[0] - before[0]) * 10 / count, (after[1] - before[1]) * 10 / count]);
    rate
}

/// WAL bytes so far.
async fn wal(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8")
        .fetch_one(pool)
        .await
        .expect("lsn")
}

/// Index entries so far: those of inserted rows, and of rows that moved to where their index entries do not reach.
async fn index_entries(pool: &PgPool) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum((t.n_tup_ins + t.n_tup_upd - t.n_tup_hot_upd) * (
            select count(*) from pg_index i where i.indrelid = t.relid and i.indpred is null)), 0)::int8
         from pg_stat_user_tables t where t.schemaname = 'windlass'",
    )
    .fetch_one(pool)
    .await
    .expect("statistics")
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let after = |name: &str| {
        words.iter().position(|word| word == name).and_then(|at| words.get(at + 1)?.parse().ok())
    };
    let count: usize = after("--jobs").unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(compare(count));
}

async fn compare(count: usize) {
    let settings = PostgresSettings {
        durable: true,
        others: vec![
            ("shared_buffers", "1GB".to_owned()),
            ("max_wal_size", "8GB".to_owned()),
            ("checkpoint_timeout", "30min".to_owned()),
        ],
    };
    let server = Postgres::start_with(&settings).expect("a server");
    let keep = windlass_core::Keep::new(u64::MAX, Duration::from_secs(86_400));
    let retention = Retention { completed: keep, cancelled: keep, dead: keep };
    let options = PostgresOptions::new().max_connections(80).retention(retention);
    let backend = PostgresBackend::connect_with(&server.url(), options).await.expect("connect");
    backend.migrate().await.expect("migrate");
    let pool = backend.pool().clone();
    let version: String =
        sqlx::query_scalar("show server_version").fetch_one(&pool).await.expect("a version");
    sqlx::raw_sql(include_str!("bare_tables.sql")).execute(&pool).await.expect("tables");
    println!(
        "Postgres {version}, fsync on, sqlx 0.9, {count} jobs of {PAYLOAD} bytes, history kept, {DRAINERS} drainers with batches \
         of {BATCH}, {ROUNDS} rounds in turns; jobs a second, median (range)"
    );
    let programs = [Program::Windlass(backend.clone()), Program::Bare(pool.clone())];
    let mut figures: [Vec<Vec<f64>>; 2] = [vec![Vec::new(); 4], vec![Vec::new(); 4]];
    let mut costs = Vec::new();
    let mut used: [Vec<Vec<[u64; 2]>>; 2] = [vec![Vec::new(); 4], vec![Vec::new(); 4]];
    for _ in 0..ROUNDS {
        for (program, figures) in programs.iter().zip(&mut figures) {
            let before = program.stored(&pool).await;
            let (wal_before, entries_before) = (wal(&pool).await, index_entries(&pool).await);
            let number = usize::from(matches!(program, Program::Bare(_)));
            let used = &mut used[number];
            figures[0].push(timed(&pool, count, &mut used[0], bulk(program, count)).await);
            figures[1].push(timed(&pool, count, &mut used[1], drain(program, count)).await);
            assert_eq!(program.stored(&pool).await - before, i64::try_from(count).expect("a small number"));
            if matches!(program, Program::Windlass(_)) {
                // Statistics of open connections are told within a second or so.
                tokio::time::sleep(Duration::from_secs(2)).await;
                let jobs = i64::try_from(count).expect("a small number");
                costs.push((
                    (wal(&pool).await - wal_before) / jobs,
                    (index_entries(&pool).await - entries_before) * 100 / jobs,
                ));
            }
            let (few, many) = (count / 100, count / 20);
            figures[2].push(timed(&pool, few, &mut used[2], single(program, few, 1)).await);
            figures[3].push(timed(&pool, many, &mut used[3], single(program, many, 64)).await);
            drain(program, few + many).await;
        }
    }
    for (at, what) in
        ["bulk dispatch", "drain", "single dispatch, 1 at a time", "single dispatch, 64 at a time"]
            .iter()
            .enumerate()
    {
        let (ours, shown) = summary(&mut figures[0][at]);
        let (bare, limit) = summary(&mut figures[1][at]);
        println!("{what:<30} windlass {shown:<32} bare {limit:<32} ratio {:.2}", ours / bare);
        let middle = |costs: &[[u64; 2]], part: usize| {
            let mut costs: Vec<u64> = costs.iter().map(|cost| cost[part]).collect();
            costs.sort_unstable();
            let middle = costs[costs.len() / 2];
            format!("{}.{}", middle / 10, middle % 10)
        };
        println!(
            "{:<30} processor, µs a job: server {} (bare {}), client {} (bare {})",
            "",
            middle(&used[0][at], 0),
            middle(&used[1][at], 0),
            middle(&used[0][at], 1),
            middle(&used[1][at], 1),
        );
    }
    for (bytes, entries) in costs {
        println!(
            "a completed job: {bytes} bytes of WAL, {}.{:02} index entries",
            entries / 100,
            entries % 100
        );
    }
}
