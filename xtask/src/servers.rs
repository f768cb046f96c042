//! `cargo xtask servers up|down`, and the private servers of `cargo xtask test`.
//!
//! To add an engine, add a line to [`ENGINES`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use windlass_servers::{Postgres, Redis, RedisCluster};

use crate::run;

/// A server that some engine's tests need.
struct Engine {
    /// The variable that names it to tests.
    variable: &'static str,
    /// Starts one.
    start: fn() -> Result<Box<dyn Running>>,
}

const ENGINES: &[Engine] = &[
    Engine { variable: "WINDLASS_TEST_POSTGRES_URL", start: || Ok(Box::new(Postgres::start()?)) },
    Engine { variable: "WINDLASS_TEST_REDIS_URL", start: || Ok(Box::new(Redis::start()?)) },
    Engine {
        variable: "WINDLASS_TEST_REDIS_CLUSTER_URL",
        start: || Ok(Box::new(RedisCluster::start_masters()?)),
    },
];

/// A server that runs until it is dropped or left.
trait Running {
    fn url(&self) -> String;
    /// Lets it run on: its process ids and their folders.
    fn leave(self: Box<Self>) -> Result<Vec<(u32, PathBuf)>>;
}

impl Running for Postgres {
    fn url(&self) -> String {
        Self::url(self)
    }

    fn leave(self: Box<Self>) -> Result<Vec<(u32, PathBuf)>> {
        Ok(vec![Self::leave(*self)?])
    }
}

impl Running for Redis {
    fn url(&self) -> String {
        Self::url(self)
    }

    fn leave(self: Box<Self>) -> Result<Vec<(u32, PathBuf)>> {
        Ok(vec![Self::leave(*self)?])
    }
}

impl Running for RedisCluster {
    fn url(&self) -> String {
        Self::url(self)
    }

    fn leave(self: Box<Self>) -> Result<Vec<(u32, PathBuf)>> {
        Self::leave(*self)
    }
}

/// Servers that end with this.
pub(crate) struct Servers(#[expect(dead_code, reason = "held for its end")] Vec<Box<dyn Running>>);

/// Starts a private server of every engine and names it to `command`; one that the caller names is used instead.
pub(crate) fn for_tests(command: &mut Command) -> Result<Servers> {
    let mut servers = Vec::new();
    for engine in ENGINES.iter().filter(|engine| std::env::var_os(engine.variable).is_none()) {
        let server = (engine.start)()?;
        command.env(engine.variable, server.url());
        servers.push(server);
    }
    Ok(Servers(servers))
}

/// Starts a private server of every engine, and prints what a shell needs to use them.
pub(crate) fn up() -> Result<()> {
    // One set at a time: what an earlier `up` left is ended.
    down()?;
    let mut left = String::new();
    for engine in ENGINES {
        let server = (engine.start)()?;
        let url = server.url();
        for (id, folder) in server.leave()? {
            left.push_str(&format!("{id} {}\n", folder.display()));
        }
        // At once, so that a failure of the next one loses none.
        std::fs::write(list(), &left).context("cannot note the servers that run")?;
        println!("export {}={url}", engine.variable);
    }
    Ok(())
}

/// Ends the servers that `up` started, by their own process ids.
pub(crate) fn down() -> Result<()> {
    let Ok(listed) = std::fs::read_to_string(list()) else { return Ok(()) };
    for line in listed.lines() {
        let Some((id, folder)) = line.split_once(' ') else { continue };
        if runs_in(id, folder) {
            let done = Command::new("kill").arg(id).status().context("cannot run `kill`")?;
            if !done.success() {
                eprintln!("process {id} could not be ended");
            }
        }
        // It may be gone.
        drop(std::fs::remove_dir_all(folder));
    }
    std::fs::remove_file(list()).context("cannot forget the servers that ran")
}

/// Whether the process is still the server of that folder, and no other that got its id since.
fn runs_in(id: &str, folder: &str) -> bool {
    let works_in = std::fs::read_link(format!("/proc/{id}/cwd"));
    works_in.is_ok_and(|works_in| works_in.starts_with(Path::new(folder)))
}

fn list() -> PathBuf {
    run::root().join("target").join("servers")
}
