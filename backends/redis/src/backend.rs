//! The handle, and how it is opened.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redis::Value;
use windlass_core::{
    At, Backend, Capabilities, Claim, Claimed, Connect, Error, ErrorKind, Finished, Held, JobRef, Kept,
    NewJob, Nonce, Note, Pushed, QueueName, Result, SessionId, Settled, StateKind, Sweep, Swept, Timestamp,
    Verdict, Wake,
};

use crate::durable::Fence;
use crate::gather::Gather;
use crate::keys::Keys;
use crate::link::{Arguments, Server};
use crate::notify::Notify;
use crate::options::{Durability, RedisOptions};
use crate::record;
use crate::reply;
use crate::route::Route;
use crate::script::Script;

const UNKNOWN: u8 = 0;
const SERVER: u8 = 1;
const VIRTUAL: u8 = 2;

/// The Redis engine. Clones share one connection.
///
/// It heals by itself: a connection that died is replaced with the next verb. What a verb's error says of its
/// [effect](Error::effect) holds through failovers, restarts and full servers.
#[derive(Clone)]
pub struct RedisBackend {
    pub(crate) shared: Arc<Shared>,
    pub(crate) durability: Durability,
}

pub(crate) struct Shared {
    pub(crate) options: RedisOptions,
    pub(crate) route: Route,
    pub(crate) keys: Keys,
    pub(crate) notify: Notify,
    /// What waits for the durable levels that some handle asks for.
    fences: Mutex<HashMap<Durability, Arc<Fence>>>,
    /// Lone dispatches that wait for company.
    pub(crate) gather: Gather,
    /// The counts of retention as every script is told them.
    pub(crate) keep: String,
    /// Whose time the namespace goes by, once it is known: it never changes.
    timing: AtomicU8,
    /// The queues that this handle has entered in the namespace's registry.
    registered: RwLock<HashSet<QueueName>>,
}

impl RedisBackend {
    /// Opens the engine.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for an address or options that cannot work, a server that may evict keys, and one older
    /// than 6.2; [`ErrorKind::Connection`] or [`ErrorKind::Timeout`] when it cannot be
    /// reached.
    pub async fn connect_with(options: RedisOptions) -> Result<Self> {
        Self::open(options).await.map_err(|error| error.during(Self::NAME, "connect"))
    }

    async fn open(options: RedisOptions) -> Result<Self> {
        options.validate()?;
        let options = options.resolved()?;
        let counts = [options.retention.completed, options.retention.cancelled, options.retention.dead];
        let shared = Shared {
            route: Route::new(&options)?,
            keys: Keys::new(&options.namespace),
            notify: Notify::new(&options)?,
            fences: Mutex::default(),
            gather: Gather::default(),
            keep: counts.map(|keep| keep.count.to_string()).join(" "),
            timing: AtomicU8::new(UNKNOWN),
            registered: RwLock::default(),
            options,
        };
        let server = shared.route.open().await?;
        shared.check(&server).await?;
        let durability = shared.options.durability;
        shared.check_durability(&server, durability).await?;
        Ok(Self { shared: Arc::new(shared), durability })
    }

    /// A handle on the same engine, over the same connections, whose dispatches and verdicts promise this instead: so that
    /// most jobs of a queue can be dispatched `Fast` and those that matter more `Local`.
    ///
    /// ```no_run
    /// # async fn example(engine: windlass_redis::RedisBackend) -> windlass_core::Result<()> {
    /// use windlass_redis::Durability;
    ///
    /// let careful = engine.with_durability(Durability::Replicated(1)).await?;
    /// # drop(careful);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where [`connect_with`](Self::connect_with) would refuse the level, and the errors of a
    /// connection. Nothing is written.
    pub async fn with_durability(&self, durability: Durability) -> Result<Self> {
        let checked = async {
            let server = self.shared.route.open().await?;
            self.shared.check_durability(&server, durability).await
        };
        checked.await.map_err(|error| error.during(Self::NAME, "connect"))?;
        Ok(Self { shared: self.shared.clone(), durability })
    }

    /// Waits until what was just written to `queue` is as durable as this handle promises.
    pub(crate) async fn durable(&self, queue: &QueueName) -> Result<()> {
        if self.durability == Durability::Fast {
            return Ok(());
        }
        let key = self.shared.keys.of(queue).fence();
        let fence = self.shared.fence(self.durability).map_err(Error::effect_unknown)?;
        let written_on = self.shared.route.server(&key).await.map_err(Error::effect_unknown)?;
        fence.wait(&written_on, &key).await
    }
}

