//! A private Redis: a process with a temporary folder, on a free port of the loopback interface.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::find::named;
use crate::process::version_of;
use crate::{Package, Process, find_or_install, free_port};

const REDIS: Package = Package {
    programs: &["redis-server"],
    debian: "redis-server",
    folders: &["/usr/local/bin", "/opt/homebrew/bin", "/opt/redis*/bin"],
};

/// The environment variable with the path of the program to start instead: another version, or Valkey.
const VARIABLE: &str = "WINDLASS_REDIS_SERVER";

/// How long a start may take: with the loading of its data, on a busy machine.
const START_MOST: Duration = Duration::from_secs(60);
/// How long a stop may take.
const STOP_MOST: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running private Redis. Dropping it kills it and removes its folder.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    folder: TempDir,
    port: u16,
    settings: Vec<(String, String)>,
    role: Role,
    process: Option<Process>,
}

/// What the program does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Server,
    Sentinel,
}

impl Redis {
    /// Starts one that persists nothing.
    ///
    /// # Errors
    /// When Redis is not installed and cannot be, or does not start; the message holds the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with further settings, such as `("appendonly", "yes")`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_as(settings, Role::Server)
    }

    pub(crate) fn start_as(settings: &[(&str, &str)], role: Role) -> Result<Self> {
        let program = program()?;
        let folder = tempfile::Builder::new().prefix("windlass-redis-").tempdir()?;
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self { program, folder, port: free_port()?, settings, role, process: None };
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

    /// The version of what [`start`](Self::start) starts, such as `Redis server v=7.0.15`.
    ///
    /// # Errors
    /// When Redis is not installed and cannot be.
    pub fn version() -> Result<String> {
        // A checksum, the allocator and the build follow.
        Ok(version_of(&program()?)?.split(" sha=").next().unwrap_or_default().to_owned())
    }

    /// Its URL: no password, loopback only.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Its port on the loopback interface. It stays the same through restarts.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process id while it runs.
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

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has logged, and what it said before it knew where to.
    #[must_use]
    pub fn log(&self) -> String {
        let read = |file: PathBuf| std::fs::read(file).unwrap_or_default();
        let both = [read(self.log_file()), read(self.folder.path().join("said"))].concat();
        String::from_utf8_lossy(&both).into_owned()
    }

    /// Sends one command and returns what the server answers, in the words of its protocol.
    ///
    /// # Errors
    /// When the server does not answer, or with an error.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        ask(self.port, words)
    }

    /// Ends it as an administrator would: what its settings persist is persisted.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.terminate(STOP_MOST)?;
        }
        Ok(())
    }

    /// Kills it as a crash would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// Starts it again, on the same port and folder, after a stop or a kill.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.launch()
    }

    /// Stands it still, as a machine that hangs would.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("Redis is not running")?.freeze()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("Redis is not running")?.thaw()
    }

    /// Leaves it running for others: its process id and its folder, which the caller must end and remove.
    ///
    /// # Errors
    /// When it is not running.
    pub fn leave(mut self) -> Result<(u32, PathBuf)> {
        let process = self.process.take().context("Redis is not running")?;
        let folder = self.folder.keep();
        Ok((process.leave(), folder))
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("redis.log")
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.current_dir(self.folder.path());
        let mut fixed = vec![
            ("port", self.port.to_string()),
            ("bind", "127.0.0.1".to_owned()),
            ("dir", self.folder.path().display().to_string()),
            ("logfile", self.log_file().display().to_string()),
        ];
        if self.role == Role::Sentinel {
            // It keeps what it learns in its own file.
            let file = self.folder.path().join("sentinel.conf");
            File::options().create(true).append(true).open(&file)?;
            command.arg(file).arg("--sentinel");
        } else {
            fixed.extend([("save", String::new()), ("appendonly", "no".to_owned())]);
        }
        let mine = self.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in fixed.into_iter().chain(mine) {
            command.arg(format!("--{name}")).arg(value);
        }
        // What it says before it knows its log, and never into a pipe that it would hold open.
        let said = File::create(self.folder.path().join("said"))?;
        command.stdout(said.try_clone()?).stderr(said);
        let mut process = Process::spawn(&mut command)?;
        let mut waited = Duration::ZERO;
        loop {
            if let Some(status) = process.ended()? {
                bail!("Redis ended at once ({status}):\n{}", tail(&self.log()));
            }
            // While it loads its data it answers with an error.
            if ask(self.port, &["PING"]).is_ok_and(|answer| answer.starts_with("+PONG")) {
                break;
            }
            ensure!(
                waited < START_MOST,
                "Redis does not answer after {START_MOST:?}:\n{}",
                tail(&self.log())
            );
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
        self.process = Some(process);
        Ok(())
    }
}

