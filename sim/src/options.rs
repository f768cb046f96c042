//! The command line.

use std::num::NonZeroUsize;

use anyhow::{Context, Result, bail};
use windlass_sim::Mutant;

pub(crate) const USAGE: &str = "\
cargo xtask sim [--histories N] [--seed S] [--twice] [--mutants | --mutant NAME] [--threads T]
    Plays N histories of the simulator, 1,000 unless told otherwise, from seed S on, 0 unless told otherwise, on all cores.
    Each is whole workers under seeded faults in virtual time. At a broken promise it tells the history and fails.
    --seed S     without --histories: plays that one history and tells it
    --twice      plays each seed twice and compares the hashes of all that happened
    --mutants    puts each seeded fault in and looks for it, within 10,000 histories unless told otherwise
    --mutant M   puts this one in";

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Tell,
    Play,
    Twice,
    Hunt,
}

pub(crate) struct Options {
    pub(crate) what: What,
    pub(crate) histories: u64,
    pub(crate) seed: u64,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) threads: usize,
}

impl Options {
    /// Reads the arguments; `None` when help is asked for.
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let (mut histories, mut seed, mut mutant, mut threads) = (None, None, None, None);
        let (mut twice, mut hunt) = (false, false);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n{USAGE}"));
            match arg.as_str() {
                "--histories" => histories = Some(number(&value()?)?),
                "--seed" => seed = Some(number(&value()?)?),
                "--threads" => threads = Some(usize::try_from(number(&value()?)?)?),
                "--mutant" => mutant = Some(named(&value()?)?),
                "--mutants" => hunt = true,
                "--twice" => twice = true,
                "--help" | "-h" => return Ok(None),
                _ => bail!("unknown argument {arg}\n{USAGE}"),
            }
        }
        let what = match (hunt, twice, histories, seed) {
            (true, true, ..) => bail!("--mutants and --twice are two things\n{USAGE}"),
            (true, ..) => What::Hunt,
            (_, true, ..) => What::Twice,
            (_, _, None, Some(_)) => What::Tell,
            _ => What::Play,
        };
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Ok(Some(Self {
            what,
            histories: histories.unwrap_or(if what == What::Hunt { 10_000 } else { 1_000 }),
            seed: seed.unwrap_or(0),
            mutant,
            threads: threads.unwrap_or(cores).max(1),
        }))
    }
}

/// A number, with or without `_` or `,` between its digits.
fn number(text: &str) -> Result<u64> {
    let digits: String = text.chars().filter(|c| !matches!(c, '_' | ',')).collect();
    digits.parse().with_context(|| format!("{text} is not a number"))
}

fn named(name: &str) -> Result<Mutant> {
    Mutant::named(name).with_context(|| {
        let names: Vec<_> = Mutant::all().map(|mutant| mutant.to_string()).collect();
        format!("no fault is called {name}: there are {}", names.join(", "))
    })
}
