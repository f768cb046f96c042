//! Drains no-op jobs of 100 bytes through a whole worker, beside the raw limit: for the memory engine a bare channel with one
//! spawned task a job, for the others a loop that makes the same writes. Each checks that every job ran exactly once.
//!
//! `cargo run --release -p throughput -- [--jobs N] [--repeats R] [--concurrency C] [--only NAME] [--json FILE]
//! [--engine memory|postgres|redis|sqlite]`

mod bare;
mod checked;
mod distant;
mod durable;
mod memory;
mod options;
mod postgres;
mod raw_postgres;
mod raw_redis;
mod raw_sqlite;
mod redis;
mod report;
mod sheet;
mod sqlite;
mod store;
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
    let server = match options.engine {
        options::Engine::Memory | options::Engine::Sqlite => None,
        options::Engine::Postgres => Some(windlass_servers::Postgres::version().expect("its version")),
        options::Engine::Redis => Some(windlass_servers::Redis::version().expect("its version")),
    };
    println!(
        "{} jobs, payload 100 bytes of JSON, concurrency {}, {cores} cores, {} repeats, interleaved, {}",
        settings.jobs,
        settings.concurrency,
        options.repeats,
        server.as_deref().unwrap_or("no server")
    );
    let conditions = Conditions {
        jobs: settings.jobs,
        payload_bytes: 100,
        codec: "json",
        concurrency: Some(settings.concurrency),
        execution: "worker",
        durability: None,
        server,
        cores,
    };
    let mut groups = match options.engine {
        options::Engine::Memory => memory_rows(&conditions),
        options::Engine::Postgres => sheet::groups::<postgres::Server>(&conditions),
        options::Engine::Redis => sheet::groups::<redis::Server>(&conditions),
        options::Engine::Sqlite => sheet::groups::<sqlite::File>(&conditions),
    };
    for repeat in 0..options.repeats {
        for Group { rows, measure } in &mut groups {
            // What this process freed before would hide what a store takes: only the first fill shows it.
            let wanted = |row: &Row| options.wants(row.name) && (repeat == 0 || row.workload != "memory");
            if rows.iter().any(wanted) {
                let figures = measure(&runtime, settings);
                assert_eq!(figures.len(), rows.len(), "a figure for each row");
                for (row, figure) in rows.iter_mut().zip(figures).filter(|(row, _)| wanted(row)) {
                    row.samples.push(figure);
                }
            }
        }
    }
    let rows: Vec<Row> = groups.into_iter().flat_map(|group| group.rows).collect();
    report::publish(&rows, options.json.as_deref()).expect("the file of records can be written");
}

/// Rows whose figures come out of one run, and that run.
pub(crate) struct Group {
    rows: Vec<Row>,
    measure: Measure,
}

/// Gives one figure a row.
type Measure = Box<dyn Fn(&Runtime, Settings) -> Vec<f64>>;

fn memory_rows(conditions: &Conditions) -> Vec<Group> {
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
    let alone = |row, measure: fn(&Runtime, Settings) -> f64| Group {
        rows: vec![row],
        measure: Box::new(move |runtime, settings| vec![measure(runtime, settings)]),
    };
    vec![
        alone(windlass("waiting job", "memory", "bytes", None), memory::per_waiting_job),
        alone(bare, |runtime, settings| rate(settings, bare::drain(runtime, settings))),
        alone(windlass("dispatch", "dispatch", "jobs/s", None), |runtime, settings| {
            rate(settings, whole::dispatch(runtime, settings))
        }),
        alone(windlass("windlass", "drain", "jobs/s", Some(true)), |runtime, settings| {
            rate(settings, whole::drain(runtime, settings))
        }),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "a million fits")]
fn rate(settings: Settings, took: Duration) -> f64 {
    settings.jobs as f64 / took.as_secs_f64()
}
