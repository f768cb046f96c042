//! A steady stream of jobs, and one worker's claims of them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};
use windlass_servers::Postgres;

/// How many jobs a claim takes at most.
pub(crate) const BATCH: usize = 100;
const TICK: Duration = Duration::from_millis(50);
/// How long a worker that found nothing waits.
const PAUSE: Duration = Duration::from_millis(10);
/// What one point of the course sums up.
const SPAN: Duration = Duration::from_secs(10);
/// How long the rest may take at the end.
const REST_MOST: Duration = Duration::from_secs(120);

/// What the jobs are stored in.
pub(crate) trait System: Clone + Send + Sync + 'static {
    const NAME: &'static str;

    fn open(url: &str) -> impl Future<Output = Self> + Send;
    fn push(&self, jobs: usize) -> impl Future<Output = ()> + Send;
    /// Completes what the last call claimed, and claims. Returns how many it claimed, and how long the claim took.
    fn claim(&mut self) -> impl Future<Output = (usize, Duration)> + Send;
    /// How many jobs have completed, by the tables.
    fn completed(&self) -> impl Future<Output = usize> + Send;
}

/// One stretch of time.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub(crate) seconds: u64,
    pub(crate) claims: usize,
    /// In milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Pushed and not claimed yet at its end.
    pub(crate) backlog: usize,
    /// Share of a processor that the server used.
    pub(crate) cpu: f64,
}

/// How it went.
#[derive(Debug, Serialize)]
pub(crate) struct Course {
    pub(crate) system: &'static str,
    pub(crate) jobs: usize,
    pub(crate) exactly_once: bool,
    pub(crate) points: Vec<Point>,
}

impl Course {
    pub(crate) fn print(&self) {
        println!("\n{}: {} jobs, exactly once: {}", self.system, self.jobs, self.exactly_once);
        println!("{:>8} {:>8} {:>10} {:>10} {:>9} {:>6}", "s", "claims", "p50 ms", "p99 ms", "backlog", "cpu");
        for point in &self.points {
            let Point { seconds, claims, p50, p99, backlog, cpu } = point;
            println!("{seconds:>8} {claims:>8} {p50:>10.2} {p99:>10.2} {backlog:>9} {cpu:>6.2}");
        }
    }
}

fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    // Truncation is meant: the index below.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let place = (last as f64 * part) as usize;
    sorted[place].as_secs_f64() * 1e3
}

/// Pushes `rate` jobs a second for so long while one worker claims and completes them, and the rest after that.
pub(crate) async fn run<S: System>(mut system: S, server: &Postgres, time: Duration, rate: usize) -> Course {
    let pushed = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let pusher = tokio::spawn({
        let (system, pushed) = (system.clone(), Arc::clone(&pushed));
        async move {
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let per_tick = rate * usize::try_from(TICK.as_millis()).expect("a short tick") / 1_000;
            while begun.elapsed() < time {
                ticks.tick().await;
                system.push(per_tick).await;
                pushed.fetch_add(per_tick, Ordering::AcqRel);
            }
        }
    });
    let (mut claimed, mut points, mut took) = (0, Vec::new(), Vec::new());
    let (mut from, mut cpu) = (Instant::now(), server.cpu_time().expect("the server's CPU time"));
    loop {
        let (jobs, time) = system.claim().await;
        claimed += jobs;
        if jobs > 0 {
            took.push(time);
        } else {
            tokio::time::sleep(PAUSE).await;
        }
        let over = pusher.is_finished();
        if from.elapsed() >= SPAN && !over {
            took.sort_unstable();
            let used = server.cpu_time().expect("the server's CPU time");
            points.push(Point {
                seconds: begun.elapsed().as_secs(),
                claims: took.len(),
                p50: quantile(&took, 0.5),
                p99: quantile(&took, 0.99),
                backlog: pushed.load(Ordering::Acquire) - claimed,
                cpu: (used.saturating_sub(cpu)).as_secs_f64() / from.elapsed().as_secs_f64(),
            });
            took.clear();
            (from, cpu) = (Instant::now(), used);
        }
        let late = begun.elapsed() > time + REST_MOST;
        if over && (late || (jobs == 0 && claimed == pushed.load(Ordering::Acquire))) {
            break;
        }
    }
    pusher.await.expect("the pusher");
    let jobs = pushed.load(Ordering::Acquire);
    let exactly_once = claimed == jobs && system.completed().await == jobs;
    Course { system: S::NAME, jobs, exactly_once, points }
}
