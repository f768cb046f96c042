//! The connection: one, shared by all callers, opened when it is needed and replaced when it died.
//!
//! Requests of all callers go out in one stream, and answers come back in its order; a caller that stops waiting leaves
//! a place for its answer, which nobody else gets. What an error means for the caller says `error.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, Value,
};
use tokio::time::Instant;
use windlass_core::{Error, ErrorKind, Nonce, Result};

use crate::error::{self, Then};
use crate::options::RedisOptions;
use crate::script::Script;

/// What hears of messages, and of the connection's end (`None`).
pub(crate) type Listener = Arc<dyn Fn(Option<PushInfo>) + Send + Sync>;

/// An open connection and the server at its other end.
pub(crate) struct Open {
    pub(crate) connection: MultiplexedConnection,
    alive: Arc<AtomicBool>,
    pub(crate) server: Server,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// Its version, such as (7, 0); of the Redis it is compatible with.
    pub(crate) version: (u32, u32),
    /// Random for each start of a server.
    pub(crate) run: String,
    pub(crate) policy: String,
    pub(crate) append_only: bool,
    pub(crate) cluster: bool,
    pub(crate) replica: bool,
}

impl Server {
    fn read(info: &str) -> Self {
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
        };
        let mut version = field("redis_version").split('.').map(|part| part.parse().unwrap_or(0));
        Self {
            version: (version.next().unwrap_or(0), version.next().unwrap_or(0)),
            run: field("run_id").to_owned(),
            policy: field("maxmemory_policy").to_owned(),
            append_only: field("aof_enabled") == "1",
            cluster: field("redis_mode") == "cluster",
            replica: field("role") == "slave",
        }
    }
}

/// How the last attempts to connect went.
#[derive(Default)]
struct Attempts {
    failed: u32,
    not_before: Option<Instant>,
}

/// A connection that is there when it is needed.
pub(crate) struct Link {
    client: Mutex<Client>,
    /// Where to ask for the address first.
    sentinels: Option<RedisOptions>,
    connect_timeout: Duration,
    response_timeout: Option<Duration>,
    listener: Option<Listener>,
    open: Mutex<Option<Arc<Open>>>,
    /// One attempt at a time, so that a server that comes back is not stormed.
    attempts: tokio::sync::Mutex<Attempts>,
}

impl Link {
    pub(crate) fn new(options: &RedisOptions) -> Result<Self> {
        Ok(Self {
            client: Mutex::new(client(options, None)?),
            sentinels: options.sentinels.is_some().then(|| options.clone()),
            connect_timeout: options.connect_timeout,
            response_timeout: Some(options.response_timeout),
            listener: None,
            open: Mutex::default(),
            attempts: tokio::sync::Mutex::default(),
        })
    }

    /// A link to one node of a cluster, `host:port`.
    pub(crate) fn to_node(options: &RedisOptions, address: &str) -> Result<Self> {
        Ok(Self { client: Mutex::new(client(options, Some(address))?), ..Self::new(options)? })
    }

    /// Connects to another node from now on.
    pub(crate) fn aim(&self, options: &RedisOptions, address: &str) -> Result<()> {
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = client(options, Some(address))?;
        Ok(())
    }

    /// A link whose messages `listener` hears.
    pub(crate) fn listening(options: &RedisOptions, listener: Listener) -> Result<Self> {
        Ok(Self { listener: Some(listener), ..Self::new(options)? })
    }

    /// A link on which requests may take as long as the server likes.
    pub(crate) fn patient(options: &RedisOptions) -> Result<Self> {
        Ok(Self { response_timeout: None, ..Self::new(options)? })
    }

