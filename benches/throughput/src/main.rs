//! Drains no-op jobs of 100 bytes through a whole worker, beside the raw limit: for the memory engine a bare channel with one
//! spawned task a job, for SQLite and Redis a loop that makes
//! the same writes. Each checks that every job ran exactly once.
//!
//! `cargo run --release -p throughput -- [--jobs N] [--repeats R] [--concurrency C] [--only NAME] [--json FILE]
//! [--engine memory|redis|sqlite]`

mod bare;
mod checked;
mod distant;
mod durable;
mod memory;
mod options;
mod raw_redis;
mod raw_sqlite;
mod redis;
mod report;
mod sqlite;
mod whole;

use std::time::Duration;

use tokio::runtime::Runtime;

use self::options::{Options, Settings};
use self::report::{Conditions, Row};

const LOCK: &str = include_str!("../../../Cargo.lock");

fn main() {
    let options = Options::from_args();
    let settings = options.settings;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} jobs, payload 100 bytes of JSON, concurrency {}, {cores} cores, {} repeats, interleaved",
        settings.jobs, settings.concurrency, options.repeats
    );
    let conditions = Conditions {
        jobs: settings.jobs,
        payload_bytes: 100,
        codec: "json",
        concurrency: Some(settings.concurrency),
        execution: "worker",
        durability: None,
        cores,
    };
    let mut systems = match options.engine {
        options::Engine::Memory => memory_rows(&conditions),
        options::Engine::Redis => redis::rows(&conditions),
        options::Engine::Sqlite => sqlite::rows(&conditions),
    };
    for repeat in 0..options.repeats {
        for (row, measure) in &mut systems {
            // What this process freed before would hide what a store takes: only the first fill shows it.
            if options.wants(row.name) && (repeat == 0 || row.workload != "memory") {
                row.samples.push(measure(&runtime, settings));
            }
        }
    }
    let rows: Vec<Row> = systems.into_iter().map(|(row, _)| row).collect();
    report::publish(&rows, options.json.as_deref()).expect("the file of records can be written");
}

/// How one row is measured.
type Measure = Box<dyn Fn(&Runtime, Settings) -> f64>;

fn memory_rows(conditions: &Conditions) -> Vec<(Row, Measure)> {
    let windlass = |name, workload, unit, exactly_once| Row {
        name,
        engine: "memory",
        system: "windlass",
        version: report::locked(LOCK, "windlass"),
        workload,
        settings: conditions.clone(),
        unit,
        samples: Vec::new(),
        exactly_once,
    };
    let bare = Row {
        system: "bare channel",
        engine: "tokio",
        version: report::locked(LOCK, "tokio"),
        settings: Conditions {
            codec: "none",
            concurrency: None,
            execution: "a task a job",
            ..conditions.clone()
        },
        ..windlass("bare", "drain", "jobs/s", Some(true))
    };
    vec![
        (windlass("waiting job", "memory", "bytes", None), Box::new(memory::per_waiting_job)),
        (bare, Box::new(|runtime, settings| rate(settings, bare::drain(runtime, settings)))),
        (
            windlass("dispatch", "dispatch", "jobs/s", None),
            Box::new(|runtime, settings| rate(settings, whole::dispatch(runtime, settings))),
        ),
        (
            windlass("windlass", "drain", "jobs/s", Some(true)),
            Box::new(|runtime, settings| rate(settings, whole::drain(runtime, settings))),
        ),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(settings: Settings, took: Duration) -> f64 {
    settings.jobs as f64 / took.as_secs_f64()
}
