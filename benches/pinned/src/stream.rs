//! A steady stream of jobs, and one worker's claims of them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use windlass_servers::Postgres;

use crate::course::{Course, Point, REST_MOST, SPAN, TICK};

/// How long a worker that found nothing waits.
const PAUSE: Duration = Duration::from_millis(10);

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
            let used = server.cpu_time().expect("the server's CPU time");
            let backlog = pushed.load(Ordering::Acquire) - claimed;
            let cpu_time = used.saturating_sub(cpu);
            points.push(Point::new(
                begun.elapsed(),
                std::mem::take(&mut took),
                backlog,
                cpu_time,
                from.elapsed(),
            ));
            (from, cpu) = (Instant::now(), used);
        }
        let late = begun.elapsed() > time + REST_MOST;
        if over && (late || (jobs == 0 && claimed == pushed.load(Ordering::Acquire))) {
            break;
        }
    }
    pusher.await.expect("the pusher");
    let jobs = pushed.load(Ordering::Acquire);
    let completed = system.completed().await;
    Course {
        system: S::NAME.to_owned(),
        jobs,
        claimed,
        completed,
        exactly_once: claimed == jobs && completed == jobs,
        points,
    }
}
