//! `AnyBackend`: the engine chosen at run time, by the scheme of its URL.
//!
//! It covers what every engine has: the contract's verbs, inspecting, managing, migrating. Transactions need the concrete
//! type, since a connection is no two engines' same.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use windlass_core::{
    At, Backend, Cancelling, Capabilities, Claim, Claimed, Connect, Cursor, Error, ErrorKind, Filter,
    Finished, Held, Inspect, JobRef, Kept, Manage, Migrate, Migration, NewJob, Nonce, Note, Page, Pushed,
    QueueInfo, QueueName, Record, Result, SessionId, Settled, Sweep, Swept, Timestamp, Verdict, Wake,
};

/// What every engine has; implemented for each type that implements the four.
pub trait Engine: Backend + Inspect + Manage + Migrate {}

impl<B: Backend + Inspect + Manage + Migrate> Engine for B {}

/// An engine whose type is not known at compile time. It costs a boxed future per call.
#[derive(Clone)]
pub struct AnyBackend {
    engine: Arc<dyn Erased>,
}

impl AnyBackend {
    /// Hides the type of an engine.
    pub fn new<B: Engine>(backend: B) -> Self {
        Self { engine: Arc::new(backend) }
    }

    /// The name of the engine within, such as `memory`.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        self.engine.name()
    }
}

impl fmt::Debug for AnyBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.engine.fmt(f)
    }
}

impl Connect for AnyBackend {
    const SCHEMES: &'static [&'static str] = &[
        "memory",
        #[cfg(feature = "postgres")]
        "postgres",
        #[cfg(feature = "postgres")]
        "postgresql",
        #[cfg(feature = "redis")]
        "redis",
        #[cfg(feature = "redis")]
        "rediss",
        #[cfg(feature = "redis")]
        "redis+sentinel",
        #[cfg(feature = "redis")]
        "rediss+sentinel",
        #[cfg(feature = "sqlite")]
        "sqlite",
    ];

    /// Opens the engine that answers to the URL's scheme, among those that were compiled in.
    async fn connect(url: &str) -> Result<Self> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        if windlass_memory::MemoryBackend::SCHEMES.contains(&scheme) {
            return Ok(Self::new(windlass_memory::MemoryBackend::connect(url).await?));
        }
        #[cfg(feature = "postgres")]
        if windlass_postgres::PostgresBackend::SCHEMES.contains(&scheme) {
            return Ok(Self::new(windlass_postgres::PostgresBackend::connect(url).await?));
        }
        #[cfg(feature = "redis")]
        if windlass_redis::RedisBackend::SCHEMES.contains(&scheme) {
            return Ok(Self::new(windlass_redis::RedisBackend::connect(url).await?));
        }
        #[cfg(feature = "sqlite")]
        if windlass_sqlite::SqliteBackend::SCHEMES.contains(&scheme) {
            return Ok(Self::new(windlass_sqlite::SqliteBackend::connect(url).await?));
        }
        // The URL itself may hold a password, so only a well-formed scheme is shown.
        let fine = !scheme.is_empty()
            && scheme.len() < 20
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
        let shown =
            if fine { format!("the scheme `{scheme}:`") } else { "a URL without a scheme".to_owned() };
        Err(Error::new(
            ErrorKind::Config,
            format!("no engine for {shown}: compiled in are {}", Self::SCHEMES.join(", ")),
        ))
    }
}

/// The type of an argument: the list of verbs says whether it is borrowed, and the boxed twin must name the lifetime.
macro_rules! argument {
    ($($lifetime:lifetime)? by_ref $type:ty) => { &$($lifetime)? $type };
    ($($lifetime:lifetime)? opt $type:ty) => { Option<&$($lifetime)? $type> };
    ($($lifetime:lifetime)? val $type:ty) => { $type };
}

