//! What a run is asked for.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::engine::Engine;
use crate::plan::Plan;

/// The options of a run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) engine: Engine,
    pub(crate) jobs: u64,
    pub(crate) kills: u64,
    /// Workers that freeze before they send a verdict, and wake as its job runs again.
    pub(crate) zombies: u64,
    pub(crate) server_kills: u64,
    pub(crate) server_freezes: u64,
    /// Redis writes its file to the disk every second, not before each answer.
    pub(crate) everysec: bool,
    /// The jobs write rows in the transactions that complete them.
    pub(crate) effects: bool,
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    pub(crate) dispatchers: u64,
    pub(crate) lease: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) keep: bool,
    pub(crate) verbose: bool,
}

impl Options {
    /// What the jobs of the run do.
    pub(crate) fn plan(&self) -> Plan {
        Plan { seed: self.seed, jobs: self.jobs, effects: self.effects }
    }

    pub(crate) fn parse(flags: &[&str]) -> Result<Self> {
        let mut options = Self {
            engine: Engine::Sqlite,
            jobs: 3_000,
            kills: 12,
            zombies: 0,
            server_kills: 0,
            server_freezes: 0,
            everysec: false,
            effects: false,
            // Told in the table, so that the run can be asked for again.
            seed: crate::wire::now() % 1_000_000,
            workers: 3,
            dispatchers: 2,
            lease: Duration::from_secs(2),
            json: None,
            keep: false,
            verbose: false,
        };
        let (mut zombies, mut server_kills) = (None, None);
        let mut flags = flags.iter();
        while let Some(flag) = flags.next() {
            let mut value = || flags.next().copied().with_context(|| format!("{flag} takes a value"));
            match *flag {
                "--backend" => options.engine = Engine::named(value()?)?,
                "--jobs" => options.jobs = number(flag, value()?, 100)?,
                "--kills" => options.kills = number(flag, value()?, 0)?,
                "--zombies" => zombies = Some(number(flag, value()?, 0)?),
                "--server-kills" => server_kills = Some(number(flag, value()?, 0)?),
                "--everysec" => options.everysec = true,
                "--effects" => options.effects = true,
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
        let engine = options.engine;
        // Enough that a run of a few seconds shows a fence that is missing.
        options.zombies = zombies.unwrap_or(if options.kills == 0 { 0 } else { 5 + options.kills / 20 });
        let some = if options.kills > 0 && engine.has_server() { 4 + options.kills / 10 } else { 0 };
        options.server_kills = server_kills.unwrap_or(some);
        ensure!(
            engine.has_server() || options.server_kills == 0,
            "{} has no server that could be killed",
            engine.name()
        );
        options.server_freezes = options.server_kills.div_ceil(10);
        ensure!(!options.everysec || engine == Engine::Redis, "--everysec is a setting of Redis");
        ensure!(!options.effects || engine == Engine::Postgres, "--effects runs on Postgres");
        let faults = options.kills + options.zombies + options.server_kills + options.server_freezes;
        ensure!(
            faults <= options.jobs / 20,
            "{faults} kills and freezes in {} jobs are too many: at most one in 20",
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
        assert_eq!((options.zombies, options.server_kills), (5, 0));
        assert_eq!((options.jobs, options.kills, options.seed, options.keep), (500, 3, 9, true));
        for (flags, why) in [
            (&["--jobs"][..], "--jobs takes a value"),
            (&["--jobs", "x"], "a number"),
            (&["--backend", "paper"], "`paper`"),
            (&["--jobs", "1000", "--kills", "48"], "too many"),
            (&["--workers", "1"], "too small"),
            (&["--server-kills", "1"], "no server"),
            (&["--everysec"], "of Redis"),
            (&["--effects", "--backend", "redis"], "on Postgres"),
            (&["--fast"], "`--fast`"),
        ] {
            let error = Options::parse(flags).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        let served = Options::parse(&["--backend", "redis", "--everysec", "--zombies", "1"]).unwrap();
        assert_eq!((served.zombies, served.server_kills, served.server_freezes), (1, 5, 1));
    }
}
