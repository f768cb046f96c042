//! `cargo xtask sim`: the simulator of `sim/`, built for speed.

use std::process::Command;

use anyhow::Result;

use crate::counts::Counts;
use crate::run;

/// Runs the simulator with these arguments; it explains them itself.
pub(crate) fn sim(args: &[&str]) -> Result<()> {
    run::check(&mut command(args))
}

/// What every change must pass: histories without a violation, seeds that repeat themselves, and seeded faults that are
/// noticed. Counted as three checks.
pub(crate) fn of_every_change(long: bool) -> Counts {
    let histories = if long { "200,000" } else { "20,000" };
    let checks: [&[&str]; 3] =
        [&["--histories", histories], &["--twice", "--histories", "1,000"], &["--mutants"]];
    let mut counts = Counts::default();
    for check in checks {
        match sim(check) {
            Ok(()) => counts.passed += 1,
            Err(error) => {
                println!("{error:#}");
                counts.failed += 1;
            }
        }
    }
    counts
}

fn command(args: &[&str]) -> Command {
    let mut command = run::cargo("run --quiet --release --locked --package windlass-sim --");
    command.args(args);
    command
}