impl Shared {
    /// Refuses a server on which jobs would not be safe, and warns of one that keeps nothing.
    async fn check(&self, server: &Server) -> Result<()> {
        let config = |text: String| Err(Error::new(ErrorKind::Config, text));
        if server.version == (0, 0) {
            tracing::warn!(
                "the user may not run INFO: neither eviction nor persistence of the server was checked"
            );
            return Ok(());
        }
        if server.version < (6, 2) {
            let (major, minor) = server.version;
            return config(format!("the server is Redis {major}.{minor}: 6.2 or later is needed, or Valkey"));
        }
        if server.policy != "noeviction" && !self.options.allow_eviction {
            return config(format!(
                "the server may evict keys when it is full (maxmemory-policy {}), and with them jobs: set it to \
                 noeviction, or allow_eviction() in the options",
                server.policy
            ));
        }
        if !server.append_only && self.setting("save").await.is_none_or(|save| save.is_empty()) {
            tracing::warn!("the server persists nothing: what it holds is gone when it ends");
        }
        Ok(())
    }

    /// Refuses a level that the server cannot give.
    async fn check_durability(&self, server: &Server, level: Durability) -> Result<()> {
        let config = |text: &str| Err(Error::new(ErrorKind::Config, text));
        if server.cluster && level != Durability::Fast {
            return config("on a cluster the durability is Fast, with what the nodes' own settings persist");
        }
        if level != Durability::Local || server.version == (0, 0) {
            return Ok(());
        }
        let always =
            server.version >= (7, 2) || self.setting("appendfsync").await.as_deref() == Some("always");
        if server.append_only && always {
            return Ok(());
        }
        config("Durability::Local needs appendonly yes, and before Redis 7.2 appendfsync always as well")
    }

    /// What waits for a level, one for all handles.
    fn fence(&self, level: Durability) -> Result<Arc<Fence>> {
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fence) = fences.get(&level) {
            return Ok(fence.clone());
        }
        let fence = Arc::new(Fence::new(&self.options, level)?);
        fences.insert(level, fence.clone());
        Ok(fence)
    }

    /// A setting of the server, if it may be asked.
    async fn setting(&self, name: &str) -> Option<String> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        match self.route.send(&self.keys.clock, &command).await.ok()? {
            Value::Map(pairs) => {
                let (_, value) = pairs.into_iter().next()?;
                Some(String::from_utf8_lossy(reply::bytes(&value).ok()?).into_owned())
            }
            Value::Array(items) => {
                Some(String::from_utf8_lossy(reply::some_bytes(items.get(1))?).into_owned())
            }
            _ => None,
        }
    }

    /// What a script is told of the time: nothing for the server's own, or the instant of a virtual clock, after the
    /// namespace has agreed that this is how it is timed and that the clock does not run backwards.
    pub(crate) async fn time(&self, at: At) -> Result<String> {
        let known = self.timing.load(Ordering::Acquire);
        match at {
            At::Server if known == SERVER => Ok(String::new()),
            At::Server if known == UNKNOWN => self.tick(at).await.map(|_| String::new()),
            At::Instant(_) if known != SERVER => Ok(self.tick(at).await?.as_millis().to_string()),
            _ => Err(timed_otherwise()),
        }
    }

    /// What the namespace's clock shows.
    pub(crate) async fn tick(&self, at: At) -> Result<Timestamp> {
        let (told, timing) = match at {
            At::Server => (String::new(), SERVER),
            // Scripts write the time without a sign.
            At::Instant(instant) => (instant.as_millis().max(0).to_string(), VIRTUAL),
        };
        let mut arguments = Arguments::default();
        arguments.push(told);
        let now = self.route.call(Script::Tick, std::slice::from_ref(&self.keys.clock), &arguments).await?;
        self.timing.store(timing, Ordering::Release);
        record::instant(reply::bytes(&now)?)
    }

    pub(crate) async fn call(
        &self,
        script: Script,
        queue: &QueueName,
        arguments: &Arguments,
    ) -> Result<Value> {
        self.route.call(script, &self.keys.of(queue).all, arguments).await
    }

    /// Enters a queue in the namespace's registry, so that sweeps and listings find it.
    pub(crate) async fn register(&self, queue: &QueueName) -> Result<()> {
        if self.registered.read().unwrap_or_else(PoisonError::into_inner).contains(queue) {
            return Ok(());
        }
        self.enter(queue).await?;
        self.registered.write().unwrap_or_else(PoisonError::into_inner).insert(queue.clone());
        Ok(())
    }

    async fn enter(&self, queue: &QueueName) -> Result<()> {
        let mut add = redis::cmd("SADD");
        add.arg(&*self.keys.registry).arg(queue.as_str());
        self.route.send(&self.keys.registry, &add).await.map(drop)
    }

    /// All queues of the namespace, by name. What this handle registered and the server lost is entered again.
    pub(crate) async fn all_queues(&self) -> Result<Vec<QueueName>> {
        let mut members = redis::cmd("SMEMBERS");
        members.arg(&*self.keys.registry);
        let listed = match self.route.send(&self.keys.registry, &members).await? {
            Value::Set(items) | Value::Array(items) => items,
            _ => Vec::new(),
        };
        let mut queues = Vec::with_capacity(listed.len());
        for item in &listed {
            queues.push(QueueName::new(String::from_utf8_lossy(reply::bytes(item)?))?);
        }
        queues.sort_unstable();
        let lost: Vec<QueueName> = {
            let registered = self.registered.read().unwrap_or_else(PoisonError::into_inner);
            registered.iter().filter(|queue| queues.binary_search(queue).is_err()).cloned().collect()
        };
        for queue in lost {
            self.enter(&queue).await?;
            queues.push(queue);
        }
        queues.sort_unstable();
        Ok(queues)
    }
}

