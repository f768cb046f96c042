//! Drains a million no-op jobs of 100 bytes through a whole worker on the memory engine, beside the limit of the runtime:
//! a bare channel with one spawned task a job. Both check that every job ran exactly once.
//!
//! `cargo run --release -p throughput -- [--jobs N] [--repeats R] [--concurrency C] [--only NAME]`

mod bare;
mod checked;
mod memory;
mod whole;

use std::time::Duration;

/// What to measure.
#[derive(Clone, Copy)]
struct Settings {
    jobs: usize,
    concurrency: usize,
}

fn main() {
    let mut settings = Settings { jobs: 1_000_000, concurrency: 64 };
    let (mut repeats, mut only) = (5, None);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().unwrap_or_default();
        match flag.as_str() {
            "--jobs" => settings.jobs = value.parse().expect("--jobs takes a number"),
            "--repeats" => repeats = value.parse().expect("--repeats takes a number"),
            "--concurrency" => settings.concurrency = value.parse().expect("--concurrency takes a number"),
            "--only" => only = Some(value),
            other => panic!("unknown flag {other}: use --jobs, --repeats, --concurrency, --only"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{} jobs, payload 100 bytes of JSON, concurrency {}, {cores} cores, {repeats} repeats, interleaved",
        settings.jobs, settings.concurrency
    );
    if only.is_none() {
        println!(
            "memory per waiting job: {} bytes (resident)",
            memory::per_waiting_job(&runtime, settings.jobs)
        );
    }
    type Measure = fn(&tokio::runtime::Runtime, Settings) -> Duration;
    let systems: [(&str, Measure); 3] =
        [("bare", bare::drain), ("dispatch", whole::dispatch), ("windlass", whole::drain)];
    let mut rates: Vec<(&str, Vec<f64>)> = systems.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for _ in 0..repeats {
        for ((name, measure), (_, rates)) in systems.iter().zip(&mut rates) {
            if only.as_deref().is_none_or(|only| only == *name) {
                #[expect(clippy::cast_precision_loss, reason = "a million fits")]
                rates.push(settings.jobs as f64 / measure(&runtime, settings).as_secs_f64());
            }
        }
    }
    for (name, mut rates) in rates {
        rates.sort_by(f64::total_cmp);
        if let (Some(least), Some(most)) = (rates.first(), rates.last()) {
            let median = rates[rates.len() / 2];
            println!("{name:<10} median {median:>10.0} jobs/s   min {least:>10.0}   max {most:>10.0}");
        }
    }
}
