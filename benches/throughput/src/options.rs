//! What the command line asks for. The peers' program takes the same flags.

use std::path::PathBuf;

/// The flags, for the usage line.
pub(crate) const FLAGS: &str = "[--jobs N] [--repeats R] [--concurrency C] [--only NAME] [--json FILE] [--engine memory|postgres|redis|sqlite]";

/// What to measure.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) jobs: usize,
    pub(crate) concurrency: usize,
}

/// The engine that is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Engine {
    Memory,
    Postgres,
    Redis,
    Sqlite,
}

/// What to measure, how often, and where to write it.
pub(crate) struct Options {
    pub(crate) settings: Settings,
    pub(crate) engine: Engine,
    pub(crate) repeats: usize,
    only: Option<String>,
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; a flag that is not understood ends the program with 2.
    pub(crate) fn from_args() -> Self {
        Self::parse(std::env::args().skip(1)).unwrap_or_else(|why| {
            eprintln!("{why}\nflags: {FLAGS}");
            std::process::exit(2);
        })
    }

    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let settings = Settings { jobs: 0, concurrency: 64 };
        let mut options = Self { settings, engine: Engine::Memory, repeats: 5, only: None, json: None };
        while let Some(flag) = args.next() {
            let value = args.next().ok_or_else(|| format!("{flag} takes a value"))?;
            match flag.as_str() {
                "--jobs" => options.settings.jobs = number(&flag, &value)?,
                "--engine" => options.engine = engine(&value)?,
                "--repeats" => options.repeats = number(&flag, &value)?,
                "--concurrency" => options.settings.concurrency = number(&flag, &value)?,
                "--only" => options.only = Some(value),
                "--json" => options.json = Some(value.into()),
                other => return Err(format!("unknown flag {other}")),
            }
        }
        if options.settings.jobs == 0 {
            options.settings.jobs = if options.engine == Engine::Memory { 1_000_000 } else { 200_000 };
        }
        Ok(options)
    }

    /// Whether the measurement of this name is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

fn engine(value: &str) -> Result<Engine, String> {
    match value {
        "memory" => Ok(Engine::Memory),
        "postgres" => Ok(Engine::Postgres),
        "redis" => Ok(Engine::Redis),
        "sqlite" => Ok(Engine::Sqlite),
        other => Err(format!("--engine takes memory, postgres, redis or sqlite, not `{other}`")),
    }
}

fn number(flag: &str, value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{flag} takes a number of 1 or more, not `{value}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn flags_are_read_and_bad_ones_are_named() {
        let options = parse("--jobs 10 --repeats 2 --only bare --json out.jsonl").expect("good flags");
        assert_eq!((options.settings.jobs, options.settings.concurrency, options.repeats), (10, 64, 2));
        assert_eq!(parse("--engine sqlite").expect("good flags").settings.jobs, 200_000);
        assert!(options.wants("bare") && !options.wants("windlass"));
        for (line, why) in [
            ("--jobs", "--jobs takes a value"),
            ("--jobs 0", "a number of 1 or more"),
            ("--fast 1", "unknown flag --fast"),
            ("--engine oracle", "memory, postgres, redis or sqlite, not `oracle`"),
        ] {
            let error = parse(line).err().expect("bad flags");
            assert!(error.contains(why), "{error}");
        }
    }
}
