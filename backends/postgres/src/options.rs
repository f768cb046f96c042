//! Settings, and the URL that holds some of them.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use windlass_core::{Error, ErrorKind, Result, Retention};

use crate::PostgresBackend;

/// The schema of a namespace that names none.
const SCHEMA: &str = "windlass";

/// How long a verb waits for a connection of its own pool, within its time limit.
const ACQUIRE_MOST: Duration = Duration::from_secs(5);

/// How long a connection may have been idle before it is asked whether it still lives. Asking each time would cost every
/// verb a second round trip.
const ASK_AFTER: Duration = Duration::from_secs(1);

/// Settings of a Postgres engine.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    pub(crate) schema: String,
    pub(crate) retention: Retention,
    pub(crate) max_connections: u32,
    pub(crate) timeout: Duration,
    pub(crate) virtual_time: bool,
    pub(crate) listen: bool,
    pub(crate) pooler: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            retention: Retention::default(),
            max_connections: 10,
            timeout: Duration::from_secs(30),
            virtual_time: false,
            listen: true,
            pooler: false,
        }
    }
}

impl PostgresOptions {
    /// The defaults: schema `windlass`, at most 10 connections, 30 s a verb, wake-up by LISTEN.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The namespace: a schema of any name, 1 to 63 bytes. It is quoted wherever it is used.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// How long finished jobs are kept. Every process on a namespace should say the same.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// How many connections the engine's verbs may use in this process: 10 unless told otherwise, and one more that listens.
    /// [`PostgresBackend::pool`] may open as many again for transactions of yours, unless it is a pool that you brought.
    #[must_use]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections.max(1);
        self
    }

    /// How long a verb may take in all, waiting for a connection included: 30 s unless told otherwise. One that takes longer
    /// fails with [`ErrorKind::Timeout`], and its connection is closed. For a connection alone a verb waits 5 s at most, and
    /// then fails with [`ErrorKind::Unavailable`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the namespace go by the instants it is given instead of the server's clock, for tests. It is fixed when the
    /// namespace is migrated for the first time: an engine whose first verb may stand in a caller's transaction cannot
    /// leave it to that verb.
    #[must_use]
    pub fn virtual_time(mut self, virtual_time: bool) -> Self {
        self.virtual_time = virtual_time;
        self
    }

    /// Whether one more connection listens for wake-ups, and this process sends them (LISTEN and NOTIFY). Without, idle
    /// workers poll: every 20 ms at first and at most every half second.
    #[must_use]
    pub fn listen(mut self, listen: bool) -> Self {
        self.listen = listen;
        self
    }

    /// Works through a pooler in transaction mode, such as `PgBouncer`: nothing is left behind in a session. It turns
    /// [`listen`](Self::listen) off, prepares no statement for longer than its transaction, and puts each verb into a
    /// transaction of its own, which costs two more round trips.
    #[must_use]
    pub fn pooler(mut self, pooler: bool) -> Self {
        self.pooler = pooler;
        self
    }

    pub(crate) fn listens(&self) -> bool {
        self.listen && !self.pooler
    }

    fn check(&self) -> Result<()> {
        let name = &self.schema;
        if name.is_empty() || name.len() > 63 || name.contains('\0') || name.contains("$windlass$") {
            return Err(Error::new(
                ErrorKind::Config,
                format!("schema of {} bytes: use 1 to 63 bytes without NUL", name.len()),
            ));
        }
        if name.starts_with("pg_") {
            return Err(Error::new(
                ErrorKind::Config,
                "schema names that begin with `pg_` are the server's own",
            ));
        }
        Ok(())
    }

    /// Takes the settings that are ours out of a URL: `schema`, `pooler` and `max_connections`.
    fn from_url(url: &str) -> Result<(Self, String)> {
        let mut options = Self::default();
        let Some((address, query)) = url.split_once('?') else { return Ok((options, url.to_owned())) };
        let mut others = Vec::new();
        for part in query.split('&') {
            match part.split_once('=') {
                Some(("schema", name)) => options.schema = decoded(name)?,
                Some(("pooler", word)) => options.pooler = flag("pooler", word)?,
                Some(("max_connections", number)) => {
                    options.max_connections = number.parse().ok().filter(|n| *n > 0).ok_or_else(|| {
                        Error::new(ErrorKind::Config, "max_connections is not a number from 1 up")
                    })?;
                }
                _ => others.push(part),
            }
        }
        let rest =
            if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
        Ok((options, rest))
    }
}

fn flag(name: &str, word: &str) -> Result<bool> {
    match word {
        "true" | "1" | "on" => Ok(true),
        "false" | "0" | "off" => Ok(false),
        _ => Err(Error::new(ErrorKind::Config, format!("{name} is neither `true` nor `false`"))),
    }
}

/// Percent-decoding, RFC 3986 section 2.1.
fn decoded(text: &str) -> Result<String> {
    let wrong =
        || Error::new(ErrorKind::Config, "schema in the URL is not well-formed percent-encoded UTF-8");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().ok_or_else(wrong)?, rest.next().ok_or_else(wrong)?];
            let digits = std::str::from_utf8(&digits).map_err(|_| wrong())?;
            bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

