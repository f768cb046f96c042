//! `cargo xtask crash`: builds the crash runner and starts it. Its flags are its own.

use anyhow::Result;

use crate::counts::Counts;
use crate::run;

const PACKAGE: &str = "--release --locked --package windlass-crash";

/// A run with these flags.
pub(crate) fn crash(flags: &[&str]) -> Result<()> {
    run::check(run::cargo(&format!("run --quiet {PACKAGE} --")).args(flags))
}

/// The short runs that belong to every change, one an engine and sort.
const SHORT: [&str; 5] = [
    "--backend sqlite --jobs 3000 --kills 12",
    "--backend redis --jobs 3000 --kills 12",
    "--backend redis --everysec --jobs 2000 --kills 12",
    "--backend postgres --jobs 2500 --kills 12",
    "--backend postgres --effects --jobs 2000 --kills 12",
];

/// Each short run counts as one test.
pub(crate) fn short() -> Result<Counts> {
    // A build that fails is no failed test.
    run::check(&mut run::cargo(&format!("build {PACKAGE}")))?;
    let mut counts = Counts::default();
    for flags in SHORT {
        // The seed is fixed, so that a change that fails fails again.
        let flags: Vec<&str> = flags.split(' ').chain(["--seed", "1"]).collect();
        match crash(&flags) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                println!("{error:#}");
                counts.failed += 1;
            }
        }
    }
    Ok(counts)
}
