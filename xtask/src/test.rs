//! `cargo xtask test`: what every change must pass.

use anyhow::{Result, bail, ensure};

use crate::counts::{self, Counts};
use crate::{crash, examples, run, servers, sim};

/// Runs tests, doc tests, examples, the simulator and crash runs; a failure in one does not keep the others from running.
pub(crate) fn test(long: bool) -> Result<()> {
    let parts = [
        ("tests", tests(long)?),
        ("doc tests", doc_tests()?),
        ("examples", examples::run_all()?),
        ("simulator", sim::of_every_change(long)),
        ("crash runs", crash::short()?),
    ];
    let mut total = Counts::default();
    println!();
    for (what, part) in parts {
        println!("{what:<10} {:>5} passed, {} failed, {} skipped", part.passed, part.failed, part.skipped);
        total += part;
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        std::process::exit(1);
    }
    Ok(())
}

/// Unit, integration and conformance tests of the whole workspace.
fn tests(long: bool) -> Result<Counts> {
    let nextest = run::has("nextest");
    let mut command = if nextest {
        // The profile with room for slow machines: what compiles within a test may take a minute there.
        run::cargo("nextest run --workspace --profile ci")
    } else {
        println!(
            "cargo-nextest is not installed: running `cargo test` instead, without a time limit a test.\nTo have it: \
             cargo install --locked cargo-nextest"
        );
        run::cargo("test --workspace --lib --bins --tests --examples --no-fail-fast")
    };
    if long {
        command.env("PROPTEST_CASES", "4096");
        command.env("WINDLASS_MODEL_RUNS", "1000").env("WINDLASS_SOAK_SECONDS", "120");
    }
    let _servers = servers::for_tests(&mut command)?;
    let output = run::watch(&mut command)?;
    let counts =
        if nextest { counts::of_nextest(&output.stderr)? } else { counts::of_libtest(&output.stdout)? };
    agree(output.status.success(), counts, "the tests")
}

fn doc_tests() -> Result<Counts> {
    let output = run::watch(&mut run::cargo("test --doc --workspace --no-fail-fast"))?;
    agree(output.status.success(), counts::of_libtest(&output.stdout)?, "the doc tests")
}

/// A runner that fails without a failed test, or the other way about, was not understood.
fn agree(success: bool, counts: Counts, what: &str) -> Result<Counts> {
    if success && counts.failed > 0 {
        bail!("{what} ended well with {} failed: the count was misread", counts.failed);
    }
    ensure!(success || counts.failed > 0, "{what} failed, and no test of them did: see the output above");
    Ok(counts)
}
