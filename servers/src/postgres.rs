//! A private Postgres: a cluster of its own in a temporary folder, on a free port of the loopback interface.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::family::{children, signal, until_gone};
use crate::find::named;
use crate::process::{Times, version_of};
use crate::{Package, Process, cpu_time, find_or_install, free_port};

const PACKAGE: Package = Package {
    programs: &["initdb", "postgres"],
    debian: "postgresql",
    folders: &["/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql@*/bin"],
};

/// The environment variable with the folder of the programs to start instead: another version's. The user that the server
/// runs as must be able to read it.
const VARIABLE: &str = "WINDLASS_POSTGRES_BIN";

/// How long a start may take: with a recovery after a kill on a busy machine.
const START_MOST: Duration = Duration::from_secs(60);
/// How long a stop may take.
const STOP_MOST: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How a private Postgres is set up.
#[derive(Clone, Debug, Default)]
pub struct PostgresSettings {
    /// Whether a commit is on the disk before it is acknowledged, as in production. Off for tests: what the server
    /// acknowledged survives a kill of its processes all the same, only not one of the machine.
    pub durable: bool,
    /// Further settings of the server, such as `("max_connections", "50")`.
    pub others: Vec<(&'static str, String)>,
}

/// A running private Postgres. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
    owner: Option<Owner>,
    process: Option<Process>,
}

/// Whom the server runs as when we are root, which it refuses.
#[derive(Clone, Copy, Debug)]
struct Owner {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Sets up a cluster and starts it, with settings for tests.
    ///
    /// # Errors
    /// When Postgres is not installed and cannot be, or does not start; the message holds the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&PostgresSettings::default())
    }

    /// Sets up a cluster and starts it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(settings: &PostgresSettings) -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::Builder::new().prefix("windlass-postgres-").tempdir()?;
        let owner = owner()?;
        if let Some(owner) = owner {
            std::os::unix::fs::chown(folder.path(), Some(owner.user), Some(owner.group))?;
        }
        let mut server = Self { programs, folder, port: free_port()?, owner, process: None };
        let made = server
            .command("initdb")
            .args([
                "--username=windlass",
                "--auth=trust",
                "--no-sync",
                "--encoding=UTF8",
                "--locale=C",
                "--pgdata",
            ])
            .arg(server.data())
            .stdin(Stdio::null())
            .output()
            .context("cannot start initdb")?;
        ensure!(made.status.success(), "initdb failed:\n{}", String::from_utf8_lossy(&made.stderr));
        server.configure(settings)?;
        // Somebody else may take the port between the look and the start.
        let mut tries = 0;
        while let Err(error) = server.launch() {
            tries += 1;
            if tries == 3 {
                return Err(error);
            }
            server.port = free_port()?;
        }
        Ok(server)
    }

    fn configure(&self, settings: &PostgresSettings) -> Result<()> {
        let durable = if settings.durable { "on" } else { "off" };
        let mut lines = vec![
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("unix_socket_directories", String::new()),
            ("max_connections", "300".to_owned()),
            ("max_locks_per_transaction", "256".to_owned()),
            ("shared_buffers", "256MB".to_owned()),
            ("max_wal_size", "2GB".to_owned()),
            ("fsync", durable.to_owned()),
            ("full_page_writes", durable.to_owned()),
            ("track_io_timing", "off".to_owned()),
            ("deadlock_timeout", "200ms".to_owned()),
        ];
        lines.extend(settings.others.iter().cloned());
        let text: String =
            lines.iter().map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''"))).collect();
        let file = self.data().join("postgresql.auto.conf");
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The version of what [`start`](Self::start) starts, such as `postgres (PostgreSQL) 15.18`.
    ///
    /// # Errors
    /// When Postgres is not installed and cannot be.
    pub fn version() -> Result<String> {
        version_of(&programs()?.join("postgres"))
    }

    /// The URL of its database, for its superuser: no password, loopback only.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://windlass@127.0.0.1:{}/postgres", self.port)
    }

    /// Its port on the loopback interface. It stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id while it runs: that of the parent of all its processes.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether its process has ended although nobody asked this handle to end it.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn has_ended(&mut self) -> Result<bool> {
        let ended = self.process.as_mut().map(Process::ended).transpose()?;
        Ok(ended.flatten().is_some())
    }

    /// What it logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_file())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Ends it as an administrator would (a fast shutdown: clients are cut off, what they had committed is kept).
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        signal(process.id(), Signal::INT)?;
        let mut waited = Duration::ZERO;
        while process.ended()?.is_none() {
            if waited > STOP_MOST {
                bail!("Postgres did not stop within {STOP_MOST:?}:\n{}", tail(&self.log()));
            }
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
        Ok(())
    }

    /// Kills all its processes at once, as a crash would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let children = children(process.id());
        process.kill()?;
        for child in &children {
            // It may have ended by itself.
            let _ = signal(*child, Signal::KILL);
        }
        // The next start refuses while one of them is still there.
        until_gone(&children)
    }

    /// Starts it again after a [`stop`](Self::stop) or a [`kill`](Self::kill), on the same port with the same data.
    ///
    /// # Errors
    /// As [`start`](Self::start), and when it runs.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "Postgres is running: stop it first");
        self.launch()
    }

    /// Stands all its processes still, as a machine that hangs would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        let process = self.process.as_ref().context("Postgres does not run")?;
        // The parent first: it makes no new ones then.
        process.freeze()?;
        children(process.id()).into_iter().try_for_each(|child| signal(child, Signal::STOP))
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        let process = self.process.as_ref().context("Postgres does not run")?;
        children(process.id()).into_iter().try_for_each(|child| signal(child, Signal::CONT))?;
        process.thaw()
    }

    /// CPU time that all its processes have used since it was started, those that ended included.
    ///
    /// # Errors
    /// When it does not run, or the system does not tell.
    pub fn cpu_time(&self) -> Result<Duration> {
        let parent = self.process.as_ref().context("Postgres does not run")?.id();
        // Children first: one that ends in between is counted twice rather than not at all.
        let living: Duration = children(parent).into_iter().filter_map(|child| cpu_time(child).ok()).sum();
        let times = Times::of(parent)?;
        Ok(living + times.own + times.ended_children)
    }

    /// Leaves it running for others: its process id and its folder, which the caller must end and remove.
    ///
    /// # Errors
    /// When it does not run.
    pub fn leave(mut self) -> Result<(u32, PathBuf)> {
        let process = self.process.take().context("Postgres does not run")?;
        let empty = tempfile::Builder::new().prefix("windlass-postgres-").tempdir()?;
        let folder = std::mem::replace(&mut self.folder, empty).keep();
        Ok((process.leave(), folder))
    }

    fn launch(&mut self) -> Result<()> {
        let log = File::create(self.log_file())?;
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        command.stdout(Stdio::null()).stderr(log);
        let mut process = Process::spawn(&mut command)?;
        let mut waited = Duration::ZERO;
        while !self.log().contains("database system is ready to accept connections") {
            if process.ended()?.is_some() || waited > START_MOST {
                bail!("Postgres did not start:\n{}", tail(&self.log()));
            }
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
        self.process = Some(process);
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path()).env_remove("PGDATA").env("LC_ALL", "C");
        if let Some(Owner { user, group }) = self.owner {
            command.uid(user).gid(group);
        }
        command
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its folder goes with it: there is nothing to write back.
        let _ = self.kill();
    }
}