/// The program that `WINDLASS_REDIS_SERVER` names, or else the machine's.
fn program() -> Result<PathBuf> {
    match named(VARIABLE)? {
        Some(program) => Ok(program),
        None => Ok(find_or_install(&REDIS)?.join("redis-server")),
    }
}

/// Waits until something holds.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) -> Result<()> {
    let mut waited = Duration::ZERO;
    while !holds() {
        ensure!(waited < START_MOST, "not within {START_MOST:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
    Ok(())
}

/// Sends one command to the server at `port` and returns its answer, one that fits into a packet.
fn ask(port: u16, words: &[&str]) -> Result<String> {
    const ANSWER_MOST: Duration = Duration::from_secs(5);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER_MOST))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![0; 64 * 1024];
    let read = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    ensure!(!answer.starts_with('-') && !answer.is_empty(), "Redis answers {answer:?} to {words:?}");
    Ok(answer)
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_is_started_frozen_killed_and_started_again_with_what_it_had_on_disk() {
        let mut redis =
            Redis::start_with(&[("appendonly", "yes"), ("appendfsync", "always")]).expect("a private Redis");
        let port = redis.port();
        redis.ask(&["SET", "kept", "yes"]).expect("set");
        redis.kill().expect("kill");
        redis.ask(&["PING"]).expect_err("it is gone");
        redis.restart().expect("restart");
        assert_eq!(
            (redis.port(), redis.ask(&["GET", "kept"]).expect("get")),
            (port, "$3\r\nyes\r\n".to_owned())
        );
        redis.freeze().expect("freeze");
        redis.thaw().expect("thaw");
        redis.stop().expect("stop");
        redis.freeze().expect_err("it has ended");
        assert!(Redis::version().expect("a version").contains(" server v="));
        let folder = redis.folder().to_owned();
        drop(redis);
        assert!(!folder.exists());
    }

    #[test]
    fn the_program_that_the_environment_names_is_started_instead() {
        // It notes that it was called, and hands over to the one that would have been.
        let folder = tempfile::tempdir().expect("a folder");
        let (script, called) = (folder.path().join("other-server"), folder.path().join("called"));
        let real = program().expect("a Redis");
        let text =
            format!("#!/bin/sh\necho \"$@\" >> '{}'\nexec '{}' \"$@\"\n", called.display(), real.display());
        std::fs::write(&script, text).expect("a script");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("may be run");
        let again = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "redis::tests::it_is_started_frozen_killed_and_started_again_with_what_it_had_on_disk",
            ])
            .env(VARIABLE, &script)
            .output()
            .expect("the tests");
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(again.status.success() && said.contains("1 passed"), "{said}");
        let called = std::fs::read_to_string(called).expect("it was called");
        // Once more where somebody else took its port.
        assert!(called.lines().filter(|line| line.contains("--appendonly yes")).count() >= 2, "{called}");
    }

    #[test]
    fn one_that_cannot_start_says_why() {
        let error = Redis::start_with(&[("no-such-setting", "1")]).expect_err("refused");
        let text = error.to_string();
        assert!(text.contains("ended at once") && text.contains("no-such-setting"), "{text}");
    }
}
