//! Settings of a SQLite engine.

use std::path::PathBuf;
use std::time::Duration;

use windlass_core::{Error, ErrorKind, Result, Retention};

/// What an acknowledged write survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// A power cut: each commit is synced to the disk (`synchronous=FULL`) before it is acknowledged.
    #[default]
    Full,
    /// The end of every process, as by `kill -9`, but not a power cut or a crash of the operating system: what was
    /// acknowledged since the last checkpoint may then be undone (`synchronous=NORMAL`). The file stays whole, and no job is
    /// half done.
    Normal,
}

/// Settings of a SQLite engine: `SqliteOptions::new("jobs.db")`, and what differs from the defaults.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    pub(crate) path: PathBuf,
    pub(crate) durability: Durability,
    pub(crate) retention: Retention,
    pub(crate) busy_timeout: Duration,
    pub(crate) readers: u32,
    pub(crate) migrate: bool,
    pub(crate) max_bytes: Option<u64>,
}

impl SqliteOptions {
    /// The database in the file at `path`, made if it is not there.
    ///
    /// It must lie on a local disk: SQLite's locks do not work on network file systems.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            durability: Durability::Full,
            retention: Retention::default(),
            busy_timeout: Duration::from_secs(10),
            readers: 2,
            migrate: true,
            max_bytes: None,
        }
    }

    /// The options that a URL stands for: `sqlite:jobs.db` and `sqlite://jobs.db` name a file in the current folder,
    /// `sqlite:///var/lib/app/jobs.db` one anywhere. `?durability=normal` (or `full`) may follow.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for another scheme, no path, a database in memory, or an unknown parameter.
    pub fn from_url(url: &str) -> Result<Self> {
        let config = |why: &str| Error::new(ErrorKind::Config, why.to_owned());
        let rest = url
            .strip_prefix("sqlite:")
            .ok_or_else(|| config("a SQLite URL begins with `sqlite:`, as in `sqlite:jobs.db`"))?;
        let (path, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.starts_with(":memory:") {
            return Err(config(
                "a SQLite URL names a file, as in `sqlite:jobs.db`; for a queue in memory use the URL `memory:`",
            ));
        }
        let mut options = Self::new(path);
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            options = match parameter {
                "durability=full" => options.durability(Durability::Full),
                "durability=normal" => options.durability(Durability::Normal),
                _ => {
                    return Err(config(
                        "unknown parameter of a SQLite URL: there are `durability=full` and `durability=normal`",
                    ));
                }
            };
        }
        Ok(options)
    }

    /// What an acknowledged write survives: [`Durability::Full`] unless told otherwise.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long finished jobs are kept. Processes that share a file should agree: each sweeps by its own.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How long a verb waits for another process's transaction before it fails with
    /// [`Timeout`](windlass_core::ErrorKind::Timeout): 10 s unless told otherwise. The runtime is not blocked meanwhile.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// How large the database may grow, in bytes; as large as the disk allows unless told otherwise. The log beside it
    /// takes up to 64 MiB more. What does not fit is refused with [`Unavailable`](windlass_core::ErrorKind::Unavailable).
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Reading connections, for inspecting and waiting: 2 unless told otherwise, at least 1.
    #[must_use]
    pub fn readers(mut self, readers: u32) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Whether to bring the schema up to date when the file is opened, and to make the file if it is missing: yes unless
    /// told otherwise. Without it, opening fails until [`migrate`](windlass_core::Migrate::migrate) has been run elsewhere.
    #[must_use]
    pub fn migrate_when_opened(mut self, migrate: bool) -> Self {
        self.migrate = migrate;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_file() {
        for (url, path) in [
            ("sqlite:jobs.db", "jobs.db"),
            ("sqlite://jobs.db", "jobs.db"),
            ("sqlite:///var/jobs.db", "/var/jobs.db"),
            ("sqlite:/var/jobs.db?durability=normal", "/var/jobs.db"),
        ] {
            let options = SqliteOptions::from_url(url).expect("a good URL");
            assert_eq!(options.path, PathBuf::from(path), "{url}");
            assert_eq!(options.durability == Durability::Normal, url.contains("normal"));
        }
    }

    #[test]
    fn bad_urls_are_refused_with_a_reason() {
        for (url, why) in [
            ("sqlite:", "names a file"),
            ("sqlite::memory:", "memory:"),
            ("redis://localhost", "begins with `sqlite:`"),
            ("sqlite:a.db?mode=rwc", "unknown parameter"),
        ] {
            let error = SqliteOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{url}: {error}");
        }
    }
}
