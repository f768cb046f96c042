//! Redis: Windlass on a private server, beside bare scripts that move the same bytes with the same checks.

use std::time::Duration;

use windlass::prelude::*;
use windlass::{RedisOptions, Retention};
use windlass_servers::Redis;

use crate::distant;
use crate::raw_redis::Raw;
use crate::store::{About, Store};

/// What the server persists.
#[derive(Clone, Copy)]
pub(crate) enum Disk {
    Nothing,
    /// An append-only file, synced every second.
    EverySecond,
}

/// A private server.
pub(crate) struct Server(Redis);

impl Store for Server {
    type Backend = RedisBackend;
    type Raw = Raw;
    type Durability = Disk;

    const ABOUT: About = About {
        engine: "redis",
        raw: ("bare scripts", "redis"),
        in_flight: 100,
        parts: (20, 2),
        // As it comes.
        kept: 10_000,
        held: Some("memory"),
        has_server: true,
        afar: true,
        tells_writes: false,
    };
    const DURABILITIES: &'static [(Disk, &'static str)] =
        &[(Disk::Nothing, "none"), (Disk::EverySecond, "everysec")];

    async fn open(disk: Disk) -> Self {
        let settings: &[(&str, &str)] = match disk {
            Disk::Nothing => &[],
            Disk::EverySecond => &[("appendonly", "yes"), ("appendfsync", "everysec")],
        };
        Self(Redis::start_with(settings).expect("a private Redis"))
    }

    async fn queue(&self, retention: Retention) -> Queue<RedisBackend> {
        let options = RedisOptions::new(self.0.url()).retention(retention);
        Queue::new(RedisBackend::connect_with(options).await.expect("it answers"))
    }

    async fn queue_afar(&self, retention: Retention) -> Queue<RedisBackend> {
        let port = distant::before(self.0.port(), Duration::from_millis(1));
        let options = RedisOptions::new(format!("redis://127.0.0.1:{port}")).retention(retention);
        Queue::new(RedisBackend::connect_with(options).await.expect("it answers"))
    }

    async fn raw(&self) -> Raw {
        Raw::open(&self.0.url()).await
    }

    fn server_cpu(&self) -> Option<Duration> {
        let info = self.0.ask(&["INFO", "cpu"]).expect("INFO");
        let parts = ["user", "sys", "user_children", "sys_children"];
        let seconds: f64 = parts.map(|part| number(&info, &format!("used_cpu_{part}:"))).iter().sum();
        Some(Duration::from_secs_f64(seconds))
    }

    async fn held(&self) -> u64 {
        let info = self.0.ask(&["INFO", "memory"]).expect("INFO");
        number(&info, "used_memory:")
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(info: &str, name: &str) -> T {
    let line = info.lines().find_map(|line| line.strip_prefix(name)).expect("the server tells it");
    line.trim().parse().expect("a number")
}
