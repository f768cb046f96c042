//! A process of our own: ended with its handle, and stopped, woken or killed on the way.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

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
    fn a_process_is_frozen_and_ended() {
        let mut sleeper = Process::spawn(Command::new("sleep").arg("60")).expect("sleep");
        sleeper.freeze().expect("freeze");
        assert!(sleeper.ended().expect("a status").is_none());
        sleeper.thaw().expect("thaw");
        assert!(!sleeper.terminate(Duration::from_secs(10)).expect("it ends").success());
        assert!(Process::spawn(&mut Command::new("windlass-no-such-program")).is_err());
    }
}