/// The folder that `WINDLASS_POSTGRES_BIN` names, or else the machine's.
fn programs() -> Result<PathBuf> {
    match named(VARIABLE)? {
        Some(folder) => Ok(folder),
        None => find_or_install(&PACKAGE),
    }
}

/// Postgres refuses to run as root: the user of its package, or else one that is nobody's.
fn owner() -> Result<Option<Owner>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd").context("cannot read the list of users")?;
    let number = |wanted: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some(Owner { user: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
    };
    number("postgres")
        .or_else(|| number("nobody"))
        .map(Some)
        .context("no user `postgres` or `nobody` to run Postgres as")
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::os::unix::fs::PermissionsExt as _;

    /// Whether it answers a client: an SSL request is answered with one letter.
    fn answers(server: &Postgres) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", server.port())) else { return false };
        stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
        let mut letter = [0];
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).is_ok() && stream.read_exact(&mut letter).is_ok()
    }

    #[test]
    fn the_programs_that_the_environment_names_are_started_instead() {
        // They note that they were called, and hand over to those that would have been.
        let folder = tempfile::tempdir().expect("a folder");
        let real = programs().expect("a Postgres");
        let called = folder.path().join("called");
        std::fs::write(&called, "").expect("a file");
        // For the user that the server runs as.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("may be read");
        std::fs::set_permissions(&called, Permissions::from_mode(0o666)).expect("may be written");
        for program in PACKAGE.programs {
            let (script, real) = (folder.path().join(program), real.join(program));
            let text = format!(
                "#!/bin/sh\necho {program} >> '{}'\nexec '{}' \"$@\"\n",
                called.display(),
                real.display()
            );
            std::fs::write(&script, text).expect("a script");
            std::fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("may be run");
        }
        let again = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "postgres::tests::a_private_server_is_stopped_killed_frozen_and_started_again"])
            .env(VARIABLE, folder.path())
            .output()
            .expect("the tests");
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("1 passed"), "{said}");
        let called = std::fs::read_to_string(called).expect("they were called");
        // Once more for its version, and where somebody else took its port.
        assert!(called.starts_with("initdb\npostgres\npostgres\npostgres\n"), "{called}");
    }

    #[test]
    fn a_private_server_is_stopped_killed_frozen_and_started_again() {
        let mut server = Postgres::start().expect("a server");
        assert!(answers(&server) && server.restart().is_err());
        let port = server.port();
        server.freeze().expect("freeze");
        assert!(!answers(&server), "a frozen server does not answer");
        server.thaw().expect("thaw");
        assert!(answers(&server));
        server.kill().expect("kill");
        assert!(!answers(&server));
        server.restart().expect("restart after a kill");
        assert!(answers(&server) && server.log().contains("recovery"));
        assert!(server.cpu_time().expect("it runs") > Duration::ZERO, "a recovery takes some");
        server.stop().expect("stop");
        server.cpu_time().expect_err("it has ended");
        assert!(!answers(&server));
        server.restart().expect("restart after a stop");
        assert!(answers(&server) && server.port() == port);
        assert!(Postgres::version().expect("a version").starts_with("postgres (PostgreSQL) "));
        let folder = server.folder.path().to_owned();
        drop(server);
        assert!(!folder.exists());
    }
}