    fn current(&self) -> Option<Arc<Open>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().filter(|open| open.alive.load(Ordering::Acquire)).cloned()
    }

    /// Forgets a connection, unless another has taken its place already.
    pub(crate) fn forget(&self, dead: &Arc<Open>) {
        dead.alive.store(false, Ordering::Release);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(|open| Arc::ptr_eq(open, dead)) {
            *open = None;
        }
    }

    /// The open connection, or a new one. Nothing was sent when it fails.
    pub(crate) async fn open(&self) -> Result<Arc<Open>> {
        const FIRST_PAUSE: Duration = Duration::from_millis(20);
        const LONGEST_PAUSE: Duration = Duration::from_secs(1);
        if let Some(open) = self.current() {
            return Ok(open);
        }
        let mut attempts = self.attempts.lock().await;
        if let Some(open) = self.current() {
            return Ok(open);
        }
        if let Some(instant) = attempts.not_before {
            tokio::time::sleep_until(instant).await;
        }
        match tokio::time::timeout(self.connect_timeout, self.connect()).await {
            Ok(Ok(open)) => {
                *attempts = Attempts::default();
                let open = Arc::new(open);
                *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open.clone());
                Ok(open)
            }
            failed => {
                // Doubled from attempt to attempt, with half of it by chance, so that processes do not come in step.
                let pause = FIRST_PAUSE.saturating_mul(1 << attempts.failed.min(6)).min(LONGEST_PAUSE);
                let half = u64::try_from(pause.as_millis() / 2).unwrap_or(1).max(1);
                let chance = u64::try_from(Nonce::random().as_u128() % u128::from(half)).unwrap_or(0);
                attempts.failed = attempts.failed.saturating_add(1);
                attempts.not_before = Some(Instant::now() + Duration::from_millis(half + chance));
                Err(failed.map_or_else(
                    |_| Error::new(ErrorKind::Timeout, "no connection in time"),
                    |failed| {
                        failed.err().unwrap_or_else(|| Error::new(ErrorKind::Connection, "no connection"))
                    },
                ))
            }
        }
    }

    async fn connect(&self) -> Result<Open> {
        let alive = Arc::new(AtomicBool::new(true));
        let (flag, listener) = (alive.clone(), self.listener.clone());
        let heard = move |push: PushInfo| -> std::result::Result<(), ()> {
            let ended = push.kind == PushKind::Disconnection;
            if ended {
                flag.store(false, Ordering::Release);
            }
            if let Some(listener) = &listener {
                listener((!ended).then_some(push));
            }
            Ok(())
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(self.response_timeout)
            .set_push_sender(heard);
        let refused = |error: redis::RedisError| error::read(&error, false).0;
        if let Some(options) = &self.sentinels
            && let Some(sentinels) = &options.sentinels
        {
            self.aim(options, &sentinels.master().await?)?;
        }
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut connection =
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(refused)?;
        let server = match redis::cmd("INFO").query_async::<String>(&mut connection).await {
            Ok(info) => Server::read(&info),
            Err(denied) if denied.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoPerm) => {
                Server::default()
            }
            Err(error) => return Err(refused(error)),
        };
        if self.sentinels.is_some() && server.replica {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the Sentinels still name a server that is a replica now",
            ));
        }
        Ok(Open { connection, alive, server })
    }

    /// Tells the listener that messages may have been lost.
    pub(crate) fn say_lost(&self) {
        if let Some(listener) = &self.listener {
            listener(None);
        }
    }

    /// Sends one request and waits for its answer.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value> {
        self.try_send(command, false).await.map_err(|(error, _)| error)
    }

    /// Sends one request, and says what to do about the connection when it fails. `asking` a node of a cluster for a slot
    /// that is on its way there.
    pub(crate) async fn try_send(
        &self,
        command: &Cmd,
        asking: bool,
    ) -> std::result::Result<Value, (Error, Then)> {
        let open = self.open().await.map_err(|error| (error, Then::Drop))?;
        self.send_on(&open, command, asking).await
    }

    /// Sends one request on this very connection.
    pub(crate) async fn send_on(
        &self,
        open: &Arc<Open>,
        command: &Cmd,
        asking: bool,
    ) -> std::result::Result<Value, (Error, Then)> {
        let mut connection = open.connection.clone();
        let answer = if asking {
            let mut both = redis::pipe();
            both.add_command(redis::cmd("ASKING")).add_command(command.clone());
            let answers = connection.send_packed_commands(&both, 1, 1).await;
            answers.map(|mut answers| answers.pop().unwrap_or_default()).and_then(Value::extract_error)
        } else {
            connection.send_packed_command(command).await.and_then(Value::extract_error)
        };
        answer.map_err(|failed| {
            let (error, then) = error::read(&failed, true);
            if then == Then::Drop {
                self.forget(open);
            }
            (error, then)
        })
    }

    /// Calls a script.
    pub(crate) async fn try_call(
        &self,
        script: Script,
        keys: &[Box<str>],
        arguments: &Arguments,
        asking: bool,
    ) -> std::result::Result<Value, (Error, Then)> {
        let open = self.open().await.map_err(|error| (error, Then::Drop))?;
        let major = open.server.version.0;
        let mut command = script.call(major, keys.len());
        for key in keys {
            command.arg(&**key);
        }
        arguments.add_to(&mut command);
        match self.send_on(&open, &command, asking).await {
            Err((_, Then::Load)) => {
                // It was not run: the server was started or flushed since.
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(&*script.source(major).text);
                self.send_on(&open, &load, false).await?;
                self.send_on(&open, &command, asking).await
            }
            answer => answer,
        }
    }
}

