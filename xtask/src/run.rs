//! Starts programs in the root of the workspace, without standard input, shows what they print, and keeps it where it is
//! to be read.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// `cargo` with these words.
pub(crate) fn cargo(words: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words.split_whitespace()).current_dir(root()).stdin(Stdio::null());
    command
}

/// Whether `cargo <tool>` can be run here.
pub(crate) fn has(tool: &str) -> bool {
    let mut command = cargo(tool);
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn typed(command: &Command) -> String {
    let mut line = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            line.push_str(&format!("{}={:?} ", name.to_string_lossy(), value.to_string_lossy()));
        }
    }
    line.push_str("cargo");
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

/// Runs a command that says enough by its exit status.
pub(crate) fn check(command: &mut Command) -> Result<()> {
    let line = typed(command);
    println!("\n$ {line}");
    let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed: {status}");
    }
    Ok(())
}

/// What a program printed, which was shown as well.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command, shows what it prints as it prints it, and keeps it.
pub(crate) fn watch(command: &mut Command) -> Result<Output> {
    let line = typed(command);
    println!("\n$ {line}");
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(|| tee(pipe, std::io::stdout())));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(|| tee(pipe, std::io::stderr())));
    let status = child.wait()?;
    Ok(Output { status, stdout: joined(stdout), stderr: joined(stderr) })
}

/// How a program under a time limit ended, and all that it printed.
pub(crate) struct Limited {
    /// `None` when it was stopped at the limit.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) output: String,
}

/// Runs a command for at most `limit` and keeps quiet about what it prints.
pub(crate) fn limited(command: &mut Command, limit: Duration) -> Result<Limited> {
    const LOOK_EVERY: Duration = Duration::from_millis(20);
    let line = typed(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let stdout = child.stdout.take().map(|pipe| thread::spawn(|| tee(pipe, std::io::sink())));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(|| tee(pipe, std::io::sink())));
    let mut waited = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if waited >= limit {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    };
    Ok(Limited { status, output: joined(stdout) + &joined(stderr) })
}

/// Copies line by line, and returns the whole. Bytes that are no UTF-8 are shown as they are and kept as `?`.
fn tee(from: impl Read, mut to: impl Write) -> String {
    let (mut from, mut kept, mut line) = (BufReader::new(from), String::new(), Vec::new());
    while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        // A closed terminal is no reason to stop counting.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

fn joined(reader: Option<thread::JoinHandle<String>>) -> String {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}
