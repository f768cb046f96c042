//! `cargo xtask crash`: builds the crash runner and starts it. Its flags are its own.

use anyhow::Result;

use crate::counts::Counts;
use crate::run;

const PACKAGE: &str = "--release --locked --package windlass-crash";

/// A run with these flags.
pub(crate) fn crash(flags: &[&str]) -> Result<()> {
    run::check(run::cargo(&format!("run --quiet {PACKAGE} --")).args(flags))
}

/// The short run that belongs to every change: it counts as one test.
pub(crate) fn short() -> Result<Counts> {
    // A build that fails is no failed test.
    run::check(&mut run::cargo(&format!("build {PACKAGE}")))?;
    // The seed is fixed, so that a change that fails fails again.
    let flags = ["--backend", "sqlite", "--jobs", "3000", "--kills", "12", "--seed", "1"];
    Ok(match crash(&flags) {
        Ok(()) => Counts { passed: 1, ..Counts::default() },
        Err(error) => {
            println!("{error:#}");
            Counts { failed: 1, ..Counts::default() }
        }
    })
}