/// Generates the boxed twin of the contract, its implementation for every engine, and the contract's own for
/// [`AnyBackend`]: one list of verbs, so that none can be left out.
macro_rules! erase {
    ($($trait:ident { $(fn $verb:ident(&self $(, $arg:ident: $mode:ident $type:ty)*) -> $answer:ty;)* })*) => {
        trait Erased: fmt::Debug + Send + Sync {
            fn name(&self) -> &'static str;
            fn capabilities(&self) -> Capabilities;
            $($(fn $verb<'a>(&'a self $(, $arg: argument!('a $mode $type))*) -> BoxFuture<'a, Result<$answer>>;)*)*
        }

        impl<B: Engine> Erased for B {
            fn name(&self) -> &'static str {
                B::NAME
            }
            fn capabilities(&self) -> Capabilities {
                Backend::capabilities(self)
            }
            $($(
                fn $verb<'a>(&'a self $(, $arg: argument!('a $mode $type))*) -> BoxFuture<'a, Result<$answer>> {
                    Box::pin(<B as $trait>::$verb(self $(, $arg)*))
                }
            )*)*
        }

        $(erase!(@impl $trait { $(fn $verb($($arg: $mode $type),*) -> $answer;)* });)*
    };
    (@impl Backend { $($verbs:tt)* }) => {
        impl Backend for AnyBackend {
            const NAME: &'static str = "any";
            fn capabilities(&self) -> Capabilities {
                self.engine.capabilities()
            }
            erase!(@verbs $($verbs)*);
        }
    };
    (@impl $trait:ident { $($verbs:tt)* }) => {
        impl $trait for AnyBackend {
            erase!(@verbs $($verbs)*);
        }
    };
    (@verbs $(fn $verb:ident($($arg:ident: $mode:ident $type:ty),*) -> $answer:ty;)*) => {
        $(async fn $verb(&self $(, $arg: argument!($mode $type))*) -> Result<$answer> {
            self.engine.$verb($($arg),*).await
        })*
    };
}

erase! {
    Backend {
        fn push(&self, jobs: by_ref [NewJob], at: val At) -> Vec<Pushed>;
        fn claim(&self, claim: by_ref Claim, at: val At) -> Claimed;
        fn settle(&self, verdicts: by_ref [Verdict], at: val At) -> Vec<Settled>;
        fn settle_and_claim(&self, verdicts: by_ref [Verdict], claim: by_ref Claim, at: val At) -> (Vec<Settled>, Claimed);
        fn extend(&self, session: val SessionId, held: by_ref [Held], lease: val Duration, at: val At) -> Vec<Kept>;
        fn hand_back(&self, session: val SessionId, nonce: val Option<Nonce>, at: val At) -> usize;
        fn annotate(&self, notes: by_ref [Note], at: val At) -> Vec<bool>;
        fn sweep(&self, sweep: by_ref Sweep, at: val At) -> Swept;
        fn outcomes(&self, jobs: by_ref [JobRef], max_wait: val Duration, at: val At) -> Vec<Option<Finished>>;
        fn wait(&self, session: val SessionId, queues: by_ref [QueueName], due: val Option<Timestamp>, max: val Duration) -> Wake;
        fn now(&self, at: val At) -> Timestamp;
    }
    Inspect {
        fn get(&self, job: by_ref JobRef, at: val At) -> Option<Record>;
        fn list(&self, filter: by_ref Filter, after: opt Cursor, limit: val usize, at: val At) -> Page;
        fn queues(&self, at: val At) -> Vec<QueueInfo>;
    }
    Manage {
        fn cancel(&self, job: by_ref JobRef, reason: by_ref str, at: val At) -> Cancelling;
        fn revive(&self, job: by_ref JobRef, at: val At) -> ();
        fn run_now(&self, job: by_ref JobRef, at: val At) -> ();
        fn delete(&self, job: by_ref JobRef, at: val At) -> ();
        fn pause(&self, queue: by_ref QueueName, at: val At) -> ();
        fn resume(&self, queue: by_ref QueueName, at: val At) -> ();
    }
    Migrate {
        fn pending(&self) -> Vec<Migration>;
        fn migrate(&self) -> Vec<Migration>;
    }
}
