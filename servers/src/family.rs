//! A process and those that it has started: a server of several processes, killed at once by whoever knows its id.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long the killed may take to be gone.
const GONE_MOST: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Kills a process and those it has started, all at once, as a crash of their machine would. For a server of
/// [`Redis`](crate::Redis) or [`Postgres`](crate::Postgres) whose handle is in another process of ours: that one sees it
/// end.
///
/// # Errors
/// When the process is not there. Its children may have ended by themselves.
pub fn kill_family(id: u32) -> Result<()> {
    let children = children(id);
    signal(id, Signal::KILL)?;
    for child in children {
        // It may have ended by itself.
        let _ = signal(child, Signal::KILL);
    }
    Ok(())
}

/// The processes that a process has started. A server may give each a process group of its own, so signals do not reach
/// them through their parent's.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| state_and_parent(*id).is_some_and(|(_, of)| of == parent))
        .collect()
}

/// The letter of a process' state, and its parent; `None` when it is gone.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The second field is the name in brackets, which may hold anything; state and parent come after it.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Waits until the killed are gone.
pub(crate) fn until_gone(ids: &[u32]) -> Result<()> {
    let mut waited = Duration::ZERO;
    // One that has ended and that nobody asked about yet is a zombie: it holds nothing any more.
    let is_there = |id: &u32| state_and_parent(*id).is_some_and(|(state, _)| state != 'Z');
    while ids.iter().any(is_there) {
        ensure!(waited < GONE_MOST, "processes {ids:?} are still there {GONE_MOST:?} after they were killed");
        std::thread::sleep(LOOK_EVERY);
        waited += LOOK_EVERY;
    }
    Ok(())
}

pub(crate) fn signal(id: u32, signal: Signal) -> Result<()> {
    let id = i32::try_from(id).ok().and_then(Pid::from_raw).context("a process has an id")?;
    kill_process(id, signal).with_context(|| format!("cannot signal process {id:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Process;
    use std::process::Command;

    #[test]
    fn a_family_is_killed_with_its_head() {
        let mut head =
            Process::spawn(Command::new("sh").args(["-c", "sleep 60 & sleep 60 & wait"])).expect("sh");
        let mut family = Vec::new();
        while family.len() < 2 {
            std::thread::sleep(LOOK_EVERY);
            family = children(head.id());
        }
        kill_family(head.id()).expect("a kill");
        while head.ended().expect("a status").is_none() {
            std::thread::sleep(LOOK_EVERY);
        }
        until_gone(&family).expect("they are gone");
        kill_family(head.id()).expect_err("nobody is there");
    }
}
