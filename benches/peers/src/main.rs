//! Peers of Windlass on the workload of `benches/throughput`: a million no-op jobs of 100 bytes, drained in one process,
//! each checked to have run exactly once. The flags, the count and the records are the very files of that program.
//!
//! `cargo run --release -- [--jobs N] [--repeats R] [--only NAME] [--json FILE]`, in this folder.

mod apalis_memory;
mod apalis_sqlite;
#[path = "../../throughput/src/checked.rs"]
mod checked;
#[path = "../../throughput/src/options.rs"]
mod options;
#[path = "../../throughput/src/report.rs"]
mod report;

use std::time::Duration;

use tokio::runtime::Runtime;

use self::options::{Options, Settings};
use self::report::{Conditions, Row};

const LOCK: &str = include_str!("../Cargo.lock");

fn main() {
    let options = Options::from_args();
    let settings = options.settings;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    if options.engine == options::Engine::Sqlite {
        return sqlite(&options, &runtime, cores);
    }
    println!(
        "{} jobs, payload 100 bytes, not encoded, {cores} cores, {} repeats, interleaved",
        settings.jobs, options.repeats
    );
    let apalis = |name, workload, concurrency, execution, exactly_once| Row {
        name,
        engine: "memory",
        system: "apalis",
        version: report::locked(LOCK, "apalis"),
        workload,
        settings: Conditions {
            jobs: settings.jobs,
            payload_bytes: 100,
            codec: "none",
            concurrency,
            execution,
            durability: None,
            server: None,
            cores,
        },
        unit: "jobs/s",
        samples: Vec::new(),
        exactly_once,
    };
    type Measure = fn(&Runtime, Settings) -> Duration;
    let systems: [(Row, Measure); 4] = [
        (apalis("apalis-push", "dispatch", Some(1), "push", None), apalis_memory::push),
        (apalis("apalis", "drain", None, "parallelize(tokio::spawn)", Some(true)), apalis_memory::spawned),
        (
            apalis(
                "apalis-bounded",
                "drain",
                Some(settings.concurrency),
                "parallelize(tokio::spawn)",
                Some(true),
            ),
            apalis_memory::bounded,
        ),
        (apalis("apalis-inline", "drain", None, "in the worker's task", Some(true)), apalis_memory::inline),
    ];
    let (mut rows, measures): (Vec<Row>, Vec<Measure>) = systems.into_iter().unzip();
    for _ in 0..options.repeats {
        for (row, measure) in rows.iter_mut().zip(&measures) {
            if options.wants(row.name) {
                let took = measure(&runtime, settings).as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a million fits")]
                row.samples.push(settings.jobs as f64 / took);
            }
        }
    }
    report::publish(&rows, options.json.as_deref()).expect("the file of records can be written");
}

/// The peers on SQLite. Jobs of a drain are a fortieth, at most 5,000: it slows down with its backlog.
fn sqlite(options: &Options, runtime: &Runtime, cores: usize) {
    let jobs = options.settings.jobs;
    type Measure = fn(&Runtime, Settings) -> Duration;
    let systems: [(&str, &str, &str, usize, Option<bool>, Measure); 3] = [
        ("apalis-push", "dispatch, 1 in flight", "push", jobs / 100, None, apalis_sqlite::push),
        ("apalis-bulk", "bulk dispatch of 500", "push_bulk", jobs / 10, None, apalis_sqlite::bulk),
        ("apalis", "drain", "batches of 100", (jobs / 40).min(5_000), Some(true), apalis_sqlite::drain),
    ];
    println!("payload 100 bytes of JSON, {cores} cores, {} repeats, interleaved", options.repeats);
    let mut rows: Vec<Row> = systems
        .iter()
        .map(|(name, workload, execution, jobs, exactly_once, _)| Row {
            name,
            engine: "sqlite",
            system: "apalis",
            version: report::locked(LOCK, "apalis-sqlite"),
            workload,
            settings: Conditions {
                jobs: *jobs,
                payload_bytes: 100,
                codec: "json",
                concurrency: None,
                execution,
                durability: Some("normal"),
                server: None,
                cores,
            },
            unit: "jobs/s",
            samples: Vec::new(),
            exactly_once: *exactly_once,
        })
        .collect();
    for _ in 0..options.repeats {
        for (row, (.., measure)) in rows.iter_mut().zip(&systems) {
            if options.wants(row.name) {
                let settings = Settings { jobs: row.settings.jobs, ..options.settings };
                let took = measure(runtime, settings).as_secs_f64();
                #[expect(clippy::cast_precision_loss, reason = "a million fits")]
                row.samples.push(settings.jobs as f64 / took);
            }
        }
    }
    report::publish(&rows, options.json.as_deref()).expect("the file of records can be written");
}
