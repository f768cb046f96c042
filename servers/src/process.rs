//! A process of our own: ended with its handle, and stopped, woken or killed on the way.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// CPU time that a process has used so far, in user and kernel mode and on all its threads, to a hundredth of a second.
///
/// # Errors
/// When there is no such process, or no `/proc` to ask.
pub fn cpu_time(id: u32) -> Result<Duration> {
    Ok(Times::of(id)?.own)
}

/// What a process has used, and those of its children that ended.
pub(crate) struct Times {
    pub(crate) own: Duration,
    pub(crate) ended_children: Duration,
}

impl Times {
    pub(crate) fn of(id: u32) -> Result<Self> {
        let file = format!("/proc/{id}/stat");
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))?;
        Self::read(&text, rustix::param::clock_ticks_per_second())
            .with_context(|| format!("{file} was not understood: {text}"))
    }

    /// Reads what proc(5) says of `stat`: the name stands in parentheses and may hold some, then come the state and eleven
    /// fields before these four.
    fn read(text: &str, ticks_a_second: u64) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<u64> =
            rest.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
        let [user, system, ended_user, ended_system] = fields.try_into().ok()?;
        let time = |ticks: u64| Duration::from_millis(ticks * 1_000 / ticks_a_second);
        Some(Self { own: time(user + system), ended_children: time(ended_user + ended_system) })
    }
}

/// What a program says of its version: the first line that it prints when asked.
///
/// # Errors
/// When it cannot be started, or says nothing.
pub(crate) fn version_of(program: &Path) -> Result<String> {
    let name = program.display();
    let said = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let said = String::from_utf8_lossy(&said.stdout);
    said.lines().next().map(str::to_owned).with_context(|| format!("{name} does not tell its version"))
}

/// A running process, killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    left: bool,
}

impl Process {
    /// Starts `command` without standard input.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.stdin(Stdio::null()).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, left: false })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its handle, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it as a crash would (SIGKILL), and waits for its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stands it still (SIGSTOP), as a machine that hangs would.
    ///
    /// # Errors
    /// When it has ended.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Asks it to end (SIGTERM), and waits at most `max`.
    ///
    /// # Errors
    /// When it has not ended by then.
    pub fn terminate(&mut self, max: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        const LOOK_EVERY: Duration = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while waited <= max {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(LOOK_EVERY);
            waited += LOOK_EVERY;
        }
        bail!("{} (process {}) did not end within {max:?}", self.name, self.id())
    }

    /// Leaves it running, and returns its process id: whoever keeps that must end it.
    #[must_use]
    pub fn leave(mut self) -> u32 {
        self.left = true;
        self.id()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        kill_process(id, signal).with_context(|| format!("cannot signal {} (process {id:?})", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left {
            // It may have ended by itself.
            let _ = self.kill();
        }
    }
}

/// A port of the loopback interface that nobody listens on. Somebody else may take it before it is used: try again then.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "how much time was used is real")]
    fn the_time_that_a_process_used_is_read() {
        let text = "7 (a (b) c) S 1 7 7 0 -1 4194560 90 80 70 60 150 25 1100 50 20 0 1 0 42";
        let times = Times::read(text, 100).expect("four numbers");
        assert_eq!(
            (times.own, times.ended_children),
            (Duration::from_millis(1_750), Duration::from_millis(11_500))
        );
        assert!(Times::read("7 (short) S 1 7", 100).is_none());
        let (me, begun) = (std::process::id(), std::time::Instant::now());
        let before = cpu_time(me).expect("this process");
        while cpu_time(me).expect("this process") - before < Duration::from_millis(50) {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is busy, and no time is counted");
        }
        cpu_time(u32::MAX).expect_err("there is no such process");
    }

    #[test]
    fn a_process_is_frozen_and_ended() {
        let mut sleeper = Process::spawn(Command::new("sleep").arg("60")).expect("sleep");
        sleeper.freeze().expect("freeze");
        assert!(sleeper.ended().expect("a status").is_none());
        sleeper.thaw().expect("thaw");
        assert!(!sleeper.terminate(Duration::from_secs(10)).expect("it ends").success());
        assert!(Process::spawn(&mut Command::new("windlass-no-such-program")).is_err());
    }
}