impl std::fmt::Debug for Link {
    /// Leaves the address out: it may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("open", &self.current().is_some()).finish_non_exhaustive()
    }
}

/// The arguments of a script, one after the other.
#[derive(Default)]
pub(crate) struct Arguments {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Arguments {
    /// The arguments with which every script begins.
    pub(crate) fn new(at: &str, keep: &str) -> Self {
        let mut arguments = Self::default();
        arguments.push(at).push(keep);
        arguments
    }

    pub(crate) fn push(&mut self, argument: impl AsRef<[u8]>) -> &mut Self {
        self.bytes.extend_from_slice(argument.as_ref());
        self.ends.push(self.bytes.len());
        self
    }

    pub(crate) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        self.push(number.into().to_string())
    }

    pub(crate) fn count(&mut self, count: usize) -> &mut Self {
        self.push(count.to_string())
    }

    fn add_to(&self, command: &mut Cmd) {
        let mut start = 0;
        for end in &self.ends {
            command.arg(&self.bytes[start..*end]);
            start = *end;
        }
    }
}

/// A client of the address in the options, or of `node` with everything else as there.
fn client(options: &RedisOptions, node: Option<&str>) -> Result<Client> {
    // The library's own words may quote the URL, and with it a password.
    let wrong = |_| {
        Error::new(
            ErrorKind::Config,
            "the address is not understood: use redis://[user:password@]host[:port][/database], or rediss:// for TLS",
        )
    };
    let address = options.url.as_str().into_connection_info().map_err(wrong)?;
    let address = match node.map(|node| node.rsplit_once(':')) {
        None => address,
        Some(parts) => {
            let unknown = || Error::new(ErrorKind::Unexpected, "a node of the cluster has no address");
            let (host, port) = parts.ok_or_else(unknown)?;
            let port = port.parse().map_err(|_| unknown())?;
            let there = at(address.addr(), host, port);
            address.set_addr(there)
        }
    };
    let tls = matches!(address.addr(), redis::ConnectionAddr::TcpTls { .. });
    if matches!(address.addr(), redis::ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(Error::new(
            ErrorKind::Config,
            "`#insecure` would trust anybody's certificate: give the server's root certificate to the options instead",
        ));
    }
    // RESP3 tells of the connection's end at once.
    let settings =
        address.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_lib_name("windlass", "1");
    let address = address.set_redis_settings(settings);
    if !tls {
        return Client::open(address).map_err(wrong);
    }
    // Whoever set another provider for the process keeps it.
    drop(rustls::crypto::ring::default_provider().install_default());
    let certificates =
        redis::TlsCertificates { client_tls: None, root_cert: options.root_certificates.clone() };
    Client::build_with_tls(address, certificates)
        .map_err(|_| Error::new(ErrorKind::Config, "the root certificates cannot be read: give PEM"))
}

/// The same sort of address at another host; without a host, at the same.
fn at(address: &redis::ConnectionAddr, host: &str, port: u16) -> redis::ConnectionAddr {
    use redis::ConnectionAddr as A;
    let named = |own: &str| if host.is_empty() { own.to_owned() } else { host.to_owned() };
    match address {
        A::TcpTls { host: own, insecure, tls_params, .. } => {
            A::TcpTls { host: named(own), port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        A::Tcp(own, _) => A::Tcp(named(own), port),
        _ => A::Tcp(host.to_owned(), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_what_it_is() {
        let server = Server::read(
            "# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\n\
             aof_enabled:1\r\n",
        );
        assert_eq!((server.version, &*server.run, &*server.policy), ((7, 0), "abc", "noeviction"));
        assert!(server.append_only && !server.cluster);
        assert_eq!(Server::read("").version, (0, 0));
    }

    #[test]
    fn an_address_that_cannot_work_is_refused_without_its_password() {
        for url in ["", "postgres://localhost", "redis://:secret@", "redis://:secret@host:notaport"] {
            let error = Link::new(&RedisOptions::new(url)).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::Config, "{url}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        let error =
            Link::new(&RedisOptions::new("rediss://:secret@localhost/#insecure")).expect_err("refused");
        assert!(error.to_string().contains("insecure") && !error.to_string().contains("secret"));
        Link::new(&RedisOptions::new("rediss://localhost")).expect("TLS");
    }
}
