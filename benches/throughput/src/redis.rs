//! Redis: Windlass on a private server, beside bare scripts that move the same bytes with the same checks.

use std::time::Duration;

use tokio::runtime::Runtime;
use windlass::prelude::*;
use windlass::{Keep, RedisOptions, Retention};
use windlass_servers::Redis;

use crate::options::Settings;
use crate::raw_redis::Raw;
use crate::report::{self, Conditions, Row};
use crate::{Measure, distant, durable, whole};

/// What the server persists.
#[derive(Clone, Copy)]
enum Disk {
    Nothing,
    /// An append-only file, synced every second.
    EverySecond,
}

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::EverySecond => "everysec",
        }
    }

    fn server(self) -> Redis {
        let settings: &[(&str, &str)] = match self {
            Self::Nothing => &[],
            Self::EverySecond => &[("appendonly", "yes"), ("appendfsync", "everysec")],
        };
        Redis::start_with(settings).expect("a private Redis")
    }
}

/// What is measured.
#[derive(Clone, Copy)]
enum What {
    Dispatch {
        in_flight: usize,
    },
    Bulk,
    Drain,
    /// With a proxy between that makes every round trip a millisecond longer.
    DistantDrain,
    /// Processor time of the server a drained job, in microseconds: what does not hang on what else the machine does.
    DrainTime,
    /// The wait of a job for an idle worker, in milliseconds, at p50 or p99.
    Pickup {
        percentile: usize,
    },
    /// Bytes of the server's memory a waiting job.
    Memory,
}

/// All rows, ours beside the raw limit's.
pub(crate) fn rows(conditions: &Conditions) -> Vec<(Row, Measure)> {
    let mut rows = Vec::new();
    for disk in [Disk::Nothing, Disk::EverySecond] {
        for (what, workload, ours, raw) in [
            (What::Dispatch { in_flight: 1 }, "dispatch, 1 in flight", "dispatch 1", Some("raw dispatch 1")),
            (
                What::Dispatch { in_flight: 100 },
                "dispatch, 100 in flight",
                "dispatch 100",
                Some("raw dispatch 100"),
            ),
            (What::Bulk, "bulk dispatch of 1,000", "bulk", Some("raw bulk")),
            (What::Drain, "drain", "drain", Some("raw drain")),
            (What::DistantDrain, "drain, server 1 ms away", "drain far", None),
            (What::DrainTime, "server time of a drained job", "drain time", Some("raw drain time")),
            (What::Pickup { percentile: 50 }, "idle pickup p50", "pickup p50", None),
            (What::Pickup { percentile: 99 }, "idle pickup p99", "pickup p99", None),
            (What::Memory, "memory", "memory", None),
        ] {
            let (unit, exactly_once) = match what {
                What::Pickup { .. } => ("ms", None),
                What::Memory => ("bytes", None),
                What::Drain | What::DistantDrain => ("jobs/s", Some(true)),
                What::DrainTime => ("us", Some(true)),
                _ => ("jobs/s", None),
            };
            let row = |system, name: &str, version, execution| Row {
                name: Box::leak(format!("{name} {}", disk.name()).into()),
                engine: "redis",
                system,
                version,
                workload,
                settings: Conditions { durability: Some(disk.name()), execution, ..conditions.clone() },
                unit,
                samples: Vec::new(),
                exactly_once,
            };
            if let Some(raw) = raw {
                let row = row("bare scripts", raw, report::locked(crate::LOCK, "redis"), "one loop");
                let measure = move |runtime: &Runtime, settings| raw_rate(runtime, settings, what, disk);
                rows.push((row, Box::new(measure) as Measure));
            }
            let row = row("windlass", ours, report::locked(crate::LOCK, "windlass"), "worker");
            rows.push((
                row,
                Box::new(move |runtime: &Runtime, settings| measure(runtime, settings, what, disk)),
            ));
        }
    }
    rows
}

fn share(settings: Settings, what: What) -> usize {
    match what {
        What::Dispatch { in_flight: 1 } => settings.jobs / 20,
        What::Dispatch { .. } => settings.jobs / 2,
        What::Bulk | What::Drain | What::DistantDrain | What::DrainTime | What::Memory => settings.jobs,
        What::Pickup { .. } => 200,
    }
    .max(10)
}

fn measure(runtime: &Runtime, settings: Settings, what: What, disk: Disk) -> f64 {
    let jobs = share(settings, what);
    let server = disk.server();
    runtime.block_on(async {
        // As it comes, 10,000 completed jobs are kept.
        let url = match what {
            What::DistantDrain => {
                format!("redis://127.0.0.1:{}", distant::before(server.port(), Duration::from_millis(1)))
            }
            _ => server.url(),
        };
        let options = RedisOptions::new(url).retention(Retention {
            completed: Keep::new(10_000, Duration::from_secs(24 * 60 * 60)),
            ..Retention::default()
        });
        let queue = Queue::new(RedisBackend::connect_with(options).await.expect("it answers"));
        match what {
            What::Dispatch { in_flight } => rate(jobs, durable::dispatch(&queue, jobs, in_flight).await),
            What::Bulk => rate(jobs, durable::bulk(&queue, jobs).await),
            What::Drain | What::DistantDrain => {
                whole::fill(&queue, jobs).await;
                rate(jobs, durable::drain(queue, jobs, settings.concurrency).await)
            }
            What::DrainTime => {
                whole::fill(&queue, jobs).await;
                let before = busy(&server);
                durable::drain(queue, jobs, settings.concurrency).await;
                (busy(&server) - before) * 1e6 / per_job(jobs as u64, 1)
            }
            What::Pickup { percentile } => {
                let mut waits = durable::pickup(queue.clone(), queue, jobs).await;
                waits.sort_unstable();
                waits[(jobs * percentile / 100).min(jobs - 1)].as_secs_f64() * 1_000.0
            }
            What::Memory => {
                let before = used(&server);
                whole::fill(&queue, jobs).await;
                per_job(used(&server) - before, jobs)
            }
        }
    })
}

/// The raw limit: a loop that does nothing else, with one script in flight and batches as large as ours are at best.
fn raw_rate(runtime: &Runtime, settings: Settings, what: What, disk: Disk) -> f64 {
    let jobs = share(settings, what);
    let server = disk.server();
    runtime.block_on(async {
        let mut raw = Raw::open(&server.url()).await;
        if let What::DrainTime = what {
            raw.bulk(jobs).await;
            let before = busy(&server);
            raw.drain(jobs, 128).await;
            return (busy(&server) - before) * 1e6 / per_job(jobs as u64, 1);
        }
        let took = match what {
            What::Dispatch { in_flight } => raw.dispatch(jobs, in_flight).await,
            What::Drain => {
                raw.bulk(jobs).await;
                raw.drain(jobs, 128).await
            }
            _ => raw.bulk(jobs).await,
        };
        rate(jobs, took)
    })
}

fn used(server: &Redis) -> u64 {
    let info = server.ask(&["INFO", "memory"]).expect("INFO");
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("used_memory");
    line.trim().parse().expect("a number")
}

/// Seconds of processor time that the server has used.
fn busy(server: &Redis) -> f64 {
    let info = server.ask(&["INFO", "cpu"]).expect("INFO");
    let part = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).expect("a time");
        line.trim().parse().expect("a number")
    };
    part("used_cpu_user:") + part("used_cpu_sys:")
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn per_job(bytes: u64, jobs: usize) -> f64 {
    bytes as f64 / jobs as f64
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(jobs: usize, took: Duration) -> f64 {
    jobs as f64 / took.as_secs_f64()
}
