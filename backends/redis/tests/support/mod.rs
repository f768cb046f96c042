//! The server that tests talk to, and fresh namespaces on it.
#![allow(dead_code, reason = "each test program uses a part")]

use std::sync::atomic::{AtomicU32, Ordering};

use windlass_conformance::Env;
use windlass_core::{Retention, SessionId};
use windlass_redis::{RedisBackend, RedisOptions};

/// Where the private test server is.
///
/// # Panics
/// When the variable is not set: a test that needs a server and has none has failed.
pub(crate) fn url() -> String {
    named_by("WINDLASS_TEST_REDIS_URL")
}

fn named_by(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!(
            "{variable} is not set: run `cargo xtask test`, which starts a private Redis, or start one with \
             `cargo xtask servers up` and set what it prints"
        )
    })
}

/// A name that no other namespace on the server has.
pub(crate) fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let process = SessionId::random().as_u128() >> 64;
    format!("t{process:x}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Settings of a fresh namespace.
pub(crate) fn options() -> RedisOptions {
    RedisOptions::new(url()).namespace(fresh_name())
}

/// An engine on a fresh namespace.
pub(crate) async fn open(options: RedisOptions) -> RedisBackend {
    RedisBackend::connect_with(options).await.expect("the test server answers")
}

/// The keys of the queue `mail` of a namespace, looked at past the engine.
pub(crate) struct Names(pub(crate) String);

impl Names {
    /// Whether there is anything under a key: 1 or 0.
    pub(crate) async fn left(&self, key: &str) -> u64 {
        let client = redis::Client::open(url()).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("it answers");
        let key = format!("{{{}:mail}}:{key}", self.0);
        redis::cmd("EXISTS").arg(key).query_async(&mut connection).await.expect("EXISTS")
    }
}

/// The environment of the conformance suite.
pub(crate) struct Redis {
    backend: RedisBackend,
    options: RedisOptions,
}

pub(crate) async fn fresh() -> Redis {
    fresh_at(url()).await
}

/// On the private cluster of three masters.
pub(crate) async fn fresh_on_cluster() -> Redis {
    fresh_at(named_by("WINDLASS_TEST_REDIS_CLUSTER_URL")).await
}

async fn fresh_at(url: String) -> Redis {
    let options = RedisOptions::new(url).namespace(fresh_name());
    Redis { backend: open(options.clone()).await, options }
}

impl Env for Redis {
    type Backend = RedisBackend;

    fn backend(&self) -> &RedisBackend {
        &self.backend
    }

    async fn second(&self) -> RedisBackend {
        open(self.options.clone()).await
    }

    async fn with_retention(&self, retention: Retention) -> RedisBackend {
        open(self.options.clone().namespace(fresh_name()).retention(retention)).await
    }

    async fn server_timed(&self) -> RedisBackend {
        open(self.options.clone().namespace(fresh_name())).await
    }
}
