//! What a run is asked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::engine::Engine;

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) engine: Engine,
    pub(crate) jobs: u64,
    pub(crate) kills: u64,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) dispatchers: u64,
    pub(crate) lease: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) keep: bool,
    pub(crate) verbose: bool,
}

impl Options {
    pub(crate) fn parse(flags: &[&str]) -> Result<Self> {
        let mut options = Self {
            engine: Engine::Sqlite,
            jobs: 3_000,
            kills: 12,
            // Told in the table, so that the run can be asked for again.
            seed: crate::wire::now() % 1_000_000,
            workers: 3,
            dispatchers: 2,
            lease: Duration::from_secs(2),
            json: None,
            keep: false,
            verbose: false,
        };
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().copied().with_context(|| format!("{flag} takes a value"));
            match *flag {
                "--backend" => options.engine = Engine::named(value()?)?,
                "--jobs" => options.jobs = number(flag, value()?, 100)?,
                "--kills" => options.kills = number(flag, value()?, 0)?,
                "--seed" => options.seed = number(flag, value()?, 0)?,
                "--workers" => options.workers = usize::try_from(number(flag, value()?, 2)?)?,
                "--dispatchers" => options.dispatchers = number(flag, value()?, 1)?,
                "--lease" => options.lease = Duration::from_millis(number(flag, value()?, 1_000)?),
                "--json" => options.json = Some(value()?.into()),
                "--keep" => options.keep = true,
                "--verbose" => options.verbose = true,
                other => bail!("crash does not take `{other}`"),
            }
        }
        ensure!(
            options.kills <= options.jobs / 20,
            "{} kills in {} jobs are too many: at most one in 20",
            options.kills,
            options.jobs
        );
        Ok(options)
    }
}

fn number(flag: &str, text: &str, least: u64) -> Result<u64> {
    let number = text.parse().with_context(|| format!("{flag} takes a number, not `{text}`"))?;
    ensure!(number >= least, "{flag} {number} is too small: at least {least}");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_bad_ones_are_named() {
        let options = Options::parse(&["--jobs", "500", "--kills", "3", "--seed", "9", "--keep"]).unwrap();
        assert_eq!((options.jobs, options.kills, options.seed, options.keep), (500, 3, 9, true));
        for (flags, why) in [
            (&["--jobs"][..], "--jobs takes a value"),
            (&["--jobs", "x"], "a number"),
            (&["--backend", "paper"], "`paper`"),
            (&["--jobs", "1000", "--kills", "51"], "too many"),
            (&["--workers", "1"], "too small"),
            (&["--fast"], "`--fast`"),
        ] {
            let error = Options::parse(flags).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
