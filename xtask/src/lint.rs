//! `cargo xtask lint`: what can be said about the code without running it.

use anyhow::{Result, bail};

use crate::run;

/// Runs every check, and then says which failed.
pub(crate) fn lint() -> Result<()> {
    let mut checks = vec![
        run::cargo("fmt --all --check"),
        run::cargo("clippy --workspace --all-targets -- -D warnings"),
        // Without the features that the library's own tests switch on.
        run::cargo("clippy --package windlass --no-default-features --lib -- -D warnings"),
        run::cargo("doc --workspace --no-deps --all-features"),
        run::cargo("doc --package windlass --no-deps"),
    ];
    for doc in &mut checks[3..] {
        doc.env("RUSTDOCFLAGS", "-D warnings");
    }
    if run::has("deny") {
        checks.push(run::cargo("deny --workspace check"));
    } else {
        println!("cargo-deny is not installed: licences and advisories are not checked");
    }
    let mut failed = Vec::new();
    for check in &mut checks {
        if let Err(error) = run::check(check) {
            failed.push(format!("{error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed:\n  {}", failed.len(), checks.len(), failed.join("\n  "));
    }
    println!("\nlint: {} checks passed", checks.len());
    Ok(())
}
