//! Runs every example: they are documentation, and documentation that does not run is wrong.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

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
    Ok(counts)
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
