//! Runs every example: they are documentation, and documentation that does not run is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::counts::Counts;
use crate::run;

/// An example shows something at once; one that takes longer waits for what never comes.
const LIMIT: Duration = Duration::from_secs(60);

/// Builds all examples, then runs one after the other.
pub(crate) fn run_all() -> Result<Counts> {
    let names = names(&run::root().join("examples"))?;
    let mut counts = Counts::default();
    if names.is_empty() {
        println!("\nthere are no examples");
        return Ok(counts);
    }
    run::check(&mut run::cargo("build --package windlass --examples"))?;
    for name in names {
        let mut command = run::cargo("run --quiet --package windlass --example");
        command.arg(&name);
        let ended = run::limited(&mut command, LIMIT)?;
        let how = match ended.status {
            Some(status) if status.success() => {
                println!("    example {name} ... ok");
                counts.passed += 1;
                continue;
            }
            Some(status) => format!("failed: {status}"),
            None => format!("did not end within {} s", LIMIT.as_secs()),
        };
        counts.failed += 1;
        println!("    example {name} ... {how}\n--- its output ---\n{}\n---", ended.output.trim_end());
    }
    match survives_a_kill() {
        Ok(()) => {
            println!("    example quickstart, killed half-way and run again ... ok");
            counts.passed += 1;
        }
        Err(why) => {
            println!("    example quickstart, killed half-way and run again ... failed: {why:#}");
            counts.failed += 1;
        }
    }
    Ok(counts)
}

/// The promise of the quickstart: kill it, run it again, and every job is finished.
fn survives_a_kill() -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| run::root().join("target"), Into::into);
    let program = target.join("debug/examples/quickstart");
    let file = target.join(format!("quickstart-{}.db", std::process::id()));
    let quickstart = || {
        let mut command = Command::new(&program);
        command.env("WINDLASS_URL", format!("sqlite:{}", file.display())).stdin(Stdio::null());
        command
    };
    let mut first = quickstart().stdout(Stdio::piped()).spawn().context("cannot start it")?;
    let lines = BufReader::new(first.stdout.take().context("its output")?).lines();
    let half_way = lines.map_while(Result::ok).any(|line| line.contains("sent to"));
    first.kill()?;
    first.wait()?;
    ensure!(half_way, "it ended before it had sent anything");
    let second = run::limited(&mut quickstart(), LIMIT)?;
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{suffix}", file.display()));
    }
    let fine = second.status.is_some_and(|status| status.success()) && second.output.contains("resumed");
    ensure!(fine, "the second run did not finish what the first left:\n{}", second.output);
    Ok(())
}

/// `examples/NAME.rs` and `examples/NAME/main.rs`, as Cargo finds them.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    if !folder.exists() {
        return Ok(names);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let is_example =
            path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").is_file();
        if is_example && let Some(name) = path.file_stem() {
            names.insert(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