impl PostgresBackend {
    /// Opens the namespace that `options` name on the server at `url`, such as `postgres://user:secret@host:5432/database`.
    /// A `schema`, `pooler` or `max_connections` in the URL's query has no effect here: `options` say it all.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a URL or options that cannot work, [`ErrorKind::Connection`] when the server cannot be
    /// reached. The message holds no password.
    pub async fn connect_with(url: &str, options: PostgresOptions) -> Result<Self> {
        let (_, address) = PostgresOptions::from_url(url)?;
        Self::open(&address, options).await
    }

    pub(crate) async fn connect_url(url: &str) -> Result<Self> {
        let (options, address) = PostgresOptions::from_url(url)?;
        Self::open(&address, options).await
    }

    async fn open(address: &str, options: PostgresOptions) -> Result<Self> {
        options.check()?;
        let known = Self::SCHEMES_OF_URLS.iter().any(|scheme| address.starts_with(&format!("{scheme}://")));
        let wrong = || {
            Error::new(
                ErrorKind::Config,
                "not a Postgres URL: use `postgres://user:password@host:port/database`",
            )
        };
        if !known {
            return Err(wrong());
        }
        let mut connect: PgConnectOptions = address.parse().map_err(|_| wrong())?;
        if options.pooler {
            connect = connect.statement_cache_capacity(0);
        }
        // Once beside the pool, which would try again and again where nobody listens, and not say why it failed.
        let first = tokio::time::timeout(options.timeout, PgConnection::connect_with(&connect)).await;
        let first = first.map_err(|_| Error::new(ErrorKind::Connection, "the server does not answer"));
        let first = first.and_then(|first| first.map_err(crate::error::connecting));
        let first = first.map_err(|error| error.during(Self::NAME_OF_ENGINE, "connect"))?;
        // It said what was asked of it; how it ends is of no interest.
        let _ = first.close().await;
        let own = settings(&options).connect_lazy_with(connect.clone());
        let theirs = settings(&options)
            .after_release(|connection, _| Box::pin(async move { Ok(is_at_rest(connection).await) }))
            .connect_lazy_with(connect);
        Ok(Self::assemble(own, theirs, options))
    }

    /// The namespace that `options` name on the server of a pool of the caller's, which becomes [`pool`](Self::pool). The
    /// engine's verbs get connections of their own, with the settings and callbacks of that pool, at most
    /// [`max_connections`](PostgresOptions::max_connections), and one more that listens, if that is on.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for options that cannot work. Nothing is connected here.
    pub fn from_pool(pool: PgPool, options: PostgresOptions) -> Result<Self> {
        options.check()?;
        let theirs = pool.options().clone();
        let patience = theirs.get_acquire_timeout().min(options.timeout).min(ACQUIRE_MOST);
        let own = theirs
            .min_connections(0)
            .max_connections(options.max_connections)
            .acquire_timeout(patience)
            .connect_lazy_with(pool.connect_options().as_ref().clone());
        Ok(Self::assemble(own, pool, options))
    }
}

/// How connections are kept that are opened for `options`.
fn settings(options: &PostgresOptions) -> PgPoolOptions {
    let pooler = options.pooler;
    PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(options.timeout.min(ACQUIRE_MOST))
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                // Behind a pooler a setting would stay with whoever comes next.
                if !pooler {
                    let read_committed = "set default_transaction_isolation = 'read committed'";
                    sqlx::raw_sql(read_committed).execute(connection).await?;
                }
                Ok(())
            })
        })
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > ASK_AFTER {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
}

/// Whether no transaction is open on a connection that the application has given back. The driver does not say: its `begin`
/// leaves one when its future is dropped. A block that ends its own transaction is refused within another's.
async fn is_at_rest(connection: &mut PgConnection) -> bool {
    sqlx::raw_sql("do 'begin rollback; end'").execute(connection).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_holds_settings_of_ours_and_of_the_drivers() {
        let url =
            "postgres://ada@host/db?schema=My%20%22odd%22&sslmode=disable&pooler=true&max_connections=3";
        let (options, rest) = PostgresOptions::from_url(url).unwrap();
        assert_eq!(rest, "postgres://ada@host/db?sslmode=disable");
        assert_eq!((options.schema.as_str(), options.max_connections), ("My \"odd\"", 3));
        assert!(options.pooler && !options.listens());
        for bad in ["schema=%", "schema=%zz", "schema=%ff", "pooler=perhaps", "max_connections=0"] {
            let error = PostgresOptions::from_url(&format!("postgres://h/d?{bad}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
        }
    }

    #[test]
    fn a_schema_has_a_name() {
        for bad in ["", "pg_mine", "a\0b", &"x".repeat(64), "a$windlass$b"] {
            assert!(PostgresOptions::new().schema(bad).check().is_err(), "{bad:?}");
        }
        PostgresOptions::new().schema("My \"odd\" 'schema' $$").check().unwrap();
    }
}
