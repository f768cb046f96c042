//! Drains a million no-op jobs of 100 bytes through a whole worker on the memory engine, beside the limit of the runtime:
//! a bare channel with one spawned task a job. Both check that every job ran exactly once.
//!
//! `cargo run --release -p throughput -- [--jobs N] [--repeats R] [--concurrency C] [--only NAME] [--json FILE]`

mod bare;
mod checked;
mod durable;
mod memory;
mod options;
mod raw_sqlite;
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
    if std::env::var_os("WINDLASS_TRY").is_some() {
        use windlass::Durability::{Full, Normal};
        for durability in [Full, Normal] {
            println!("{durability:?}");
            if std::env::var_os("WINDLASS_TRY").unwrap() == "drain" {
                println!("drain      {:9.0}", sqlite::drain(&runtime, settings, durability));
                continue;
            }
            println!("raw 1      {:9.0}", sqlite::raw_dispatch(&runtime, 2_000, 1, durability));
            println!("dispatch 1 {:9.0}", sqlite::dispatch(&runtime, 2_000, 1, durability));
            println!("raw 64     {:9.0}", sqlite::raw_dispatch(&runtime, 50_000, 64, durability));
            println!("dispatch64 {:9.0}", sqlite::dispatch(&runtime, 50_000, 64, durability));
            println!("raw bulk   {:9.0}", sqlite::raw_bulk(&runtime, settings.jobs, durability));
            println!("bulk       {:9.0}", sqlite::bulk(&runtime, settings.jobs, durability));
            println!("raw drain  {:9.0}", sqlite::raw_drain(&runtime, settings, durability));
            println!("drain      {:9.0}", sqlite::drain(&runtime, settings, durability));
            println!("pickup     {:?}", sqlite::pickup(&runtime, 100, durability, false));
            println!("pickup 2   {:?}", sqlite::pickup(&runtime, 100, durability, true));
        }
        return;
    }
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
        cores,
    };
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
    type Measure = fn(&Runtime, Settings) -> f64;
    let systems: [(Row, Measure); 4] = [
        (windlass("waiting job", "memory", "bytes", None), memory::per_waiting_job),
        (bare, |runtime, settings| rate(settings, bare::drain(runtime, settings))),
        (windlass("dispatch", "dispatch", "jobs/s", None), |runtime, settings| {
            rate(settings, whole::dispatch(runtime, settings))
        }),
        (windlass("windlass", "drain", "jobs/s", Some(true)), |runtime, settings| {
            rate(settings, whole::drain(runtime, settings))
        }),
    ];
    let (mut rows, measures): (Vec<Row>, Vec<Measure>) = systems.into_iter().unzip();
    for repeat in 0..options.repeats {
        for (row, measure) in rows.iter_mut().zip(&measures) {
            // What this process freed before would hide what a store takes: only the first fill shows it.
            if options.wants(row.name) && (repeat == 0 || row.workload != "memory") {
                row.samples.push(measure(&runtime, settings));
            }
        }
    }
    report::publish(&rows, options.json.as_deref()).expect("the file of records can be written");
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(settings: Settings, took: Duration) -> f64 {
    settings.jobs as f64 / took.as_secs_f64()
}
