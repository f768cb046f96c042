//! `cargo xtask bench`: the throughput program, and its peers, in one sitting.
//!
//! Each round is a process of its own for each program, and the programs take turns, so that a slow minute of the machine
//! hits all alike. What they print is theirs; what is put together here comes from their records.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::record::Record;
use crate::run;

/// What to run.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Options {
    quick: bool,
    peers: bool,
    engine: Option<&'static str>,
    json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(flags: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            match *flag {
                "--quick" => options.quick = true,
                "--peers" => options.peers = true,
                "--backend" => match flags.next() {
                    Some(&"memory") => options.engine = None,
                    Some(&"postgres") => options.engine = Some("postgres"),
                    Some(&"redis") => options.engine = Some("redis"),
                    Some(&"sqlite") => options.engine = Some("sqlite"),
                    _ => bail!("--backend takes memory, postgres, redis or sqlite"),
                },
                "--json" => options.json = Some(flags.next().context("--json takes a file")?.into()),
                other => bail!("bench does not take `{other}`"),
            }
        }
        Ok(options)
    }
}

/// Runs the rounds, prints the table, writes the records.
pub(crate) fn bench(options: &Options) -> Result<()> {
    let engine = options.engine.unwrap_or("memory");
    let (jobs, rounds) = match (options.engine.is_some(), options.quick) {
        (false, true) => (200_000, 3),
        (false, false) => (1_000_000, 5),
        (true, true) => (50_000, 3),
        (true, false) => (200_000, 5),
    };
    let mut programs = vec!["--package throughput"];
    if options.peers {
        programs.push("--manifest-path benches/peers/Cargo.toml");
    }
    for program in &programs {
        run::check(&mut run::cargo(&format!("build --release --locked {program}")))?;
    }
    let folder = run::root().join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("round-{}.jsonl", std::process::id()));
    let mut records: Vec<Record> = Vec::new();
    for round in 0..rounds {
        println!("\nround {} of {rounds}", round + 1);
        for program in &programs {
            let mut command = run::cargo(&format!("run --quiet --release --locked {program}"));
            command.args(["--", "--engine", engine, "--repeats", "1", "--jobs", &jobs.to_string(), "--json"]);
            command.arg(&file);
            run::check(&mut command)?;
            let lines = fs::read_to_string(&file).context("the program wrote no records")?;
            for line in lines.lines() {
                let mut left = Some(Record::parse(line)?);
                for record in &mut records {
                    left = left.and_then(|round| record.join(round));
                }
                records.extend(left);
            }
        }
        // The one that goes first finds the machine cooler.
        programs.reverse();
    }
    fs::remove_file(&file)?;
    ensure!(records.iter().all(|record| record.n() == rounds), "a row is missing in some round");
    print(&records);
    if let Some(path) = &options.json {
        let lines: String = records.iter().map(|record| record.to_json() + "\n").collect();
        fs::write(path, lines).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn print(records: &[Record]) {
    println!(
        "\n{:<14}{:<37}{:<28}{:<10}{:>11}{:>22}   unit",
        "system", "workload", "execution", "sync", "median", "min to max"
    );
    for record in records {
        println!(
            "{:<14}{:<37}{:<28}{:<10}{:>11}{:>22}   {} (n = {})",
            record.text("system"),
            record.text("workload"),
            record.text("execution"),
            record.text("durability"),
            figure(record.median()),
            format!("{} to {}", figure(record.min()), figure(record.max())),
            record.text("unit"),
            record.n()
        );
    }
    for ours in records.iter().filter(|record| record.text("system") == "windlass") {
        for other in records.iter().filter(|other| are_compared(ours, other)) {
            println!(
                "{}, {}: windlass : {} ({}, concurrency {}) = {:.3} : 1",
                ours.text("workload"),
                if ours.text("durability").is_empty() {
                    ours.text("engine")
                } else {
                    ours.text("durability")
                },
                other.text("system"),
                other.text("execution"),
                other.text("concurrency"),
                ours.median() / other.median()
            );
        }
    }
}

/// Rates as whole numbers, small figures such as milliseconds with their hundredths.
fn figure(figure: f64) -> String {
    if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") }
}

/// Whether another system did the same: the workload up to how it is batched, at the same durability.
fn are_compared(ours: &Record, other: &Record) -> bool {
    let what = |record: &Record| record.text("workload").split(" of ").next().unwrap_or_default().to_owned();
    other.text("system") != "windlass"
        && ours.text("unit") == other.text("unit")
        && what(ours) == what(other)
        && ours.text("durability") == other.text("durability")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_bad_ones_are_named() {
        let options = Options::parse(&["--quick", "--json", "out.jsonl"]).unwrap();
        assert_eq!(
            options,
            Options { quick: true, peers: false, engine: None, json: Some("out.jsonl".into()) }
        );
        for engine in ["postgres", "redis", "sqlite"] {
            assert_eq!(Options::parse(&["--backend", engine]).unwrap().engine, Some(engine));
        }
        for (flags, why) in [
            (&["--json"][..], "--json takes a file"),
            (&["--fast"][..], "`--fast`"),
            (&["--backend", "oracle"][..], "memory, postgres, redis or sqlite"),
        ] {
            assert!(Options::parse(flags).unwrap_err().to_string().contains(why));
        }
    }
}
