//! The load, and the records of how a system fared under it. The peers' program uses this very file.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many jobs a claim takes at most.
pub(crate) const BATCH: usize = 100;
/// How often jobs are pushed.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// What one point of the course sums up.
pub(crate) const SPAN: Duration = Duration::from_secs(10);
/// How long the rest may take at the end.
pub(crate) const REST_MOST: Duration = Duration::from_secs(120);

/// One stretch of time.
#[derive(Debug, Serialize, Deserialize)]
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

impl Point {
    /// Of what was claimed in one stretch, at the end of it.
    pub(crate) fn new(
        since_begin: Duration,
        mut took: Vec<Duration>,
        backlog: usize,
        cpu_time: Duration,
        stretch: Duration,
    ) -> Self {
        took.sort_unstable();
        Self {
            seconds: since_begin.as_secs(),
            claims: took.len(),
            p50: quantile(&took, 0.5),
            p99: quantile(&took, 0.99),
            backlog,
            cpu: cpu_time.as_secs_f64() / stretch.as_secs_f64(),
        }
    }
}

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) system: String,
    pub(crate) jobs: usize,
    pub(crate) claimed: usize,
    pub(crate) completed: usize,
    pub(crate) exactly_once: bool,
    pub(crate) points: Vec<Point>,
}

impl Course {
    pub(crate) fn print(&self) {
        println!(
            "\n{}: {} jobs, {} claimed, {} completed, exactly once: {}",
            self.system, self.jobs, self.claimed, self.completed, self.exactly_once
        );
        println!(
            "{:>8} {:>8} {:>10} {:>10} {:>9} {:>6}",
            "s", "claims", "p50 ms", "p99 ms", "backlog", "cpu"
        );
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
