//! `cargo xtask coverage`: which lines of the library no test runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::run;

const FOLDERS: [&str; 3] = ["src", "backends/core", "backends/memory"];
/// Per cent of the lines of each folder.
const LEAST: f64 = 90.0;

const MISSING: &str = "cargo-llvm-cov is not installed. To have it:
  rustup component add llvm-tools
  cargo install --locked cargo-llvm-cov";

/// Runs the tests under instrumentation and judges the folders.
pub(crate) fn coverage() -> Result<()> {
    if !run::has("llvm-cov") {
        bail!(MISSING);
    }
    let root = run::root();
    let target = root.join("target");
    fs::create_dir_all(&target)?;
    let file = target.join("coverage.lcov");
    // What must not compile runs nothing of the library: tests/ui.rs is left out.
    let mut command = if run::has("nextest") {
        let mut command = run::cargo("llvm-cov nextest --workspace --profile ci");
        command.args(["-E", "not binary(ui)"]);
        command
    } else {
        println!("cargo-nextest is not installed: running `cargo test` instead");
        run::cargo("llvm-cov --workspace")
    };
    run::check(command.arg("--lcov").arg("--output-path").arg(&file))?;
    let report = fs::read_to_string(&file).context("cargo-llvm-cov wrote no report")?;
    judge(&by_file(&report, &root)?)
}

/// Lines of a file, and those of them that ran.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Lines {
    all: u32,
    run: u32,
}

impl Lines {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.run += other.run;
    }

    fn per_cent(self) -> f64 {
        if self.all == 0 { 0.0 } else { 100.0 * f64::from(self.run) / f64::from(self.all) }
    }
}

/// Reads a report in the lcov format: `SF:file`, then `DA:line,runs` a line.
fn by_file(report: &str, root: &Path) -> Result<BTreeMap<String, Lines>> {
    let mut files = BTreeMap::new();
    let mut current: Option<(String, u32)> = None;
    for line in report.lines() {
        if let Some(path) = line.strip_prefix("SF:") {
            let path = Path::new(path);
            let name = path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
            let source =
                fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            current = Some((name, tests_begin(&source)));
        } else if let (Some(hit), Some((name, tests))) = (line.strip_prefix("DA:"), &current) {
            let (number, runs) = hit.split_once(',').context("an odd line in the report")?;
            if number.parse::<u32>()? < *tests {
                let lines: &mut Lines = files.entry(name.clone()).or_default();
                lines.add(Lines { all: 1, run: u32::from(runs != "0") });
            }
        }
    }
    Ok(files)
}

/// The line at which a file's own tests begin: they stand last, and are run whatever they test.
fn tests_begin(source: &str) -> u32 {
    let lines: Vec<&str> = source.lines().collect();
    let begin = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    begin.and_then(|line| u32::try_from(line + 1).ok()).unwrap_or(u32::MAX)
}

fn judge(files: &BTreeMap<String, Lines>) -> Result<()> {
    let mut low = Vec::new();
    println!();
    for folder in FOLDERS {
        let mut sum = Lines::default();
        for (name, lines) in files.iter().filter(|(name, _)| name.starts_with(&format!("{folder}/"))) {
            println!("{name:<44} {:>5} of {:>5} lines {:>6.1} %", lines.run, lines.all, lines.per_cent());
            sum.add(*lines);
        }
        let name = format!("{folder}/ in all");
        println!("{name:<44} {:>5} of {:>5} lines {:>6.1} %\n", sum.run, sum.all, sum.per_cent());
        if sum.per_cent() < LEAST {
            low.push(format!("{folder}/ has {:.1} %", sum.per_cent()));
        }
    }
    if !low.is_empty() {
        bail!("line coverage is below {LEAST} %: {}", low.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_tests_do_not_count() {
        assert_eq!(tests_begin("fn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n"), 3);
        assert_eq!(tests_begin("#[cfg(test)]\nuse a;\nfn a() {}\n"), u32::MAX);
    }

    #[test]
    fn a_report_is_read_by_file() {
        let (root, file) = (Path::new(env!("CARGO_MANIFEST_DIR")), file!().rsplit('/').next().unwrap());
        let path = root.join("src").join(file);
        let report = format!("SF:{}\nDA:1,3\nDA:2,0\nDA:99999,7\nend_of_record\n", path.display());
        let files = by_file(&report, root).unwrap();
        assert_eq!(files[&format!("src/{file}")], Lines { all: 2, run: 1 });
    }

    #[test]
    fn less_than_the_least_is_an_error_and_so_is_nothing() {
        let with = |run| {
            let files = FOLDERS.iter().map(|folder| (format!("{folder}/a.rs"), Lines { all: 10, run }));
            judge(&files.collect())
        };
        with(9).unwrap();
        assert!(with(8).unwrap_err().to_string().contains("src/ has 80.0 %"));
        assert!(judge(&BTreeMap::new()).is_err());
    }
}
