//! The server of an engine that has one: private, a victim like the others, and started again on the same data and port.

use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use windlass_servers::{Package, Postgres, PostgresSettings, Redis, find_or_install};

use crate::collector::Collector;
use crate::engine::Engine;
use crate::options::Options;
use crate::wire::{Stamp, now};

/// What a Redis that writes its file once a second may lose of what it acknowledged: the second, and another that it puts
/// a write off for while the disk is busy with the one before.
pub(crate) const WINDOW: Duration = Duration::from_secs(2);

const AOF_CHECK: Package = Package {
    programs: &["redis-check-aof"],
    debian: "redis-tools",
    folders: &["/usr/local/bin", "/opt/homebrew/bin", "/opt/redis*/bin"],
};

/// A private server.
#[derive(Debug)]
pub(crate) enum Server {
    Postgres(Postgres),
    Redis(Redis),
}

impl Server {
    /// Starts one with the settings that its engine's promises ask for.
    pub(crate) fn start(options: &Options) -> Result<Option<Self>> {
        Ok(match options.engine {
            Engine::Sqlite => None,
            Engine::Redis => {
                let fsync = if options.everysec { "everysec" } else { "always" };
                let settings = [("appendonly", "yes"), ("appendfsync", fsync)];
                Some(Self::Redis(Redis::start_with(&settings)?))
            }
            Engine::Postgres => {
                let settings = PostgresSettings { durable: true, others: Vec::new() };
                Some(Self::Postgres(Postgres::start_with(&settings)?))
            }
        })
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.url(),
            Self::Redis(server) => server.url(),
        }
    }

    fn id(&self) -> Result<u32> {
        let id = match self {
            Self::Postgres(server) => server.id(),
            Self::Redis(server) => server.id(),
        };
        id.context("the server does not run")
    }

    fn has_ended(&mut self) -> Result<bool> {
        match self {
            Self::Postgres(server) => server.has_ended(),
            Self::Redis(server) => server.has_ended(),
        }
    }

    fn kill(&mut self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::Redis(server) => server.kill(),
        }
    }

    fn freeze(&self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.freeze(),
            Self::Redis(server) => server.freeze(),
        }
    }

    fn thaw(&self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.thaw(),
            Self::Redis(server) => server.thaw(),
        }
    }

    /// Starts it again after a kill.
    fn restart(&mut self) -> Result<()> {
        // Somebody else's kill may have left a child of it that is about to notice.
        const TRIES: u32 = 10;
        for _ in 1..TRIES {
            if self.restart_once().is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        self.restart_once()
    }

    fn restart_once(&mut self) -> Result<()> {
        match self {
            Self::Postgres(server) => server.restart(),
            Self::Redis(server) => server.restart(),
        }
    }

    /// What its own tool says of its files, while it is down.
    fn check_files(&self) -> Result<()> {
        let Self::Redis(server) = self else { return Ok(()) };
        let manifest = server.folder().join("appendonlydir/appendonly.aof.manifest");
        let file = if manifest.is_file() { manifest } else { server.folder().join("appendonly.aof") };
        let tool = find_or_install(&AOF_CHECK)?.join("redis-check-aof");
        let said = Command::new(tool).arg(file).output().context("cannot start redis-check-aof")?;
        ensure!(said.status.success(), "redis-check-aof: {}", String::from_utf8_lossy(&said.stdout));
        Ok(())
    }
}

/// How it stands with the server of a run.
#[derive(Debug)]
enum State {
    /// The engine has none.
    None,
    Up(Server),
    /// It stands still since an instant, for so long.
    Frozen(Server, Stamp, Stamp),
    /// It was killed, and is being started again.
    Down(Stamp, JoinHandle<Result<Server>>),
}

/// The server of a run, and what is done to it.
#[derive(Debug)]
pub(crate) struct Serving {
    state: State,
    collector: Collector,
}

impl Serving {
    pub(crate) fn new(server: Option<Server>, collector: Collector) -> Self {
        Self { state: server.map_or(State::None, State::Up), collector }
    }

    /// Its process id, when something can be done to it now.
    pub(crate) fn target(&self) -> Option<u32> {
        let crashes = self.collector.with(|journal| journal.crashed.is_some());
        if let State::Up(server) = &self.state { server.id().ok().filter(|_| !crashes) } else { None }
    }

    /// Whether it is not there, or stands still.
    pub(crate) fn is_troubled(&self) -> bool {
        matches!(self.state, State::Frozen(..) | State::Down(..))
            || self.collector.with(|journal| journal.crashed.is_some())
    }

    /// Kills it; it is started again after `pause`.
    pub(crate) fn kill(&mut self, pause: Duration) -> Result<()> {
        self.down(now(), pause)
    }

    /// Takes over a server that one of the processes has killed, from `since` on.
    fn down(&mut self, since: Stamp, pause: Duration) -> Result<()> {
        let State::Up(mut server) = std::mem::replace(&mut self.state, State::None) else {
            bail!("a server was killed that does not run");
        };
        self.collector.with(|journal| journal.outages.push((since, Stamp::MAX, true)));
        // It may be dead already: then this takes in its end.
        server.kill()?;
        let starting = std::thread::spawn(move || {
            std::thread::sleep(pause);
            server.restart()?;
            Ok(server)
        });
        self.state = State::Down(since, starting);
        Ok(())
    }

    /// Takes in that one of the processes has killed it. It says so before it does, so the end is waited for.
    fn take_in_a_crash(&mut self) -> Result<()> {
        const PATIENCE: Stamp = 10_000_000_000;
        let Some(since) = self.collector.with(|journal| journal.crashed) else { return Ok(()) };
        let State::Up(server) = &mut self.state else { return Ok(()) };
        if server.has_ended()? || now() - since > PATIENCE {
            self.collector.with(|journal| journal.crashed = None);
            self.down(since, Duration::ZERO)?;
        }
        Ok(())
    }

    /// Stands it still for so long.
    pub(crate) fn freeze(&mut self, time: Duration) -> Result<()> {
        let State::Up(server) = std::mem::replace(&mut self.state, State::None) else {
            bail!("a server was to stand still that does not run");
        };
        let since = now();
        self.collector.with(|journal| journal.outages.push((since, Stamp::MAX, false)));
        server.freeze()?;
        let time = Stamp::try_from(time.as_nanos()).unwrap_or(Stamp::MAX);
        self.state = State::Frozen(server, since, time);
        Ok(())
    }

    /// Takes in what the processes did to it, and lets it go on when it is time.
    pub(crate) fn tend(&mut self) -> Result<()> {
        self.take_in_a_crash()?;
        self.state = match std::mem::replace(&mut self.state, State::None) {
            State::Frozen(server, since, time) if now() - since > time => {
                server.thaw()?;
                self.back();
                State::Up(server)
            }
            State::Down(since, starting) if starting.is_finished() => {
                let started =
                    starting.join().map_err(|_| anyhow::anyhow!("the start of the server panicked"));
                let server =
                    started?.with_context(|| format!("the server, down since {since}, does not start"))?;
                self.back();
                State::Up(server)
            }
            other => other,
        };
        Ok(())
    }

    /// Notes that the outage is over.
    fn back(&self) {
        self.collector.with(|journal| {
            if let Some((_, to, _)) = journal.outages.last_mut() {
                *to = now();
            }
        });
    }

    /// Kills it once more when all is done, looks at its files, and starts it: what is stored must be the same.
    pub(crate) fn once_more(&mut self) -> Result<()> {
        if let State::Up(server) = &mut self.state {
            server.kill()?;
            server.check_files()?;
            server.restart()?;
        }
        Ok(())
    }
}