fn timed_otherwise() -> Error {
    Error::new(
        ErrorKind::Config,
        "this namespace is timed the other way: server time and virtual time cannot be mixed, use a namespace of its own \
         for each",
    )
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("namespace", &self.shared.keys.namespace())
            .field("route", &self.shared.route)
            .finish_non_exhaustive()
    }
}

impl Connect for RedisBackend {
    const SCHEMES: &'static [&'static str] = &["redis", "rediss", "redis+sentinel", "rediss+sentinel"];

    async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(RedisOptions::new(url)).await
    }
}

/// Names the engine and the verb in what failed.
pub(crate) fn during<T>(verb: &'static str, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.during(RedisBackend::NAME, verb))
}

impl Backend for RedisBackend {
    const NAME: &'static str = "redis";

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            durable: true,
            shared: true,
            atomic_across_queues: false,
            pipelined: true,
            ahead_max: 900,
        }
    }

    async fn push(&self, jobs: &[NewJob], at: At) -> Result<Vec<Pushed>> {
        during("push", self.push_all(jobs, at).await)
    }

    async fn claim(&self, claim: &Claim, at: At) -> Result<Claimed> {
        during("claim", self.claim_all(claim, at).await)
    }

    async fn settle(&self, verdicts: &[Verdict], at: At) -> Result<Vec<Settled>> {
        during("settle", self.settle_all(verdicts, at).await)
    }

    async fn settle_and_claim(
        &self,
        verdicts: &[Verdict],
        claim: &Claim,
        at: At,
    ) -> Result<(Vec<Settled>, Claimed)> {
        during("settle and claim", self.settle_and_claim_all(verdicts, claim, at).await)
    }

    async fn extend(&self, session: SessionId, held: &[Held], lease: Duration, at: At) -> Result<Vec<Kept>> {
        during("extend", self.extend_all(session, held, lease, at).await)
    }

    async fn hand_back(&self, session: SessionId, nonce: Option<Nonce>, at: At) -> Result<usize> {
        during("hand back", self.hand_back_all(session, nonce, at).await)
    }

    async fn annotate(&self, notes: &[Note], at: At) -> Result<Vec<bool>> {
        during("annotate", self.annotate_all(notes, at).await)
    }

    async fn sweep(&self, sweep: &Sweep, at: At) -> Result<Swept> {
        during("sweep", self.sweep_all(*sweep, at).await)
    }

    async fn outcomes(&self, jobs: &[JobRef], max_wait: Duration, at: At) -> Result<Vec<Option<Finished>>> {
        during("outcomes", self.outcomes_of(jobs, max_wait, at).await)
    }

    async fn wait(
        &self,
        session: SessionId,
        queues: &[QueueName],
        due: Option<Timestamp>,
        max: Duration,
    ) -> Result<Wake> {
        during("wait", self.wait_for(session, queues, due, max).await)
    }

    async fn now(&self, at: At) -> Result<Timestamp> {
        during(
            "now",
            async {
                self.shared.time(at).await.map(drop)?;
                self.shared.tick(at).await
            }
            .await,
        )
    }
}

/// The state that a letter of an answer to a verdict stands for.
pub(crate) fn settled(letter: u8) -> Result<Settled> {
    Ok(match letter {
        b'A' => Settled::AlreadyApplied,
        b'L' => Settled::LeaseLost,
        other => {
            let state: StateKind = record::state_of(other)?;
            Settled::Applied(state)
        }
    })
}
