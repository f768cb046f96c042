//! The crash runner: real workers and dispatchers over a real engine, killed and frozen at random and at named points, and
//! every job accounted for. `cargo xtask crash` builds and starts it; README.md says what it does and what it checks.
//!
//! One program with two roles. The *runner* (`run.rs`) draws the faults (`faults.rs`), keeps a fleet of processes
//! (`fleet.rs`) and the engine's server (`server.rs`), listens to them (`collector.rs`, `journal.rs`), and accounts for what
//! is stored in the end (`account/`, `report.rs`). The *parts* (`parts.rs`) are those processes: workers, dispatchers and writers, over an engine with points
//! around its verbs (`told.rs`, `points.rs`), with jobs (`jobs.rs`, `effects.rs`) that do what the plan says (`plan.rs`), and tell it
//! (`wire.rs`).

mod account;
mod collector;
mod effects;
mod engine;
mod faults;
mod fleet;
mod jobs;
mod journal;
mod options;
mod parts;
mod plan;
mod points;
mod report;
mod run;
mod server;
mod told;
mod wire;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["part", words @ ..] => part(words).map(|()| true),
        flags => runner(flags),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(worker_threads = 2)]
async fn part(words: &[&str]) -> Result<()> {
    parts::Part::read(words)?.run().await
}

#[tokio::main(worker_threads = 2)]
async fn runner(flags: &[&str]) -> Result<bool> {
    let options = options::Options::parse(flags)?;
    let report = run::run(&options).await?;
    report.print();
    if let Some(path) = &options.json {
        std::fs::write(path, report.json() + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.is_clean())
}
